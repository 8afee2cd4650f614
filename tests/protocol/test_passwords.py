"""Stored secrets: every form reads back as it was, nothing shows, and a password fits its own secret only."""

import base64
import copy
import hmac
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.passwords import (
    MAX_STORED_LENGTH,
    BadSecret,
    LearntKeys,
    Md5,
    Plain,
    ScramKeys,
    ScramVerifier,
    Secret,
    Signer,
    build_verifier,
    derive_salted_password,
    is_md5_password,
    is_md5_response,
    is_plain_password,
    is_scram_password,
    md5_response,
    md5_stored,
    parse_stored,
    prepare,
)

KEY = base64.b64encode(bytes(32)).decode()
SALT = base64.b64encode(b"salt").decode()


def verifier_of(password: str, salt: bytes = b"salt", iterations: int = 2) -> ScramVerifier:
    salted = derive_salted_password(Secret(password), salt, iterations)
    return ScramKeys.from_salted_password(salted).verifier(salt, iterations)


def test_a_secret_shows_nowhere() -> None:
    secret = Secret("hunter2")
    assert f"{secret} {secret!r} {secret:>5} {secret!s} {[secret]}" == "*** ***   *** *** [***]"
    assert secret.reveal() == "hunter2"


@pytest.mark.parametrize(
    "value", [Plain(Secret("hunter2")), md5_stored(Secret("hunter2"), "x"), verifier_of("hunter2"), parse_stored("abc")]
)
def test_no_stored_form_shows_its_secret(value: object) -> None:
    shown = repr(value) + str(value)
    assert "***" in shown
    assert "hunter2" not in shown
    assert "abc" not in shown
    assert "x" not in shown.replace("Secret", "")


def test_keys_do_not_show() -> None:
    assert repr(ScramKeys(b"a", b"b", b"c")) == "ScramKeys(***)"


def test_secrets_are_equal_when_their_passwords_are() -> None:
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert len({Secret("a"), Secret("a"), Secret("b")}) == 2


def test_a_secret_does_not_leave_in_a_pickle() -> None:
    with pytest.raises(TypeError):
        pickle.dumps(Secret("a"))
    with pytest.raises(TypeError):
        copy.copy(Secret("a"))


@given(st.binary(max_size=100))
def test_bytes_that_are_not_utf8_survive_in_a_secret(raw: bytes) -> None:
    assert Secret.decode(raw).encode() == raw


@given(st.text(st.characters(), max_size=20))
def test_any_text_at_all_has_wire_bytes(text: str) -> None:
    assert isinstance(Secret(text).encode(), bytes)
    assert isinstance(prepare(Secret(text)), bytes)


def test_the_three_forms_are_told_apart_by_their_beginning() -> None:
    assert parse_stored("md5" + "0123456789abcdef" * 2) == Md5("0123456789abcdef" * 2)
    assert parse_stored(f"SCRAM-SHA-256$4096:{SALT}${KEY}:{KEY}") == ScramVerifier(4096, b"salt", bytes(32), bytes(32))
    assert parse_stored("swordfish") == Plain(Secret("swordfish"))


@pytest.mark.parametrize(
    "text", ["", "md5", "md5" + "0" * 31, "md5" + "0" * 33, "md5" + "A" * 32, "md5" + "0" * 32 + "\n", "SCRAM-SHA-256"]
)
def test_what_only_resembles_a_stored_form_is_a_password(text: str) -> None:
    assert parse_stored(text) == Plain(Secret(text))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "4096",
        f"4096:{SALT}${KEY}",
        f"0:{SALT}${KEY}:{KEY}",
        f"-1:{SALT}${KEY}:{KEY}",
        f"10000001:{SALT}${KEY}:{KEY}",
        f"{'9' * 5000}:{SALT}${KEY}:{KEY}",
        f"4096:${KEY}:{KEY}",
        f"4096:====${KEY}:{KEY}",
        f"4096:c2FsdA${KEY}:{KEY}",
        f"4096:c2FsdB==${KEY}:{KEY}",
        f"4096:{base64.b64encode(bytes(1025)).decode()}${KEY}:{KEY}",
        f"4096:{SALT}${KEY[4:]}:{KEY}",
        f"4096:{SALT}${KEY}:{KEY[4:]}",
        f"4096:{SALT}${KEY}:{KEY}:",
        f"4096:{SALT}${KEY}:{KEY}\n",
        f"4096:{SALT}${KEY}: {KEY}",
        f"4096:{SALT}${KEY}:é{KEY}",
    ],
)
def test_a_damaged_verifier_is_refused_without_showing_it(text: str) -> None:
    with pytest.raises(BadSecret) as refusal:
        parse_stored("SCRAM-SHA-256$" + text)
    assert KEY not in str(refusal.value)
    assert len(str(refusal.value)) < 200


