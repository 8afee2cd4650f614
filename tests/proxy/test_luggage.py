"""What travels with a client, and that it means the same where it arrives; what cannot travel stays."""

import json
from types import SimpleNamespace

import pytest

from protocol.effects import PLAIN, What
from protocol.frontend import build_parse
from protocol.passwords import LearntKeys, ScramKeys
from protocol.prepared import Names, Statement
from proxy.auth.proofs import Proof
from proxy.auth.users import Users
from proxy.batch import NOBODYS
from proxy.client import Client
from proxy.holding import FAILED_BEGIN
from proxy.log import Address
from proxy.luggage import (
    Declined,
    find_hindrance,
    pack_client,
    pack_pool,
    pack_statement,
    unpack_client,
    unpack_pool,
    unpack_statement,
)
from proxy.requests import TOO_LONG
from proxy.session import Session
from proxy.states import ACTIVE, BEGUN, WAITING
from tests.fakes import socket_of
from tests.whole import INI, a_client, a_pool, a_proxy

BODY = b"select $1\0\0\1\0\0\0\x17"
DESCRIPTION = b"columns, as somebody was told"


@pytest.fixture(name="two")
def _two(tmp_path):
    """The old process and the new one."""
    file = tmp_path / "proxy.ini"
    file.write_text(INI)
    return a_proxy(file), a_proxy(file)


class Road:
    """From the old process to the new one, as JSON."""

    def __init__(self, old, new):
        self.old = old
        self.new = new
        self.texts = {}
        self.made = {}

    def carry(self, client):
        body = json.loads(json.dumps(pack_client(client, self._number_of)))
        return unpack_client(self.new, body, self._find)

    def _number_of(self, statement, generation):
        number = id(statement)
        is_current = statement.context is not None and statement.context.generation == generation
        self.texts[number] = json.loads(json.dumps(pack_statement(number, statement, is_current=is_current)))
        return number

    def _find(self, client, number):
        if number not in self.made:
            self.made[number] = unpack_statement(client, self.texts[number])
        return self.made[number]


def name(client, text, body=BODY, **about):
    statement = client.pool.find_statement(body, client.followed)
    statement.reading, statement.description = PLAIN, DESCRIPTION
    for what, value in about.items():
        setattr(statement, what, value)
    if client.statements is None:
        client.statements = Names()
    client.statements.put(text, statement)
    return statement


def test_a_client_arrives_as_it_was(two):
    old, new = two
    client = a_client(old)
    client.followed = {"client_encoding": "LATIN1", "search_path": "s\udcff, public", "mark.er": "ä'\\"}
    client.origin = {"client_encoding": "UTF8"}
    client.unnamed = client.unnamed_said = build_parse(b"", b"select 1")
    client.unnamed_text = b"\xff\x00listen"
    client.address = ("::1", 51234)
    old.clock.advance(100)
    client.ready_at = old.clock.now() - 7
    new.clock.advance(5000)
    arrived = Road(old, new).carry(client)
    assert repr(arrived).split(": ", 1)[1] == repr(client).split(": ", 1)[1]
    for what in ("user", "key", "followed", "origin", "unnamed", "unnamed_said", "unnamed_text", "address", "state"):
        assert getattr(arrived, what) == getattr(client, what), what
    assert (arrived.number, arrived.statements, arrived.session) == (client.number, None, None)
    assert new.clock.now() - arrived.connected_at == 100
    assert new.clock.now() - arrived.ready_at == 7
    assert arrived.pool is a_pool(new)
    assert arrived not in arrived.pool.clients, "it has no socket yet"


def test_the_balancer_that_it_came_through_travels_along(two):
    client = a_client(two[0])
    client.address = Address.behind(Address("10.0.0.1", 33333), "192.0.2.7", 40000)
    arrived = Road(*two).carry(client)
    assert (arrived.address, arrived.address.via) == (("192.0.2.7", 40000), "10.0.0.1:33333")


def test_equal_sets_are_one_object_again(two):
    client = a_client(two[0])
    client.followed, client.origin = {"a": "b"}, {"a": "b"}
    road = Road(*two)
    first, second = road.carry(client), road.carry(client)
    assert first.followed is first.origin is second.followed


