"""The rate limit: read from the headers of many services, waited for, and not run into."""

import math
import time
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from randusers_assets.pipeline.fetch.rate_limit import read_rate_limit, read_retry_after
from randusers_assets_tests.pipeline.fetch.serving import (
    DOWN,
    PAGES_OF_TWO,
    AlteredApi,
    client_at,
    fault,
    keys_of,
    on,
)
from randusers_sandbox.api import Answer, UserSpool

NONE = (math.inf, math.inf)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, NONE),
        ({"RateLimit-Remaining": "4", "RateLimit-Reset": "7"}, (4, 7)),
        (
            {"X-RateLimit-Limit": "9", "X-RateLimit-Remaining": "4", "X-RateLimit-Reset": "7"},
            (4, 7),
        ),
        ({"RateLimit": '"default";r=50;t=30'}, (50, 30)),
        ({"RateLimit": "limit=100, remaining=50, reset=5"}, (50, 5)),
        ({"RateLimit": "limit=100,remaining=50,reset=5,"}, (50, 5)),
        ({"RateLimit": '"a, ;r=1;t=1";r=50;t=30;pk=:cg==:, "b";t=5;r=9'}, (9, 5)),
        ({"RateLimit": '"a";r=9;t=5, "b";r=50;t=30'}, (9, 5)),
        # In full before in part, and the header's own form before the others.
        ({"RateLimit-Reset": "7", "RateLimit": '"a";r=9;t=5'}, (9, 5)),
        ({"RateLimit-Reset": "7", "RateLimit": '"a";r=9'}, (math.inf, 7)),
        ({"RateLimit-Remaining": "4", "X-RateLimit-Reset": "7"}, (math.inf, 7)),
        ({"RateLimit-Remaining": "1", "RateLimit-Reset": "2", "RateLimit": "r=3;t=4"}, (1, 2)),
        # Nonsense.
        ({"RateLimit-Remaining": "nan", "RateLimit-Reset": "nan"}, NONE),
        ({"RateLimit-Remaining": "-5", "RateLimit-Reset": "-5"}, NONE),
        ({"RateLimit-Remaining": "a", "RateLimit-Reset": "4, 4"}, NONE),
        ({"X-RateLimit-Remaining": "4", "X-RateLimit-Reset": "1e300"}, NONE),
        ({"RateLimit": '"default"'}, NONE),
        ({"RateLimit": "r=-5;t=?1, ;;,"}, NONE),
        ({"RateLimit": "r=50, t=30"}, NONE),
    ],
)
def test_read_rate_limit_reads_what_services_send(
    headers: dict[str, str], expected: tuple[float, float]
) -> None:
    """Requests left, and seconds until the window ends."""
    assert read_rate_limit(headers) == expected


@pytest.mark.parametrize(
    ("ahead", "left"), [(60, 60), (-60, 0), (1_000_000, 1_000_000), (2_000_000_000, math.inf)]
)
@pytest.mark.parametrize("prefix", ["", "X-"])
def test_read_rate_limit_knows_an_epoch_from_seconds(prefix: str, ahead: int, left: float) -> None:
    """A reset above 10^9 is a point in time; one in the past is over, one decades away nonsense."""
    headers = {f"{prefix}RateLimit-Reset": str(round(time.time()) + ahead)}
    assert read_rate_limit(headers).reset == pytest.approx(left, abs=5)
    assert read_rate_limit({f"{prefix}RateLimit-Reset": "1000000000"}).reset == math.inf
    assert read_rate_limit({f"{prefix}RateLimit-Reset": "999999999"}).reset == 999_999_999


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *(("7", 7), ("899.5", 899.5), ("0", 0), (" 7 ", 7)),
        *(
            (one, math.inf)
            for one in ("", "soon", "-1", "nan", "1 minute", "Sun, 06 Nov 99999 1:2")
        ),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 0),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 0),
        ("Sun Nov  6 08:49:37 1994", 0),
    ],
)
def test_read_retry_after_reads_seconds_and_dates(value: str, expected: float) -> None:
    """A date in any form of RFC 9110, in the past, is no wait; nonsense is no answer."""
    assert read_retry_after({"Retry-After": value}) == expected


@pytest.mark.parametrize("form", ["{}", "{:>40}"])
def test_read_retry_after_is_the_time_until_a_date(form: str) -> None:
    """An HTTP date in a quarter of an hour is that many seconds away, in whatever zone this is."""
    value = form.format(formatdate(time.time() + 900, usegmt=True))
    assert read_retry_after({"Retry-After": value}) == pytest.approx(900, abs=5)


