"""A client's messages: bytes as documented, back as they were, cut anywhere, fuzzed."""

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import frontend
from protocol.errors import ProtocolError
from protocol.frontend import Bind, Execute, FunctionCall, Parse, SaslInitial, Target

BIND = Bind(b"p", b"s", (0, 1), (b"x", None), (1,))
CALL = FunctionCall(2**32 - 1, (1,), (b"a", None, b""), 1)

# What is built, by which parser it is read, as what.
MESSAGES = [
    (frontend.build_query("select 1"), frontend.parse_query, b"select 1"),
    (frontend.build_function_call(CALL), frontend.parse_function_call, CALL),
    (frontend.build_parse(b"s", b"select $1", [23]), frontend.parse_parse, Parse(b"s", b"select $1", (23,))),
    (frontend.build_bind(BIND), frontend.parse_bind, BIND),
    (frontend.build_bind(Bind(b"", b"")), frontend.parse_bind, Bind(b"", b"")),
    (frontend.build_close(frontend.STATEMENT, b"s"), frontend.parse_close, Target(ord("S"), b"s")),
    (frontend.build_describe(frontend.PORTAL, b""), frontend.parse_describe, Target(ord("P"), b"")),
    (frontend.build_execute(b"p", 7), frontend.parse_execute, Execute(b"p", 7)),
    (frontend.build_execute(b"", -1), frontend.parse_execute, Execute(b"", -1)),
    (frontend.build_copy_fail("no"), frontend.parse_copy_fail, b"no"),
    (frontend.build_password("geheim"), frontend.parse_password, b"geheim"),
    (
        frontend.build_sasl_initial("SCRAM-SHA-256", b"n,,"),
        frontend.parse_sasl_initial,
        SaslInitial("SCRAM-SHA-256", b"n,,"),
    ),
    (frontend.build_sasl_initial("X", None), frontend.parse_sasl_initial, SaslInitial("X", None)),
]
UNCUTTABLE = [  # any bytes at all are a body of these
    (frontend.build_copy_data(b"1\t2\n"), frontend.parse_copy_data, b"1\t2\n"),
    (frontend.build_sasl_response("c=biws"), frontend.parse_sasl_response, b"c=biws"),
]
PARSERS = sorted({parser for _, parser, _ in MESSAGES + UNCUTTABLE}, key=lambda parser: parser.__name__)


@pytest.mark.parametrize(("built", "parse", "value"), MESSAGES + UNCUTTABLE)
def test_what_is_built_can_be_parsed(built, parse, value):
    assert int.from_bytes(built[1:5], "big") == len(built) - 1
    assert parse(built[5:]) == value


@pytest.mark.parametrize(("built", "parse", "value"), MESSAGES)
def test_a_body_that_is_cut_or_too_long_is_an_error(built, parse, value):
    body = built[5:]
    for end in range(len(body)):
        with pytest.raises(ProtocolError):
            parse(body[:end])
    with pytest.raises(ProtocolError):
        parse(body + b"\0")


@pytest.mark.parametrize("parse", PARSERS)
@settings(max_examples=40)
@given(body=st.binary(max_size=60))
def test_any_bytes_parse_or_are_an_error(parse, body):
    with contextlib.suppress(ProtocolError):
        parse(body)


def test_a_statement_that_is_run_leaves_its_unit_open():
    whole = frontend.build_parse(b"", b"begin") + frontend.build_bind(Bind(b"", b"")) + frontend.build_execute(b"")
    assert frontend.build_run(b"begin") == whole


def test_messages_byte_by_byte():
    assert frontend.build_query("BEGIN") == b"Q\0\0\0\x0aBEGIN\0"
    assert frontend.build_parse(b"", b"select $1", [20]) == b"P\0\0\0\x15\0select $1\0\0\x01\0\0\0\x14"
    assert frontend.build_bind(Bind(b"", b"s", (), (b"42", None), (0,))) == (
        b"B\0\0\0\x19\0s\0\0\0\0\x02\0\0\0\x0242\xff\xff\xff\xff\0\x01\0\0"
    )
    assert frontend.build_describe(frontend.STATEMENT, b"s") == b"D\0\0\0\x07Ss\0"
    assert frontend.build_close(frontend.PORTAL, b"") == b"C\0\0\0\x06P\0"
    assert frontend.build_execute(b"") == b"E\0\0\0\x09\0\0\0\0\0"
    assert frontend.build_sasl_initial("A", b"xy") == b"p\0\0\0\x0cA\0\0\0\0\x02xy"
    assert frontend.SYNC_MESSAGE == b"S\0\0\0\x04"
    assert frontend.FLUSH_MESSAGE == b"H\0\0\0\x04"
    assert frontend.TERMINATE_MESSAGE == b"X\0\0\0\x04"
    assert frontend.COPY_DONE_MESSAGE == b"c\0\0\0\x04"


@pytest.mark.parametrize(
    ("parse", "body"),
    [
        (frontend.parse_bind, b"\0\0\0\0\xff\xff\0\0"),  # 65,535 values, none there
        (frontend.parse_bind, b"\0\0\0\0\0\x01\xff\xff\xff\xfe\0\0"),  # a length of -2
        (frontend.parse_bind, b"\0\0\0\0\0\x01\x7f\xff\xff\xffabc\0\0"),  # a length of 2 GB
        (frontend.parse_parse, b"\0\0\xff\xff"),
        (frontend.parse_describe, b"Xname\0"),
        (frontend.parse_close, b"\0name\0"),
        (frontend.parse_sasl_initial, b"SCRAM-SHA-256\0\x80\0\0\0"),
        (frontend.parse_query, b"two\0texts\0"),
    ],
)
def test_lies_are_errors(parse, body):
    with pytest.raises(ProtocolError):
        parse(body)


def test_65535_parameters_are_allowed():
    bind = Bind(b"", b"", (), (None,) * 65535)
    assert frontend.parse_bind(frontend.build_bind(bind)[5:]) == bind
    with pytest.raises(ValueError, match="does not fit"):
        frontend.build_bind(Bind(b"", b"", (), (None,) * 65536))


def test_a_name_cannot_carry_a_zero_byte_out():
    with pytest.raises(ValueError, match="zero byte"):
        frontend.build_close(frontend.STATEMENT, b"a\0b")


@given(st.binary().filter(lambda raw: b"\0" not in raw), st.lists(st.integers(0, 2**32 - 1), max_size=5))
def test_parse_survives_the_journey(text, oids):
    assert frontend.parse_parse(frontend.build_parse(text, text, oids)[5:]) == Parse(text, text, tuple(oids))