def test_a_secret_has_a_largest_length_in_bytes() -> None:
    parse_stored("x" * MAX_STORED_LENGTH)
    for text in ("x" * (MAX_STORED_LENGTH + 1), "é" * (MAX_STORED_LENGTH // 2 + 1)):
        with pytest.raises(BadSecret, match="longer than 65530 bytes"):
            parse_stored(text)


keys = st.binary(min_size=32, max_size=32)


@given(st.builds(ScramVerifier, st.integers(1, 10_000_000), st.binary(min_size=1, max_size=40), keys, keys))
def test_a_verifier_reads_back_as_it_was_written(verifier: ScramVerifier) -> None:
    assert parse_stored(build_verifier(verifier)) == verifier


@given(st.text(max_size=60))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    for candidate in (text, "md5" + text, "SCRAM-SHA-256$" + text):
        try:
            parse_stored(candidate)
        except BadSecret:
            continue


def test_md5_is_that_of_postgresql() -> None:
    stored = md5_stored(Secret("secret"), "joe")
    assert stored.digits == "c59ec932d911ffdf487595b5a2adf973"  # md5sum of "secretjoe"
    assert md5_response(stored, b"\1\2\3\4").startswith("md5")
    assert len(md5_response(stored, b"\1\2\3\4")) == 35


def test_only_the_right_password_fits() -> None:
    stored = md5_stored(Secret("secret"), "joe")
    assert is_md5_password(stored, "joe", Secret("secret"))
    assert not is_md5_password(stored, "jim", Secret("secret"))
    assert not is_md5_password(stored, "joe", Secret("Secret"))
    response = md5_response(stored, b"salt").encode()
    assert is_md5_response(stored, b"salt", response)
    assert not is_md5_response(stored, b"tlas", response)
    assert not is_md5_response(stored, b"salt", b"\xff")
    assert is_plain_password(Plain(Secret("a")), Secret("a"))
    assert not is_plain_password(Plain(Secret("a")), Secret("b"))


def test_an_empty_stored_password_fits_nothing() -> None:
    assert not is_plain_password(Plain(Secret("")), Secret(""))


@given(st.text(max_size=8), st.text(max_size=8))
@settings(max_examples=50)
def test_a_salted_password_fits_its_own_verifier_only(right: str, wrong: str) -> None:
    stored = verifier_of(right)
    salted = derive_salted_password(Secret(wrong), stored.salt, stored.iterations)
    assert is_scram_password(stored, salted) == (prepare(Secret(right)) == prepare(Secret(wrong)))


def test_the_salted_password_is_that_of_rfc_7677() -> None:
    salted = derive_salted_password(Secret("pencil"), base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ=="), 4096)
    assert salted.hex() == "c4a49510323ab4f952cac1fa99441939e78ea74d6be81ddf7096e87513dc615d"


@pytest.mark.parametrize(
    ("password", "prepared"),
    [
        ("I\u00adX", "IX"),  # RFC 4013 section 3: soft hyphen maps to nothing
        ("user", "user"),
        ("USER", "USER"),  # case is kept
        ("\u00aa", "a"),  # NFKC
        ("\u2168", "IX"),
        ("\u00a0x", " x"),  # a space that is not ASCII
        ("a\u200bé", "a é"),  # in two tables: PostgreSQL makes it a space
        ("\x07", "\x07"),  # ASCII is never looked at
        ("é\x07", "é\x07"),  # forbidden, so raw
        ("\u0627\u0031", "\u0627\u0031"),  # right to left, but not to its end: raw
        ("\u0627\u0031\u0628", "\u0627\u0031\u0628"),
        ("\u0627\u00aa\u0627", "\u0627\u00aa\u0627"),  # both directions: raw, and so not NFKC
        ("\u00ad", "\u00ad"),  # would be empty: raw
        ("\u00aa\U0001f600", "\u00aa\U0001f600"),  # unassigned in Unicode 3.2: raw
        ("", ""),
    ],
)
def test_passwords_are_prepared_as_postgresql_does(password: str, prepared: str) -> None:
    assert prepare(Secret(password)) == prepared.encode()


def test_a_password_that_is_not_utf8_is_hashed_as_it_is() -> None:
    assert prepare(Secret.decode(b"\xe9\xaa")) == b"\xe9\xaa"


def test_what_was_learnt_of_a_client_does_not_show() -> None:
    keys = ScramKeys(b"client", b"server", b"stored")
    assert repr(LearntKeys(keys, b"salt", 4096)) == "LearntKeys(***)"
    assert f"{LearntKeys(keys, b'salt', 4096)}" == "LearntKeys(***)"


@given(st.binary(max_size=64), st.lists(st.binary(max_size=200), min_size=1, max_size=3))
def test_a_signer_signs_as_hmac_does_each_time(key: bytes, texts: list[bytes]) -> None:
    signer = Signer(key)
    for text in texts:
        assert signer.sign(text) == hmac.digest(key, text, "sha256")


def test_a_verifier_keeps_its_signers_and_is_the_same_with_and_without() -> None:
    used, unused = (ScramVerifier(4096, b"salt", b"a" * 32, b"b" * 32) for _ in range(2))
    with_stored, with_server = used.signers
    assert with_stored.sign(b"text") == hmac.digest(b"a" * 32, b"text", "sha256")
    assert with_server.sign(b"text") == hmac.digest(b"b" * 32, b"text", "sha256")
    assert used.signers == (with_stored, with_server)
    assert used == unused
    assert hash(used) == hash(unused)
    assert "aaa" not in repr(used)
