"""Used by the tests of alerts and heartbeat: a receiver, and the daemon that ticks a sensor."""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import dagster as dg
import pytest

from randusers_assets.automation import daily
from randusers_assets_tests.patience import patience

PATH = "/services/T0/B0/s3cr3t"
DAY = "2026-11-23"
# So many bytes, 20 ms apart, until a head that drips ends after all: no test waits for the last.
DRIPS = 3000
# The snapshot's checks that fail, with their message; the first only warns.
FAILING = {
    "holds_no_formulas": "14 cells would be read as formulas by a spreadsheet.",
    "ids_are_unique": "20 rows; 2 share their id <1> & more.",
    "required_are_filled": "1 of 20 rows fail.",
}


class Receiver(ThreadingHTTPServer):
    """Answers with one status after the other, the last of them for ever; or drips its heads."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.statuses = [200]
        self.pings: list[str] = []
        self.on_request: Callable[[], None] = lambda: None
        self.posts: list[tuple[str, str | None, dict[str, Any]]] = []
        self.drips, self.ended = False, threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}{PATH}"


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.posts.append((self.path, self.headers["Content-Type"], body))
        self.answer()

    def do_GET(self) -> None:
        self.server.pings.append(self.path)
        self.server.on_request()
        self.answer()

    def answer(self) -> None:
        left = self.server.statuses
        self.send_response(left.pop(0) if len(left) > 1 else left[0])
        self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", "0")
        self.flush_headers()
        drips = DRIPS if self.server.drips else 0
        while drips and not self.server.ended.wait(0.02):
            self.wfile.write(b"X")
            drips -= 1
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class's name
        """Log nothing."""


@contextlib.contextmanager
def receiver() -> Iterator[Receiver]:
    """A receiver that answers."""
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.ended.set()
            server.shutdown()
            thread.join(patience())


@contextlib.contextmanager
def receiving(monkeypatch: pytest.MonkeyPatch, setting: str) -> Iterator[Receiver]:
    """A receiver that the setting names."""
    with receiver() as server:
        monkeypatch.setenv(setting, server.url)
        yield server


def job(failure: Exception | None = None, *, failing_checks: bool = False) -> dg.JobDefinition:
    """A job by the snapshot's name whose asset succeeds or raises, and whose checks may fail."""
    failing = FAILING if failing_checks else {}
    specs = [dg.AssetCheckSpec(name, asset="users_df", blocking=True) for name in failing]

    @dg.asset(partitions_def=daily, check_specs=specs)
    def users_df() -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
        if failure:
            raise failure
        yield dg.MaterializeResult()
        for name, text in failing.items():
            severity = dg.AssetCheckSeverity("WARN" if name == "holds_no_formulas" else "ERROR")
            yield dg.AssetCheckResult(
                passed=False, check_name=name, severity=severity, description=text
            )

    made = dg.define_asset_job("users_snapshot_job", executor_def=dg.in_process_executor)
    return dg.Definitions(assets=[users_df], jobs=[made]).resolve_job_def("users_snapshot_job")


class Daemon:
    """Ticks a sensor as the daemon does, each tick from the last one's cursor, and makes runs."""

    def __init__(self, instance: dg.DagsterInstance, sensor: dg.SensorDefinition) -> None:
        self.instance, self.sensor = instance, sensor
        self.cursor: str | None = None
        self.tick()

    def tick(self) -> str:
        """Evaluate the sensor once; why it skipped, or the ids of the runs it reacted to."""
        with dg.build_sensor_context(self.instance, cursor=self.cursor) as context:
            data = self.sensor.evaluate_tick(context)
        self.cursor = data.cursor
        assert not [r.error for r in data.dagster_run_reactions or [] if r.error]
        reactions = [r.dagster_run for r in data.dagster_run_reactions or [] if r.dagster_run]
        return data.skip_message or " ".join(run.run_id for run in reactions)

    def run(self, made: dg.JobDefinition) -> str:
        """Run a job for the day; the run's id."""
        return made.execute_in_process(
            instance=self.instance, partition_key=DAY, raise_on_error=False
        ).run_id

    def waiting_run(self) -> dg.DagsterRun:
        """A run for the day that has not begun."""
        return self.instance.create_run_for_job(job(), tags={"dagster/partition": DAY})

    def lost_run(self) -> dg.DagsterRun:
        """A run for the day that failed before its first step."""
        made = self.waiting_run()
        self.instance.report_run_failed(made)
        return made