NAMES = ("Remaining", "Reset")
HEADERS = [
    "RateLimit",
    "Retry-After",
    *(f"{x}RateLimit-{name}" for x in ("", "X-") for name in NAMES),
]
NUMBERS = st.floats().map(str) | st.integers().map(str)


@given(
    st.dictionaries(
        st.sampled_from(HEADERS),
        st.text()
        | NUMBERS
        | st.lists(st.sampled_from(["r", "t", "remaining=", "=", ";", ",", '"', "\\", "7"])).map(
            "".join
        )
        | st.datetimes().map(lambda date: date.strftime("%a, %d %b %Y %H:%M:%S GMT")),
    )
)
def test_any_header_is_a_count_or_ignored(headers: dict[str, str]) -> None:
    """No header raises an error; each number is at least 0, and infinity where there is none."""
    for number in (*read_rate_limit(headers), read_retry_after(headers)):
        assert number >= 0


@pytest.mark.parametrize(
    ("status", "headers", "least"),
    [
        (429, {"Retry_After": "900", "RateLimit_Reset": "7"}, 7),
        (429, {"Retry_After": "7", "RateLimit_Reset": "900"}, 7),
        (429, {"Retry_After": "900", "RateLimit_Reset": "900"}, 900),
        (429, {"Retry_After": "soon", "RateLimit_Reset": "7"}, 7),
        (429, {"Retry_After": "900", "RateLimit_Reset": "", "X_RateLimit_Reset": "7"}, 7),
        (429, {"Retry_After": "900", "RateLimit_Reset": "", "RateLimit": '"default";r=50;t=7'}, 7),
        (429, {"Retry_After": "7", "RateLimit_Reset": "", "X_RateLimit_Reset": "9999999999"}, 7),
        (503, {"Retry_After": "7"}, 7),
    ],
)
def test_client_waits_as_long_as_the_server_asks(
    ten_users: UserSpool, waits: list[float], status: int, headers: dict[str, str], least: int
) -> None:
    """The smaller of the two headers, and up to a second of jitter."""
    alter = on(1, fault(status, b"{}", **headers), times=1)
    with AlteredApi(ten_users, alter) as api, client_at(api.url) as client:
        assert keys_of(client) == PAGES_OF_TWO
    assert len(waits) == 1
    assert least <= waits[0] <= least + 1


def test_client_slows_down_before_it_is_rate_limited(ten_users: UserSpool) -> None:
    """Five pages under a limit of four requests a second come without one 429."""
    limited = AlteredApi(ten_users, rate_limit=4, window_seconds=1)
    with limited as api, client_at(api.url, concurrency=2) as client:
        assert keys_of(client) == PAGES_OF_TWO
    assert [answer.status for answer in api.answers] == [200] * 5
    assert client.tally.waited > 0
    assert client.tally.retries == 0


@pytest.mark.parametrize(
    ("remaining", "window_seconds", "expected"),
    [(4, 50, [10, 20, 30]), (0, 50, [50, 100, 150]), (5, 50, []), (math.inf, 50, []), (0, -1, [])],
)
def test_client_spreads_the_last_requests_over_the_window(
    waits: list[float], remaining: float, window_seconds: int, expected: list[int]
) -> None:
    """With at most twice the concurrency left in a window that is not over, they take turns."""
    with client_at(DOWN, concurrency=2) as client:
        client.remaining, client.window_ends = remaining, time.monotonic() + window_seconds
        for _ in range(3):
            client.pace()
    assert waits == pytest.approx(expected, rel=0.2)


@pytest.mark.parametrize("headers", [("nan", "inf"), ("inf", "1"), ("a", "b"), ("-5", "0")])
def test_client_ignores_nonsense_limits(
    ten_users: UserSpool, waits: list[float], headers: tuple[str, str]
) -> None:
    """Header values that are not counts do not end a download."""
    limits = dict(zip(("RateLimit-Remaining", "RateLimit-Reset"), headers, strict=True))
    with (
        AlteredApi(ten_users, lambda _page, answer: Answer(200, answer.body, limits)) as api,
        client_at(api.url) as client,
    ):
        assert keys_of(client) == PAGES_OF_TWO
    assert all(0 <= wait < math.inf for wait in waits)