@pytest.mark.parametrize("begun", [b"Q\0\0\0\x0abegin\0", FAILED_BEGIN])
def test_a_begin_that_no_server_knows_travels_along(two, begun):
    client = a_client(two[0])
    client.move(BEGUN)
    client.begun = bytes(bytearray(begun)) if begun is not FAILED_BEGIN else begun
    arrived = Road(*two).carry(client)
    assert (arrived.state, arrived.begun) == (BEGUN, begun)
    assert (arrived.begun is FAILED_BEGIN) == (begun is FAILED_BEGIN)


def test_a_parse_too_long_to_be_kept_is_still_known_as_that(two):
    client = a_client(two[0])
    client.unnamed = client.unnamed_said = TOO_LONG
    arrived = Road(*two).carry(client)
    assert arrived.unnamed is TOO_LONG
    assert arrived.unnamed_said is TOO_LONG


# Statements.


def test_names_arrive_in_their_order_and_share_what_is_the_same(two):
    road, one, two_ = Road(*two), a_client(two[0]), a_client(two[0])
    for each, text in ((one, b"a"), (one, b"\xffb"), (two_, b"c")):
        name(each, text)
    first, second = road.carry(one), road.carry(two_)
    assert list(first.statements) == [b"a", b"\xffb"]
    shared = {first.statements.get(b"a"), first.statements.get(b"\xffb"), second.statements.get(b"c")}
    assert len(shared) == 1
    (statement,) = shared
    assert (statement.body, statement.description, statement.reading) == (BODY, DESCRIPTION, PLAIN)
    assert statement is a_pool(two[1]).find_statement(BODY, first.followed), "and with whoever prepares it here"


def test_what_others_know_otherwise_here_is_not_shared(two):
    client = a_client(two[0])
    name(client, b"a")
    here = a_pool(two[1]).find_statement(BODY, {})
    here.description = b"other columns"
    statement = Road(*two).carry(client).statements.get(b"a")
    assert statement is not here
    assert statement.description == DESCRIPTION


def test_nor_is_what_nobody_has_described_yet(two):
    client = a_client(two[0])
    name(client, b"a")
    here = a_pool(two[1]).find_statement(BODY, {})
    assert Road(*two).carry(client).statements.get(b"a") is not here


@pytest.mark.parametrize("about", [{"is_outdated": True}, {"description": None}])
def test_nor_is_what_is_outdated_or_uncertain(two, about):
    client = a_client(two[0])
    name(client, b"a", **about)
    statement = Road(*two).carry(client).statements.get(b"a")
    assert statement is not a_pool(two[1]).find_statement(BODY, {})
    for what, value in about.items():
        assert getattr(statement, what) == value


def test_what_was_described_before_the_schema_changed_is_nobody_elses(two):
    client = a_client(two[0])
    name(client, b"a")
    client.pool.generation += 1
    statement = Road(*two).carry(client).statements.get(b"a")
    assert statement.description == DESCRIPTION
    innocent = a_pool(two[1]).find_statement(BODY, {})
    assert statement is not innocent
    assert innocent.description is None, "or whoever prepares it here would be told that its columns have changed"


def test_a_text_means_what_it_did_under_the_search_path_it_was_prepared_with(two):
    client = a_client(two[0])
    client.followed = {"search_path": "then"}
    name(client, b"a")
    client.followed = {"search_path": "now"}
    arrived = Road(*two).carry(client)
    pool = a_pool(two[1])
    assert arrived.statements.get(b"a") is pool.find_statement(BODY, {"search_path": "then"})
    assert arrived.statements.get(b"a") is not pool.find_statement(BODY, {"search_path": "now"})


def test_a_statement_of_sql_belongs_to_its_client_alone_and_says_what_it_does(two):
    client = a_client(two[0])
    statement = client.pool.statements.make(b" as set lock_timeout to 5", is_sql=True)
    client.statements = Names()
    client.statements.put(b"a", statement)
    arrived = Road(*two).carry(client).statements.get(b"a")
    assert arrived.is_sql
    assert arrived.build_prepare().endswith(b" as set lock_timeout to 5\0")
    assert not arrived.reading.has(What.PREPARE)


