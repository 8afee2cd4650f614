"""Who stands in for a client, and what it makes of the answers, in whatever pieces they come."""

from types import SimpleNamespace

import pytest

from protocol import codes
from protocol.backend import ErrorFields, build_error, build_row_description
from protocol.errors import ProtocolError
from protocol.prepared import Names, Statement
from proxy.envoys import MAX_KEPT, Alias, Deed, Envoy, Injection, Naming, Reading, Repeat, Tagged
from proxy.states import ACTIVE, GONE
from tests.play import Play, another_server, client, said, server, to_client, to_server

BODY = b"select 1\0\0\0"
ONE, TWO, THREE = (Statement(b"PGSHUTTLE_%d" % number, BODY) for number in (1, 2, 3))


class FakeClient:
    """Hears, and counts."""

    def __init__(self):
        self.heard = b""
        self.errors = []
        self.answers = 0
        self.state = ACTIVE

    def deliver(self, data):
        self.heard += data

    def failed(self, error, aliases=None):
        self.errors.append(error)

    def answered(self, server):
        self.answers += 1


def a_server():
    changes = []
    world = SimpleNamespace(schema_changed=changes.append)
    return SimpleNamespace(statements={}, arriving={}, leaving={}, pool=SimpleNamespace(world=world), changes=changes)


# Everything is handed on.


def test_an_envoy_is_its_client_towards_a_server():
    person = FakeClient()
    envoy = Envoy(person)
    envoy.deliver(b"a")
    envoy.failed(ErrorFields(message="no"))
    envoy.finish(None, b"b")
    envoy.voided()
    assert (person.heard, person.answers, len(person.errors)) == (b"ab", 1, 1)


def test_one_whose_client_has_left_counts_nothing():
    person = FakeClient()
    person.state = GONE
    Envoy(person).answered(None)
    assert person.answers == 0


# Names.


def test_a_name_given_stays_when_it_is_answered():
    names = Names()
    naming = Naming(FakeClient(), names, b"a", ONE)
    assert names.get(b"a") is ONE
    naming.deliver(said("N:notice"))
    assert names.pending == {b"a": naming}
    naming.deliver(said("1"))
    assert (names.get(b"a"), names.pending) == (ONE, {})


@pytest.mark.parametrize("before", [None, ONE])
@pytest.mark.parametrize("after", [None, TWO])
def test_a_name_is_again_what_it_was_when_that_is_voided(before, after):
    names = Names()
    names.put(b"a", before)
    Naming(FakeClient(), names, b"a", after).voided()
    assert (names.get(b"a"), names.pending) == (before, {})


def test_what_one_error_voids_is_undone_from_the_last_to_the_first():
    names = Names()
    namings = [Naming(FakeClient(), names, b"a", each) for each in (ONE, None, TWO, None, THREE)]
    namings[0].deliver(said("1"))
    for naming in reversed(namings[1:]):
        naming.voided()
    assert names.get(b"a") is ONE
    assert not names.pending


def test_an_alias_is_spoken_of_by_its_name():
    person = FakeClient()
    person.failed = lambda error, aliases: aliases[b"P1"]
    assert Alias(person, {b"P1": b"mine"}).failed(ErrorFields()) == b"mine"
    assert Tagged(person, [], [], aliases={b"P1": b"mine"}).failed(ErrorFields()) == b"mine"


# Reading.


class Echo(Reading):
    """Shouts what it reads."""

    wanted = frozenset({codes.COMMAND_COMPLETE})

    def take(self, kind, message):
        return message.upper()


def test_messages_are_read_whole_however_they_are_cut():
    words = said("D:row C:select D:row") + said("C:two")
    ought = said("D:row") + said("C:select").upper() + said("D:row") + said("C:two").upper()
    for size in range(1, len(words) + 1):
        person = FakeClient()
        echo = Echo(person)
        for at in range(0, len(words), size):
            echo.deliver(words[at : at + size])
        assert person.heard == ought


def test_what_is_not_read_goes_by_as_it_comes():
    person = FakeClient()
    echo, row = Echo(person), said("D:" + "x" * 100_000)
    echo.deliver(row[:50_000])
    assert person.heard == row[:50_000]
    echo.deliver(row[50_000:] + said("C:tag"))
    assert person.heard == row + said("C:tag").upper()


