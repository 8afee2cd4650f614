"""The tables of bytes have no two meanings for one byte."""

from protocol import codes

BOTH_WAYS = ("COPY_DATA", "COPY_DONE")
FRONTEND = (
    *("BIND", "CLOSE", "COPY_FAIL", "DESCRIBE", "EXECUTE", "FLUSH", "FUNCTION_CALL", "PARSE", "PASSWORD", "QUERY"),
    *("SYNC", "TERMINATE"),
)
BACKEND = (
    *(
        "AUTHENTICATION",
        "BACKEND_KEY_DATA",
        "BIND_COMPLETE",
        "CLOSE_COMPLETE",
        "COMMAND_COMPLETE",
        "COPY_BOTH_RESPONSE",
    ),
    *("COPY_IN_RESPONSE", "COPY_OUT_RESPONSE", "DATA_ROW", "EMPTY_QUERY_RESPONSE", "ERROR_RESPONSE"),
    *("FUNCTION_CALL_RESPONSE", "NEGOTIATE_PROTOCOL_VERSION", "NO_DATA", "NOTICE_RESPONSE", "NOTIFICATION_RESPONSE"),
    *("PARAMETER_DESCRIPTION", "PARAMETER_STATUS", "PARSE_COMPLETE", "PORTAL_SUSPENDED", "READY_FOR_QUERY"),
    "ROW_DESCRIPTION",
)
STARTUP = ("PROTOCOL_3_0", "PROTOCOL_3_2", "CANCEL_REQUEST", "SSL_REQUEST", "GSSENC_REQUEST", "SUCCESSION_REQUEST")


def values(names):
    return [getattr(codes, name) for name in names]


def test_one_side_never_means_two_things_by_one_letter():
    for family in (FRONTEND + BOTH_WAYS, BACKEND + BOTH_WAYS):
        assert len(set(values(family))) == len(family)


def test_type_bytes_are_printable_letters_or_digits():
    for letter in values(FRONTEND + BACKEND + BOTH_WAYS):
        assert chr(letter).isalnum()


def test_authentication_requests_differ_and_only_ok_is_zero():
    requests = [value for name, value in vars(codes).items() if name.startswith("AUTH_")]
    assert len(set(requests)) == len(requests)
    assert [name for name in vars(codes) if name.startswith("AUTH_") and not getattr(codes, name)] == ["AUTH_OK"]


def test_first_packets_differ_and_no_request_looks_like_a_version_of_ours():
    assert len(set(values(STARTUP))) == len(STARTUP)
    assert {code >> 16 for code in values(STARTUP[:2])} == {3}
    assert {code >> 16 for code in values(STARTUP[2:5])} == {1234}
    assert codes.SUCCESSION_REQUEST >> 16 not in (2, 3, 1234), "nor like one of PostgreSQL's, old or new"


def test_transaction_statuses_differ():
    assert {codes.IDLE, codes.IN_TRANSACTION, codes.FAILED} == set(b"ITE")


def test_every_letter_is_in_a_family():
    known = {*FRONTEND, *BACKEND, *BOTH_WAYS, *STARTUP, "TLS_HANDSHAKE", "IDLE", "IN_TRANSACTION", "FAILED"}
    rest = {name for name in vars(codes) if name.isupper()} - known
    assert {name for name in rest if not name.startswith(("AUTH_", "MAX_"))} == set()
