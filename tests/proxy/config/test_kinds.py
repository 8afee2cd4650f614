"""Texts in, values out, and the way back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.passwords import Secret
from proxy.config import kinds
from proxy.config.kinds import AuthType, Kind, PoolMode


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0),
        ("20", 20),
        ("0777", 0o777),
        ("0x10", 16),
        ("0XfF", 255),
        ("+5", 5),
        ("-3", -3),
        ("00", 0),
        ("-010", -8),
    ],
)
def test_numbers_are_read_as_strtol_reads_them_with_base_0(text: str, number: int) -> None:
    assert kinds.parse_number(text) == number


@pytest.mark.parametrize(
    "text", ["", " ", "ten", "1_000", "1.5", "0x", "09", "0b1", "0o17", "5 servers", "٣", "9" * 40]
)
def test_what_is_not_all_number_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a whole number"):
        kinds.parse_number(text)


def test_numbers_are_bounded_on_both_sides() -> None:
    for text in ("-1", "2147483648"):
        with pytest.raises(ValueError, match="outside 0 to 2147483647"):
            kinds.COUNT.parse(text)
    for text in ("-1", "65536"):
        with pytest.raises(ValueError, match="outside 0 to 65535"):
            kinds.PORT.parse(text)


def test_zero_is_none_where_it_means_off_and_zero_where_it_is_zero() -> None:
    assert kinds.COUNT_OR_OFF.parse("0") is None
    assert kinds.COUNT_OR_OFF.parse("0x0") is None
    assert kinds.SECONDS_OR_OFF.parse("0.0") is None
    assert kinds.COUNT_OR_OFF.format(None) == kinds.SECONDS_OR_OFF.format(None) == "0"
    assert kinds.COUNT.parse("0") == 0
    assert kinds.SECONDS.parse("0") == 0.0


@pytest.mark.parametrize(
    ("text", "printed"), [("15", "15"), ("1.50", "1.5"), (".25", "0.25"), ("3600.0", "3600"), ("1e6", "1e+06")]
)
def test_times_may_have_fractions_and_print_as_c_prints_percent_g(text: str, printed: str) -> None:
    assert kinds.SECONDS.format(kinds.SECONDS.parse(text)) == printed


@pytest.mark.parametrize("text", ["", "-1", "nan", "inf", "1e999", "1e11", "5min", "1,5", "0x10", "1" * 70])
def test_a_time_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="seconds"):
        kinds.SECONDS.parse(text)


def test_a_period_cannot_be_zero() -> None:
    with pytest.raises(ValueError, match="no length of time"):
        kinds.DURATION.parse("0")


def test_truth_is_a_number_or_a_word() -> None:
    assert all(kinds.TRUTH.parse(text) for text in ("1", "yes", "ON", "True", "2"))
    assert not any(kinds.TRUTH.parse(text) for text in ("0", "no", "off", "FALSE"))
    assert kinds.TRUTH.format(True) == "1"
    with pytest.raises(ValueError, match="neither 0 nor 1"):
        kinds.TRUTH.parse("maybe")


def test_enumerations_do_not_look_at_case_and_list_their_words_when_refused() -> None:
    assert kinds.POOL_MODE.parse("Transaction") is PoolMode.TRANSACTION
    assert kinds.AUTH_TYPE.parse("SCRAM-SHA-256") is AuthType.SCRAM
    with pytest.raises(ValueError, match="none of session, transaction, statement"):
        kinds.POOL_MODE.parse("lazy")


def test_names_stand_between_commas_or_blanks_and_hosts_between_commas() -> None:
    assert kinds.NAMES.parse("ann, bob  carl,,") == ("ann", "bob", "carl")
    assert kinds.NAMES.parse("") == ()
    assert kinds.HOSTS.parse("127.0.0.1, ::1") == ("127.0.0.1", "::1")
    with pytest.raises(ValueError, match="empty name"):
        kinds.HOSTS.parse("a,,b")
    for text in ("ann, bob  carl,,", "", "a ,b"):
        assert kinds.NAMES.format(kinds.NAMES.parse(text)) == text
    assert kinds.ADDRESSES.format(kinds.ADDRESSES.parse("127.0.0.1 ,::1")) == "127.0.0.1 ,::1"
    assert kinds.NAMES.format(("a", "b")) == "a,b"


def test_a_mode_is_octal_and_a_forgotten_zero_is_noticed() -> None:
    assert kinds.MODE.parse("0770") == 0o770
    assert kinds.MODE.format(0o770) == "0770"
    with pytest.raises(ValueError, match="octal"):
        kinds.MODE.parse("777")


def test_the_check_query_knows_empty_from_none() -> None:
    assert kinds.CHECK_QUERY.parse("<empty>") == ""
    assert kinds.CHECK_QUERY.parse("") is None
    assert kinds.CHECK_QUERY.parse("select 1") == "select 1"


@pytest.mark.parametrize("kind", [kinds.SECRET, kinds.PASSWORD])
def test_a_secret_prints_as_stars_and_is_bounded(kind: Kind[Secret]) -> None:
    assert "hush" not in kind.format(kind.parse("hush"))
    with pytest.raises(ValueError, match="longer than 65530 bytes"):
        kind.parse("é" * 40_000)


def test_names_are_counted_in_bytes() -> None:
    assert kinds.DATABASE_NAME.parse("x" * 63) == "x" * 63
    with pytest.raises(ValueError, match="longer than 63 bytes"):
        kinds.DATABASE_NAME.parse("é" * 32)
    with pytest.raises(ValueError, match="empty"):
        kinds.USER_NAME.parse("")


@given(st.text(), st.sampled_from([kind for kind in vars(kinds).values() if isinstance(kind, Kind)]))
def test_any_text_is_a_value_that_survives_its_printing_or_a_value_error(text: str, kind: Kind[object]) -> None:
    try:
        value = kind.parse(text)
    except ValueError:
        return
    if kind not in (kinds.SECRET, kinds.PASSWORD):
        assert kind.parse(kind.format(value)) == value or kind in (kinds.SECONDS, kinds.SECONDS_OR_OFF, kinds.DURATION)
