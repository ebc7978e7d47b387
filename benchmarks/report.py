"""The figures of a benchmark as tables; every number comes from `results.json`."""

import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

Results = Mapping[str, Any]
COMPARED = {"wall": "wall, s", "cpu": "CPU, s", "pss_mb": "PSS, MB", "peak_mb": "peak, MB"}
SERVERS = {"api_cpu": "API's CPU, s", "s3_cpu": "S3's CPU, s"}
WAITED = {"seconds": "all, s", "queue": "queue, s", "start": "start, s", "steps": "steps, s"}
OURS, SECOND_DAY, NAIVE, DLT = "ours", "ours, second day", "naive", "dlt"
EMPTY, FROZEN = "three empty assets", "three empty assets, dagster-aws, GC frozen"
MULTIPROCESS = "ours, a process per step"
JOB, ALL, CHECK, PAST_DAYS = "the job", "Materialize all", "one check", 5
BACKFILL = f"backfill of {PAST_DAYS} past days"
METHOD = """
Whole processes from the API simulator to the local S3, both on loopback and on the same cores:
median (least-most) of alternating rounds, counted only if all rows are in S3; the ratio is that of
the median to ours, in bold where a peer does better. Ours runs every check and leaves a receipt;
the peers do neither. CPU is that of the process and its children. PSS is the most memory that all
its processes were seen to take at once, each 0.15 s or, where looking takes long, less often; peak
is that of the largest one. The last two columns are what the servers took meanwhile. On the second
day the day before is published already, with the same users, and compared. `randusers run` imports
with the garbage collector (GC) off and freezes it; so do the empty assets `GC frozen`, with our
dagster-aws.
"""
CLICKED = """\
## Click to success

500 users under `dagster dev`: from the click to the end of the last run, and how long a run was in
the queue, its process started and its steps ran; before the queue, the server makes the run. Of a
backfill, the queue is all until its first run is launched, and the rest that of the median run.
"""


class Spread(NamedTuple):
    """The rounds of one figure."""

    median: float
    least: float
    most: float

    def __str__(self) -> str:
        if self.least == self.most:
            return _number(self.median)
        return f"{_number(self.median)} ({_number(self.least)}-{_number(self.most)})"


Figures = Mapping[tuple[Any, ...], Mapping[str, Spread]]


def figures(records: Iterable[Results], *keys: str) -> Figures:
    """Every figure of the records that have the same values under `keys`; None is none."""
    groups: dict[tuple[Any, ...], list[Results]] = {}
    for record in records:
        groups.setdefault(tuple(record[key] for key in keys), []).append(record)
    found: dict[tuple[Any, ...], dict[str, Spread]] = {group: {} for group in groups}
    for group, same in groups.items():
        for metric in same[0].keys() - keys:
            if values := [one[metric] for one in same if one.get(metric) is not None]:
                found[group][metric] = Spread(statistics.median(values), min(values), max(values))
    return found


def median(found: Figures, metric: str, *group: object) -> float:
    """One median; NaN if it was not measured."""
    spread = found.get(group, {}).get(metric)
    return spread.median if spread else math.nan


def ratio(found: Figures, users: int, name: str, metric: str = "wall") -> float:
    """A contender's median to ours; NaN if one of them was not measured."""
    return median(found, metric, users, name) / median(found, metric, users, OURS)


def _number(value: float) -> str:
    digits = 3 if value < 1 else 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:,.{digits}f}"


def _times(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.2f}x"


def _table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    for cells in (heads, ["---"] * len(heads), *rows):
        yield f"| {' | '.join(map(str, cells))} |"
    yield ""


def contenders(found: Figures) -> Iterator[str]:
    """Medians, spreads and ratios to ours, size by size."""
    rows: list[list[object]] = []
    for (users, name), spreads in found.items():
        rows.append([f"{users:,}", name])
        for metric in COMPARED:
            times = math.nan if name == OURS else ratio(found, users, name, metric)
            mark = "**" if name in (NAIVE, DLT) and times < 1 else ""
            rows[-1] += [spreads.get(metric, ""), f"{mark}{_times(times)}{mark}"]
        rows[-1] += [spreads.get(metric, "") for metric in SERVERS]
    heads = [part for label in COMPARED.values() for part in (label, "ratio")]
    yield from _table(["users", "", *heads, *SERVERS.values()], rows)