def test_a_message_that_must_be_read_and_is_too_long_is_the_servers_fault():
    with pytest.raises(ProtocolError, match="too long"):
        Echo(FakeClient()).deliver(b"C" + (MAX_KEPT + 1).to_bytes(4, "big"))


def test_an_error_that_is_too_long_goes_by():
    person = FakeClient()
    injection = Injection(person, a_server(), ONE, [])
    injection.deliver(b"E" + (MAX_KEPT + 1).to_bytes(4, "big") + b"S")
    assert person.heard.endswith(b"S")


# What is put in front.


def an_injection(**more):
    server = a_server()
    injection = Injection(FakeClient(), server, ONE, more.pop("gone", []), **more)
    server.statements[ONE] = 1
    server.arriving[ONE] = injection
    return injection, server


def test_nobody_hears_its_answers():
    injection, server = an_injection(gone=[TWO])
    server.leaving[TWO] = 1
    injection.deliver(said("3 1 N:notice t T Z:I"))
    injection.answered(server)
    assert injection.client.heard == said("N:notice")
    assert injection.client.answers == 0
    assert (server.statements, server.arriving, server.leaving) == ({ONE: 1}, {}, {})


def test_it_learns_what_the_statement_is_and_notices_that_it_is_another():
    one = Statement(b"P", BODY)
    server = a_server()
    Injection(FakeClient(), server, one, []).deliver(said("1 t T:a"))
    Injection(FakeClient(), server, one, []).deliver(said("1 t T:a"))
    assert not one.is_outdated
    Injection(FakeClient(), server, one, []).deliver(said("1 t T:b"))
    assert one.is_outdated
    assert server.changes == [server.pool]


def test_whoever_waits_for_the_description_is_told_once():
    told = []
    injection, _ = an_injection(then=lambda: told.append(1))
    injection.deliver(said("1 t"))
    assert not told
    injection.deliver(said("n"))
    injection.voided()
    injection.relieve()
    assert told == [1]


def test_a_voided_one_leaves_everything_in_doubt():
    told = []
    injection, server = an_injection(gone=[TWO, THREE], then=lambda: told.append(1))
    server.leaving.update({TWO: 1, THREE: 2})
    for _ in range(4):
        injection.voided()
    assert not told, "others may not have been told yet"
    injection.relieve()
    assert server.statements == {ONE: 0, TWO: 0, THREE: 0}
    assert (server.arriving, server.leaving, told) == ({}, {THREE: 1}, [1])


def test_one_that_is_voided_says_nothing_of_what_a_later_one_has_asked_for():
    injection, server = an_injection()
    server.arriving[ONE] = later = object()
    injection.voided()
    injection.deliver(said("1 t n"))
    assert server.statements == {ONE: 1}
    assert server.arriving == {ONE: later}


def test_one_in_a_unit_of_its_own_keeps_its_error():
    injection, server = an_injection(is_alone=True)
    error = build_error("ERROR", "42P01", "no such table")
    injection.failed(ErrorFields("ERROR", "42P01", "no such table"))
    injection.deliver(error + said("Z:I"))
    assert injection.error == error
    assert injection.client.heard == b""
    assert server.statements == {ONE: 0}


def test_but_not_the_last_words_of_a_server():
    injection, _ = an_injection(is_alone=True)
    injection.failed(ErrorFields("FATAL", "57P01", "bye"))
    injection.deliver(said("FATAL:bye"))
    assert injection.client.heard == said("FATAL:bye")


def test_a_prepare_is_there_when_its_tag_has_come():
    injection, server = an_injection()
    injection.deliver(said("C:PREPARE"))
    assert not server.arriving


# Tags.


def deeds(log, *tags):
    return [
        Deed(tag.encode() + b"\0", lambda tag=tag: log.append(f"did {tag}"), lambda tag=tag: log.append(f"undid {tag}"))
        for tag in tags
    ]


