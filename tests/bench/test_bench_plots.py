"""The points that the picture is drawn from, and the picture where matplotlib is installed."""

import importlib.util
import sys
from pathlib import Path

import pytest

from tests.bench.figures import Results, Sample
from tests.bench.measures import MEASURES, READS
from tests.bench.plots import NAME, STYLES, draw, find_points
from tests.bench.processes import Failed
from tests.bench.targets import OPENERS

HAS_MATPLOTLIB = importlib.util.find_spec("matplotlib") is not None
SMALL = 60_000  # bytes: the picture is kept beside the documents


def taken(*measures: str) -> Results:
    return Results(
        Sample(measure, figure, target, 0, 1000.0 + number)
        for number, measure in enumerate(measures)
        for figure in ("tps", "p99_ms")
        for target in ("direct", "pgbouncer")
    )


def test_a_curve_is_what_each_number_of_clients_gave_by_number() -> None:
    results = taken("simple-256", "simple-4", "prepared-64", "simple-64")
    assert find_points(results, "tps", "direct") == [(4, 1001.0), (64, 1003.0), (256, 1000.0)]


def test_a_point_is_the_median_over_rounds() -> None:
    results = Results(Sample("simple-4", "tps", "direct", n, value) for n, value in enumerate([7.0, 9.0, 8.0]))
    assert find_points(results, "tps", "direct") == [(4, 8.0)]


def test_a_target_that_was_not_measured_has_no_curve() -> None:
    assert find_points(taken("simple-4"), "tps", "pgshuttle") == []


def test_every_target_has_a_colour_and_every_number_of_clients_its_measure() -> None:
    assert set(STYLES) == set(OPENERS)
    assert {f"simple-{clients}" for clients in READS} <= {measure.name for measure in MEASURES}


def test_one_number_of_clients_is_no_curve_and_no_picture(tmp_path: Path) -> None:
    assert draw(taken("simple-64"), ["direct"], "", tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib_the_report_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(Failed, match="matplotlib is not installed"):
        draw(taken("simple-4", "simple-64"), ["direct"], "", tmp_path)


@pytest.mark.skipif(not HAS_MATPLOTLIB, reason="matplotlib is not installed")
def test_the_picture_shows_each_target_that_was_measured_and_is_small(tmp_path: Path) -> None:
    results = taken(*(f"simple-{clients}" for clients in READS))
    assert draw(results, list(OPENERS), "on a machine", tmp_path) == NAME
    picture = (tmp_path / NAME).read_text()
    assert len(picture) < SMALL
    assert ">PgBouncer</text>" in picture
    assert ">pgshuttle</text>" not in picture
    assert ">on a machine</text>" in picture
