"""The benchmark's arithmetic and its pages: no program is started here."""

import json
from pathlib import Path

import pytest

from tests.bench.__main__ import parse_arguments
from tests.bench.bulk import EQUAL, WIDE, copy_payload
from tests.bench.cluster import Cluster
from tests.bench.digest import ROWS
from tests.bench.figures import UNITS, Results, Sample, percentile
from tests.bench.goals import GOALS, Goal
from tests.bench.measure import Bench, Tier
from tests.bench.measures import MEASURES
from tests.bench.pgbench import parse
from tests.bench.processes import Failed
from tests.bench.report import Report
from tests.bench.syscalls import parse_total
from tests.bench.tables import format_figure, table
from tests.bench.targets import OPENERS
from tests.bench.wire import Address

PGBENCH_SAYS = """\
number of transactions actually processed: 16870
number of failed transactions: 0 (0.000%)
latency average = 3.721 ms
initial connection time = 25.084 ms
tps = 17198.226311 (without initial connection time)
"""


def results(**values: list[float]) -> Results:
    """Rounds of `tps` in the measure "simple-64", by target."""
    return Results(
        Sample("simple-64", "tps", target, round_, value)
        for target, rounds in values.items()
        for round_, value in enumerate(rounds)
    )


def test_a_table_shows_the_median_over_rounds_so_one_bad_round_does_not_count() -> None:
    assert results(pgbouncer=[100.0, 1.0, 102.0]).middle("simple-64", "tps", "pgbouncer") == 100.0


def test_a_ratio_compares_what_was_taken_in_one_round() -> None:
    """The machine had half of its speed for a while."""
    taken = results(pgshuttle=[90.0, 45.0, 44.0, 300.0], pgbouncer=[100.0, 50.0, 100.0, 0.0])
    assert taken.ratio("simple-64", "tps", "pgshuttle", "pgbouncer") == 0.9
    taken.samples.append(Sample("simple-1", "tps", "pgbouncer", 1, 90.0))
    assert taken.ratio("simple-64", "tps", "pgshuttle", "pgbouncer", "simple-1") == 0.5


def test_what_was_not_measured_has_no_median_and_no_ratio() -> None:
    taken = results(pgshuttle=[90.0], direct=[0.0])
    assert taken.middle("simple-64", "tps", "pgbouncer") is None
    assert taken.ratio("simple-64", "tps", "pgshuttle", "pgbouncer") is None
    assert taken.ratio("simple-64", "tps", "pgshuttle", "direct") is None


def test_a_figure_without_a_unit_is_refused() -> None:
    with pytest.raises(KeyError):
        Results().add("simple-64", "pgbouncer", 0, {"bogus": 1.0})


@pytest.mark.parametrize(("part", "value"), [(0.0, 1.0), (0.5, 50.0), (0.99, 99.0), (0.999, 100.0), (1.0, 100.0)])
def test_a_percentile_is_the_nearest_rank(part: float, value: float) -> None:
    assert percentile([float(n) for n in range(1, 101)], part) == value


def test_a_percentile_of_one_value_is_that_value() -> None:
    assert percentile([7.0], 0.5) == percentile([7.0], 0.99) == 7.0


def test_a_goal_is_reached_on_its_bound_and_missed_beyond_it() -> None:
    goal = Goal("throughput", "pgshuttle", "simple-64", "tps", "pgbouncer", at_least=0.9)
    assert goal.is_reached(results(pgshuttle=[90.0], pgbouncer=[100.0])) is True
    assert goal.is_reached(results(pgshuttle=[89.0], pgbouncer=[100.0])) is False


def test_a_goal_without_another_target_is_put_to_the_figure_itself() -> None:
    goal = Goal("bytes", "pgshuttle", "simple-64", "tps", at_most=4096)
    assert (goal.value(results(pgshuttle=[4096.0])), goal.is_reached(results(pgshuttle=[4096.0]))) == (4096.0, True)
    assert goal.is_reached(results(pgshuttle=[4097.0])) is False


def test_a_goal_may_speak_of_two_measures() -> None:
    samples = [
        Sample("prepared-64", "cpu_us", "pgshuttle", 0, 23.0),
        Sample("simple-64", "cpu_us", "pgbouncer", 0, 20.0),
    ]
    goal = Goal("CPU", "pgshuttle", "prepared-64", "cpu_us", "pgbouncer", at_most=1.15, than="simple-64")
    assert (goal.value(Results(samples)), goal.asked) == (1.15, "at most 1.15 of pgbouncer's in simple-64")


