"""Deliver alerts and the heartbeat over HTTP; their URLs are secrets, shown nowhere."""

import contextlib
import html
import logging
import queue
import threading
from collections.abc import Iterator

import dagster as dg
import requests
import tenacity

from randusers_assets.settings import setting

WEBHOOK, HEARTBEAT = "RANDUSERS_ALERT_WEBHOOK_URL", "RANDUSERS_HEARTBEAT_URL"

# A try begins at most 20 + 5 s after the first and takes at most 10 s: below the 60 s that Dagster
# gives a sensor.
TRIES, TRYING_SECONDS = 4, 20.0
WAIT = tenacity.wait_exponential(max=4) + tenacity.wait_random(0, 1)
CONNECT_SECONDS, READ_SECONDS, REQUEST_SECONDS = 3.0, 5.0, 10.0


class Undelivered(Exception):
    """The receiver did not accept a request; `passing` if a retry may help."""

    def __init__(self, phrase: str, *, passing: bool) -> None:
        super().__init__(phrase)
        self.passing = passing


def ping_heartbeat(log: logging.Logger) -> None:
    """Tell RANDUSERS_HEARTBEAT_URL, where it is set, of a publication; a failure is a warning."""
    try:
        if url := setting(HEARTBEAT):
            deliver(url)
    except dg.DagsterInvalidDefinitionError as error:
        log.warning("The heartbeat was not delivered: %s", error)
    except Undelivered as undelivered:
        log.warning("The heartbeat was not delivered: %s. Check %s.", undelivered, HEARTBEAT)


def deliver(url: str, text: str | None = None) -> None:
    """Post a text, or GET without one, until it is accepted; at last raise Undelivered."""
    retrying = tenacity.Retrying(
        stop=tenacity.stop_after_attempt(TRIES) | tenacity.stop_after_delay(TRYING_SECONDS),
        wait=WAIT,
        retry=tenacity.retry_if_exception(lambda e: isinstance(e, Undelivered) and e.passing),
        reraise=True,
    )
    try:
        retrying(_deliver_once, url, text)
    except Undelivered as undelivered:
        tries = retrying.statistics["attempt_number"]
        times = f", {tries} times" if tries > 1 else ""
        raise Undelivered(f"{undelivered}{times}", passing=False) from None


def _deliver_once(url: str, text: str | None) -> None:
    """Send one request within REQUEST_SECONDS, or raise Undelivered.

    In a daemon thread: the timeouts of requests start anew with every byte that is received.
    """
    outcome: queue.SimpleQueue[Undelivered | None] = queue.SimpleQueue()
    threading.Thread(target=lambda: outcome.put(_request(url, text)), daemon=True).start()
    try:
        undelivered = outcome.get(timeout=REQUEST_SECONDS)
    except queue.Empty:
        undelivered = Undelivered(f"no complete answer within {REQUEST_SECONDS:g} s", passing=True)
    if undelivered:
        raise undelivered


@contextlib.contextmanager
def _unlogged() -> Iterator[None]:
    """Drop this thread's urllib3 log lines: at DEBUG they hold the path, which is the secret."""
    log, here = logging.getLogger("urllib3.connectionpool"), threading.get_ident()

    def of_another_thread(record: logging.LogRecord) -> bool:
        return record.thread != here

    log.addFilter(of_another_thread)
    try:
        yield
    finally:
        log.removeFilter(of_another_thread)


@_unlogged()
def _request(url: str, text: str | None) -> Undelivered | None:
    """Post `{"text": …}`, or GET without a text; why it was not accepted, if it was not.

    Slack's three are escaped: docs.slack.dev/messaging/formatting-message-text#escaping
    """
    method = "GET" if text is None else "POST"
    body = None if text is None else {"text": html.escape(text, quote=False)}
    timeout = CONNECT_SECONDS, READ_SECONDS
    try:
        # Streamed, as the body of the answer is not needed.
        answer = requests.request(
            method, url, json=body, timeout=timeout, allow_redirects=False, stream=True
        )
        answer.close()
    except requests.RequestException as error:
        # Only its class: the error's own message holds the URL.
        passing = isinstance(error, requests.ConnectionError | requests.Timeout)
        return Undelivered(f"no answer ({type(error).__name__})", passing=passing)
    status = answer.status_code
    if 200 <= status < 300:
        return None
    passing = status == 429 or status >= 500
    return Undelivered(f"the receiver answered HTTP {status}", passing=passing)
