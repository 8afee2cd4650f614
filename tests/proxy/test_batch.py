"""One walk over a batch: pieces and debts in order, what a server has and what must go, what a tag does to names."""

from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import codes
from protocol.frontend import FLUSH_MESSAGE, SYNC_MESSAGE, build_query
from protocol.ledger import BIND, CLOSE, DESCRIBE, EXECUTE, PARSE, QUERY, SYNC
from proxy.batch import MAX_REPEATED, Batch
from proxy.envoys import Injection
from proxy.requests import read
from tests.play import (
    Play,
    another_client,
    another_server,
    asked,
    client,
    released,
    server,
    stays_linked,
    to_client,
    to_server,
)

MARK = b"N\0\0\0\4"  # no message a client could send


class Noting(Batch):
    """Notes where each Bind stands."""

    __slots__ = ()
    translations: ClassVar = {codes.BIND: lambda batch, pos, end: batch.needed.add((pos, end))}


class World:
    """A client, its server, and batches that translate nothing of their own accord."""

    def __init__(self, **limits):
        self.play = Play(session_state="track", **limits)
        self.client, self.server = self.play.client, self.play.server
        self.server.client, self.client.server = self.client, self.server

    def batch(self, words="", prefix=b"", first=0):
        return Batch(self.client, self.server, asked(words), prefix, first)

    def make(self, *texts):
        return [self.client.pool.statements.make(text + b"\0\0\0") for text in texts]

    def give(self, *statements):
        """The server has them, the first for longest."""
        for each in statements:
            self.server.statements[each] = self.client.pool.generation

    def sent(self, batch):
        batch.send()
        return self.play.hear("server")

    @property
    def owed(self):
        return [debt for debts, _ in self.server.ledger._groups() for debt in debts]


def a_play(**more):
    return Play(**{"session_state": "track", "pool_size": 9, **more})


# The walk.


def test_what_is_not_translated_goes_as_it_is_behind_the_prefix():
    world = World()
    batch = world.batch("P B E S Q:x", prefix=asked("Q:set"))
    assert batch.debts == [PARSE, BIND, EXECUTE, SYNC, QUERY]
    assert world.sent(batch) == asked("Q:set P B E S Q:x")
    assert world.owed == [PARSE, BIND, EXECUTE, SYNC, QUERY]
    assert len(world.play.server_socket.written) == 1


@pytest.mark.parametrize("first", [1, 5, 11])
def test_the_rest_of_a_message_sent_before_is_stepped_over(first):
    world, rest = World(), b"Q" * first
    batch = world.batch(rest + asked("S"), first=first)
    assert batch.debts == [SYNC]
    assert world.sent(batch) == rest + asked("S")


def test_each_kind_goes_to_its_translation_with_where_it_stands():
    world, begin = World(), len(asked("P d:row"))
    batch = Noting(world.client, world.server, asked("P d:row B E"), b"", 0)
    assert batch.needed == {(begin, begin + len(asked("B")))}
    assert bytes(batch.kinds) == b"PBE"


def test_while_the_server_skips_nothing_is_translated_until_behind_the_sync():
    world = World()
    world.server.ledger.expect((EXECUTE,), world.client)
    world.server.ledger.settle(codes.ERROR_RESPONSE)
    assert world.server.ledger.skipping
    batch = Noting(world.client, world.server, asked("B B S B"), b"", 0)
    assert batch.needed == {(len(asked("B B S")), len(asked("B B S B")))}


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=6), st.binary(max_size=40))
def test_pieces_are_the_data_but_for_what_was_replaced(spans, prefix):
    data, ought, last = bytes(range(40)), prefix, 0
    world = World()
    batch = world.batch(prefix=prefix)
    batch.data = data
    for start, end in sorted(map(sorted, spans)):
        if start >= last:
            batch.replace(start, end, MARK)
            ought, last = ought + data[last:start] + MARK, end
    assert world.sent(batch) == ought + data[last:]


def test_debts_of_envoys_stand_among_the_clients_in_order():
    world = World()
    batch, owner = world.batch("B E"), object()
    batch.enter_as((PARSE, SYNC), owner)
    batch.debts.append(SYNC)
    batch.enter()
    assert world.owed == [BIND, EXECUTE, PARSE, SYNC, SYNC]
    assert world.server.ledger.owners() == [world.client, world.client, owner, owner, world.client]


# What the server has.


def test_the_one_asked_for_is_the_one_used_last():
    world = World()
    one, two, three = world.make(b"1", b"2", b"3")
    world.give(one, two, three)
    assert world.batch().has(one)
    assert list(world.server.statements) == [two, three, one]


def test_what_is_in_doubt_is_not_there():
    world = World()
    (one,) = world.make(b"1")
    assert not world.batch().has(one)
    world.server.statements[one] = 0
    assert not world.batch().has(one)


