"""The rounds that drivers send all day are known at a glance, and are exactly what the general way would send."""

import pytest

from protocol.effects import Reading
from protocol.frontend import Bind, build_bind, build_execute, build_parse
from protocol.ledger import BIND, DESCRIBE, EXECUTE, PARSE, SYNC
from proxy.rounds import recognise_named, recognise_unnamed, send_named
from tests.play import Play, asked, client, released, server, to_client, to_server

PREPARED = [("B:a E S", (BIND, EXECUTE, SYNC)), ("B:a D E S", (BIND, DESCRIBE, EXECUTE, SYNC))]


def a_play():
    play = Play(session_state="track") >> client("PARSE:a=select_1 S") >> server("1 t T Z:I")
    play.hear("server"), play.hear("client")
    return play


@pytest.mark.parametrize(("words", "debts"), PREPARED)
def test_a_round_of_a_named_statement(words, debts):
    assert recognise_named(asked(words)) == debts
    play = a_play() >> client(words) << to_server(words.replace(":a", ":PGSHUTTLE_1"))
    assert play.server.ledger.owners() == [play.client] * len(debts)
    play >> server("2 C Z:I" if len(debts) == 3 else "2 T C Z:I") << released


@pytest.mark.parametrize(("words", "debts"), PREPARED)
def test_a_round_of_the_unnamed_statement(words, debts):
    data, play = asked("PARSE:=select_1 " + words.replace(":a", "")), a_play()
    assert recognise_unnamed(play.client, data) == (PARSE, *debts)
    assert play.client.unnamed_said == asked("PARSE:=select_1")
    play >> client(data) << to_server(data)
    assert play.server.unnamed is play.client.unnamed == asked("PARSE:=select_1")


@pytest.mark.parametrize(
    "words",
    [
        "B:a E", "B:a S", "B:a E S S", "B:a D D E S", "B:a E:p S", "BIND:p=a E:p S", "Q:select_1", "B:a E H",
        "PARSE:a=select_1 B E S", "B:a D:p E S", "PARSE:=select_1 B:a E S", "PARSE:=set_work_mem_=_1 B E S",
        "PARSE:=select_1 BIND:p= E S",
    ],
)  # fmt: skip
def test_what_looks_a_little_different_goes_the_general_way(words):
    play = a_play()
    if "=a" not in words or "E:p" in words:
        assert recognise_named(asked(words)) is None
    assert recognise_unnamed(play.client, asked(words)) is None


@pytest.mark.parametrize("words", ["B:a E S", "PARSE:=select_1 B E S"])
def test_whatever_is_missing_it_is_no_round(words):
    data, play = asked(words), a_play()
    for end in range(1, len(data)):
        assert recognise_named(data[:end]) is None
        assert recognise_unnamed(play.client, data[:end]) is None


@pytest.mark.parametrize(("words", "debts"), PREPARED)
def test_a_round_that_asks_for_one_row_is_as_usual(words, debts):
    one = asked(words.removesuffix("E S")) + build_execute(b"", 1) + asked("S")
    assert recognise_named(one) == debts
    data = asked("PARSE:=select_1 " + words.replace(":a", "").removesuffix("E S")) + build_execute(b"", 1) + asked("S")
    assert recognise_unnamed(a_play().client, data) == (PARSE, *debts)


@pytest.mark.parametrize("text", ["begin", "COMMIT", "rollback", "savepoint a", "commit and chain"])
def test_what_does_nothing_that_lasts_is_as_usual_without_a_name(text):
    play = a_play()
    data = build_parse(b"", text.encode()) + asked("B E S")
    assert recognise_unnamed(play.client, data) == (PARSE, *PREPARED[0][1])
    assert play.client.unnamed_text == b""


@pytest.mark.parametrize("text", ["set x = 1", "listen a", "deallocate all", "do ''", "begin; set x = 1"])
def test_what_may_last_is_not(text):
    assert recognise_unnamed(a_play().client, build_parse(b"", text.encode()) + asked("B E S")) is None


def test_whoever_is_stalled_is_told_of_all_that_happens_in_its_transaction():
    play = a_play()
    play.client.stall = object()
    assert recognise_unnamed(play.client, asked("PARSE:=commit B E S")) is None


def test_a_limited_execute_is_no_round():
    assert recognise_named(asked("B:a") + build_execute(b"", 5) + asked("S")) is None


def test_lengths_that_lie_are_no_round():
    data = bytearray(asked("B:a E S"))
    for length in (0, 3, 4, 2**31, 2**32 - 1):
        data[1:5] = length.to_bytes(4, "big")
        assert recognise_named(bytes(data)) is None
    data = bytearray(asked("PARSE:=select_1 B E S"))
    for length in (0, 3, 4, 2**31, 2**32 - 1):
        data[1:5] = length.to_bytes(4, "big")
        assert recognise_unnamed(a_play().client, bytes(data)) is None


@pytest.mark.parametrize("values", [(), (b"", None, b"x" * 50)])
def test_values_are_left_alone(values):
    play = a_play() >> client(build_bind(Bind(b"", b"a", (), values)) + asked("E S"))
    play << to_server(build_bind(Bind(b"", b"PGSHUTTLE_1", (), values)) + asked("E S"))


def test_a_portal_keeps_its_name():
    play = a_play() >> client(build_bind(Bind(b"p", b"a")) + asked("E S"))
    play << to_server(build_bind(Bind(b"p", b"PGSHUTTLE_1")) + asked("E S"))


def test_what_is_not_there_or_means_more_goes_the_general_way():
    play = a_play()
    (one,) = play.server.statements
    sent = []
    play.server_socket.write = sent.append

    def is_sent():
        return send_named(play.client, play.server, asked("B:a E S"), b"")

    for name, value in (("is_outdated", True), ("reading", Reading(is_lasting=True))):
        before = getattr(one, name)
        setattr(one, name, value)
        assert not is_sent()
        setattr(one, name, before)
    play.server.arriving[one] = object()
    assert not is_sent()
    play.server.arriving.clear()
    play.client.tags = {b"": ([], None)}
    assert not is_sent()
    play.client.tags = None
    play.server.ledger.skipping = True
    assert not is_sent()
    play.server.ledger.skipping = False
    assert is_sent()
    assert len(sent) == 1


def test_a_round_that_follows_another_before_that_is_answered():
    play = a_play() >> client("B:a E S") >> client("B:a D E S") << to_server("B:PGSHUTTLE_1 E S B:PGSHUTTLE_1 D E S")
    play >> server("2 C Z:I 2 T C Z:I") << to_client("2 C Z:I 2 T C Z:I") << released


def test_parse_is_recognised_only_without_a_name():
    assert recognise_unnamed(a_play().client, build_parse(b"x", b"select 1") + asked("B E S")) is None