def test_a_text_that_speaks_of_names_is_made_anew_before_it_is_used(two):
    client = a_client(two[0])
    used = client.pool.statements.make(b" as select 1", is_sql=True)
    statement = client.pool.statements.make(b'execute "PGSHUTTLE_7"\0\0\0')
    statement.needs, statement.said = (used,), b"execute a\0\0\0"
    client.statements = Names()
    client.statements.put(b"a", used)
    client.statements.put(b"b", statement)
    arrived = Road(*two).carry(client).statements.get(b"b")
    assert arrived.needs == (NOBODYS,), "which is never what its names stand for"
    assert arrived.said == b"execute a\0\0\0"
    assert arrived.reading.has(What.EXECUTE)


# Whoever gives a client or a statement one more attribute decides here whether it travels.

PACKED = {
    "address", "begun", "connected_at", "followed", "key", "number", "origin", "ready_at", "request_at", "state",
    "statements", "unnamed", "unnamed_said", "unnamed_text", "user", "pool",
}  # fmt: skip
MADE_ANEW = {
    "__weakref__", "server", "session", "stall", "tags", "transport", "waiting_since", "xact_at", "is_notified",
    "probe", "unit",
}  # fmt: skip
KEEPS_IT_HERE = {
    "carry", "held", "held_care", "held_debts", "is_choked", "is_paced", "is_slicing", "is_stalled", "remain", "schema",
}  # fmt: skip


def test_of_every_attribute_of_a_client_it_is_known_whether_it_travels():
    assert set(Client.__slots__) == PACKED | MADE_ANEW | KEEPS_IT_HERE


def test_and_of_every_attribute_of_a_statement():
    packed = {"body", "context", "description", "is_outdated", "is_sql", "needs", "said"}
    assert set(Statement.__slots__) == packed | {"__weakref__", "name", "reading", "shape"}


# Who cannot travel.


def hindered(proxy, **about):
    client = a_client(proxy)
    for what, value in about.items():
        setattr(client, what, value)
    return find_hindrance(client)


@pytest.mark.parametrize(
    "about",
    [
        {"state": ACTIVE},
        {"state": WAITING},
        {"carry": b"Q"},
        {"remain": 5},
        {"held": b""},
        {"is_slicing": True},
        {"is_paced": True},
        {"is_choked": True},
        {"schema": -1},
    ],
)
def test_who_is_not_at_rest_stays(two, about):
    assert hindered(two[0], **about)


def test_who_is_at_rest_may_go(two):
    assert not hindered(two[0])
    assert not hindered(two[0], session=Session(), state=BEGUN, begun=b"x")


def test_who_has_left_something_in_its_session_stays(two):
    session = Session()
    session.pins["lock"] = None
    assert hindered(two[0], session=session) == "with something in its session"


def test_who_has_asked_to_listen_and_does_not_yet_stays(two):
    assert hindered(two[0], stall=SimpleNamespace(is_over=False)) == "about to listen"
    assert not hindered(two[0], stall=SimpleNamespace(is_over=True))


def test_who_has_not_heard_all_of_its_answer_stays(two):
    client = a_client(two[0])
    socket_of(client).is_slow = True
    client.deliver(b"x" * 10)
    assert find_hindrance(client) == "reading an answer"


def test_who_is_closing_stays(two):
    client = a_client(two[0])
    socket_of(client)._is_closing = True
    assert find_hindrance(client)


def test_a_name_that_is_in_doubt_stays(two):
    client = a_client(two[0])
    name(client, b"a")
    client.statements.pending[b"a"] = object()
    assert find_hindrance(client) == "preparing a statement"


# Who does not fit.


def packed(proxy, **changes):
    return {**pack_client(a_client(proxy), lambda statement: 1), **changes}


def no_statement(client, number):
    raise AssertionError("nobody asked")


@pytest.mark.parametrize(
    "changes",
    [
        {"database": "lost"},
        {"database": "pgbouncer"},
        {"key": ""},
        {"key": "x" * 300},
        {"key": None},
        {"address": ["localhost"]},
        {"followed": ["a"]},
        {"origin": None},
        {"unnamed": ["", ""]},
        {"unnamed": ["\u20ac", "", ""]},
        {"names": [["a"]]},
        {"age": "young"},
        {"number": None},
    ],
)
def test_what_makes_no_sense_is_declined(two, changes):
    with pytest.raises(Declined):
        unpack_client(two[1], packed(two[0], **changes), no_statement)