def floors(floor: Mapping[str, float]) -> Iterator[str]:
    """Each stage alone, and its ratio to parsing with msgspec."""
    yield f"## Floors\n\n{floor['users']:,} users; the fastest of a few passes in one process.\n"
    rows = []
    for label, stage in (
        ("parsing, msgspec, untyped", "msgspec"),
        ("transform: page bytes to CSV bytes, rules enforced", "transform"),
        ("transform, raw lines compressed as well", "transform_raw"),
    ):
        speed, times = floor["users"] / floor[stage], floor[stage] / floor["msgspec"]
        rows.append([label, _number(floor[stage]), f"{speed:,.0f}", _times(times)])
    yield from _table(["stage alone", "CPU, s", "users/s", "ratio to msgspec"], rows)


def targets(results: Results, found: Figures) -> Iterator[list[str]]:
    """The targets that the project sets itself, where this run has the figures."""
    nothing = dict.fromkeys(("users", "transform", "msgspec", "seconds", "ideal"), math.nan)
    floor, late = (results.get(part, nothing) for part in ("floors", "latency"))
    waited = figures(results.get("clicks", []), "click")
    job, every = (median(waited, "seconds", button) for button in (JOB, ALL))
    queue = max(median(waited, "queue", button) for button in (JOB, ALL))
    small, large = (median(found, "peak_mb", users, OURS) for users in (100_000, 1_000_000))
    pss, pss2 = (median(found, "pss_mb", 1_000_000, name) for name in (OURS, SECOND_DAY))
    for fact, measured, sign, limit in (
        ("naive/ours, wall at 1,000,000", ratio(found, 1_000_000, NAIVE), ">=", 6.5),
        ("dlt/ours, wall at 1,000,000", ratio(found, 1_000_000, DLT), ">=", 6),
        ("naive/ours, peak at 1,000,000", ratio(found, 1_000_000, NAIVE, "peak_mb"), ">=", 20),
        (f"ours/{FROZEN}, wall at 500", 1 / ratio(found, 500, FROZEN), "<=", 1.25),
        ("a process per step/ours, wall at 500", ratio(found, 500, MULTIPROCESS), ">=", 3),
        ("our peak at 1,000,000, MB", large, "<=", 400),
        ("our peak, 1,000,000/100,000", large / small, "<=", 1.3),
        ("PSS of all our processes at 1,000,000, MB", pss, "<=", 400),
        ("the same, second day", pss2, "<=", 400),
        ("transform, users/s/core", floor["users"] / floor["transform"], ">=", 150_000),
        ("transform/parsing alone", floor["transform"] / floor["msgspec"], "<=", 1.5),
        ("fetch with latency/ideal", late["seconds"] / late["ideal"], "<=", 1.3),
        ("Materialize all / job, click to success", every / job, "<=", 1.1),
        ("queue, s", queue, "<=", 1.5),
    ):
        if not math.isnan(measured):
            met = measured >= limit if sign == ">=" else measured <= limit
            yield [fact, _number(measured), f"{sign} {limit:,}", "yes" if met else "**no**"]


def render(results: Results) -> str:
    """The whole report, in Markdown."""
    records = [*results.get("rounds", []), *results.get("huge", [])]
    found, loaded = (figures(r, "users", "contender") for r in (records, results.get("busy", [])))
    lines = ["# Benchmarks\n\nWritten by `make bench`; do not edit.\n"]
    machine = {**results["machine"], "load before": results["load"]}
    lines += _table(["machine", ""], list(machine.items()))
    lines += [f"{who}: {', '.join(had)}.  " for who, had in results["versions"].items()]
    lines += [METHOD, *contenders(found)]
    for users in {users for users, _ in loaded}:
        moved = ((_times(ratio(of, users, who)) for of in (found, loaded)) for who in (NAIVE, DLT))
        naive, dlt = map(" becomes ".join, moved)
        lines += [f"While another process burns one core, at {users:,} users naive/ours {naive}"]
        lines[-1] += f", and dlt/ours {dlt}.\n"
    if waited := figures(results.get("clicks", []), "click"):
        rows = [[*name, *(spreads[part] for part in WAITED)] for name, spreads in waited.items()]
        lines += [CLICKED, *_table(["", *WAITED.values()], rows)]
    if "floors" in results:
        lines += floors(results["floors"])
    if late := results.get("latency"):
        lines += [f"## Latency\n\n{late['pages']} pages, {late['latency_ms']} ms each,"]
        lines[-1] += f" {late['concurrency']} at once: {_number(late['seconds'])} s;"
        lines[-1] += f" ideal: {_number(late['ideal'])} s.\n"
    if rows := list(targets(results, found)):
        lines += ["## Targets\n", *_table(["", "measured", "target", "met"], rows)]
    return "\n".join(lines).rstrip() + "\n"
