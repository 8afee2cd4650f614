"""
The picture: throughput and latency of reads against the number of clients, a curve a target.

Theory. Both come from the measures simple-N, which differ in nothing but N, so the picture costs no run of its own.
Clients double and double again, so their axis is logarithmic; so is that of latency, or one curve would press the
others to the ground; throughput starts at zero, where a difference looks as large as it is. matplotlib draws; where it
is not installed there is no picture, and the report says so.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.figures import Results
from tests.bench.processes import Failed
from tests.bench.targets import DIRECT, LINES, OURS, THEIRS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAME = "bench.svg"
STYLES = {  # words, colour and mark of each curve
    DIRECT: ("PostgreSQL alone", "#888888", "s"),
    THEIRS: ("PgBouncer", "#d1495b", "^"),
    OURS: ("pgshuttle", "#30638e", "o"),
    LINES: ("pgshuttle, shared lines", "#e09f1f", "D"),
}
PANES = (("tps", "transactions per second", "linear"), ("p99_ms", "99th percentile of latency, ms", "log"))

Points = list[tuple[int, float]]  # (clients, median), by clients

_READS = re.compile(r"simple-(\d+)")


def find_points(results: Results, figure: str, target: str) -> Points:
    """The curve of one target: what each simple-N gave, by N."""
    points = []
    for measure, one in results.rows():
        found = _READS.fullmatch(measure)
        value = results.middle(measure, figure, target)
        if found and one == figure and value is not None:
            points.append((int(found[1]), value))
    return sorted(points)


def draw(results: Results, targets: Sequence[str], words: str, folder: Path) -> str | None:
    """Draw NAME into a folder, `words` below it; the name, or None when no curve has two points. Failed otherwise."""
    curves = {(figure, target): find_points(results, figure, target) for figure, *_ in PANES for target in targets}
    if not any(len(points) > 1 for points in curves.values()):
        return None
    try:
        import matplotlib  # noqa: PLC0415 (optional)
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError:
        raise Failed("no plots: matplotlib is not installed (pip install '.[bench]')") from None
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": NAME, "font.size": 9}):
        picture = Figure(figsize=(9, 3.6), layout="constrained")
        for axes, (figure, label, scale) in zip(picture.subplots(1, len(PANES)), PANES, strict=True):
            _draw_pane(axes, {target: curves[figure, target] for target in targets}, label, scale)
        picture.supxlabel(words, fontsize=7, color="#555555")
        picture.savefig(folder / NAME, metadata={"Date": None})
    return NAME


def _draw_pane(axes: "Axes", curves: dict[str, Points], label: str, scale: str) -> None:
    for target, points in curves.items():
        if not points:
            continue
        words, colour, mark = STYLES[target]
        axes.plot(*zip(*points, strict=True), color=colour, marker=mark, markersize=4, label=words)
    axes.set_xscale("log", base=2)
    axes.set_yscale(scale)
    axes.yaxis.set_major_formatter("{x:,g}")
    ticks = sorted({clients for points in curves.values() for clients, _ in points})
    axes.set_xticks(ticks, [str(clients) for clients in ticks])
    axes.set_xlabel("clients (pgbench -S)")
    axes.set_title(label, fontsize=10)
    if scale == "linear":
        axes.set_ylim(bottom=0)
    axes.grid(visible=True, color="#dddddd", linewidth=0.5)
    axes.legend(frameon=False)
