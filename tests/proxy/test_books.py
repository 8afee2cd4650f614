"""Which shape a text has, how many are remembered, and what becomes of those that had to go."""

import gc

import pytest

from protocol.frontend import build_query
from protocol.sharing import Verdict
from proxy import books
from proxy.books import OTHERS, Book


@pytest.fixture
def book(monkeypatch):
    monkeypatch.setattr(books, "MAX_SHAPES", 3)
    monkeypatch.setattr(books, "MAX_KNOWN", 4)
    return Book(frozenset(), 0.005, 1_000)


def names(book):
    return [shape.sketch for shape in book]


def test_texts_that_differ_in_their_values_have_one_shape(book):
    shape = book.find_query(build_query("select 1"))
    assert book.find(b"select 23") is shape
    assert book.known == {build_query("select 0"): shape}
    assert book.find(b"select 'a', 1") is book.find(b"select 'bb', 22")
    assert book.find(b'select "a"') is book.unread
    assert book.find_none(build_query("select 1")) is book.unread


def test_long_ones_are_not_remembered(book):
    """They differ in how many values they have, and there is no end of these."""
    for count in range(300, 310):
        assert book.find(b"select a from t where b in (" + b", ".join([b"$1"] * count) + b")") is book.unread
    assert not book.shapes
    assert book.find(b"select '" + b"x" * 3_000 + b"'") is book.find(b"select 'y'")


def test_a_query_without_strings_is_known_however_long_it_is(book):
    """A length may look like a quote."""
    shape = book.find_query(build_query("select " + "a" * (ord("'") - 12)))
    assert list(book.known.values()) == [shape]


def test_a_statement_remembers_its_shape(book):
    statement = type("Statement", (), {"text": b"select $1", "shape": None})()
    assert book.find_statement(statement) is statement.shape is book.find(b"select $2")


def test_what_has_no_shape_is_known_by_what_it_looks_like(book):
    shape = book.find_any(b'select "a" from t where b = 1 /* trace=1 */', "UTF8")
    assert shape.sketch == 'select "a" from t where b = ?'
    assert shape.verdict is Verdict.UNREAD
    assert book.find_any(b'select "a" from t where b = 22 /* trace=9 */', "UTF8") is shape
    assert book.find_any(b'select  "a" from t where b=3', "UTF8") is shape, "its outline is another, its sketch is not"
    assert book.find_any(b"select 1", "UTF8") is book.find(b"select 2")


def test_who_was_not_used_goes_first_and_is_among_the_others(book):
    used, unused = book.find(b"select a"), book.find(b"select b")
    used.note(0.001, 10)
    unused.errors = 2
    for name in b"cde":
        book.find(b"select " + bytes([name]))
    assert "select a" in book.shapes
    assert "select b" not in book.shapes
    assert (book.others.errors, book.others.sketch) == (2, OTHERS)
    assert len(book.shapes) == 3


def test_even_if_all_were_used_one_goes(book):
    for name in b"abcd":
        book.find(b"select " + bytes([name])).note(0.001, 10)
    assert len(book.shapes) == 3
    assert book.others.calls == 1


def test_one_that_had_to_go_is_shown_as_long_as_somebody_knows_it(book):
    known = book.find(b"select a")
    for name in b"bcd":
        book.find(b"select " + bytes([name]))
    assert "select a" not in book.shapes
    known.note(0.001, 10)
    assert "select a" in names(book)
    del known
    gc.collect()
    assert "select a" not in names(book)


def test_a_flood_of_new_texts_does_not_take_the_place_of_those_that_are_used(book):
    hot = book.find(b"select hot")
    for number in range(100):
        hot.note(0.001, 10)
        book.find_any(f"select {'x' * number}".encode(), "")
        book.find_any(f'select "{"x" * number}"'.encode(), "")
    assert book.find(b"select hot") is hot
    assert (len(book.shapes), len(book.strange)) == (3, 3)
    assert len(book._outlines) <= 4


def test_what_was_measured_is_forgotten_and_who_is_trusted_stays_so(book):
    shape = book.find(b"select a")
    for _ in range(3):
        shape.note(0.001, 10)
    book.others.add(shape)
    book.clear()
    assert (shape.calls, shape.spent, book.others.calls) == (0, 0.0, 0)
    assert shape.is_trusted


def test_when_a_function_is_vouched_for_no_longer_its_callers_lose_their_trust_whoever_knows_them(book):
    book.adapt(frozenset({b"f"}), 0.005, 1_000, is_sharing=True, is_tracking=False)
    gone, here = book.find(b"select f(1)"), book.find(b"select f(1), a")
    here.seen = -1
    for shape in (gone, here):
        for _ in range(3):
            shape.note(0.001, 10)
        assert shape.is_trusted
    del book.shapes[gone.key]
    book._former.add(gone)
    book.adapt(frozenset(), 0.005, 1_000, is_sharing=True, is_tracking=False)
    assert not any((gone.is_trusted, gone.is_fit, here.is_trusted, here.is_fit))
    assert here.verdict is Verdict.CALLS


def test_where_nobody_shares_nobody_is_trusted(book):
    shape = book.find(b"select a")
    book.adapt(frozenset(), 0.005, 1_000, is_sharing=False, is_tracking=True)
    for each in (shape, book.find(b"select b")):
        for _ in range(9):
            each.note(0.001, 10)
        assert not each.is_trusted
    book.adapt(frozenset(), 0.005, 1_000, is_sharing=True, is_tracking=True)
    assert shape.is_fit
    assert shape.calls == 9, "what was measured outlasts a reload"
