"""What an operator types, and what becomes of it."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import Refused
from proxy.admin.grammar import MAX_COMMANDS, parse_command, split_commands


def parsed(text: str | bytes) -> tuple[str, str, str]:
    (one,) = split_commands(text.encode() if isinstance(text, str) else text)
    command = parse_command(one)
    return command.verb, command.word, command.value


@pytest.mark.parametrize(
    ("text", "verb", "word"),
    [
        ("SHOW POOLS", "SHOW", "POOLS"),
        ("  show\tpools ; ", "SHOW", "pools"),
        ("reload", "RELOAD", ""),
        ("RELOAD;;", "RELOAD", ""),
        ("select stats", "SHOW", "stats"),
        ('PAUSE "My ""db"""', "PAUSE", 'My "db"'),
        ("PAUSE Shop", "PAUSE", "Shop"),
        ("PAUSE my-db.eu", "PAUSE", "my-db.eu"),
        ("PAUSE käse", "PAUSE", "käse"),
        ("SHUTDOWN WAIT_FOR_CLIENTS;", "SHUTDOWN", "WAIT_FOR_CLIENTS"),
        ("-- who is it\n/* ping */ show version", "SHOW", "version"),
    ],
)
def test_a_command_is_a_verb_and_perhaps_a_word(text: str, verb: str, word: str) -> None:
    assert parsed(text) == (verb, word, "")


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("SET pool_mode = session", "pool_mode", "session"),
        ("set POOL_MODE='session';", "pool_mode", "session"),
        ("SET a TO 'it''s'", "a", "it's"),
        ("SET a to b", "a", "b"),
        ("SET a = ''", "a", ""),
        ("SET server_lifetime=0.5", "server_lifetime", "0.5"),
        ('SET "a" = "b c"', "a", "b c"),
        ("SET auth_file = /etc/users.txt", "auth_file", "/etc/users.txt"),
    ],
)
def test_set_takes_a_word_or_a_string(text: str, key: str, value: str) -> None:
    assert parsed(text) == ("SET", key, value)


@pytest.mark.parametrize("text", ["", " ", ";", " ; ;\n", "-- nothing", "/* nothing */"])
def test_nothing_is_no_command(text: str) -> None:
    assert split_commands(text.encode()) == []


@pytest.mark.parametrize(
    ("text", "commands"),
    [
        ("SHOW POOLS; RELOAD", ["SHOW POOLS", "RELOAD"]),
        ("BEGIN;;COMMIT;", ["BEGIN", "COMMIT"]),
        ("PAUSE \"a;b\"; SET a = 'c;''d'", ['PAUSE "a;b"', "SET a = 'c;''d'"]),
        ("-- a; b\nRELOAD /* c; d */; -- e", ["RELOAD /* c; d */"]),
        ("SET a = 'open; RELOAD", ["SET a = 'open; RELOAD"]),
        ("a / b - c; d", ["a / b - c", "d"]),
    ],
)
def test_several_commands_are_told_apart(text: str, commands: list[str]) -> None:
    assert split_commands(text.encode()) == commands


def test_there_are_not_too_many_of_them() -> None:
    assert len(split_commands(b"RELOAD;" * MAX_COMMANDS)) == MAX_COMMANDS
    with pytest.raises(Refused, match="more than 20 commands"):
        split_commands(b"RELOAD;" * 2_000)
    with pytest.raises(Refused, match="a text of 16390 bytes, the console takes 16384"):
        split_commands(b"RELOAD" + b" " * 16_384)


def test_a_show_may_say_whose_rows() -> None:
    assert parsed("SHOW CLIENTS Shop;") == ("SHOW", "CLIENTS", "Shop")
    assert parsed('select pools "my db"') == ("SHOW", "pools", "my db")


@pytest.mark.parametrize(
    "text",
    ["PAUSE a b", "SHOW a b c", "1", "'", '"', "PAUSE 'x'", "/* open */", "SHOW (", "SET", "SET a"],
)
def test_what_makes_no_sense_is_named_in_the_error(text: str) -> None:
    with pytest.raises(Refused) as refusal:
        parse_command(text)
    assert refusal.value.sqlstate == "42601"
    assert refusal.value.sentence == f"invalid command '{text.rstrip('; ')}', use SHOW HELP;"


def test_a_long_text_is_named_in_part() -> None:
    with pytest.raises(Refused) as refusal:
        parse_command("x" * 60_000)
    assert len(refusal.value.sentence) < 300


@pytest.mark.parametrize("text", ["x" * 16, "PAUSE " + "x" * 64, "SET a = " + "x" * 256, f"SET {'x' * 64} = 1"])
def test_what_is_too_long_has_bad_arguments(text: str) -> None:
    with pytest.raises(Refused, match="bad arguments"):
        parse_command(text)


def test_bytes_that_are_no_utf8_are_read_as_startup_packets_are() -> None:
    assert parsed(b"PAUSE k\xe4se")[1] == b"k\xe4se".decode("utf-8", "surrogateescape")


PIECES = st.sampled_from(
    [b"SHOW", b"SET", b"set", b" TO ", b"=", b";", b"'", b'"', b'""', b"''", b" ", b"a", b"/*", b"*/", b"--", b"\n"]
)


@given(st.one_of(st.binary(max_size=300), st.lists(PIECES, max_size=60).map(b"".join)))
def test_any_bytes_are_a_command_or_nothing_or_an_error(raw: bytes) -> None:
    with contextlib.suppress(Refused):
        for text in split_commands(raw):
            command = parse_command(text)
            assert command.verb == command.verb.upper()
            assert len(command.word.encode("utf-8", "surrogateescape")) <= 63


@pytest.mark.parametrize("piece", [b'"a""', b"/*", b"/**/", b"--\n", b"SET a", b"'", b"= ", b" ;", b"a b"])
def test_a_hostile_text_costs_no_time(piece: bytes) -> None:
    for start in (b"", b"SHOW ", b"SET a = ", b'PAUSE "', b"SET a = '"):
        raw = (start + piece * 20_000)[:16_384]
        with contextlib.suppress(Refused):
            split_commands(raw)
        with contextlib.suppress(Refused):
            parse_command(raw.decode())
