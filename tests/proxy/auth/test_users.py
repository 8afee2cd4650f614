"""The auth_file: PgBouncer's format, all mistakes at once, and never a secret in them."""

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.passwords import Md5, Plain, ScramVerifier, Secret
from proxy.auth import users
from proxy.auth.users import NOBODY, BadUserFile, Users, parse_users, read_users

MD5 = "md5" + "0" * 32
SCRAM = "SCRAM-SHA-256$4096:c2FsdA==$" + "A" * 43 + "=:" + "A" * 43 + "="


def parse(text: str) -> Users:
    return parse_users(text, "users.txt")


def mistakes(text: str) -> tuple[str, ...]:
    with pytest.raises(BadUserFile) as refusal:
        parse(text)
    return refusal.value.mistakes


def plain(*passwords: str) -> tuple[Plain, ...]:
    return tuple(Plain(Secret(each)) for each in passwords)


def test_each_line_is_a_user_and_a_secret() -> None:
    found = parse(f'"joe" "swordfish"\n"jim" "{MD5}"\n"ann" "{SCRAM}"\n')
    assert found.secrets_of("joe") == plain("swordfish")
    assert found.secrets_of("jim") == (Md5("0" * 32),)
    assert found.secrets_of("ann") == (ScramVerifier(4096, b"salt", bytes(32), bytes(32)),)
    assert found.secrets_of("bob") == ()
    assert len(found) == 3


def test_comments_blank_lines_and_the_rest_of_a_line_say_nothing() -> None:
    found = parse('; a comment "x" "y"\n  # another\n\n \t\r\n  "joe"\t "a" "ignored" too\r\n"jim" "b"')
    assert dict(found.secrets) == {"joe": plain("a"), "jim": plain("b")}


def test_two_quotes_inside_quotes_are_one() -> None:
    assert dict(parse('"a""b" "c""""d"').secrets) == {'a"b': plain('c""d')}


def test_only_a_newline_ends_a_line() -> None:
    assert dict(parse('"joe" "a\x0b\x85\u2028b"').secrets) == {"joe": plain("a\x0b\x85\u2028b")}


def test_an_empty_secret_is_a_known_user_without_a_password() -> None:
    found = parse('"joe" ""')
    assert found.secrets_of("joe") == plain("")
    assert found.password_of("joe") is None


def test_of_several_lines_of_a_user_all_count_and_the_last_one_first() -> None:
    assert parse('"joe" "old"\n"jim" "x"\n"joe" "new"\n"joe" "new"').secrets_of("joe") == plain("new", "old")
    assert parse('"joe" "old"\n"joe" "new"\n"joe" "old"').secrets_of("joe") == plain("old", "new")


def test_a_user_has_at_most_eight_secrets() -> None:
    lines = [f'"joe" "{number}"' for number in range(9)]
    assert len(parse("\n".join(lines[:8])).secrets_of("joe")) == 8
    assert mistakes("\n".join(lines)) == ('users.txt:9: user "joe" has more than 8 secrets',)


def test_we_log_in_to_postgresql_with_the_password_or_else_its_md5() -> None:
    found = parse(f'"joe" "{MD5}"\n"joe" "a"\n"jim" "{MD5}"\n"ann" "{SCRAM}"')
    assert found.password_of("joe") == Secret("a")
    assert found.password_of("jim") == Md5("0" * 32)
    assert found.password_of("ann") is None
    assert found.password_of("bob") is None


def test_strangers_meet_scram_where_most_users_do() -> None:
    assert parse(f'"a" "{SCRAM}"\n"b" "{SCRAM}"\n"c" "x"').mostly_scram
    assert not parse(f'"a" "{SCRAM}"\n"b" "x"').mostly_scram
    assert not NOBODY.mostly_scram


