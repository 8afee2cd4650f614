"""auth_query: what is asked, and that no answer says more than one secret of the one who was asked for."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import codes
from protocol.authquery import (
    DEBTS,
    MAX_ANSWER,
    BadQuery,
    BadRow,
    build_auth_query,
    hide_secrets,
    parse_secret,
)
from protocol.backend import build_command_complete, build_data_row, build_notice, build_ready, build_row_description
from protocol.framing import HEADER_SIZE
from protocol.frontend import parse_bind, parse_parse
from protocol.ledger import REQUESTS, Answer, Ledger
from protocol.passwords import Md5, Plain, ScramVerifier, Secret, build_verifier

QUERY = "SELECT rolname, rolpassword FROM pg_authid WHERE rolname=$1"
NAME, TEXT, INT, CITEXT = 19, 25, 23, 16_500
VERIFIER = build_verifier(ScramVerifier(4096, b"salt", b"s" * 32, b"k" * 32))


def shape(*types):
    return build_row_description([(f"c{number}", kind, -1) for number, kind in enumerate(types)])


def answer(*rows, types=(NAME, TEXT)):
    after = build_command_complete(f"SELECT {len(rows)}") + build_ready(codes.IDLE)
    return before() + shape(*types) + b"".join(map(build_data_row, rows)) + after


def before():
    """The end of what makes PostgreSQL's own names come first, and the beginning of the query's answer."""
    return b"1\0\0\0\4" + b"2\0\0\0\4" + build_command_complete("SELECT 0") + b"1\0\0\0\4" + b"2\0\0\0\4"


def messages(data):
    while data:
        length = int.from_bytes(data[1:5], "big") + 1
        yield data[0], data[HEADER_SIZE:length]
        data = data[length:]


def test_the_name_is_a_bound_value_and_never_a_part_of_the_text():
    name = "x' OR true; --$1"
    said = list(messages(build_auth_query(QUERY, name)))
    assert [REQUESTS[kind] for kind, _ in said] == list(DEBTS)
    assert parse_parse(said[3][1]).query == QUERY.encode()
    assert parse_bind(said[4][1]).values == (name.encode(),)
    assert parse_bind(said[1][1]).values == (), "what makes PostgreSQL's own names come first has nothing of the name"
    assert name.encode() not in b"".join(body for kind, body in said if kind != codes.BIND)


@pytest.mark.parametrize("said", [answer(["ann", "x"]), answer(), b"E\0\0\0\4Z\0\0\0\5I"])
def test_an_answer_or_an_error_pays_all_of_it(said):
    ledger = Ledger()
    ledger.expect(DEBTS, object())
    assert Answer.UNASKED not in [ledger.settle(kind) for kind, _ in messages(said)]
    assert ledger.is_settled


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("swordfish", Plain(Secret("swordfish"))),
        ("md5" + "0" * 32, Md5("0" * 32)),
        (None, Plain(Secret(""))),
        ("", Plain(Secret(""))),
    ],
)
def test_one_row_is_one_secret_of_whichever_form(text, stored):
    assert parse_secret(answer(["ann", text]), "ann") == (stored,)
    assert parse_secret(answer([text], types=(TEXT,)), "ann") == (stored,)


def test_a_verifier_is_a_verifier():
    (stored,) = parse_secret(answer(["ann", VERIFIER]), "ann")
    assert isinstance(stored, ScramVerifier)


def test_no_row_and_a_row_without_a_name_are_nobody():
    assert parse_secret(answer(), "ann") == parse_secret(answer([None, None]), "ann") == ()


def test_notices_in_between_are_not_for_us():
    warned = build_notice("WARNING", "01000", "request for ann") + answer(["ann", "x"])
    assert parse_secret(warned, "ann") == (Plain(Secret("x")),)


def test_a_name_that_postgresql_cuts_is_believed_only_where_it_is_told():
    """Else whoever knows the password of x...x (63 bytes) could call himself by any longer name."""
    name = 63 * "x"
    assert parse_secret(answer(["pw"], types=(TEXT,)), name) == (Plain(Secret("pw")),)
    assert parse_secret(answer([name + "x", "pw"], types=(TEXT, TEXT)), name + "x") == (Plain(Secret("pw")),)
    with pytest.raises(BadRow, match="without a name"):
        parse_secret(answer(["pw"], types=(TEXT,)), name + "x")


def test_an_answer_for_somebody_else_is_for_nobody():
    with pytest.raises(BadRow, match="for somebody else"):
        parse_secret(answer(["anna", "x"]), "ann")
    with pytest.raises(BadRow, match="more than one row"):
        parse_secret(answer(["ann", "x"], ["ann", "y"]), "ann")
    with pytest.raises(BadRow, match="SCRAM verifier is not of the form"):
        parse_secret(answer(["ann", "SCRAM-SHA-256$secret"]), "ann")
    with pytest.raises(BadRow, match="longer than"):
        parse_secret(answer(["ann", "x" * 70_000]), "ann")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (answer(["ann", "1"], types=(NAME, INT)), r"column 2 of auth_query is no text .*OID 23"),
        (answer(["7", "x"], types=(INT, TEXT)), "column 1 of auth_query is no text"),
        (answer(["a", "b", "c"], types=(TEXT, TEXT, TEXT)), "expected 1 or 2 columns from auth_query, not 3"),
        (answer([], types=()), "expected 1 or 2 columns from auth_query, not 0"),
        (answer(["a"], types=(TEXT, TEXT)), "rows of another width"),
        (build_command_complete("SET"), "no rows at all"),
        (b"n\0\0\0\4" + build_command_complete("INSERT 0 1"), "no rows at all"),
        (answer(["ann", "x"])[:-1], "it is cut"),
        (b"D\0\0\0\1", "it is cut"),
    ],
)
def test_a_query_that_is_no_auth_query_is_said_to_be_none(data, words):
    with pytest.raises(BadQuery, match=words):
        parse_secret(data, "ann")


def test_types_that_somebody_has_made_are_taken_at_their_word():
    assert parse_secret(answer(["ann", "x"], types=(CITEXT, TEXT)), "ann")


def test_no_error_holds_a_secret():
    with pytest.raises(BadRow) as bad:
        parse_secret(answer(["ann", "SCRAM-SHA-256$hidden"]), "ann")
    assert "hidden" not in str(bad.value)
    quoted = f'invalid input syntax for type integer: "{VERIFIER}" near md5{"0" * 32}'
    assert hide_secrets(quoted) == 'invalid input syntax for type integer: "*** near ***'


@given(st.binary(max_size=300))
def test_whatever_is_said_is_read_or_refused(data):
    with contextlib.suppress(BadQuery, BadRow):
        parse_secret(data, "ann")


def test_the_longest_secret_fits_into_an_answer():
    assert len(answer(["ann", "x" * 65_530])) < MAX_ANSWER
