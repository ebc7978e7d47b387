"""The figures of a benchmark as tables and a plot; every number comes from `results.json`."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

Results = Mapping[str, Any]
METRICS = {"wall": "wall, s", "cpu": "CPU, s", "peak_mb": "peak, MB"}
OURS, SECOND_DAY, NAIVE, DLT = "ours", "ours, second day", "naive", "dlt"
EMPTY, FROZEN = "three empty assets", "three empty assets, GC frozen"
MULTIPROCESS = "ours, a process per step"
ORDER = (OURS, SECOND_DAY, NAIVE, DLT, EMPTY, FROZEN, MULTIPROCESS)


class Spread(NamedTuple):
    """The rounds of one figure."""

    median: float
    least: float
    most: float

    def __str__(self) -> str:
        if self.least == self.most:
            return _number(self.median)
        return f"{_number(self.median)} ({_number(self.least)}-{_number(self.most)})"


Figures = Mapping[tuple[int, str], Mapping[str, Spread]]


def figures(rounds: Sequence[Mapping[str, Any]]) -> Figures:
    """Gather the rounds by size and contender."""
    found: dict[tuple[int, str], dict[str, Spread]] = {}
    every = {(r["users"], r["contender"]) for r in rounds}
    for users, name in sorted(every, key=lambda each: (each[0], ORDER.index(each[1]))):
        mine = [r for r in rounds if (r["users"], r["contender"]) == (users, name)]
        found[users, name] = {
            metric: Spread(statistics.median(values), min(values), max(values))
            for metric in METRICS
            for values in [[r[metric] for r in mine]]
        }
    return found


def _number(value: float) -> str:
    digits = 3 if value < 1 else 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:,.{digits}f}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(heads)} |"
    yield f"|{' --- |' * len(heads)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"
    yield ""


def contenders(found: Figures) -> Iterator[str]:
    """Medians, spreads and ratios to ours, size by size."""
    rows = []
    for (users, name), spreads in found.items():
        ours = found.get((users, OURS), {})
        ratios = [
            f"{spreads[m].median / ours[m].median:.2f}x" if m in ours and name != OURS else ""
            for m in METRICS
        ]
        cells = [
            part for m, r in zip(METRICS, ratios, strict=True) for part in (str(spreads[m]), r)
        ]
        rows.append([f"{users:,}", name, *cells])
    heads = [part for label in METRICS.values() for part in (label, "ratio")]
    yield from _table(["users", "", *heads], rows)


def wins(found: Figures) -> list[str]:
    """Where a peer does better than ours, figure by figure."""
    better = []
    for (users, name), spreads in found.items():
        ours = found.get((users, OURS))
        if ours is None or name not in (NAIVE, DLT):
            continue
        better += [
            f"- {users:,} users, {METRICS[m]}: {name} {_number(spreads[m].median)}, ours"
            f" {_number(ours[m].median)}."
            for m in METRICS
            if spreads[m].median < ours[m].median
        ]
    return better


def floors(floor: Mapping[str, float]) -> Iterator[str]:
    """Each stage alone, and its ratio to parsing with msgspec."""
    stages = [
        ("pages fetched one after the other (wall)", "fetch", "page_bytes"),
        ("parsing, `json.loads` (CPU)", "json", "page_bytes"),
        ("parsing, msgspec, untyped (CPU)", "msgspec", "page_bytes"),
        ("transform: page bytes to CSV bytes, rules enforced (CPU)", "transform", "page_bytes"),
        ("transform, raw lines compressed as well (CPU)", "transform_raw", "page_bytes"),
        ("CSV writing (CPU)", "csv", "csv_bytes"),
        ("upload, one `put_object` (wall)", "upload", "csv_bytes"),
    ]
    yield f"{floor['users']:,} users; the fastest of a few passes in one process.\n"
    rows = [
        [
            label,
            _number(floor[key]),
            f"{floor['users'] / floor[key]:,.0f}",
            f"{floor[size] / floor[key] / 1e6:,.0f}",
            f"{floor[key] / floor['msgspec']:.2f}x",
        ]
        for label, key, size in stages
    ]
    yield from _table(["stage alone", "s", "users/s", "MB/s", "ratio to msgspec"], rows)


class Target(NamedTuple):
    """A target that the project sets itself, and what was measured."""

    fact: str
    measured: float
    limit: float
    at_least: bool = False

    @property
    def met(self) -> bool:
        """Whether the measured figure is within the limit."""
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit


def targets(results: Results, found: Figures) -> Iterator[Target]:
    """The targets for which this run has the figures."""

    def ratio(users: int, name: str, metric: str = "wall") -> Iterator[float]:
        if (users, name) in found and (users, OURS) in found:
            yield found[users, name][metric].median / found[users, OURS][metric].median

    for value in ratio(1_000_000, NAIVE):
        yield Target("naive/ours, wall at 1,000,000", value, 5, at_least=True)
    for value in ratio(1_000_000, DLT):
        yield Target("dlt/ours, wall at 1,000,000", value, 6, at_least=True)
    for value in ratio(1_000_000, NAIVE, "peak_mb"):
        yield Target("naive/ours, peak at 1,000,000", value, 20, at_least=True)
    for value in ratio(500, EMPTY):
        yield Target("ours/three empty assets, wall at 500", 1 / value, 1.25)
    for value in ratio(500, MULTIPROCESS):
        yield Target("a process per step/ours, wall at 500", value, 3, at_least=True)
    if (100_000, OURS) in found and (1_000_000, OURS) in found:
        small, large = (found[n, OURS]["peak_mb"].median for n in (100_000, 1_000_000))
        yield Target("our peak at 1,000,000, MB", large, 400)
        yield Target("our peak, 1,000,000/100,000", large / small, 1.3)
    if floor := results.get("floors"):
        yield Target(
            "transform, users/s/core", floor["users"] / floor["transform"], 150_000, at_least=True
        )
        yield Target("transform/parsing alone", floor["transform"] / floor["msgspec"], 1.5)
    if late := results.get("latency"):
        yield Target("fetch with latency/ideal", late["seconds"] / late["ideal"], 1.3)


def render(results: Results) -> str:
    """The whole report, in Markdown."""
    found = figures(results["rounds"])
    lines = ["# Benchmarks", "", "Written by `make bench`; do not edit.", ""]
    machine = {**results["machine"], "load before": results["load"]}
    lines += _table(["machine", ""], [[name, str(value)] for name, value in machine.items()])
    lines += [f"{who}: {', '.join(had)}.  " for who, had in results["versions"].items()]
    lines += [
        "",
        "Whole processes from the API simulator to the local S3, both on loopback and on the",
        "same cores: median (least-most) of alternating rounds, counted only if all rows are in",
        "S3; the ratio is that of the median to ours. CPU is that of the process and its",
        "children, peak that of its largest process: our processes that fetch pages, or those in",
        "which dlt normalizes, come on top. On the second day the day before is published",
        "already, so that the run compares the two days. `randusers run` imports with the garbage",
        "collector (GC) off and then freezes it; so do the empty assets with `GC frozen`.",
        "",
    ]
    if found:
        lines += ["![Time and memory against rows](results.svg)", "", *contenders(found)]
        lines += ["## Where another does better", "", *(wins(found) or ["Nowhere in this run."])]
        lines += ["", "Ours runs every check and leaves a receipt; the peers do neither.", ""]
    if "floors" in results:
        lines += ["## Floors", "", *floors(results["floors"])]
    if late := results.get("latency"):
        lines += [
            "## Latency",
            "",
            (
                f"{late['pages']} pages, {late['latency_ms']} ms each, {late['concurrency']} at"
                " once:"
                f" {_number(late['seconds'])} s; ideal: {_number(late['ideal'])} s."
            ),
            "",
        ]
    rows = [
        (
            target.fact,
            _number(target.measured),
            f"{'>=' if target.at_least else '<='} {target.limit:,}",
            "yes" if target.met else "**no**",
        )
        for target in targets(results, found)
    ]
    if rows:
        lines += ["## Targets", "", *_table(["", "measured", "target", "met"], rows)]
    return "\n".join(lines).rstrip() + "\n"


def plot(results: Results, path: Path) -> None:
    """Time and memory against rows, on logarithmic axes, as SVG."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    found = figures(results["rounds"])
    # Text as text and no date: small, readable, the same file for the same figures.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "", "font.size": 9}):
        figure = Figure(figsize=(8, 3.2), layout="constrained")
        for axes, metric in zip(figure.subplots(1, 2), ("wall", "peak_mb"), strict=True):
            for name in (OURS, NAIVE, DLT):
                sizes = sorted(users for users, who in found if who == name)
                values = [found[users, name][metric].median for users in sizes]
                axes.loglog(sizes, values, marker="o", label=name)
            axes.set_xlabel("users")
            axes.set_title(METRICS[metric], loc="left")
            axes.grid(visible=True, alpha=0.3)
        axes.legend(frameon=False)
        figure.savefig(path, format="svg", metadata={"Date": None})
