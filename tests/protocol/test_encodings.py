"""Encodings: ASCII is never touched, what is known goes there and back, what is not is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.encodings import CODECS, from_utf8, is_known, to_utf8

STRANGE = ("EUC_JP", "EUC_KR", "SJIS", "BIG5", "EUC_TW", "MULE_INTERNAL", "KLINGON", "")


@pytest.mark.parametrize("encoding", [*CODECS, *STRANGE])
def test_ascii_passes_in_every_encoding_known_or_not(encoding):
    text = bytes(range(1, 128))
    assert to_utf8(text, encoding) is text
    assert from_utf8(text, encoding) is text


@pytest.mark.parametrize(
    ("encoding", "theirs"),
    [
        ("LATIN1", b"na\xefve"),
        ("WIN1252", b"\x80"),
        ("KOI8R", b"\xd2"),
        ("GB18030", b"\xb0\xa1"),
        ("UTF8", b"\xc3\xa9"),
    ],
)
def test_what_is_known_goes_there_and_back(encoding, theirs):
    ours = to_utf8(theirs, encoding)
    assert ours.decode("utf-8")
    assert from_utf8(ours, encoding) == theirs


@pytest.mark.parametrize("name", ["Latin-1", "iso-8859-1", "ISO_8859_1", "latin1", "LATIN1"])
def test_names_are_compared_as_postgresql_compares_them(name):
    assert to_utf8(b"\xe9", name) == "é".encode()
    assert is_known(name)


@pytest.mark.parametrize("encoding", STRANGE)
def test_what_is_not_known_is_refused(encoding):
    assert not is_known(encoding)
    for translate in (to_utf8, from_utf8):
        with pytest.raises(ValueError, match="nothing but ASCII"):
            translate("é".encode(), encoding)


def test_a_character_the_encoding_lacks_is_refused():
    with pytest.raises(ValueError, match="can't encode"):
        from_utf8("€".encode(), "LATIN1")


def test_bytes_that_are_not_of_the_encoding_are_refused():
    for encoding in ("UTF8", "SQL_ASCII", "WIN1252"):
        with pytest.raises(ValueError, match="decode"):
            to_utf8(b"\x81", encoding)


def test_for_sql_ascii_bytes_stay_what_they_are():
    assert to_utf8("é".encode(), "SQL_ASCII") == "é".encode()
    assert from_utf8(b"\xff", "SQL_ASCII") == b"\xff"


@given(st.sampled_from(sorted(CODECS)), st.binary(max_size=40))
def test_whatever_can_be_read_comes_back_the_same_or_is_refused(encoding, text):
    try:
        ours = to_utf8(text, encoding)
        again = to_utf8(from_utf8(ours, encoding), encoding)
    except ValueError:
        return
    assert again == ours
