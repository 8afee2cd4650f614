"""Numbers: totals, and what two snapshots make of them."""

from proxy.stats import NAMES, TIMES, Stats, describe, new_averages, sum_averages


def test_adding_adds_every_number():
    total = Stats(**dict.fromkeys(NAMES, 1))
    total.add(Stats(**dict.fromkeys(NAMES, 2)))
    assert total == Stats(**dict.fromkeys(NAMES, 3))


def test_what_happened_since_is_the_difference():
    assert Stats(query_count=7, sent=100).since(Stats(query_count=3, sent=40)) == Stats(query_count=4, sent=60)


def test_a_copy_does_not_grow_with_the_original():
    stats = Stats(query_count=1)
    copy = stats.copy()
    stats.query_count = 9
    assert copy.query_count == 1


def test_before_the_first_period_every_average_is_zero():
    averages = new_averages()
    assert {averages.of(name) for name in NAMES} == {0.0}


def test_counts_are_averaged_per_second_and_times_per_event():
    averages = new_averages()
    averages.roll(Stats(query_count=100, query_time=5.0, sent=3000), 10.0)
    assert averages.of("query_count") == 10.0
    assert averages.of("query_time") == 0.05
    assert averages.of("sent") == 300.0


def test_an_average_is_about_the_last_period_alone():
    averages, stats = new_averages(), Stats(query_count=100)
    averages.roll(stats, 10.0)
    stats.query_count = 120
    averages.roll(stats, 10.0)
    assert averages.of("query_count") == 2.0


def test_several_pools_are_summed_before_they_are_averaged():
    few, many = new_averages(), new_averages()
    few.roll(Stats(query_count=10, query_time=10.0), 10.0)
    many.roll(Stats(query_count=90, query_time=0.0), 10.0)
    total = sum_averages([few, many])
    assert total.of("query_count") == 10.0
    assert total.of("query_time") == 0.1


def test_the_line_names_every_time_in_microseconds():
    averages = new_averages()
    averages.roll(Stats(xact_count=1, xact_time=0.5), 1.0)
    line = describe(averages)
    assert "xact 500000 us" in line
    assert all(name.removesuffix("_time") in line for name in TIMES)
