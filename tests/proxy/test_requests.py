"""The second looks at what a client sends."""

import pytest

from protocol.errors import ProtocolError
from protocol.frontend import PORTAL, STATEMENT, TERMINATE_MESSAGE, Bind, build_bind, build_describe, build_parse
from protocol.prepared import MAX_TARGET
from proxy.requests import (
    BEGIN,
    CARE,
    END,
    LOOKS_OF_AUDITED,
    LOOKS_OF_PRIVATE,
    LOOKS_OF_SHARED,
    LOOKS_OF_TAGGED,
    MAX_STATEMENT,
    MORE,
    PASS,
    TOO_LONG,
    UNNAMED,
    is_end,
    is_terminate,
    look_at_private_parse,
    look_at_query,
    read,
)
from proxy.states import BEGUN, GONE
from tests.fakes import FakeWorld
from tests.play import Play, asked, client, error_to_client, server, to_client, to_server


def a_client(**more):
    world = FakeWorld(session_state="track", **more)
    with world.loop.running():
        return world.new_client()


def look(words, *, person=None, parsed=False, looks=LOOKS_OF_SHARED):
    """The verdict on one message that is there as a whole."""
    data = words if isinstance(words, bytes) else asked(words)
    return looks[data[0]](person or a_client(), data, 0, len(data), parsed)


def test_terminate_is_the_only_other_message_that_is_legal():
    assert is_terminate(TERMINATE_MESSAGE[0])
    for kind in b"p\0Zz":
        with pytest.raises(ProtocolError, match=f"invalid frontend message type {kind}"):
            is_terminate(kind)


@pytest.mark.parametrize(
    ("words", "verdict"),
    [
        ("Q:select_1", PASS),
        ("Q:set_work_mem_=_1", PASS),
        ("Q:begin;_select_1", PASS),
        ("Q:execute_a", CARE),
        ("Q:prepare_a_as_select_1", CARE),
        ("Q:deallocate_all", CARE),
        ("Q:discard_all", CARE),
        ("PARSE:=select_1", UNNAMED),
        ("PARSE:=set_work_mem_=_1", UNNAMED),
        ("PARSE:=execute_a", CARE),
        ("PARSE:a=select_1", CARE),
        ("PARSE:a=set_work_mem_=_1", CARE),
        ("B:a", CARE),
        ("B", CARE),
        ("BIND:p=", CARE),
        ("BIND:p=a", CARE),
        ("D:p", PASS),
        ("C:p", PASS),
        ("ASK:a", CARE),
        ("ASK:", CARE),
        ("CLOSE:a", CARE),
        ("CLOSE:", CARE),
    ],
)
def test_what_is_looked_at_and_what_is_left_alone(words, verdict):
    assert look(words) == verdict


@pytest.mark.parametrize(("words", "verdict"), [("B", PASS), ("BIND:p=", PASS), ("ASK:", PASS), ("CLOSE:", CARE)])
def test_behind_a_parse_without_a_name_that_is_known_to_be_the_clients(words, verdict):
    assert look(words, parsed=True) == verdict


def test_an_unnamed_statement_on_its_own_server_is_left_alone():
    play = Play(session_state="track") >> client("Q:begin;_select_1 PARSE:=select_1 S")
    assert look("B", person=play.client) == PASS
    play.client.held = b""
    assert look("B", person=play.client) == CARE


def test_what_a_text_may_leave_behind_is_noted_when_it_runs():
    person = a_client()
    look("PARSE:=set_work_mem_=_1", person=person)
    assert person.session is None
    look("B", person=person, parsed=True)
    assert person.session is not None


def test_a_bind_of_what_means_something_is_translated_even_where_it_was_parsed():
    person = a_client()
    look("PARSE:=discard_all", person=person)
    assert look("B", person=person, parsed=True) == CARE


@pytest.mark.parametrize("words", ["PARSE:abc=select_1", "BIND:p=abc", "ASK:abc", "CLOSE:abc"])
def test_while_a_name_has_not_arrived_there_is_nothing_to_say(words):
    data, person = asked(words), a_client()
    for end in range(5, data.index(b"abc") + 4):
        assert LOOKS_OF_SHARED[data[0]](person, data[:end], 0, len(data), False) == MORE


@pytest.mark.parametrize(
    "data",
    [
        b"P\0\0\0\4",
        b"P\0\0\0\6ab",
        b"P\0\0\0\x08\0abc",
        b"B\0\0\0\4",
        b"B\0\0\0\6\0a",
        b"D\0\0\0\4",
        b"C\0\0\0\4",
        b"D\0\0\0\6Sa",
        build_describe(STATEMENT, b"x" * MAX_TARGET),
        build_describe(PORTAL, b"x" * MAX_TARGET),
    ],
)
def test_what_is_malformed_is_illegal(data):
    with pytest.raises(ProtocolError):
        look(data)


def test_a_describe_that_is_longer_than_it_should_be_smuggles_nothing():
    """Cut behind its name, the rest of it would have gone to the server unseen."""
    length = 100_000
    data = b"D" + length.to_bytes(4, "big") + b"Sname\0" + asked("Q:select_1") * 6000
    Play(session_state="track") >> client(data[:70_000]) << error_to_client("invalid message length") << to_server("")


def test_a_parse_waits_to_be_whole_unless_it_is_very_long():
    for name, verdict in ((b"", UNNAMED), (b"a", CARE)):
        data, person = build_parse(name, b"x" * MAX_STATEMENT), a_client()
        assert LOOKS_OF_SHARED[data[0]](person, data[:100], 0, len(data), False) == verdict
        assert (person.unnamed_said is TOO_LONG) == (not name)
        data = build_parse(name, b"x" * 100_000)
        assert LOOKS_OF_SHARED[data[0]](person, data[:70_000], 0, len(data), False) == MORE