def test_a_goal_of_lines_is_not_reached_by_the_proxy_without_them() -> None:
    goal = Goal("throughput", "pgshuttle-lines", "simple-64", "tps", "pgbouncer", at_least=0.9)
    assert goal.is_reached(results(pgshuttle=[90.0], pgbouncer=[100.0])) is None


def test_a_goal_that_was_not_measured_is_neither_reached_nor_missed() -> None:
    assert all(goal.is_reached(Results()) is None for goal in GOALS)
    assert "not measured" in Report({}, ["direct"]).to_markdown()


def test_each_goal_speaks_of_a_measure_that_is_taken_from_its_target() -> None:
    measures = {measure.name: measure for measure in MEASURES}
    for goal in GOALS:
        assert goal.target in measures[goal.measure].targets, goal.says
        assert goal.beside is None or goal.beside in measures[goal.than or goal.measure].targets, goal.says
        assert goal.figure in UNITS
        assert (goal.at_least is None) != (goal.at_most is None)


def test_each_measure_has_a_name_of_its_own_and_targets_that_exist() -> None:
    assert len({measure.name for measure in MEASURES}) == len(MEASURES)
    assert all(set(measure.targets) <= set(OPENERS) for measure in MEASURES)


@pytest.mark.parametrize(
    ("value", "words"),
    [(None, "-"), (17311.6, "17,312"), (100.0, "100"), (4.2111, "4.21"), (0.05711, "0.0571"), (0.0, "0")],
)
def test_a_figure_has_three_digits(value: float | None, words: str) -> None:
    assert format_figure(value) == words


def test_a_table_is_markdown() -> None:
    assert table(["a", "b", "c"], [["x", "y", "1"]], words=2) == "| a | b | c |\n| --- | --- | ---: |\n| x | y | 1 |"


def test_the_page_shows_medians_ratios_goals_and_what_was_skipped() -> None:
    report = Report({"date": "today"}, ["direct", "pgbouncer", "pgshuttle"], {"simple-64": "pgbench -S"})
    report.results = results(direct=[200.0], pgbouncer=[1000.0], pgshuttle=[500.0])
    report.note("interrupted")
    page = report.to_markdown()
    assert "- date: today" in page
    assert "## Transactions/s\n\n| measure | direct | pgbouncer | pgshuttle | pgshuttle / pgbouncer |" in page
    assert "| simple-64 | 200 | 1,000 | 500 | 0.50 | 2.50 |" in page
    assert "- interrupted" in page


def test_the_page_puts_each_goal_to_the_figures() -> None:
    report = Report({}, list(OPENERS))
    report.results = Results(
        Sample("simple-64", "tps", target, 0, value)
        for target, value in (("pgbouncer", 100.0), ("pgshuttle-lines", 150.0))
    )
    page = report.to_markdown()
    row = "| reads, 64 clients: throughput | pgshuttle-lines | at least 1.8 of pgbouncer's | **missed** | 1.5 |"
    assert row in page
    assert page.endswith(f"\n\n0 reached, 1 missed, {len(GOALS) - 1} not measured\n")


def test_what_a_target_cannot_do_is_not_available_and_its_reason_is_said_once() -> None:
    report = Report({}, ["direct", "pgbouncer", "pgshuttle"])
    report.results = Results([Sample("prepared-64", "tps", "pgshuttle", 0, 5.0)])
    for _round in range(3):
        report.leave_out("prepared-64", "pgbouncer", "too old")
        report.leave_out("prepared-256", "pgbouncer", "too old")
    page = report.to_markdown()
    assert "| prepared-64 | - | n/a | 5 |" in page
    assert page.count("- pgbouncer (prepared-64, prepared-256): too old") == page.count("too old") == 1
    assert json.loads(report.to_json())["not_measured"] == {
        "too old": [["prepared-64", "pgbouncer"], ["prepared-256", "pgbouncer"]]
    }


