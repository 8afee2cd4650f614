"""
The run as a Markdown page and as JSON.

Theory. The JSON file is the record: every sample, the machine, what was skipped and why. The Markdown page is a
view of it: the run in short, a table for each figure with medians side by side and their ratios, then each goal with
reached, missed or not measured. What could not be measured is n/a in the table and has its reason below: a silent gap
would read as a victory.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import product

from tests.bench.digest import build_digest
from tests.bench.figures import UNITS, Results
from tests.bench.goals import GOALS, Goal
from tests.bench.tables import format_figure, format_ratio, table
from tests.bench.targets import DIRECT, LINES, OURS, THEIRS

REACHED = {True: "reached", False: "**missed**", None: "not measured"}
NOT_TO_BE_HAD = "n/a"


@dataclass
class Report:
    """One run: where and how it ran, what it gave, what it could not do."""

    machine: Mapping[str, str]
    targets: Sequence[str]
    says: Mapping[str, str] = field(default_factory=dict)  # measure name to what it does
    results: Results = field(default_factory=Results)
    notes: list[str] = field(default_factory=list)
    gaps: dict[str, list[tuple[str, str]]] = field(default_factory=dict)  # reason to its (measure, target)s
    picture: str | None = None  # name of a file beside the page

    def leave_out(self, measure: str, target: str, reason: str) -> None:
        """Say why there is no figure, once however often it happens."""
        places = self.gaps.setdefault(reason, [])
        if (measure, target) not in places:
            places.append((measure, target))

    def note(self, words: str) -> None:
        """One sentence about the whole run."""
        if words not in self.notes:
            self.notes.append(words)

    def cell(self, measure: str, figure: str, target: str) -> str:
        """The median over rounds; n/a when it could not be had."""
        middle = self.results.middle(measure, figure, target)
        if middle is None and any((measure, target) in places for places in self.gaps.values()):
            return NOT_TO_BE_HAD
        return format_figure(middle)

    def to_json(self) -> str:
        """All of it: machine, notes, gaps, goals with their values, samples."""
        whole = {
            "machine": dict(self.machine),
            "targets": list(self.targets),
            "measures": dict(self.says),
            "notes": self.notes,
            "not_measured": self.gaps,
            "goals": [_goal_record(goal, self.results) for goal in GOALS],
            "samples": [asdict(sample) for sample in self.results.samples],
        }
        return json.dumps(whole, indent=1) + "\n"

    def to_markdown(self) -> str:
        """The page, ending in a newline."""
        parts = ["# Benchmark", _list(f"{name}: {value}" for name, value in self.machine.items())]
        if self.picture:
            parts.append(f"![transactions per second and 99th percentile of latency against clients]({self.picture})")
        parts += ["## In short", build_digest(self.results, self.cell), *_figure_tables(self)]
        parts += ["## Measures", _list(f"{name}: {meaning}" for name, meaning in self.says.items())]
        if self.gaps or self.notes:
            parts += ["## Skipped or failed", _list([*map(_gap_sentence, self.gaps.items()), *self.notes])]
        return "\n\n".join([*parts, "## Goals", _goal_table(self.results), _goal_count(self.results)]) + "\n"


def _figure_tables(report: Report) -> list[str]:
    """A heading and a table for each figure, in the order of UNITS."""
    parts = []
    for figure, unit in UNITS.items():
        if measures := [measure for measure, one in report.results.rows() if one == figure]:
            parts += [f"## {unit[0].upper()}{unit[1:]}", _figure_table(report, figure, measures)]
    return parts


def _figure_table(report: Report, figure: str, measures: Sequence[str]) -> str:
    """A row a measure; of the ratios those of which there is any."""
    ratio = report.results.ratio
    pairs = [pair for pair in product((OURS, LINES), (THEIRS, DIRECT)) if set(pair) <= set(report.targets)]
    pairs = [pair for pair in pairs if any(ratio(measure, figure, *pair) is not None for measure in measures)]
    head = ["measure", *report.targets, *(f"{mine} / {other}" for mine, other in pairs)]
    rows = (
        [measure, *(report.cell(measure, figure, one) for one in report.targets)]
        + [format_ratio(ratio(measure, figure, *pair)) for pair in pairs]
        for measure in measures
    )
    return table(head, [*rows])


def _gap_sentence(gap: tuple[str, Sequence[tuple[str, str]]]) -> str:
    """`pgbouncer (prepared-64, prepared-256): the reason`."""
    reason, places = gap
    targets = dict.fromkeys(target for _, target in places)
    where = (f"{one} ({', '.join(measure for measure, target in places if target == one)})" for one in targets)
    return f"{', '.join(where)}: {reason}"


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _goal_table(results: Results) -> str:
    head = ["goal", "of", "asked", "verdict", "measured"]
    return table(head, [_goal_row(goal, results) for goal in GOALS], words=4)


def _goal_row(goal: Goal, results: Results) -> list[str]:
    return [goal.says, goal.target, goal.asked, REACHED[goal.is_reached(results)], format_figure(goal.value(results))]


def _goal_count(results: Results) -> str:
    """`3 reached, 1 missed, 29 not measured`."""
    count = Counter(goal.is_reached(results) for goal in GOALS)
    return ", ".join(f"{count[verdict]} {words.strip('*')}" for verdict, words in REACHED.items())


def _goal_record(goal: Goal, results: Results) -> dict[str, object]:
    return {
        "goal": goal.says,
        "target": goal.target,
        "asked": goal.asked,
        "measured": goal.value(results),
        "reached": goal.is_reached(results),
    }