def test_a_text_too_long_to_be_read_may_do_anything():
    data, person = asked("Q:" + "x" * 100_000), a_client()
    assert LOOKS_OF_SHARED[data[0]](person, data[:70_000], 0, len(data), False) == PASS
    assert person.session is not None


# A BEGIN that need not be sent.


@pytest.mark.parametrize(
    "text", ["begin", "BEGIN;", "start_transaction_read_only", "begin_isolation_level_repeatable_read"]
)
def test_a_lone_begin_need_not_be_sent(text):
    assert look(f"Q:{text}", person=a_client(deferred_begin=True)) == BEGIN
    assert look(f"Q:{text}", person=a_client(deferred_begin=False)) == PASS
    assert look(f"Q:{text}", person=a_client(deferred_begin=True, pool_mode="statement")) == PASS


@pytest.mark.parametrize("text", ["begin;_select_1", "begin_nonsense", "/*_a_*/_begin", "savepoint_a", "begin;_begin"])
def test_other_things_are_sent(text):
    assert look(f"Q:{text}", person=a_client(deferred_begin=True)) == PASS


def test_a_begin_with_something_behind_it_is_sent():
    data, person = asked("Q:begin Q:select_1"), a_client(deferred_begin=True)
    assert look_at_query(person, data, 0, len(asked("Q:begin")), False) == PASS


@pytest.mark.parametrize(
    ("text", "is_the_end"),
    [
        (b"commit", True),
        (b"ROLLBACK;", True),
        (b"end work", True),
        (b"abort", True),
        (b"/* x */ commit -- y", True),
        (b"commit and chain", False),
        (b"rollback to a", False),
        (b"commit; select 1", False),
        (b"commit; begin", False),
        (b"prepare transaction 'x'", False),
        (b"rollback prepared 'x'", False),
    ],
)
def test_what_ends_a_transaction(text, is_the_end):
    person = a_client(deferred_begin=True)
    assert is_end(read(person, text)) == is_the_end
    person.state = BEGUN
    verdict = look_at_query(person, b"Q\0\0\0\0" + text + b"\0", 0, len(text) + 6, False)
    assert (verdict == END) == is_the_end


# Others.


def test_texts_are_read_as_the_server_will():
    person = a_client()
    text = rb"select '\'; set work_mem = 1; --'"
    assert read(person, text).is_lasting
    person.followed = {**person.followed, "standard_conforming_strings": "off"}
    assert not read(person, text).is_lasting


def test_a_client_with_a_server_of_its_own_is_asked_for_little():
    person = a_client(pool_mode="session")
    parse = build_parse(b"a", b"set work_mem = 1")
    assert look_at_private_parse(person, parse, 0, len(parse), False) == PASS
    assert person.session is None
    with pytest.raises(ProtocolError, match="without a body"):
        look_at_private_parse(person, b"P\0\0\0\4", 0, 5, False)


def test_one_that_is_audited_is_noted_and_passed_on():
    world = FakeWorld(session_state="audit")
    with world.loop.running():
        person = world.new_client()
    for words in ("Q:set_work_mem_=_1", "PARSE:a=set_work_mem_=_1"):
        assert look(words, person=person, looks=LOOKS_OF_AUDITED) == PASS


def test_there_is_a_look_for_what_may_need_one_and_for_nothing_else():
    kinds = [{chr(kind) for kind in range(256) if looks[kind]} for looks in (LOOKS_OF_SHARED, LOOKS_OF_TAGGED)]
    assert kinds == [set("QPBDCF"), set("QPBDCEF")]
    assert {chr(kind) for kind in range(256) if LOOKS_OF_PRIVATE[kind]} == {"P"}


def test_with_a_portal_whose_tag_means_something_every_bind_and_execute_is_translated():
    assert look("E", looks=LOOKS_OF_TAGGED) == CARE
    assert look(build_bind(Bind(b"", b"")), parsed=True, looks=LOOKS_OF_TAGGED) == CARE


@pytest.mark.parametrize("mode", ["transaction", "session", "statement"])
@pytest.mark.parametrize("state", ["track", "leak", "audit"])
def test_a_simple_query_is_refused_where_that_is_wanted_whatever_it_says(mode, state):
    for words in ("Q:select_1", "Q:begin", "Q:set_a_=_1", "Q:"):
        play = Play(pool_mode=mode, session_state=state, disable_pqexec=True) >> client(words)
        play << error_to_client("PQexec disallowed") << to_server("")
        assert play.client.state is GONE


def test_a_long_one_is_refused_at_its_first_bytes_and_one_behind_a_batch_too():
    play = Play(disable_pqexec=True) >> client(asked("Q:" + "x" * 200_000)[:70_000])
    play << error_to_client("PQexec disallowed") << to_server("")
    play = Play(disable_pqexec=True) >> client("P B E S") >> client("Q:a")
    play << error_to_client("PQexec disallowed")


def test_the_extended_protocol_goes_on_there():
    play = Play(disable_pqexec=True, session_state="track")
    batch = build_parse(b"", b"select 1") + build_bind(Bind(b"", b"")) + asked("D E S")
    for _ in range(2):
        play >> client(batch) << to_server(batch) >> server("1 2 T:a D C Z:I") << to_client("1 2 T:a D C Z:I")
