"""Numbers: totals, and what two snapshots make of them."""

from proxy.stats import NAMES, TIMES, Stats, as_fields, describe, new_averages, sum_averages, sum_stats


def test_a_sum_is_of_every_number_and_nothing_is_the_sum_of_none():
    several = [Stats(**dict.fromkeys(NAMES, number)) for number in (1, 2)]
    assert sum_stats(several) == Stats(**dict.fromkeys(NAMES, 3))
    assert sum_stats([]) == Stats()
    assert sum_averages([]).rates() == dict.fromkeys(NAMES, 0)


def test_what_happened_since_is_the_difference():
    assert Stats(query_count=7, sent=100).since(Stats(query_count=3, sent=40)) == Stats(query_count=4, sent=60)


def test_a_copy_does_not_grow_with_the_original():
    stats = Stats(query_count=1)
    copy = stats.copy()
    stats.query_count = 9
    assert copy.query_count == 1


def test_a_query_that_was_a_transaction_counts_as_both_whenever_somebody_asks():
    stats = Stats(query_count=3, xact_count=1, query_time=2.0, xact_time=4.0)
    stats.lone_count, stats.lone_time = 2, 0.5
    copy = stats.copy()
    assert (copy.query_count, copy.xact_count, copy.query_time, copy.xact_time) == (5, 3, 2.5, 4.5)
    assert stats.copy() == copy
    stats.lone_count, stats.lone_time = 1, 1.0
    assert stats.since(copy) == Stats(query_count=1, xact_count=1, query_time=1.0, xact_time=1.0)
    stats.lone_count = 1
    assert sum_stats([stats, stats.copy()]).query_count == 14


def test_before_the_first_period_every_average_is_zero():
    averages = new_averages()
    assert averages.rates() == dict.fromkeys(NAMES, 0.0)


def test_counts_are_averaged_per_second_and_times_per_event():
    averages = new_averages()
    stats = Stats(query_count=100, query_time=5.0, xact_count=20, xact_time=8.0, sent=3000)
    stats.server_assignment_count, stats.wait_time, stats.bind_count = 40, 2.0, 70
    averages.roll(stats, 10.0)
    rates = averages.rates()
    assert (rates["query_count"], rates["xact_count"], rates["sent"], rates["bind_count"]) == (10.0, 2.0, 300.0, 7.0)
    assert (rates["query_time"], rates["xact_time"], rates["wait_time"]) == (0.05, 0.4, 0.05)


def test_an_average_is_about_the_last_period_alone():
    averages, stats = new_averages(), Stats(query_count=100)
    averages.roll(stats, 10.0)
    stats.query_count = 120
    averages.roll(stats, 10.0)
    assert averages.rates()["query_count"] == 2.0


def test_several_pools_are_summed_before_they_are_averaged():
    few, many = new_averages(), new_averages()
    few.roll(Stats(query_count=10, query_time=10.0), 10.0)
    many.roll(Stats(query_count=90, query_time=0.0), 10.0)
    total = sum_averages([few, many])
    assert total.rates()["query_count"] == 10.0
    assert total.rates()["query_time"] == 0.1


def test_the_fields_of_the_line_have_the_names_of_show_stats():
    averages = new_averages()
    averages.roll(Stats(xact_count=4, xact_time=2.0, received=100), 2.0)
    fields = as_fields(averages)
    assert (fields["avg_xact_count"], fields["avg_xact_time"], fields["avg_recv"], fields["avg_sent"]) == (
        2, 500_000, 50, 0,
    )  # fmt: skip


def test_the_line_names_every_time_in_microseconds():
    averages = new_averages()
    averages.roll(Stats(xact_count=1, xact_time=0.5), 1.0)
    line = describe(averages)
    assert "xact 500000 us" in line
    assert all(name.removesuffix("_time") in line for name in TIMES)