def test_what_is_certain_is_not_undone():
    log = []
    tagged = Tagged(FakeClient(), [], deeds(log, "PREPARE", "DEALLOCATE", "PREPARE"))
    tagged.deliver(said("C:SELECT C:PREPARE C:DEALLOCATE"))
    tagged.failed(ErrorFields("ERROR", "42601", "no"))
    tagged.voided()
    assert log == ["did PREPARE", "did DEALLOCATE", "undid PREPARE"]


def test_an_execute_that_did_something_else_undoes_what_was_believed():
    log = []
    Tagged(FakeClient(), [], deeds(log, "DISCARD ALL"), is_one=True).deliver(said("D:row C:SELECT"))
    assert log == ["undid DISCARD ALL"]


def test_the_tags_of_what_was_a_listen_are_put_right():
    person = FakeClient()
    Tagged(person, [True, False, True], []).deliver(said("C:UNLISTEN C:SELECT C:UNLISTEN C:UNLISTEN C:UNLISTEN"))
    assert person.heard == said("C:LISTEN C:SELECT C:UNLISTEN C:LISTEN C:UNLISTEN")


def test_a_missing_statement_is_explained_by_what_was_put_in_front():
    injection, _ = an_injection(is_alone=True)
    injection.deliver(said("ERROR:why"))
    tagged = Tagged(FakeClient(), [], [], (injection,))
    assert tagged.failed(ErrorFields("ERROR", "26000", "missing")) == said("ERROR:why")
    assert tagged.failed(ErrorFields("ERROR", "22012", "other")) is None


# In the stream.


def test_a_row_that_goes_by_an_envoy_is_in_the_middle_of_a_message_too():
    """A last word of ours must not fall into it."""
    play = Play(session_state="track") >> client("Q:prepare_foo_as_select_1") >> server("C:PREPARE Z:I")
    play.hear("client")
    row = said("D:" + "x" * 1000)
    play >> client("Q:execute_foo") >> server(said("T") + row[:100])
    play >> (lambda play: play.server_socket.peer_breaks())
    assert play.hear("client") == said("T") + row[:100]
    assert play.client.state is GONE


def test_last_words_that_came_by_an_envoy_are_not_said_twice():
    play = Play(session_state="track") >> client("Q:prepare_foo_as_select_1") >> server("C:PREPARE Z:I")
    play.hear("client")
    play >> client("Q:execute_foo") >> server("FATAL:bye") >> (lambda play: play.server_socket.peer_hangs_up())
    play << to_client("FATAL:bye")


def test_a_batch_that_is_run_again_is_sent_before_what_came_meanwhile():
    play = Play(session_state="track") >> client("PARSE:a=select_1 S") >> server("1 t T Z:I")
    play.hear("server"), play.hear("client")
    play >> client("B:a D E S") >> server("STALE") >> client("Q:select_2") << to_client("")
    play << to_server("B:PGSHUTTLE_1 D E S") >> server("Z:I")
    play << to_server("CLOSE:PGSHUTTLE_1 OURS:1=select_1 H")
    play >> server("3 1 t T") << to_server("B:PGSHUTTLE_1 D E S Q:select_2")
    play >> server("2 T D C Z:I") >> server("C Z:I") << to_client("2 T D C Z:I C Z:I")


def test_who_leaves_before_its_batch_is_run_again_is_not_missed():
    play = Play(session_state="track") >> client("PARSE:a=select_1 S") >> server("1 t T Z:I")
    play.hear("server")
    play >> client("B:a D E S") >> server("STALE") >> (lambda play: play.client_socket.peer_hangs_up())
    play >> server("Z:I") << to_server("B:PGSHUTTLE_1 D E S")
    assert play.server.client is None


def test_a_repeat_delivers_nothing_of_the_first_try():
    person = FakeClient()
    person.server, person.held = None, None
    repeat = Repeat(person, b"data")
    repeat.deliver(said("Z:I"))
    repeat.answered(object())
    assert person.heard == b""


def test_a_description_that_comes_whole_and_malformed_closes_the_server():
    play = Play(session_state="track", pool_size=9) >> client("PARSE:a=select_1 S") >> server("1 t T Z:I")
    play >> another_server >> client("Q:execute_a")
    bad = bytearray(build_row_description([("x", 25, -1)]))
    bad[6] = 9  # columns
    play >> server(said("1 t") + bytes(bad) + said("Z:I"))
    assert play.client.state is GONE
