"""auth_query as the proxy asks it: seldom, once for all who wait, and never so that a stranger could make it worse."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from protocol.authquery import build_auth_query
from protocol.backend import (
    build_command_complete,
    build_data_row,
    build_error,
    build_ready,
    build_row_description,
)
from protocol.errors import Refused
from protocol.passwords import Plain, ScramVerifier, Secret, build_verifier
from protocol.startup import Startup
from proxy.auth import lookup
from proxy.auth.lookup import (
    PAUSE,
    STRANGERS_AT_ONCE,
    Found,
    Lookups,
    Question,
    find_question,
    recall_claim,
    wait_claim,
)
from proxy.auth.users import NOBODY, Users
from proxy.config.ini import read
from proxy.errand import PATIENCE, TICK
from proxy.failing import LoginFailed
from proxy.main import Proxy
from proxy.states import IDLE, Closing
from proxy.tasks import Tasks
from tests.fakes import FakeClock, FakeLog, FakeWorld

QUESTION = Question("shop", "guard", "SELECT secret FROM secrets WHERE name=$1")
FIRST, SECOND = (Plain(Secret(word)) for word in ("first", "second"))
SCRAM = ScramVerifier(4096, b"salt", b"s" * 32, b"k" * 32)
TTL = 10.0


def answer(*rows):
    data = b"".join(build_data_row(["ann", row] if isinstance(row, str) else row) for row in rows)
    columns = build_row_description([("rolname", 19, 64), ("rolpassword", 25, -1)])
    done = build_command_complete(f"SELECT {len(rows)}") + build_ready(ord("I"))
    bound = b"1\0\0\0\4" + b"2\0\0\0\4"
    return bound + build_command_complete("SELECT 0") + bound + columns + data + done


def failed(state, message):
    return build_error("ERROR", state, message) + build_ready(ord("I"))


class Desk:
    """Lookups over a pool with `servers` servers, whose answers are given by hand."""

    def __init__(self, *, servers=1, ttl=TTL):
        self.world = FakeWorld(pool_size=4)
        with self.world.loop.running():
            self.servers = [self.world.new_server() for _ in range(servers)]
            self.lookups = Lookups(self)
        self.settings = SimpleNamespace(auth_query_ttl=ttl)
        self.config = SimpleNamespace(databases={"shop": None, "bank": None, "*": None})
        self.tasks = Tasks(self.world.log)
        self.pools = SimpleNamespace(find_lookup=lambda database, user: self.world.pool)

    clock = property(lambda self: self.world.clock)
    log = property(lambda self: self.world.log)

    def start(self, coroutine):
        task = self.world.loop.create_task(coroutine)
        self.turn()
        return task

    def ask(self, user="ann", database=QUESTION.database):
        return self.start(self.lookups.wait(replace(QUESTION, database=database), user))

    def doubt(self, found, user="ann"):
        return self.start(self.lookups.wait_newer(QUESTION, user, found))

    def turn(self, seconds=0.0):
        self.world.run_tasks(seconds)
        return self

    def answer(self, data, server=0):
        self.world.answer(self.servers[server], data)
        return self

    def learn(self, *rows, user="ann"):
        """Ask and answer; what came of it."""
        task = self.ask(user)
        return self.answer(answer(*rows)) and task.result()

    def find_last_asked(self):
        """Idle servers are a stack."""
        return min(number for number, server in enumerate(self.servers) if server.transport.written)

    @property
    def asked(self):
        """How many questions have reached the servers."""
        return sum(len(server.transport.written) for server in self.servers)


def test_the_question_is_asked_and_the_answer_remembered_until_its_time_is_over():
    desk = Desk()
    assert desk.learn("first").stored == (FIRST,)
    assert bytes(desk.servers[0].transport.arrived) == build_auth_query(QUESTION.query, "ann")
    assert desk.servers[0].state is IDLE
    desk.turn(TTL - 0.1)
    assert desk.ask().result().stored == (FIRST,)
    assert desk.asked == 1
    desk.turn(0.1)
    assert desk.learn("second").stored == (SECOND,)
    assert desk.asked == 2


def test_without_a_time_each_login_asks():
    desk = Desk(ttl=0.0)
    desk.learn("first")
    desk.learn("first")
    assert desk.asked == 2


def test_many_logins_of_one_user_are_one_question():
    desk = Desk()
    tasks = [desk.ask() for _ in range(500)]
    assert desk.asked == 1
    desk.answer(answer("first"))
    assert {task.result().stored for task in tasks} == {(FIRST,)}
    assert not desk.lookups.pending


def test_who_leaves_does_not_take_the_question_from_those_who_stay():
    desk = Desk()
    one, two = desk.ask(), desk.ask()
    one.cancel()
    desk.turn().answer(answer("first"))
    assert two.result().stored == (FIRST,)


def test_when_all_have_left_nobody_asks_any_more():
    desk = Desk(servers=0)
    tasks = [desk.ask() for _ in range(3)]
    assert len(desk.world.pool.waiting) == 1
    for task in tasks:
        task.cancel()
    desk.turn()
    assert not desk.world.pool.waiting
    assert not desk.lookups.pending


def test_who_comes_when_the_last_one_leaves_asks_for_himself():
    desk = Desk(servers=2)
    first = desk.ask()
    with desk.world.loop.running():
        first.cancel()
        second = desk.world.loop.create_task(desk.lookups.wait(QUESTION, "ann"))
    desk.turn()
    assert first.cancelled()
    assert not second.done()
    desk.answer(answer("old"), server=1)
    desk.answer(answer("first"), server=0)
    assert second.result().stored == (FIRST,)


def test_that_there_is_nobody_is_remembered_for_as_long_as_anything_else():
    desk = Desk()
    assert desk.learn(user="bob").stored == ()
    desk.turn(9.9)  # of 10: else the time that a second try takes would tell who exists
    assert desk.ask("bob").result().stored == ()
    assert desk.asked == 1
    desk.turn(0.1)
    desk.ask("bob")
    assert desk.asked == 2


def test_a_wrong_password_is_reason_to_ask_again_but_not_at_once():
    desk = Desk()
    found = desk.learn("first")
    desk.turn(PAUSE - 0.1)
    assert desk.doubt(found).result() is None
    assert desk.asked == 1
    desk.turn(0.1)
    newer = desk.doubt(found)
    desk.answer(answer("second"))
    assert newer.result().stored == (SECOND,)
    assert desk.ask().result().stored == (SECOND,)
    assert desk.asked == 2
    assert desk.doubt(found).result().stored == (SECOND,), "somebody else has asked already"
    assert desk.asked == 2


def test_whoever_tries_passwords_asks_once_a_second():
    desk = Desk()
    found = desk.learn("first")
    for _ in range(50):
        desk.turn(0.1)
        task = desk.doubt(found)
        if not task.done():
            desk.answer(answer("first"))
        found = task.result() or found
    assert desk.asked <= 6


def test_a_doubt_that_cannot_be_settled_leaves_the_password_wrong():
    desk = Desk()
    found = desk.learn("first")
    desk.turn(PAUSE)
    task = desk.doubt(found)
    desk.answer(failed("XX000", "no"))
    assert task.result() is None
    assert desk.ask().result().stored == (FIRST,)


def test_made_up_names_are_bounded_and_push_nobody_out(monkeypatch):
    monkeypatch.setattr(lookup, "MOST_UNKNOWN", 10)
    desk = Desk()
    desk.learn("first")
    for number in range(50):
        desk.learn(user=f"nobody{number}")
    assert len(desk.lookups) == 11
    assert desk.ask().result().stored == (FIRST,)


def test_users_are_bounded_too(monkeypatch):
    monkeypatch.setattr(lookup, "MOST_KNOWN", 10)
    desk = Desk()
    for number in range(50):
        desk.learn([f"user{number}", build_verifier(SCRAM)], user=f"user{number}")
    assert len(desk.lookups) == 10
    assert desk.lookups.mostly_scram


def test_of_the_questions_asked_at_a_time_half_are_for_those_who_were_found_before():
    desk = Desk(servers=4)
    desk.lookups.note((QUESTION, "ann"), Found((FIRST,), desk.clock.now()))
    desk.turn(TTL)
    before = desk.asked
    flood = [desk.ask(f"nobody{number}") for number in range(20)]
    assert desk.asked == before + STRANGERS_AT_ONCE
    desk.ask()
    assert desk.asked == before + STRANGERS_AT_ONCE + 1
    assert not any(task.done() for task in flood)


def test_strangers_who_ask_where_nobody_answers_hold_up_nobody_elsewhere():
    desk = Desk(servers=4)
    for number in range(10):
        desk.ask(f"nobody{number}")
    assert desk.asked == STRANGERS_AT_ONCE
    newcomer = desk.ask("ann", "bank")
    assert desk.asked == STRANGERS_AT_ONCE + 1
    desk.answer(answer("first"), server=desk.find_last_asked())
    assert newcomer.result().stored == (FIRST,)


def test_names_that_only_the_star_knows_share_one_door():
    desk = Desk(servers=4)
    for number in range(10):
        desk.ask("ann", f"made up {number}")
    assert desk.asked == STRANGERS_AT_ONCE


def test_what_an_unknown_user_meets_is_what_most_of_the_known_meet():
    desk = Desk()
    assert desk.lookups.mostly_scram, "as PostgreSQL itself, as long as nobody is known"
    desk.learn("first")
    assert not desk.lookups.mostly_scram
    desk.learn(["bob", build_verifier(SCRAM)], user="bob")
    assert desk.lookups.mostly_scram
    desk.turn(TTL)
    desk.learn(user="bob")
    assert not desk.lookups.mostly_scram


def test_a_secret_is_current_until_another_one_is_found():
    desk = Desk()
    assert desk.lookups.is_current(QUESTION, "ann", FIRST), "nobody knows better"
    desk.learn("first")
    desk.turn(TTL)
    assert desk.lookups.is_current(QUESTION, "ann", FIRST)
    assert not desk.lookups.is_current(QUESTION, "ann", SECOND)
    desk.learn()
    assert not desk.lookups.is_current(QUESTION, "ann", FIRST)


def test_what_is_forgotten_is_asked_again_and_an_answer_under_way_does_not_count():
    desk = Desk()
    task = desk.ask()
    desk.lookups.forget()
    desk.answer(answer("first"))
    assert task.result().stored == (FIRST,), "of who has asked"
    assert len(desk.lookups) == 0
    assert desk.learn("second").stored == (SECOND,)


@pytest.mark.parametrize(
    ("said", "sentence", "noted"),
    [
        (
            build_error("ERROR", "42P01", 'relation "x" does not exist') + build_ready(ord("I")),
            "error response",
            "42P01",
        ),
        (answer(["a", "b", "c"]), "unexpected response", "another width"),
        (answer(), None, None),
        (answer("a", "b"), None, "more than one row"),
        (answer(["anna", "x"]), None, "for somebody else"),
        (answer("SCRAM-SHA-256$broken"), None, "not of the form"),
        (failed("22021", "invalid byte sequence"), None, None),
    ],
)
def test_the_log_says_what_is_wrong_and_the_client_hears_little(said, sentence, noted):
    desk = Desk()
    task = desk.ask()
    desk.answer(said)
    if sentence is None:
        assert task.result().stored == ()
    else:
        with pytest.raises(Refused, match=sentence) as refused:
            task.result()
        assert noted not in f"{refused.value.sentence} {refused.value.detail} {refused.value.hint}"
    assert (noted or "auth_query") in desk.log.text or noted is None
    assert "broken" not in desk.log.text


def test_a_lost_connection_is_tried_once_more():
    desk = Desk(servers=2)
    task = desk.ask()
    with desk.world.loop.running():
        desk.servers[1].transport.peer_breaks()
    desk.turn().turn(TICK).answer(answer("first"))
    assert task.result().stored == (FIRST,)


def test_a_query_that_hangs_is_not_asked_again():
    desk = Desk(servers=2)
    task = desk.ask()
    with desk.world.loop.running():
        desk.world.clock.advance(PATIENCE)
        desk.servers[1].close(Closing.TEST_TIMEOUT)
    desk.turn(TICK)
    with pytest.raises(Refused, match="error response from auth_query"):
        task.result()
    assert not desk.servers[0].transport.written


def test_a_stranger_does_not_hear_where_the_server_is_that_cannot_be_reached():
    desk = Desk(servers=0)
    task = desk.ask()
    fail(desk, LoginFailed("08006", "connect failed: nobody at 10.0.0.5"))
    with pytest.raises(Refused, match=r"^auth_query cannot be run: there is no connection to the server$") as refused:
        task.result()
    assert (refused.value.sqlstate, refused.value.detail) == ("08006", "")


def test_that_auth_user_may_not_log_in_is_for_the_log():
    desk = Desk(servers=0)
    task = desk.ask()
    fail(desk, LoginFailed("28P01", 'password authentication failed for user "guard"'))
    with pytest.raises(Refused, match=r"^bouncer config error$") as refused:
        task.result()
    assert refused.value.sqlstate == "28000"
    assert 'password authentication failed for user "guard"' in desk.log.text


def test_in_a_database_that_does_not_exist_there_is_nobody():
    desk = Desk(servers=0)
    task = desk.ask()
    fail(desk, LoginFailed("3D000", 'database "made-up" does not exist'))
    assert (task.result().stored, task.result().why_nobody) == ((), 'database "shop" does not exist')


def fail(desk, failure):
    world = desk.world
    with world.loop.running():
        world.obstacle = object()
        for server in list(world.openings):
            world.pool.places[0].pop(server, None)
        world.pool.opening_failed(failure)
    desk.turn(TICK)


# Whom to ask.


def a_proxy(tmp_path, databases, users=NOBODY, **settings):
    lines = "\n".join(
        f"{name} = {value}" for name, value in {"listen_addr": "", "unix_socket_dir": "", **settings}.items()
    )
    (tmp_path / "proxy.ini").write_text(f"[databases]\n{databases}\n[proxy]\n{lines}\n")
    return Proxy(read(str(tmp_path / "proxy.ini")), users, FakeLog(), FakeClock())


DATABASES = "\n".join(
    ["shop = host=a", "own = host=a auth_user=warden auth_query='SELECT $1' auth_dbname=vault", "vault = host=b"]
)


def test_the_entry_counts_more_than_the_settings(tmp_path):
    proxy = a_proxy(tmp_path, DATABASES, auth_user="guard", auth_query="SELECT 1")
    assert find_question(proxy, "shop") == Question("shop", "guard", "SELECT 1")
    assert find_question(proxy, "own") == Question("vault", "warden", "SELECT $1")
    assert find_question(proxy, "nowhere") is None
    assert find_question(proxy, "pgbouncer") is None


def test_without_auth_user_nobody_is_asked(tmp_path):
    proxy = a_proxy(tmp_path, DATABASES)
    assert find_question(proxy, "shop") is None
    assert find_question(proxy, "own") is not None


def test_the_console_asks_where_auth_dbname_says(tmp_path):
    proxy = a_proxy(tmp_path, DATABASES, auth_user="guard", auth_query="SELECT 1", auth_dbname="vault")
    asked = Question("vault", "guard", "SELECT 1")
    assert (
        find_question(proxy, "pgbouncer") == find_question(proxy, "pgshuttle") == find_question(proxy, "shop") == asked
    )


@pytest.mark.parametrize(
    ("name", "noted"),
    [
        ("nowhere", 'authentication database "nowhere" is not configured'),
        ("pgbouncer", 'cannot use the reserved "pgbouncer" database as an auth_dbname'),
    ],
)
def test_an_auth_dbname_that_cannot_be_is_told_to_the_log(tmp_path, name, noted):
    proxy = a_proxy(tmp_path, DATABASES, auth_user="guard", auth_dbname=name)
    with pytest.raises(Refused, match=r"^bouncer config error$"):
        find_question(proxy, "shop")
    assert noted in proxy.log.text


def test_whoever_is_in_the_file_is_asked_of_nobody(tmp_path):
    proxy = a_proxy(tmp_path, DATABASES, Users({"ann": (FIRST,)}), auth_user="guard")
    loop = FakeWorld().loop
    with loop.running():
        task = loop.create_task(wait_claim(proxy, Startup(3, 0, {"user": "ann", "database": "shop"}), "10.0.0.1"))
        loop.turn()
    claim = task.result()
    assert (claim.stored, claim.source) == ((FIRST,), None)


def test_whoever_was_found_is_known_by_the_question(tmp_path):
    proxy = a_proxy(tmp_path, DATABASES, auth_user="guard")
    question = find_question(proxy, "shop")
    proxy.lookups.note((question, "ann"), Found((SCRAM,), proxy.clock.now()))
    loop = FakeWorld().loop
    with loop.running():
        task = loop.create_task(wait_claim(proxy, Startup(3, 0, {"user": "ann", "database": "shop"}), "10.0.0.1"))
        loop.turn()
    claim = task.result()
    assert (claim.stored, claim.source, claim.strangers_meet_scram) == ((SCRAM,), question, True)


@pytest.mark.parametrize("guard", [FIRST, SCRAM])
@pytest.mark.parametrize("known", [FIRST, SCRAM])
def test_an_unknown_user_meets_the_same_whether_the_database_exists_or_not(tmp_path, guard, known):
    """Else the question he is asked would tell which databases there are, under md5."""
    proxy = a_proxy(tmp_path, DATABASES, Users({"guard": (guard,)}), auth_user="guard")
    question = find_question(proxy, "shop")
    proxy.lookups.note((question, "ann"), Found((known,), proxy.clock.now()))
    proxy.lookups.note((question, "nobody"), Found((), proxy.clock.now()))
    there, nowhere = (
        recall_claim(proxy, Startup(3, 0, {"user": "nobody", "database": name}), "10.0.0.1")
        for name in ("shop", "nowhere")
    )
    assert there.strangers_meet_scram is nowhere.strangers_meet_scram is (known is SCRAM)
