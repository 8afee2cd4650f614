"""A server's messages: bytes as documented, back as they were, cut anywhere, fuzzed."""

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import backend, codes
from protocol.backend import Column, CopyResponse, ErrorFields, Notification
from protocol.errors import ProtocolError

COPY = CopyResponse(0, (0, 1))
SAID = Notification(77, b"jobs", b"42")
COLUMN = Column(b"n", 0, 0, 23, 4, -1, 0)

# What is built, by which parser it is read, as what.
MESSAGES = [
    (backend.build_negotiate(2, ["_pq_.a"]), backend.parse_negotiate, (2, ("_pq_.a",))),
    (backend.build_parameter_status("TimeZone", "UTC"), backend.parse_parameter_status, ("TimeZone", "UTC")),
    (backend.build_ready(codes.FAILED), backend.parse_ready, codes.FAILED),
    (backend.build_row_description([("n", 23, 4)]), backend.parse_row_description, (COLUMN,)),
    (backend.build_row_description([]), backend.parse_row_description, ()),
    (backend.build_data_row(["a", b"b", None, ""]), backend.parse_data_row, (b"a", b"b", None, b"")),
    (backend.build_command_complete("SELECT 1"), backend.parse_command_complete, b"SELECT 1"),
    (backend.build_parameter_description([23, 2**32 - 1]), backend.parse_parameter_description, (23, 2**32 - 1)),
    (backend.build_function_result(b"x"), backend.parse_function_result, b"x"),
    (backend.build_function_result(None), backend.parse_function_result, None),
    (backend.build_copy_response(codes.COPY_IN_RESPONSE, COPY), backend.parse_copy_response, COPY),
    (backend.build_notification(SAID), backend.parse_notification, SAID),
]
AUTHENTICATIONS = [
    (backend.build_authentication_ok(), (codes.AUTH_OK, b"")),
    (backend.build_authentication_cleartext(), (codes.AUTH_CLEARTEXT, b"")),
    (backend.build_authentication_md5(b"salt"), (codes.AUTH_MD5, b"salt")),
    (backend.build_sasl(["SCRAM-SHA-256"]), (codes.AUTH_SASL, b"SCRAM-SHA-256\0\0")),
    (backend.build_sasl_continue(b"r=x"), (codes.AUTH_SASL_CONTINUE, b"r=x")),
    (backend.build_sasl_final(b"v=x"), (codes.AUTH_SASL_FINAL, b"v=x")),
    (backend.build_authentication(codes.AUTH_GSS_CONTINUE, b"token"), (codes.AUTH_GSS_CONTINUE, b"token")),
]
PARSERS = sorted({parser for _, parser, _ in MESSAGES}, key=lambda parser: parser.__name__)
MORE_PARSERS = [
    backend.parse_authentication,
    backend.parse_backend_key,
    backend.parse_md5_salt,
    backend.parse_sasl_mechanisms,
]


@pytest.mark.parametrize(("built", "parse", "value"), MESSAGES)
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


@pytest.mark.parametrize("parse", PARSERS + MORE_PARSERS)
@settings(max_examples=40)
@given(body=st.binary(max_size=60))
def test_any_bytes_parse_or_are_an_error(parse, body):
    with contextlib.suppress(ProtocolError):
        parse(body)


@pytest.mark.parametrize(("built", "value"), AUTHENTICATIONS)
def test_authentication_requests(built, value):
    assert built[:1] == b"R"
    assert backend.parse_authentication(built[5:]) == value


def test_mechanisms_in_the_servers_order():
    rest = backend.parse_authentication(backend.build_sasl(["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"])[5:])[1]
    assert backend.parse_sasl_mechanisms(rest) == ("SCRAM-SHA-256-PLUS", "SCRAM-SHA-256")


@pytest.mark.parametrize("rest", [b"", b"A\0", b"A\0\0x"])
def test_a_list_of_mechanisms_that_does_not_end_well_is_an_error(rest):
    with pytest.raises(ProtocolError):
        backend.parse_sasl_mechanisms(rest)


@pytest.mark.parametrize("salt", [b"", b"abc", b"abcde"])
def test_an_md5_salt_has_four_bytes(salt):
    with pytest.raises(ProtocolError):
        backend.parse_md5_salt(salt)


@pytest.mark.parametrize("size", [8, 36, 260])
def test_keys_of_old_and_new_protocols(size):
    assert backend.parse_backend_key(backend.build_backend_key(b"k" * size)[5:]) == b"k" * size


@pytest.mark.parametrize("size", [0, 4, 7, 261])
def test_keys_of_no_protocol(size):
    with pytest.raises(ProtocolError):
        backend.parse_backend_key(b"k" * size)
    with pytest.raises(ValueError, match="cancel key"):
        backend.build_backend_key(b"k" * size)