def test_what_is_on_its_way_is_there_in_its_own_unit():
    world = World()
    (one,) = world.make(b"1")
    batch = world.batch()
    batch.inject(0, one)
    assert batch.has(one)
    batch.debts.append(SYNC)
    assert not batch.has(one)


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_there_are_never_more_than_are_allowed(limit):
    world = World(max_prepared_statements=limit)
    made = world.make(*(b"%d" % number for number in range(8)))
    for each in made:
        world.batch().inject(0, each)
    assert list(world.server.statements) == made[-limit:]


def test_what_the_text_at_hand_needs_does_not_go():
    world = World(max_prepared_statements=2)
    one, two, three = world.make(b"1", b"2", b"3")
    world.give(one, two)
    batch = world.batch()
    batch.needed = {one}
    assert batch.make_room(0, three) == [two]


def test_if_all_are_needed_none_goes():
    world = World(max_prepared_statements=1)
    one, two = world.make(b"1", b"2")
    world.give(one)
    batch = world.batch()
    batch.needed = {one, two}
    assert batch.make_room(0, two) == []


def test_one_in_doubt_is_closed_before_it_is_made_again():
    world = World()
    (one,) = world.make(b"1")
    world.server.statements[one] = 0
    batch = world.batch()
    batch.inject(0, one)
    assert world.sent(batch) == one.build_close() + one.build_parse() + one.build_describe()
    assert world.owed == [CLOSE, PARSE, DESCRIBE]
    assert world.server.leaving == {one: 1}


def test_one_whose_close_is_not_answered_is_closed_again():
    """That Close may be skipped; and to close what is not there harms nobody."""
    world = World()
    (one,) = world.make(b"1")
    world.give(one)
    batch = world.batch()
    batch.free(0, one)
    batch.inject(0, one)
    assert world.sent(batch) == one.build_close() * 2 + one.build_parse() + one.build_describe()
    assert world.server.leaving == {one: 2}


def test_what_is_put_in_front_alone_has_a_sync_of_its_own():
    world = World()
    (one,) = world.make(b"1")
    batch = world.batch()
    batch.inject(0, one, alone=True)
    assert world.sent(batch) == one.build_parse() + one.build_describe() + SYNC_MESSAGE
    assert world.owed == [PARSE, DESCRIBE, SYNC]


def test_one_made_by_sql_is_put_in_front_as_a_query_and_that_ends_the_unnamed_statement():
    world = World()
    one = world.client.pool.statements.make(b" as select 1", is_sql=True)
    world.server.unnamed = b"P"
    batch = world.batch()
    batch.inject(0, one)
    assert world.sent(batch) == build_query(b'PREPARE "PGSHUTTLE_1"  as select 1')
    assert world.owed == [QUERY]
    assert world.server.unnamed is None


@pytest.mark.parametrize(
    ("words", "may"), [("", True), ("Q:x", True), ("P", False), ("P B E S", True), ("Q:x P", False)]
)
def test_a_unit_of_its_own_is_put_in_front_only_where_no_unit_is_open(words, may):
    world = World()
    batch = world.batch(words)
    assert batch.is_between_units is may
    batch.enter()
    assert batch.is_between_units is may


# What must wait.


def test_what_must_wait_is_held_and_asked_for_with_a_flush():
    world = World()
    (one,) = world.make(b"1")
    one.description = b"known"
    batch = world.batch("P S")
    assert not batch.is_there(len(asked("P")), one, is_asked=False)
    assert world.sent(batch) == asked("P") + one.build_parse() + one.build_describe() + FLUSH_MESSAGE
    assert world.client.held == asked("S")


@pytest.mark.parametrize(("description", "is_asked"), [(None, False), (None, True), (b"known", True)])
def test_who_asks_or_is_the_first_need_not_wait(description, is_asked):
    world = World()
    (one,) = world.make(b"1")
    one.description = description
    batch = world.batch()
    assert batch.is_there(0, one, is_asked=is_asked)
    assert batch.waits_at < 0
    assert world.client.held is None


# What might be run again.


@pytest.mark.parametrize(
    ("words", "is_kept"),
    [
        ("B E S", True),
        ("B D E S", True),
        ("B E", False),
        ("P B E S", False),
        ("B E S B E S", False),
        ("C B E S", False),
    ],
)
def test_only_a_statement_run_once_and_alone_is_remembered(words, is_kept):
    world = World()
    world.sent(world.batch(words))
    assert world.server.repeatable == ((world.client, asked(words)) if is_kept else None)


def test_nor_behind_a_prefix_nor_behind_what_is_owed_nor_in_a_transaction():
    for spoil in ("prefix", "owed", "transaction"):
        world = World()
        if spoil == "owed":
            world.server.ledger.expect((QUERY,), world.client)
        if spoil == "transaction":
            world.server.status = codes.IN_TRANSACTION
        world.sent(world.batch("B E S", prefix=b"x" if spoil == "prefix" else b""))
        assert world.server.repeatable is None