def test_the_run_in_short_has_a_row_for_each_figure_that_was_measured_and_says_what_could_not_be() -> None:
    report = Report({}, list(OPENERS))
    report.results = Results(
        Sample("prepared-64", "tps", target, 0, value)
        for target, value in (("direct", 100.0), ("pgshuttle", 80.0), ("pgshuttle-lines", 150.0))
    )
    report.leave_out("prepared-64", "pgbouncer", "too old")
    rows = [line for line in report.to_markdown().splitlines() if "prepared`" in line]
    assert rows == ["| `pgbench -S -M prepared`, 64 clients, transactions/s | 100 | n/a | 80 | 150 | - | - | 1.50 |"]


def test_the_run_in_short_speaks_of_measures_and_figures_that_exist() -> None:
    assert {row.measure for row in ROWS} <= {measure.name for measure in MEASURES}
    assert {row.figure for row in ROWS} <= set(UNITS)


def test_a_picture_is_on_the_page_when_there_is_one() -> None:
    assert "](bench.svg)" in Report({}, [], picture="bench.svg").to_markdown()
    assert "![" not in Report({}, []).to_markdown()


def test_no_ratio_is_shown_against_a_target_that_was_not_asked_for() -> None:
    report = Report({}, ["pgshuttle"], results=results(pgshuttle=[500.0]))
    assert "| measure | pgshuttle |\n" in report.to_markdown()


def test_the_json_holds_every_sample() -> None:
    report = Report({}, ["pgbouncer"], results=results(pgbouncer=[1.0, 2.0]))
    assert [sample["value"] for sample in json.loads(report.to_json())["samples"]] == [1.0, 2.0]


def test_the_closing_words_of_pgbench_are_understood() -> None:
    done = parse(PGBENCH_SAYS)
    assert (done.transactions, done.tps, done.latency_ms) == (16870, 17198.226311, 3.721)


def test_pgbench_without_its_closing_words_has_failed() -> None:
    with pytest.raises(Failed, match="tps"):
        parse(PGBENCH_SAYS.replace("tps", "xxx"))


def test_pgbench_that_did_nothing_has_failed() -> None:
    with pytest.raises(Failed, match="not one transaction"):
        parse("number of transactions actually processed: 0\n")


def test_a_quick_run_does_less_and_what_is_said_counts() -> None:
    quick, said = (
        parse_arguments(["--quick"]),
        parse_arguments(["--quick", "--rounds", "2", "--only", "load-64,logins"]),
    )
    assert (quick.rounds, quick.seconds) == (1, 1.0)
    assert {measure.tier for measure in quick.only} == {Tier.QUICK}
    assert (said.rounds, [measure.name for measure in said.only]) == (2, ["load-64", "logins"])


def test_a_run_without_options_leaves_out_what_is_to_be_asked_for() -> None:
    assert {measure.tier for measure in parse_arguments([]).only} == {Tier.QUICK, Tier.FULL}


def test_a_quick_run_has_fewer_rows_and_clients_and_says_so(tmp_path: Path) -> None:
    whole, quick = (Bench(Cluster(tmp_path, Address("127.0.0.1", 1)), tmp_path, 1.0, share) for share in (1.0, 0.1))
    assert (whole.part(10_000), whole.small_rows, quick.part(10_000), quick.small_rows) == (10_000, 10**6, 1000, 10**5)
    assert "clients are 10% of what is said" in quick.says
    assert "clients" not in whole.says


def test_an_unknown_measure_is_refused_with_the_names_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_arguments(["--only", "simple-64,bogus"])
    assert "no such name: bogus; there are simple-1, " in capsys.readouterr().err


def test_the_total_of_strace_is_found_and_an_empty_summary_counts_nothing() -> None:
    assert (
        parse_total("    calls syscall\n--------- -------\n      110 read\n       34 write\n      144 total\n") == 144
    )
    assert parse_total("") == 0


def test_the_rows_copied_in_are_one_message_each() -> None:
    assert copy_payload(2) == b"d\0\0\0\x061\nd\0\0\0\x062\n"


def test_rows_are_as_many_as_the_run_is_large(tmp_path: Path) -> None:
    bench = Bench(Cluster(tmp_path, Address("127.0.0.1", 1)), tmp_path, 1.0, 0.1)
    assert EQUAL.query(bench) == "SELECT g FROM (SELECT generate_series(1000001, 1000000 + 100000) AS g) AS s"
    assert "1000000 + 30000" in WIDE.query(bench)
