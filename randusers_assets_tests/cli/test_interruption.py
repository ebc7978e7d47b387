"""A real run that is stopped or killed at its commit: its message, the reader and verify agree."""

import os
import signal
import subprocess
from itertools import islice

import pytest

from randusers_assets.contract import CONTRACT
from randusers_assets.pipeline.publish.verify import verify
from randusers_assets.pipeline.storage.s3 import Store
from randusers_assets_tests.builders import users
from randusers_assets_tests.cli.conftest import TODAY
from randusers_assets_tests.patience import patience
from randusers_assets_tests.pipeline.publish.bucket import publish_users
from randusers_assets_tests.pipeline.storage.s3_proxy import Fault, Request, s3_proxy
from randusers_assets_tests.sandbox.processes import RANDUSERS
from randusers_sandbox.s3 import LocalS3

pytestmark = pytest.mark.usefixtures("api")

CSV = f"users_csv/dt={TODAY}/users.csv"
STAYS = "the CSV that is published and its receipt stay as they were."
BEFORE = f"The run was interrupted before it published {TODAY}: {STAYS}"
AFTER = (
    f"The run was interrupted after {TODAY} was published with its receipt: run again to write"
    " what follows it, up to datapackage.json."
)


@pytest.mark.parametrize(
    ("by", "committed", "sentence"),
    [
        (signal.SIGTERM, False, BEFORE),
        (signal.SIGTERM, True, AFTER),
        (signal.SIGINT, True, AFTER),
        (signal.SIGKILL, False, ""),
        (signal.SIGKILL, True, ""),
    ],
)
def test_run_stopped_at_its_commit_says_what_is_true_of_the_bucket(
    store: Store, s3_server: LocalS3, by: int, sentence: str, *, committed: bool
) -> None:
    """Just before and just after S3 has the CSV; then the next run publishes the day."""
    runs: list[subprocess.Popen[str]] = []

    def stop(request: Request) -> Fault | None:
        if request.method != "PUT" or not request.path.endswith(CSV) or request.number > 1:
            return None

        def signal_and_wait() -> None:
            runs[0].send_signal(by)
            if by == signal.SIGKILL:
                runs[0].wait(patience(60))

        if committed:
            return Fault(after=signal_and_wait, lose="answer")
        return Fault(before=signal_and_wait, lose="request")

    with s3_proxy(s3_server.endpoint_url, stop) as url:
        runs.append(
            subprocess.Popen(  # noqa: S603  # this project's own command line
                [*RANDUSERS, "run"],
                env=os.environ | {"AWS_ENDPOINT_URL_S3": url},
                stderr=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                text=True,
            )
        )
        with runs[0] as run:
            _, stderr = run.communicate(timeout=patience(120))
    assert run.returncode == (-by if by == signal.SIGKILL else 1)
    if sentence:
        assert stderr.splitlines()[-1] == f"randusers: {sentence}"
    assert (store.head(CSV) is not None) is committed
    if committed:
        # What follows the CSV may be missing, and is proved after it.
        assert len(list(islice(verify(store, CONTRACT, TODAY), 4))) == 4
    publish_users(store, TODAY, users(500))
    assert len(list(verify(store, CONTRACT))) == 6