def test_a_key_that_somebody_has_here_is_declined(two):
    body = packed(two[0])
    somebody = a_client(two[1])
    somebody.key = body["key"].encode("latin-1")
    two[1].cancels.register(somebody)
    with pytest.raises(Declined, match="cancel key"):
        unpack_client(two[1], body, no_statement)


def test_named_statements_do_not_fit_where_servers_are_not_shared(tmp_path):
    old, new = tmp_path / "old.ini", tmp_path / "new.ini"
    old.write_text(INI)
    new.write_text(INI + "pool_mode = session\n")
    client = a_client(a_proxy(old))
    name(client, b"a")
    with pytest.raises(Declined, match="does not share"):
        Road(None, a_proxy(new)).carry(client)


def test_what_a_client_has_shown_comes_with_it_and_with_no_pool(two):
    keys = ScramKeys(b"c" * 32, b"s" * 32, b"k" * 32)
    learnt = LearntKeys(keys, b"salt", 4096)
    verifier = keys.verifier(b"salt", 4096)
    for proxy in two:
        proxy.users = Users({"anna": (verifier,)})
    client = a_client(two[0])
    two[0].proofs.keep(client.pool, Proof(verifier, learnt, None))
    packed = json.dumps(pack_pool(client.pool))
    assert "cccc" not in packed
    assert "Y2Nj" not in packed, "base64 of it"
    Road(*two).carry(client)
    assert two[1].proofs.find_login(a_pool(two[1]))[1] == (learnt,)


# Pools.


def test_a_pool_knows_what_its_servers_are_like_before_it_has_one(two):
    old, new = map(a_pool, two)
    old.welcome = {"server_version": "18.0", "TimeZone": "UTC"}
    old.learnt.base = {"lock_timeout": "5s"}
    old.learnt.customs["mark.er"] = None
    unpack_pool(two[1], json.loads(json.dumps(pack_pool(old))))
    assert new.welcome == old.welcome
    assert (new.learnt.base, list(new.learnt.customs)) == ({"lock_timeout": "5s"}, ["mark.er"])


def test_what_servers_of_another_place_are_like_is_told_nobody(two, tmp_path):
    old = a_pool(two[0])
    old.welcome = {"server_version": "17.0"}
    file = tmp_path / "moved.ini"
    file.write_text(INI.replace("port=1", "port=2"))
    moved = a_proxy(file)
    unpack_pool(moved, json.loads(json.dumps(pack_pool(old))))
    assert a_pool(moved).welcome is None, "a client waits until one is there"


def test_of_the_place_and_what_is_said_there_first_a_pool_tells_no_word(two, tmp_path):
    file = tmp_path / "talking.ini"
    file.write_text(INI.replace("port=1", "port=1 connect_query='select my_word()'", 1))
    packed = json.dumps(pack_pool(a_pool(a_proxy(file))))
    assert packed != json.dumps(pack_pool(a_pool(two[0])))
    assert "my_word" not in packed
    assert "127.0.0.1" not in packed


def test_nor_anything_by_which_a_password_could_be_guessed(two, tmp_path):
    """Not even its digest: whoever gets it could try words until one fits."""

    def told(password):
        file = tmp_path / "secret.ini"
        file.write_text(INI.replace("port=1", f"port=1 user=app password={password}", 1))
        return pack_pool(a_pool(a_proxy(file)))["leads_to"]

    assert told("guess") == told("right") != pack_pool(a_pool(two[0]))["leads_to"]


def test_a_pool_that_has_had_a_server_knows_better(two):
    old, new = map(a_pool, two)
    old.welcome, new.welcome = {"server_version": "17.0"}, {"server_version": "18.0"}
    unpack_pool(two[1], pack_pool(old))
    assert new.welcome == {"server_version": "18.0"}


def test_a_pool_that_never_had_a_server_says_nothing(two):
    unpack_pool(two[1], pack_pool(a_pool(two[0])))
    assert a_pool(two[1]).welcome is None
