"""The SQLSTATEs are well-formed and each has one name."""

from protocol import sqlstate

CODES = {name: value for name, value in vars(sqlstate).items() if name.isupper()}


def test_every_code_is_five_digits_or_capitals():
    for name, code in CODES.items():
        assert len(code) == 5, name
        assert code.isascii(), name
        assert code.isalnum(), name
        assert code == code.upper(), name


def test_no_code_has_two_names():
    assert len(set(CODES.values())) == len(CODES)


def test_the_codes_drivers_decide_by():
    assert sqlstate.INVALID_PASSWORD == "28P01"
    assert sqlstate.TOO_MANY_CONNECTIONS == "53300"
    assert sqlstate.QUERY_CANCELED == "57014"
    assert sqlstate.ADMIN_SHUTDOWN == "57P01"
    assert sqlstate.PROTOCOL_VIOLATION == "08P01"