@pytest.mark.parametrize(
    ("line", "mistake"),
    [
        ("joe swordfish", "a user name in double quotes is missing"),
        ('"joe swordfish', "the user name has no closing quote"),
        ('"joe" swordfish', 'a secret in double quotes is missing (user "joe")'),
        ('"joe"', 'a secret in double quotes is missing (user "joe")'),
        ('"joe""swordfish"', 'a secret in double quotes is missing (user "joe"swordfish")'),
        ('"joe" "swordfish', 'the secret has no closing quote (user "joe")'),
        ('"joe" "swordfish""', 'the secret has no closing quote (user "joe")'),
        ('"" "swordfish"', "the user name is empty"),
        (f'"{"é" * 64}" "swordfish"', "the user name is longer than 127 bytes"),
        ('"j\0e" "swordfish"', "a control character in the user name"),
        ('"joe" "sword\0fish"', 'a zero byte in the secret (user "joe")'),
        ('"joe" "SCRAM-SHA-256$1:swordfish"', "the SCRAM verifier is not of the form"),
        (f'"joe" "{"swordfish" * 8000}"', "the secret is longer than 65530 bytes"),
    ],
)
def test_a_mistake_is_named_without_the_secret(line: str, mistake: str) -> None:
    (found,) = mistakes(f'"ok" "fine"\n{line}\n')
    assert found.startswith(f"users.txt:2: {mistake}")
    assert "swordfish" not in found.replace('joe"swordfish', "")


def test_all_mistakes_are_told_at_once_but_no_more_than_twenty() -> None:
    assert [each.split(": ")[0] for each in mistakes('x\n"joe" "a"\ny')] == ["users.txt:1", "users.txt:3"]
    many = mistakes("x\n" * 25)
    assert len(many) == 21
    assert many[-1] == "and 5 more"


def test_users_do_not_show() -> None:
    assert repr(parse('"joe" "swordfish"')) == "Users(1 users)"


names = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S"]), min_size=1, max_size=15)
passwords = st.text(st.characters(codec="utf-8", exclude_characters="\n\0"), max_size=20).filter(
    lambda text: not text.startswith("SCRAM-SHA-256$")  # that is a verifier, and a damaged one is a mistake
)


@given(st.dictionaries(names, passwords, max_size=5))
def test_any_quoted_names_and_passwords_read_back(written: dict[str, str]) -> None:
    quoted = "\n".join('"{}" "{}"'.format(*(each.replace('"', '""') for each in pair)) for pair in written.items())
    assert dict(parse(quoted).secrets) == {name: plain(password) for name, password in written.items()}


@given(st.text(st.sampled_from('"a b\\\n;md5\0'), max_size=40))
def test_any_text_is_users_or_mistakes(text: str) -> None:
    with suppress(BadUserFile):
        assert all(parse(text).secrets.values())


def test_a_file_is_read_whatever_its_encoding(tmp_path: Path) -> None:
    path = tmp_path / "users.txt"
    path.write_bytes(b'\xef\xbb\xbf"joe" "gr\xfcn"\n"jim" "gr\xc3\xbcn"\n')
    found = read_users(str(path))
    assert found.secrets_of("joe") == (Plain(Secret.decode(b"gr\xfcn")),)
    assert found.secrets_of("jim") == plain("grün")


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    with pytest.raises(BadUserFile, match=r"absent\.txt: cannot be read: No such file or directory"):
        read_users(str(tmp_path / "absent.txt"))
    with pytest.raises(BadUserFile, match="is a folder"):
        read_users(str(tmp_path))


def test_a_file_without_end_is_not_read_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(users, "MAX_FILE_SIZE", 1000)
    with pytest.raises(BadUserFile, match="/dev/zero: is larger than 1000 bytes"):
        read_users("/dev/zero")


def test_users_without_end_are_not_counted_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(users, "MAX_USERS", 3)
    assert mistakes('"a" ""\n"b" ""\n"c" ""\n"a" "x"\n"d" ""\n"e" ""\n') == ("users.txt:5: more than 3 users",)