def test_nor_if_it_is_long():
    world = World()
    world.sent(world.batch(_long_round()))
    assert world.server.repeatable is None


def _long_round():
    body = b"\0\0" + b"v" * MAX_REPEATED
    return b"B" + (len(body) + 4).to_bytes(4, "big") + body + asked("E S")


# What a tag does to names.


def named(world, text):
    reading = read(world.client, text)
    return world.batch().drop(reading.acts[0])


def world_with(*names):
    world = World()
    for name, statement in zip(names, world.make(*names), strict=True):
        world.batch().names.put(name, statement)
        world.give(statement)
    return world


def test_deallocate_takes_a_name_at_once_and_for_good_with_its_tag():
    world = world_with(b"a", b"b")
    deed = named(world, b"deallocate a")
    assert deed.tag == b"DEALLOCATE\0"
    assert list(world.client.statements) == [b"b"]
    assert sorted(world.server.statements.values()) == [0, 1]
    deed.done()
    assert [each.text for each in world.server.statements] == [b"b"]


def test_what_fails_is_undone():
    world = world_with(b"a", b"b")
    before = {name: world.client.statements.get(name) for name in (b"a", b"b")}
    named(world, b"deallocate a").undo()
    assert {name: world.client.statements.get(name) for name in (b"a", b"b")} == before


@pytest.mark.parametrize(
    ("text", "tag"), [(b"deallocate all", b"DEALLOCATE ALL\0"), (b"discard all", b"DISCARD ALL\0")]
)
def test_all_of_them_go_at_once(text, tag):
    world = world_with(b"a", b"b")
    world.server.unnamed = b"P"
    deed = named(world, text)
    assert deed.tag == tag
    assert not len(world.client.statements)
    assert set(world.server.statements.values()) == {0}
    assert world.server.unnamed is None
    deed.undo()
    assert sorted(world.client.statements) == [b"a", b"b"]
    deed.done()
    assert not world.server.statements


@pytest.mark.parametrize("text", [b"deallocate nobody", b"discard temp", b"discard plans", b"listen a"])
def test_others_do_nothing_to_names(text):
    world = world_with(b"a")
    assert named(world, text) is None
    assert list(world.client.statements) == [b"a"]


def test_what_was_made_anew_before_the_tag_came_is_not_forgotten_with_it():
    world = world_with(b"a")
    deed = named(world, b"deallocate a")
    (statement,) = world.server.statements
    world.give(statement)
    deed.done()
    assert world.server.statements == {statement: world.client.pool.generation}


def test_a_close_that_nobody_asked_for_is_answered_to_nobody():
    world = World()
    (one,) = world.make(b"1")
    world.give(one)
    world.batch().free(0, one)
    (owner,) = world.server.ledger.owners()
    assert isinstance(owner, Injection)
    owner.deliver(b"3\0\0\0\4")
    assert not world.server.leaving
    assert not world.play.hear("client")


# In the stream.


def test_two_clients_that_share_a_full_server_close_each_others_and_hear_nothing_of_it():
    play = a_play(max_prepared_statements=1) >> client("PARSE:a=select_1 S") >> server("1 t T Z:I") << released
    play.hear("server")
    play >> another_client >> client("PARSE:a=select_2 B:a E S")
    play << to_server("CLOSE:PGSHUTTLE_1 OURS:2=select_2 B:PGSHUTTLE_2 E S") << stays_linked
    play >> server("3 1 t T 2 C Z:I") << to_client("1 2 C Z:I") << released


def test_what_is_made_anew_under_other_parameters_is_nobody_elses():
    play = Play(session_state="track", pool_size=9) >> client("PARSE:a=select_1 S") >> server("1 t T:x Z:I")
    play.hear("server"), play.hear("client")
    play >> another_server
    one, (statement,) = play.client, play.client.statements._statements.values()
    one.number = 7
    one.followed = play.server.followed = {**one.followed, "TimeZone": "CET"}
    play >> client("B:a E S") << to_server("OURS:1=select_1 H") >> server("1 t T:x")
    play << to_server("B:PGSHUTTLE_1 E S") >> server("2 C Z:I") << released
    assert play.server.statements == {statement: -7}
    play >> client("B:a E S") << to_server("B:PGSHUTTLE_1 E S") >> server("2 C Z:I") << released
    play.hear("client")
    play >> another_client
    play.client.number, play.client.statements = 8, one.statements
    play >> client("B:a E S") << to_server("Q:SET_TimeZone=E'UTC' CLOSE:PGSHUTTLE_1 OURS:1=select_1 H")
