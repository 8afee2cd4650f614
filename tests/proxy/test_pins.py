"""Why clients keep their servers: counted, shown and logged without a value of theirs."""

from types import SimpleNamespace

from protocol.inspection import Fact
from proxy.pins import FACTS, MAX_SIGHTS, MAX_STATEMENT, PinBook, PinReason, describe
from tests.fakes import FakeLog


class Client(SimpleNamespace):
    def __init__(self, application="app"):
        log = FakeLog()
        pool = SimpleNamespace(now=lambda: 7.0, world=SimpleNamespace(log=log))
        super().__init__(pool=pool, followed={"application_name": application}, log=log)

    @property
    def tag(self):
        return "C-1"


def test_every_fact_is_a_reason():
    assert set(FACTS) == set(Fact)


def test_a_pin_has_a_moment_and_a_statement_without_values():
    book, client, pins = PinBook(), Client(), {}
    book.enter(client, pins, PinReason.LOCK, b"SELECT pg_advisory_lock(4711)")
    assert pins[PinReason.LOCK].since == 7.0
    assert pins[PinReason.LOCK].statement == "select pg_advisory_lock(?)"
    assert "4711" not in client.log.text
    assert "pinned to its server: advisory lock (application 'app', by: select pg_advisory_lock(?))" in client.log.text


def test_one_reason_counts_once_until_it_is_gone():
    book, client, pins = PinBook(), Client(), {}
    for _ in range(2):
        book.enter(client, pins, PinReason.TEMP, b"a")
    assert (book.counts[PinReason.TEMP].total, book.counts[PinReason.TEMP].now) == (1, 1)
    for _ in range(2):
        book.strike(pins, [PinReason.TEMP, PinReason.LOCK])
    assert (book.counts[PinReason.TEMP].total, book.counts[PinReason.TEMP].now) == (1, 0)
    assert book.counts[PinReason.LOCK].now == 0
    assert not pins


def test_the_log_hears_of_a_reason_once_per_application():
    book, first, second = PinBook(), Client(), Client("other")
    for client in (first, first, second):
        book.enter(client, {}, PinReason.TEMP, b"a")
    assert len(first.log.lines) == len(second.log.lines) == 1


def test_applications_are_not_remembered_without_bound():
    book = PinBook()
    for number in range(MAX_SIGHTS + 10):
        book.enter(Client(f"app {number}"), {}, PinReason.TEMP, b"a")
    assert len(book._sights) == MAX_SIGHTS


def test_a_long_statement_is_cut():
    assert len(describe(b"select " + b"a, " * 1000)) == MAX_STATEMENT