def test_messages_byte_by_byte():
    assert backend.build_authentication_ok() == b"R\0\0\0\x08\0\0\0\0"
    assert backend.build_authentication_md5(b"abcd") == b"R\0\0\0\x0c\0\0\0\x05abcd"
    assert backend.build_ready(codes.IDLE) == backend.READY_IDLE_MESSAGE == b"Z\0\0\0\x05I"
    assert backend.build_backend_key(b"pid:key:") == b"K\0\0\0\x0cpid:key:"
    assert backend.build_parameter_status("a", "b") == b"S\0\0\0\x08a\0b\0"
    assert backend.build_command_complete("BEGIN") == b"C\0\0\0\x0aBEGIN\0"
    assert backend.build_data_row(["1", None]) == b"D\0\0\0\x0f\0\x02\0\0\0\x011\xff\xff\xff\xff"
    assert backend.build_row_description([("a", 25, -1)]) == (
        b"T\0\0\0\x1a\0\x01a\0" + b"\0\0\0\0" + b"\0\0" + b"\0\0\0\x19" + b"\xff\xff" + b"\xff\xff\xff\xff" + b"\0\0"
    )
    assert backend.PARSE_COMPLETE_MESSAGE == b"1\0\0\0\x04"
    assert backend.BIND_COMPLETE_MESSAGE == b"2\0\0\0\x04"
    assert backend.CLOSE_COMPLETE_MESSAGE == b"3\0\0\0\x04"
    assert backend.EMPTY_QUERY_MESSAGE == b"I\0\0\0\x04"
    assert backend.NO_DATA_MESSAGE == b"n\0\0\0\x04"
    assert backend.PORTAL_SUSPENDED_MESSAGE == b"s\0\0\0\x04"


def test_negotiation_sends_the_whole_version_and_reads_either():
    assert backend.build_negotiate(2, []) == b"v\0\0\0\x0c\0\x03\0\x02\0\0\0\0"
    assert backend.parse_negotiate(b"\0\0\0\x02\0\0\0\0") == (2, ())
    with pytest.raises(ProtocolError):
        backend.parse_negotiate(b"\0\x03\0\0\xff\xff\xff\xff")


@pytest.mark.parametrize("body", [b"", b"X", b"\0", b"II"])
def test_a_transaction_status_of_no_meaning_is_an_error(body):
    with pytest.raises(ProtocolError):
        backend.parse_ready(body)


# Errors.


def test_an_error_of_ours_byte_by_byte():
    assert backend.build_error("FATAL", "57P01", "bye") == b"E\0\0\0\x1fSFATAL\0VFATAL\0C57P01\0Mbye\0\0"


def test_an_error_survives_the_journey():
    built = backend.build_error("ERROR", "42601", "what?", detail="this", hint="that")
    fields = backend.parse_error(built[5:])
    assert (fields.severity, fields.sqlstate, fields.message) == ("ERROR", "42601", "what?")
    assert (fields.detail, fields.hint) == ("this", "that")
    assert fields.raw == {"S": "ERROR", "V": "ERROR", "C": "42601", "M": "what?", "D": "this", "H": "that"}


def test_a_notice_differs_only_in_its_letter():
    assert backend.build_notice("NOTICE", "00000", "hm")[5:] == backend.build_error("NOTICE", "00000", "hm")[5:]
    assert backend.build_notice("NOTICE", "00000", "hm")[:1] == b"N"


def test_zero_bytes_and_lone_surrogates_do_not_reach_the_client():
    built = backend.build_error("ERROR", "XX000", "a\0b\udcffc", hint="\0")
    assert built.endswith(b"Mab?c\0H\0\0")


def test_the_severity_nobody_translated_counts():
    assert backend.parse_error(b"SFATALE\0VFATAL\0\0").is_fatal
    assert backend.parse_error(b"SPANIC\0\0").is_fatal
    assert not backend.parse_error(b"SFEHLER\0VERROR\0\0").is_fatal
    assert not ErrorFields().is_fatal


@pytest.mark.parametrize("body", [b"", b"\0", b"\0\0\0", b"\0Mlate\0"])
def test_an_error_without_fields_is_empty(body):
    assert backend.parse_error(body) == ErrorFields()


def test_an_error_cut_anywhere_gives_what_is_there():
    body = backend.build_error("FATAL", "28P01", "no such grün")[5:]
    for end in range(len(body) + 1):
        fields = backend.parse_error(body[:end])
        assert fields.sqlstate in ("", "28P01")
        assert "no such grün".startswith(fields.message.rstrip("\ufffd"))


@given(st.binary(max_size=200))
def test_any_bytes_are_some_error(body):
    fields = backend.parse_error(body)
    assert isinstance(fields.message, str)
    assert len(fields.sqlstate) in (0, 5)


@given(st.text(), st.text(), st.text())
def test_any_texts_make_an_error_that_can_be_parsed(message, detail, hint):
    fields = backend.parse_error(backend.build_error("ERROR", "XX000", message, detail=detail, hint=hint)[5:])
    assert fields.sqlstate == "XX000"
    assert fields.message == message.replace("\0", "")
