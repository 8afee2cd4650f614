"""How a run goes from measure to measure and from target to target: no program is started here."""

from pathlib import Path

import pytest

from tests.bench import targets as ways
from tests.bench.__main__ import play, rotated
from tests.bench.cluster import Cluster
from tests.bench.figures import Figures
from tests.bench.measure import Bench, Measure, Unavailable
from tests.bench.processes import find_reason
from tests.bench.report import Report
from tests.bench.targets import OPENERS, SHARED_LINES, Target
from tests.bench.wire import Address

NOWHERE = Address("127.0.0.1", 1)
BENCH = Bench(Cluster(Path(), NOWHERE), Path(), 1.0, 1.0)
ALL = [Target(name, NOWHERE) for name in OPENERS]


class Diary:
    """A measure's work: notes whom it was taken from, and fails where it is told to."""

    def __init__(self, **failures: Exception) -> None:
        self.names: list[str] = []
        self._failures = failures

    def __call__(self, bench: Bench, target: Target) -> Figures:
        self.names.append(target.name)
        if target.name in self._failures:
            raise self._failures[target.name]
        return {"tps": 1.0}


def test_each_target_is_first_in_its_turn() -> None:
    targets = [Target(name, Address("127.0.0.1", 1)) for name in ("direct", "pgbouncer", "pgshuttle")]
    assert [[target.name[2] for target in rotated(targets, by)] for by in range(4)] == [
        ["r", "b", "s"],
        ["b", "s", "r"],
        ["s", "r", "b"],
        ["r", "b", "s"],
    ]
    assert rotated([], 1) == []


def test_a_measure_is_taken_from_each_of_its_targets_and_from_no_other() -> None:
    diary, report = Diary(), Report({}, list(OPENERS))
    play(BENCH, report, ALL, [Measure("m", "", diary, targets=("pgbouncer", "pgshuttle"))], 0)
    assert diary.names == ["pgbouncer", "pgshuttle"]
    assert [sample.target for sample in report.results.samples] == ["pgbouncer", "pgshuttle"]


def test_another_target_is_first_in_each_round_and_for_each_measure() -> None:
    diary = Diary()
    measure = Measure("m", "", diary)
    for round_ in range(2):
        play(BENCH, Report({}, []), ALL, [measure, measure], round_)
    assert diary.names[::4] == ["direct", "pgbouncer", "pgbouncer", "pgshuttle"]


def test_what_counts_is_taken_in_the_first_round_only() -> None:
    diary = Diary()
    for round_ in range(3):
        play(BENCH, Report({}, []), ALL[:1], [Measure("m", "", diary, is_once=True)], round_)
    assert diary.names == ["direct"]


def test_a_target_that_fails_is_left_out_with_its_reason_and_the_others_are_not() -> None:
    diary, report = Diary(direct=Unavailable("no pooler"), pgbouncer=ConnectionResetError("gone")), Report({}, [])
    play(BENCH, report, ALL, [Measure("m", "", diary)], 0)
    assert report.gaps == {"no pooler": [("m", "direct")], "gone": [("m", "pgbouncer")]}
    assert [sample.target for sample in report.results.samples] == ["pgshuttle", "pgshuttle-lines"]


def test_an_error_of_the_bench_itself_is_not_taken_for_a_result() -> None:
    with pytest.raises(ZeroDivisionError):
        play(BENCH, Report({}, []), ALL, [Measure("m", "", Diary(direct=ZeroDivisionError()))], 0)


def test_the_lines_are_one_setting_more_also_where_a_measure_adds_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[tuple[str, str]] = []
    monkeypatch.setattr(ways, "pgshuttle", lambda _upstream, _log, add, name: opened.append((name, add(Path()))))
    ways.pgshuttle_lines(NOWHERE, Path())
    ways.pgshuttle_lines(NOWHERE, Path(), lambda _: "listen_backlog = 4096\n")
    assert opened == [("pgshuttle-lines", SHARED_LINES), ("pgshuttle-lines", SHARED_LINES + "listen_backlog = 4096\n")]


def test_a_program_that_failed_is_quoted_with_what_the_server_said() -> None:
    told = "pgbench: error: connection failed: FATAL:  too many clients\npgbench: error: could not create client 254\n"
    assert find_reason(told) == "pgbench: error: connection failed: FATAL:  too many clients"
    assert find_reason("a\nb\n\n") == "b"
