"""
The run as a Markdown table and as JSON.

Theory. The JSON file is the record: every sample, the machine, what was skipped and why. The Markdown page is a
view of it: medians side by side, their ratios, then each goal with reached, missed or not measured. What was
skipped or failed is said on the page: a silent gap would read as a victory.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from tests.bench.figures import UNITS, Results
from tests.bench.goals import GOALS, OURS, THEIRS, Goal

DIRECT = "direct"
REACHED = {True: "reached", False: "**missed**", None: "not measured"}


@dataclass
class Report:
    """One run: where and how it ran, what it gave, what it could not do."""

    machine: Mapping[str, str]
    targets: Sequence[str]
    says: Mapping[str, str] = field(default_factory=dict)  # measure name to what it does
    results: Results = field(default_factory=Results)
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> str:
        """All of it: machine, notes, goals with their values, samples."""
        whole = {
            "machine": dict(self.machine),
            "targets": list(self.targets),
            "measures": dict(self.says),
            "notes": self.notes,
            "goals": [_goal_record(goal, self.results) for goal in GOALS],
            "samples": [asdict(sample) for sample in self.results.samples],
        }
        return json.dumps(whole, indent=1) + "\n"

    def to_markdown(self) -> str:
        """The page, ending in a newline."""
        parts = ["# Benchmark", _machine_list(self.machine), _figure_table(self), _meanings(self.says)]
        if self.notes:
            parts += ["## Skipped or failed", "\n".join(f"- {note}" for note in self.notes)]
        parts += ["## Targets", _goal_table(self.results)]
        return "\n\n".join(parts) + "\n"


def format_figure(value: float | None) -> str:
    """Three significant digits, thousands with a comma, `-` for nothing: 17,312 or 0.0571 or 4.21."""
    if value is None:
        return "-"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], words: int = 2) -> str:
    """A Markdown table: the first columns are `words`, the others numbers and to the right."""
    aligned = ["---"] * words + ["---:"] * (len(head) - words)
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, aligned, *rows])


def _figure_table(report: Report) -> str:
    pairs = [(OURS, other) for other in (THEIRS, DIRECT) if {OURS, other} <= set(report.targets)]
    head = ["measure", "figure", *report.targets, *(f"{ours} / {other}" for ours, other in pairs)]
    return table(head, [_figure_row(report, pairs, *row) for row in report.results.rows()])


def _figure_row(report: Report, pairs: Sequence[tuple[str, str]], measure: str, figure: str) -> list[str]:
    middles = [report.results.middle(measure, figure, target) for target in report.targets]
    ratios = [report.results.ratio(measure, figure, ours, other) for ours, other in pairs]
    return [measure, UNITS[figure], *map(format_figure, middles), *map(_format_ratio, ratios)]


def _format_ratio(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.2f}"


def _machine_list(machine: Mapping[str, str]) -> str:
    return "\n".join(f"- {name}: {value}" for name, value in machine.items())


def _meanings(says: Mapping[str, str]) -> str:
    return "\n".join(f"- {name}: {meaning}" for name, meaning in says.items())


def _goal_table(results: Results) -> str:
    head = ["goal", "asked", "verdict", "measured"]
    return table(head, [_goal_row(goal, results) for goal in GOALS], words=3)


def _goal_row(goal: Goal, results: Results) -> list[str]:
    return [goal.says, goal.asked, REACHED[goal.is_reached(results)], format_figure(goal.value(results))]


def _goal_record(goal: Goal, results: Results) -> dict[str, object]:
    return {
        "goal": goal.says,
        "asked": goal.asked,
        "measured": goal.value(results),
        "reached": goal.is_reached(results),
    }
