"""The short ways: who takes them, who does not, and that they make no difference to anybody."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import answers, codes
from protocol.backend import build_command_complete, build_ready
from protocol.framing import HEADER_SIZE
from protocol.frontend import build_query, build_run
from proxy import dispatch, rounds
from proxy.client import Client
from proxy.pins import PinReason
from proxy.requests import BEGINS, ENDS
from proxy.session import Session
from proxy.shortcuts import Shortcuts
from proxy.states import ACTIVE, BEGUN, GONE, WAITING
from tests.play import Play, another_client, asked, client, released, said, server, stays_linked, to_client, to_server
from tests.proxy.test_stalls import FakeHub

STARTED = build_command_complete("BEGIN") + build_ready(codes.IN_TRANSACTION)
BEGUN_THERE = said("RAN:BEGIN")
q = build_query


def a_play(**more):
    return Play(**{"session_state": "track", "deferred_begin": True, **more})


@pytest.fixture
def short_only(monkeypatch):
    """The general way is closed."""

    def refuse(self, data):
        raise AssertionError(f"{data!r} went the general way")

    monkeypatch.setattr(Client, "_receive", refuse)
    monkeypatch.setattr("proxy.server.Server._receive", refuse)


@pytest.fixture
def in_general(monkeypatch):
    """What goes the general way, in order."""
    seen, receive = [], Client._receive

    def note(self, data):
        seen.append(data)
        receive(self, data)

    monkeypatch.setattr(Client, "_receive", note)
    return seen


# Who takes them.


@pytest.mark.parametrize(("begin", "end"), [*zip(sorted(BEGINS), sorted(ENDS), strict=True)])
def test_a_transaction_from_its_begin_to_its_end(begin, end, short_only):
    play = a_play() >> client(begin) << to_client(BEGINS[begin]) << to_server("")
    (
        play
        >> client("Q:update_t_set_a_=_1")
        << to_server(build_run(begin[HEADER_SIZE:-1]) + asked("Q:update_t_set_a_=_1"))
    )
    play >> server("RAN:BEGIN C:UPDATE_1 Z:T") << to_client("C:UPDATE_1 Z:T") << stays_linked
    play >> client("Q:select_1") >> server("T D C:SELECT_1 Z:T") << to_client("T D C:SELECT_1 Z:T")
    play << to_server("Q:select_1") >> client(end) << to_server(end) >> server("C:COMMIT Z:I")
    play << to_client("C:COMMIT Z:I") << released
    stats = play.client.pool.stats
    stats.fold()
    assert (stats.xact_count, stats.query_count) == (1, 4)


def test_each_answer_is_one_write_and_so_is_the_begin_with_what_follows_it(short_only):
    play = a_play() >> client("Q:begin") >> client("Q:insert_into_t_values_(1)")
    assert len(play.client_socket.written) == len(play.server_socket.written) == 1
    play >> server("RAN:BEGIN") << to_client(STARTED) >> server("C:INSERT_0_1 Z:T") << to_client("C:INSERT_0_1 Z:T")
    play >> client("Q:commit") >> server("C:COMMIT Z:I") << released
    assert len(play.client_socket.written) == 3
    assert len(play.server_socket.written) == 2


@pytest.mark.parametrize("words", ["B:a E S", "B:a D E S", "PARSE:=select_1 B E S", "PARSE:=select_1 B D E S"])
def test_a_round_in_a_transaction_or_outside(words, monkeypatch):
    play = a_play() >> client("PARSE:a=select_1 S") >> server("1 t T:x Z:I") << released
    play.hear("client"), play.hear("server")
    monkeypatch.setattr(Client, "_receive", None)
    heard = words.replace(":a", ":PGSHUTTLE_1")
    answer = ("1 2" if "PARSE" in words else "2") + (" T:x" if " D " in words else "") + " D C:SELECT_1 "
    play >> client(words) << to_server(heard) >> server(answer + "Z:I") << to_client(answer + "Z:I") << released
    monkeypatch.undo()
    play >> client("Q:begin") >> client("Q:select_1") >> server("RAN:BEGIN C Z:T")
    play.hear("client"), play.hear("server")
    monkeypatch.setattr(Client, "_receive", None)
    play >> client(words) << to_server(heard) >> server(answer + "Z:T") << to_client(answer + "Z:T") << stays_linked


def test_a_prepared_commit_is_no_more_than_another_round():
    play = a_play() >> client("PARSE:b=begin PARSE:c=commit S") >> server("1 t n 1 t n Z:I") << released
    play.hear("client"), play.hear("server")
    play >> client("B:b D E S") << to_server("B:PGSHUTTLE_1 D E S") >> server("2 n C:BEGIN Z:T") << stays_linked
    play >> client("B:c D E S") << to_server("B:PGSHUTTLE_2 D E S") >> server("2 n C:COMMIT Z:I") << released
    play << to_client("2 n C:BEGIN Z:T 2 n C:COMMIT Z:I")


def test_who_finds_no_server_waits_with_begin_and_query_and_gets_both_sent(short_only):
    play = a_play() >> client("Q:select_0") << to_server("Q:select_0") >> another_client
    play >> client("Q:begin") >> client("Q:update_t_set_a_=_1")
    assert play.client.state is WAITING
    play >> server("C:SELECT_1 Z:I") << to_server("RUN:begin Q:update_t_set_a_=_1")
    play >> server("RAN:BEGIN C:UPDATE_1 Z:T") << to_client(STARTED + said("C:UPDATE_1 Z:T"))


# Who does not.


@pytest.mark.parametrize(
    "text",
    ["begin isolation level serializable", "begin isolation level repeatable read", "begin read only", "Begin",
     " begin", "begin work", "begin; select 1", "begin;;", "begin -- now", "start transaction read only",
     "set x = 1", "do ''"],
)  # fmt: skip
def test_what_is_not_the_usual_begin_goes_the_general_way(text, in_general):
    a_play().__rshift__(client(q(text)))
    assert in_general == [q(text)]


@pytest.mark.parametrize(
    "text",
    ["commit and chain", "rollback and chain", "commit and no chain", "rollback to a", "commit prepared 'a'",
     "commit; select 1", "abort", "end work", "savepoint a", "begin", "set local x = 1", "do ''", "Commit"],
)  # fmt: skip
def test_what_is_not_the_usual_end_goes_the_general_way(text, in_general):
    play = a_play() >> client("Q:begin") >> client("Q:select_1") >> server("RAN:BEGIN C Z:T")
    assert not in_general
    play >> client(q(text))
    assert in_general == [q(text)]


@pytest.mark.parametrize("text", ["commit", "rollback", "set local x = 1", "begin", "truncate t"])
def test_so_does_what_is_not_plain_behind_a_begin(text, in_general):
    play = a_play() >> client("Q:begin")
    assert play.client.state is BEGUN
    play >> client(q(text))
    assert in_general == [q(text)]


@pytest.mark.parametrize("words", ["Q:begin", "Q:select_1", "Q:commit"])
def test_wherever_it_is_cut_and_whatever_comes_with_it(words, in_general):
    data = asked(words)
    for cut in range(1, len(data)):
        a_play() >> client(data[:cut]) >> client(data[cut:])
        assert in_general == [data[:cut], data[cut:]]
        in_general.clear()
    a_play() >> client(data + asked("Q:select_2"))
    assert in_general == [data + asked("Q:select_2")]


def test_what_comes_before_the_last_is_answered(in_general):
    a_play() >> client("Q:begin") >> client("Q:select_1") >> client("Q:commit") >> client("B E S")
    assert in_general == [asked("Q:commit"), asked("B E S")]


@pytest.mark.parametrize(
    "limits",
    [{"deferred_begin": False}, {"pool_mode": "statement"}, {"pool_mode": "session"}, {"session_state": "audit"}],
)
def test_where_no_begin_is_deferred_none_is_answered_by_us(limits):
    play = a_play(**limits) >> client("Q:begin") << to_client("") << to_server("Q:begin")
    assert play.client.state is ACTIVE


def test_where_simple_queries_are_forbidden_neither_begin_nor_its_end_passes():
    for words in ("Q:begin", "Q:commit", "Q:select_1"):
        play = a_play(disable_pqexec=True) >> client(words) << to_server("")
        assert play.client.state is GONE


def test_where_every_statement_is_tracked_there_are_no_short_ways(in_general):
    play = a_play(track_statements=True, idle_transaction_timeout=5.0) >> client("Q:begin") >> client("Q:select_1")
    play >> server("RAN:BEGIN C Z:T") >> client("B E S")
    assert in_general == [asked("Q:begin"), asked("Q:select_1"), asked("B E S")]


def test_in_statement_mode_a_begin_still_ends_the_client():
    play = a_play(pool_mode="statement") >> client("Q:begin") >> server("C:BEGIN Z:T")
    assert play.client.state is GONE
    assert b"C\0" not in play.hear("client")


def test_a_failed_transaction_is_ended_like_any_other(short_only, monkeypatch):
    play = a_play() >> client("Q:begin") >> client("Q:select_1/0")
    monkeypatch.undo()
    play >> server("RAN:BEGIN ERROR:zero Z:E") << to_client(STARTED + said("ERROR:zero Z:E")) << stays_linked
    play >> client("Q:commit") >> server("C:ROLLBACK Z:I") << to_client("C:ROLLBACK Z:I") << released


@pytest.mark.parametrize("notice", ["N:careful", "S:TimeZone=CET", "A:news"])
@pytest.mark.parametrize("at", [0, len(BEGUN_THERE), -1])
def test_a_word_in_between_reaches_whom_it_reaches_in_general(notice, at, monkeypatch):
    data = BEGUN_THERE + said("C Z:T")
    data = data[:at] + said(notice) + data[at:] if at >= 0 else data + said(notice)
    heard = []
    for _ in range(2):
        play = a_play() >> client("Q:begin") >> client("Q:select_1") >> server(data) << stays_linked
        heard.append(play.hear("client"))
        monkeypatch.setattr(dispatch, "hear_begun", lambda server, data: data)
    assert heard[0] == heard[1]
    assert (said(notice) in heard[0]) == (notice == "A:news" or at != 0)


def test_a_begin_that_fails_ends_the_client_and_nothing_behind_it_has_run():
    """The server skips all up to our Sync."""
    play = a_play() >> client("Q:begin") >> client("Q:select_1") >> server("ERROR:no")
    assert play.client.state is GONE
    assert b"no" in play.hear("client")
    play << to_server("RUN:begin Q:select_1 R") >> server("Z:I")
    assert play.server.ledger.is_settled


def test_whose_server_dies_in_the_begin_hears_why_once():
    play = a_play() >> client("Q:begin") >> client("Q:select_1") >> server("FATAL:shutdown")
    assert play.client.state is ACTIVE
    play >> (lambda play: play.server.eof_received())
    assert play.client.state is GONE
    heard = play.hear("client")
    assert heard.count(b"shutdown") == 1
    assert heard.count(b"FATAL") == 2  # once localized, once not


def test_the_answer_to_a_begin_of_the_clients_own_is_its_own():
    play = a_play(deferred_begin=False) >> client("Q:begin Q:select_1") >> server(STARTED + said("C Z:T"))
    play << to_client(STARTED + said("C Z:T")) << stays_linked
    assert len(play.client_socket.written) == 1


def test_a_client_that_keeps_its_server_says_begin_there(in_general):
    play = a_play() >> client("Q:select_1")
    play.client.session = Session()
    play.client.session.pins[PinReason.TEMP] = object()
    play >> server("C Z:I") << stays_linked
    play >> client("Q:begin") >> server(STARTED) << to_client(said("C Z:I") + STARTED)
    assert in_general == [asked("Q:begin")]
    play >> client("Q:commit") >> server("C:COMMIT Z:I") << stays_linked
    assert in_general == [asked("Q:begin")]


# Where idle transactions are ended.


def test_what_must_be_noted_is_noted_on_the_short_way(short_only):
    play = a_play(idle_transaction_timeout=5.0)
    for words, answer in (("Q:begin", ""), ("Q:update_t_set_a_=_1", "RAN:BEGIN C:UPDATE_1 Z:T"),
                          ("Q:select_1", "C Z:T"), ("Q:commit", "C:COMMIT Z:I")):  # fmt: skip
        play.world.advance(1.0)
        play >> client(words)
        assert play.client.pool.habits.notes[play.client] == (play.world.clock.now(), asked(words)[HEADER_SIZE:-1])
        play >> server(answer)
    play << released


# It makes no difference.

SAID = [
    "Q:begin", "Q:BEGIN;", "Q:start_transaction", "Q:commit", "Q:ROLLBACK;", "Q:end", "Q:select_1",
    "Q:update_t_set_a_=_1",
    "Q:begin_read_only", "Q:commit_and_chain", "Q:fail", "Q:rows", "Q:set_x_=_1", "B:a E S", "B:a D E S",
    "PARSE:=select_1 B D E S", "PARSE:=fail B E S", "PARSE:=set_x_=_1 B E S", "Q:begin Q:select_1",
    "Q:select_1 Q:commit",
    "PARSE:=begin B E S", "PARSE:=commit B E S", "B:c E S", "S", "H",
]  # fmt: skip


PREPARED = {b"PGSHUTTLE_1": b"select 1", b"PGSHUTTLE_2": b"commit"}


class Backend:
    """Answers what it hears as PostgreSQL would, more or less."""

    def __init__(self):
        self.status, self.is_skipping, self.text = "I", False, b""

    def answer(self, heard):
        pos, pieces = 0, []
        while pos + HEADER_SIZE <= len(heard):
            end = pos + 1 + int.from_bytes(heard[pos + 1 : pos + 5], "big")
            pieces.append(self._answer_one(chr(heard[pos]), heard[pos + HEADER_SIZE : end]))
            pos = end
        return b"".join(pieces)

    def _answer_one(self, kind, body):
        if kind == "S":
            self.is_skipping = False
            return said(f"Z:{self.status}")
        if self.is_skipping:
            return b""
        if kind == "Q":
            return self._run(body[:-1]) + said(f"Z:{self.status}")
        if kind == "P":
            self.text = body.split(b"\0")[1]
        if kind == "B" and (name := body.split(b"\0")[1]):
            if name not in PREPARED:
                self.is_skipping = True
                return said("MISSING:no")
            self.text = PREPARED[name]
        if kind == "E":
            answer = self._run(self.text)
            self.is_skipping = answer.startswith(b"E")
            return answer
        known = {"P": "1", "B": "2", "C": "3", "H": ""}
        return said(known[kind] if kind != "D" else ("t T:x" if body.startswith(b"S") else "T:x"))

    def _run(self, text):
        word = text.lower().rstrip(b";").split(b" ")[0].decode()
        if self.status == "E" and word not in ("commit", "rollback", "end"):
            return said("ERROR:failed")
        if word == "fail":
            self.status = "E" if self.status != "I" else "I"
            return said("ERROR:no")
        if word in ("begin", "start"):
            self.status = "T"
        if word in ("commit", "rollback", "end"):
            self.status = "T" if b"chain" in text else "I"
        tags = {"select": "SELECT_1", "rows": "SELECT_2", "update": "UPDATE_1", "start": "START_TRANSACTION",
                "end": "COMMIT"}  # fmt: skip
        rows = {"select": "D", "rows": "D D"}.get(word, "")
        return said(f"{rows} C:{tags.get(word, word.upper())}")


def tell(steps, cuts, limits):
    """Everything that can be seen when two clients of one server say this; a step is (who, what, is it answered?)."""
    play, backend = a_play(**limits) >> another_client, Backend()
    hub = FakeHub()
    play.world.find_hub = lambda pool: hub
    clients = sorted(play.world.pool.clients, key=lambda each: each is play.client)
    play >> client("PARSE:a=select_1 PARSE:c=commit S") >> server("1 t T:x 1 t n Z:I")
    play.hear("server")
    seen = []
    for who, words, is_answered in steps:
        play.world.advance(1.0)
        if clients[who].state is not GONE and clients[who].transport.reads:
            play >> (lambda _, who=who, words=words: clients[who].transport.peer_sends(asked(words)))
        while is_answered and (heard := play.hear("server")):
            data = backend.answer(heard)
            places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
            for start, end in pairwise(places):
                play.world.advance(0.1)
                play >> server(data[start:end])
        seen.append(look(play, clients))
    return seen


def look(play, clients):
    server, pool, names = play.server, play.world.pool, {id(each): index for index, each in enumerate(clients)}
    owed = [(debt, names.get(id(owner), type(owner))) for debts, owner in server.ledger._groups() for debt in debts]
    stats = pool.stats.copy()
    stats.fold()
    return (
        bytes(play.server_socket.arrived), server.state, server.status, owed, server.unnamed, str(stats),
        [(each.name, since) for each, since in server.statements.items()], server.ready_at,
        [pool.habits.notes.get(each) for each in clients],
        [(bytes(each.transport.arrived), each.state, each.carry, each.held, each.held_debts, each.unnamed, each.begun)
         for each in clients],
        [(each.ready_at, each.request_at, each.xact_at) for each in clients],
    )  # fmt: skip


def finish(self, server, data):
    self.answered(server)
    self.deliver(data)


def assert_no_difference(steps, cuts=(), **limits):
    at_a_glance = tell(steps, cuts, limits)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("proxy.pool.AT_WORK", 0)
        assert at_a_glance == tell(steps, cuts, limits), "together"
    with pytest.MonkeyPatch.context() as patch:
        for name in ("ask_on", "ask_otherwise", "ask_round"):
            patch.setattr(Shortcuts, name, lambda self, data: self._receive(data))
        patch.setattr(Shortcuts, "is_round", lambda self, data: False)
        patch.setattr(rounds, "find_named", lambda *_: None)
        patch.setattr(Client, "finish", finish)
        patch.setattr(answers.WholeAnswers, "pay_whole", lambda self, data: None)
        patch.setattr(dispatch, "hear_begun", lambda server, data: data)
        in_general = tell(steps, cuts, limits)
    assert at_a_glance == in_general


STEPS = st.lists(st.tuples(st.integers(0, 1), st.sampled_from(SAID), st.booleans()), max_size=12)
CUTS = st.lists(st.integers(1, 90), max_size=3)
LIMITS = st.sampled_from([
    {}, {}, {"idle_transaction_timeout": 1000.0}, {"deferred_begin": False}, {"pool_mode": "session"},
    {"pool_mode": "statement"}, {"session_state": "audit"}, {"session_state": "leak"}, {"disable_pqexec": True},
    {"max_prepared_statements": 1}, {"track_statements": True},
    {"track_statements": True, "idle_transaction_timeout": 1000.0},
])  # fmt: skip


@given(STEPS, CUTS, LIMITS)
def test_whatever_two_clients_say_it_is_as_if_every_message_were_walked(steps, cuts, limits):
    assert_no_difference(steps, cuts, **limits)
