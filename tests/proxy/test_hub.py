"""LISTEN for clients that share servers: who is told what, when, and what nobody must be told."""

import random

import pytest

from protocol import codes
from protocol.backend import Notification, build_notification, parse_error
from proxy.config.entries import Database
from proxy.config.reload import compare
from proxy.ear import STEADY, EarPool
from proxy.hub import MAX_CHANNELS, MAX_IN_ALL, PATIENCE, PLACE_PATIENCE
from proxy.laws import check_pool
from proxy.mailbox import MAX_BYTES, MAX_LETTERS
from proxy.pools import Pools
from proxy.states import CLOSED, CLOSING, GONE, IDLE, LINKED, WAITING, Closing, PoolState, Waiting
from tests.fakes import IS_HUNT, FakeWorld
from tests.listening import Stage, heard, news, notification, warnings
from tests.play import asked, said
from tests.proxy.test_pools import config


@pytest.fixture(name="stage")
def _stage():
    stage = Stage()
    with stage.loop.running():
        yield stage
        stage.loop.turn()
        stage.check()


def in_transaction(stage, client):
    """`client` gets a server and begins; the server is returned."""
    server = stage.new_server()
    client.transport.peer_sends(asked("Q:select_1"))
    server.transport.peer_sends(said("C Z:T"))
    news(client)
    return server


# Delivering.


def test_everyone_who_named_the_channel_hears_it_as_the_same_bytes(stage):
    anna, bert, cora = stage.ready(b"news"), stage.ready(b"news", b"more"), stage.ready(b"more")
    message = stage.notify(b"news", b"x" * 7999)
    assert heard(anna) == heard(bert) == message
    assert heard(cora) == b""


def test_several_at_once_come_in_order(stage):
    client = stage.ready(b"a", b"b")
    burst = b"".join(notification(name, b"%d" % number) for number in range(50) for name in (b"a", b"b"))
    stage.socket.peer_sends(burst)
    assert heard(client) == burst


def test_nobody_hears_before_postgresql_has_confirmed(stage):
    stage.ready(b"other")
    client = stage.new_client()
    stage.listen(client, b"news")
    stage.socket.peer_sends(notification(b"news", b"too early"))
    assert heard(client) == b""
    assert stage.hub.unwanted == 1


def test_nobody_hears_what_it_does_not_want_any_more(stage):
    client, other = stage.ready(b"news"), stage.ready(b"other")
    stage.unlisten(client, b"news")
    stage.notify(b"news")
    stage.unlisten(other)
    stage.notify(b"other")
    assert heard(client) == heard(other) == b""
    assert stage.hub.unwanted == 2


def test_in_a_transaction_it_waits_and_comes_at_its_end(stage):
    client = stage.ready(b"news")
    server = in_transaction(stage, client)
    message = stage.notify(b"news")
    assert heard(client) == b""
    stage.hub.flush(client)
    assert heard(client) == b""
    client.transport.peer_sends(asked("Q:select_1"))
    server.transport.peer_sends(said("C Z:I"))
    assert news(client) == said("C Z:I")
    stage.hub.flush(client)
    assert heard(client) == message
    stage.hub.flush(client)
    assert heard(client) == message


def test_in_the_middle_of_a_message_it_waits(stage):
    client = stage.ready(b"news")
    server = in_transaction(stage, client)
    client.transport.peer_sends(asked("Q:select_1"))
    row = said("D:" + "x" * 100_000)
    server.transport.peer_sends(row[:50_000])
    message = stage.notify(b"news")
    server.transport.peer_sends(row[50_000:] + said("C Z:I"))
    stage.hub.flush(client)
    assert heard(client) == row + said("C Z:I") + message


def test_one_that_waits_for_a_server_hears_at_once(stage):
    client = stage.ready(b"news")
    client.transport.peer_sends(asked("Q:select_1"))
    assert client.state is WAITING
    assert heard(client) == b""
    assert stage.notify(b"news") == heard(client)


def test_the_janitors_tick_delivers_what_nobody_flushed(stage):
    client = stage.ready(b"news")
    client.is_choked = True
    message = stage.notify(b"news")
    stage.sweep()
    assert heard(client) == b""
    client.is_choked = False
    stage.sweep()
    assert heard(client) == message


def test_what_comes_later_does_not_overtake(stage):
    client = stage.ready(b"news")
    client.is_choked = True
    first = stage.notify(b"news", b"first")
    client.is_choked = False
    second = stage.notify(b"news", b"second")
    assert heard(client) == b""
    stage.sweep()
    assert heard(client) == first + second


def test_a_client_that_never_reads_costs_no_more_than_its_mailbox(stage):
    slow = stage.new_client(is_slow=True)
    stage.listen(slow, b"news")
    stage.open()
    stage.answer_all()
    quick = stage.ready(b"news")
    for _ in range(500):
        stage.socket.peer_sends(notification(b"news", b"x" * 7999))
    (box,) = (box for box in stage.hub.books.mailboxes.values() if box.client is slow)
    assert box.size <= MAX_BYTES
    assert len(slow.transport.unsent) < 80_000
    assert heard(quick) == notification(b"news", b"x" * 7999) * 500
    assert stage.hub.lost == box.lost == stage.hub.report()[0][5] > 300
    while slow.transport.unsent:
        slow.transport.peer_reads()
        stage.sweep()
    assert warnings(heard(slow)) == ["some notifications were lost"]


def test_tiny_ones_are_bounded_by_number(stage):
    client = stage.ready(b"n")
    client.is_choked = True
    for _ in range(MAX_LETTERS + 7):
        stage.socket.peer_sends(notification(b"n", b""))
    client.is_choked = False
    stage.sweep()
    text = heard(client)
    assert warnings(text) == ["some notifications were lost"]
    assert text.endswith(notification(b"n", b"") * MAX_LETTERS)
    assert b"7 were thrown away" in text


def test_what_was_unsubscribed_in_the_transaction_is_not_delivered_after_it(stage):
    client = stage.ready(b"a", b"b")
    server = in_transaction(stage, client)
    stage.notify(b"a")
    kept = stage.notify(b"b")
    stage.unlisten(client, b"a")
    client.transport.peer_sends(asked("Q:select_1"))
    server.transport.peer_sends(said("Z:I"))
    stage.hub.flush(client)
    assert heard(client) == said("Z:I") + kept


# Asking.


def test_several_who_wait_share_one_request(stage):
    clients = [stage.new_client() for _ in range(20)]
    answers = [stage.listen(client, b"news") for client in clients]
    stage.open()
    stage.answer_all()
    assert answers == [[None]] * 20
    assert stage.asked[1:] == [b'LISTEN "news"']
    message = stage.notify(b"news")
    assert {heard(client) for client in clients} == {message}


def test_what_is_confirmed_is_confirmed_at_once(stage):
    stage.ready(b"news")
    client = stage.new_client()
    assert stage.listen(client, b"news") == [None]
    assert stage.listen(client, b"news") == [None]
    assert stage.hub.channels_of(client) == [b"news"]
    assert stage.pending() == []


def test_a_client_that_leaves_while_it_waits_is_not_told(stage):
    stage.ready(b"other")
    client = stage.new_client()
    answers = stage.listen(client, b"news")
    stage.leave(client)
    stage.answer()
    assert answers == []
    stage.sweep()
    assert stage.answer() == b'UNLISTEN "news"'
    assert [row[0] for row in stage.hub.report()] == [b"other"]


def test_a_client_that_leaves_before_the_connection_is_there(stage):
    client = stage.new_client()
    stage.listen(client, b"news")
    stage.leave(client)
    assert stage.ear not in stage.ear.pool.waiting
    stage.open()
    assert len(stage.ear.pool.places[IDLE]) == 1
    assert stage.pending() == []


def test_when_no_connection_can_be_opened_they_hear_why(stage):
    answers = [stage.listen(stage.new_client(), b"news") for _ in range(3)]
    stage.fail_opening("password authentication failed")
    assert [error.message for (error,) in answers] == ["password authentication failed"] * 3
    assert [error.severity for (error,) in answers] == ["ERROR"] * 3
    (error,) = stage.listen(stage.new_client(), b"news")
    assert "cached error: password authentication failed" in error.message


def test_there_is_no_place_for_a_connection_that_listens(stage):
    stage.obstacle = Waiting.NO_PLACE_TO_LISTEN
    (error,) = stage.listen(stage.new_client(), b"news")
    assert error.sqlstate == "53300"
    assert "leaves no place for a connection that listens" in error.message
    assert error.hint


@pytest.mark.parametrize("obstacle", [Waiting.DATABASE_LIMIT, Waiting.USER_LIMIT])
def test_a_limit_is_waited_for_but_not_for_long(stage, obstacle):
    stage.obstacle = obstacle
    answers = stage.listen(stage.new_client(), b"news")
    assert stage.wanted_room == [obstacle]
    stage.sweep(PLACE_PATIENCE - 1)
    assert answers == []
    stage.sweep(2)
    (error,) = answers
    assert error.sqlstate == "53300"
    assert obstacle.value in error.message


def test_a_pause_is_waited_for_except_by_those_it_waits_for(stage):
    stage.ear.pool.pause()
    resting, busy = stage.new_client(), stage.new_client()
    waits, error = stage.listen(resting, b"news"), None
    in_transaction(stage, busy)
    errors = stage.listen(busy, b"news")
    stage.sweep(PLACE_PATIENCE + 1)
    (error,) = errors
    assert (error.sqlstate, error.message) == ("57P03", "the database is paused")
    stage.sweep(1000)
    assert waits == []
    stage.ear.pool.unpause()
    stage.open()
    stage.answer_all()
    assert waits == [None]


def test_an_answer_that_does_not_come_is_not_waited_for_for_ever(stage):
    stage.ready(b"other")
    answers = stage.listen(stage.new_client(), b"news")
    for _ in range(int(PATIENCE) + 1):
        stage.sweep(1.0)
    assert [error.sqlstate for error in answers] == ["08006"]


def test_names_that_are_no_names_are_refused(stage):
    client = stage.new_client()
    (error,) = stage.listen(client, b"")
    assert error.sqlstate == "42601"
    (error,) = stage.listen(client, b"a\0b")
    assert error.sqlstate == "0A000"
    (error,) = stage.listen(client, b"\xff")
    assert error.sqlstate == "0A000"
    stage.unlisten(client, b"")
    assert not stage.hub.books.mailboxes


def test_a_long_name_is_cut_where_postgresql_cuts_it(stage):
    client = stage.new_client()
    stage.listen(client, b"n" * 70)
    stage.listen(client, b"n" * 62 + "é".encode())
    stage.open()
    stage.answer_all()
    assert stage.listening == {b"n" * 63, b"n" * 62}
    stage.unlisten(client, b"n" * 70)
    assert stage.hub.channels_of(client) == [b"n" * 62]


def test_a_client_may_have_ten_thousand_channels(stage):
    client = stage.new_client()
    for number in range(MAX_CHANNELS):
        stage.hub.listen(client, b"%d" % number, lambda error: None)
    (error,) = stage.listen(client, b"one more")
    assert error.sqlstate == "53400"
    stage.open()
    stage.answer_all()
    (error,) = stage.listen(client, b"one more")
    assert error.sqlstate == "53400"
    assert stage.listen(client, b"7") == [None]
    other = stage.new_client()
    for number in range(MAX_CHANNELS, MAX_IN_ALL):
        stage.hub.listen(other, b"%d" % number, lambda error: None)
    (error,) = stage.listen(stage.new_client(), b"one more")
    assert "all clients of a pool together" in error.message
    assert stage.listen(stage.new_client(), b"7") == [None]


# When the connection is lost.


def test_all_who_listened_are_told_what_they_may_have_missed(stage):
    anna, bert, cora = (
        stage.ready(b"news"),
        stage.ready(*(b"%02d" % number for number in range(15))),
        stage.new_client(),
    )
    stage.advance(STEADY)
    stage.die()
    answers = stage.listen(cora, b"late")
    stage.open()
    stage.answer_all()
    assert answers == [None]
    assert heard(cora) == b""
    (warning,) = (parse_error(heard(client)[5:]) for client in (anna,))
    assert (warning.severity, warning.sqlstate) == ("WARNING", "01000")
    assert warning.message == "notifications may have been missed"
    assert "server conn crashed?" in warning.detail
    assert "'news'" in warning.detail
    assert "'09' and 5 more." in parse_error(heard(bert)[5:]).detail
    message = stage.notify(b"news")
    assert heard(anna).endswith(message)


def test_the_warning_comes_after_everything_is_confirmed_and_only_once(stage):
    client = stage.ready(*(b"%d" % number for number in range(1500)))
    stage.advance(STEADY)
    stage.die()
    stage.open()
    stage.answer()
    stage.answer()
    assert heard(client) == b""
    stage.answer()
    assert warnings(heard(client)) == ["notifications may have been missed"]
    stage.listen(client, b"one more")
    stage.answer_all()
    assert len(warnings(heard(client))) == 1


def test_lost_twice_is_told_once(stage):
    client = stage.ready(b"a", b"b")
    stage.advance(STEADY)
    stage.die()
    stage.open()
    stage.answer()
    stage.advance(STEADY)
    stage.die()
    stage.open()
    stage.answer_all()
    assert warnings(heard(client)) == ["notifications may have been missed"]


def test_who_left_or_unlistened_meanwhile_is_not_told(stage):
    anna, bert = stage.ready(b"a"), stage.ready(b"a", b"b")
    stage.advance(STEADY)
    stage.die()
    stage.leave(anna)
    stage.unlisten(bert, b"a")
    stage.open()
    stage.answer_all()
    assert heard(anna) == b""
    assert b"'b'" in heard(bert)
    assert b"'a'" not in heard(bert)


def test_when_it_cannot_be_opened_again_the_deaf_are_told_so(stage):
    client = stage.ready(b"news")
    stage.advance(STEADY)
    stage.die()
    for _ in range(4):
        stage.fail_opening("connection refused")
        for _ in range(20):
            stage.sweep()
            if stage.openings:
                break
    assert warnings(heard(client)) == ["notifications are being missed"]
    stage.open()
    stage.answer_all()
    assert warnings(heard(client)) == ["notifications are being missed", "notifications may have been missed"]


def test_a_name_the_next_server_does_not_take_ends_that_listen_alone(stage):
    client = stage.ready(b"good", "böse".encode())
    stage.advance(STEADY)
    stage.die()
    stage.open()
    stage.answer()
    while stage.pending():
        is_bad = "böse".encode() in stage.pending()[0]
        stage.answer(error=("22P05", "no such character") if is_bad else None)
    assert stage.hub.channels_of(client) == [b"good"]
    assert warnings(heard(client)) == ["LISTEN has ended", "notifications may have been missed"]
    assert rb"'b\xf6se'" in heard(client)


# Encodings.


def latin(stage, encoding="LATIN1"):
    return stage.new_client(client_encoding=encoding)


def test_each_client_hears_in_its_own_encoding(stage):
    plain, western, bytes_only = stage.ready("naïve".encode()), latin(stage), latin(stage, "SQL_ASCII")
    assert stage.listen(western, "naïve".encode("latin-1")) == [None]
    assert stage.listen(bytes_only, "naïve".encode()) == [None]
    message = stage.notify("naïve".encode(), "café".encode())
    assert heard(plain) == heard(bytes_only) == message
    translated = Notification(4711, "naïve".encode("latin-1"), "café".encode("latin-1"))
    assert heard(western) == build_notification(translated)


def test_what_cannot_be_said_in_its_encoding_is_told_and_counted(stage):
    western = latin(stage)
    stage.listen(western, b"news")
    stage.open()
    stage.answer_all()
    stage.notify(b"news", "3 €".encode())
    assert warnings(heard(western)) == ["a notification could not be delivered"]
    assert stage.hub.lost == 1
    plain = stage.notify(b"news", b"3 dollars")
    assert heard(western).endswith(plain)


def test_a_payload_that_is_not_utf8_at_all_is_not_guessed_at(stage):
    western = latin(stage)
    stage.listen(western, b"news")
    stage.open()
    stage.answer_all()
    stage.notify(b"news", b"\xff\xfe")
    assert warnings(heard(western)) == ["a notification could not be delivered"]


def test_an_encoding_we_do_not_know_may_listen_in_ascii_only(stage):
    client = latin(stage, "EUC_JP")
    (error,) = stage.listen(client, b"\xa4\xa2")
    assert error.sqlstate == "0A000"
    assert "EUC_JP" in error.message
    assert error.hint
    stage.unlisten(client, b"\xa4\xa2")
    answers = stage.listen(client, b"news")
    stage.open()
    stage.answer_all()
    assert answers == [None]


# Hostile names.


@pytest.mark.parametrize(
    "name", [b'"', b'""', b"a;b", b"'; DROP TABLE x", b"\\", b"*", b"a\nb", b" ", b"LISTEN", b"\xf0\x9f\x90\x98"]
)
def test_any_name_is_one_name(stage, name):
    client = stage.new_client()
    answers = stage.listen(client, name)
    stage.open()
    stage.answer()
    (text,) = stage.pending()
    assert text == b'LISTEN "' + name.replace(b'"', b'""') + b'"'
    stage.socket.peer_sends(said("C Z:I"))
    assert answers == [None]
    stage.socket.peer_sends(notification(name))
    assert heard(client) == notification(name)


def test_a_name_postgresql_could_not_have_is_nobodys(stage):
    client = stage.ready(b"news")
    for name in (b"", b"NEWS", b"n" * 5000, b"\xff\xff"):
        stage.socket.peer_sends(notification(name))
    assert heard(client) == b""
    assert stage.hub.unwanted == 4


def test_the_report_counts(stage):
    stage.ready(b"a")
    stage.ready(b"a", b"b")
    stage.notify(b"a")
    assert stage.hub.report() == [(b"a", "listening", 2, 0, 1, 0), (b"b", "listening", 1, 0, 0, 0)]
    assert (stage.hub.received, stage.hub.delivered) == (1, 2)
    assert repr(stage.hub).endswith("shop/web")


# Whatever happens.


@pytest.mark.parametrize("seed", range(300 if IS_HUNT else 40))
def test_in_any_storm_everyone_hears_what_it_listens_to_and_nothing_else(seed):
    chance = random.Random(seed)
    stage = Storm(chance)
    with stage.loop.running():
        for _ in range(250):
            stage.step()
        stage.finish()


class Storm(Stage):
    """Random steps; `expected` is what each client must have heard."""

    NAMES = (b"a", b"b", b"c", "naïve".encode())

    def __init__(self, chance):
        super().__init__(pool_size=10)
        self.chance = chance
        self.expected = {}
        self.answers = []  # (client, name, answers), until they come
        self.said = 0
        with self.loop.running():
            for _ in range(4):
                self.join()

    def join(self):
        client = self.new_client()
        self.expected[client] = b""

    def step(self):
        client = self.chance.choice(list(self.expected))
        name = self.chance.choice(self.NAMES)
        step = self.chance.randrange(14)
        if step < 3:
            self.answers.append((client, name, self.listen(client, name)))
        elif step == 3:
            self.unlisten(client, name)
        elif step == 4 and self.chance.random() < 0.3:
            self.unlisten(client)
        elif step == 5 and self.chance.random() < 0.3:
            self.hear_all(client)
            self.leave(client)
            del self.expected[client]
            self.join()
        elif step < 8 and self.ear.server is not None and self.pending():
            is_refused = self.chance.random() < 0.1 and self.pending()[0][:1] != b"S"
            self.answer(error=(self.chance.choice(["22P05", "25006"]), "no") if is_refused else None)
        elif step < 11 and self.ear.server is not None:
            self.tell(name)
        elif step == 11 and self.chance.random() < 0.2 and self.ear.server is not None:
            self.die(self.chance.choice(["", "bye"]))
        elif step == 12:
            self.toggle(client)
        else:
            self.pass_time()
        self.loop.turn()
        self.check()

    def tell(self, name):
        self.said += 1
        if name not in self.listening:
            return
        message = notification(name, b"%d" % self.said)
        for client in self.expected:
            if name in self.hub.channels_of(client):
                self.expected[client] += message
        self.socket.peer_sends(message)

    def toggle(self, client):
        """It stops reading, or reads on. (What it unsubscribes from meanwhile is taken away: `hear_all` knows.)"""
        client.is_choked = not client.is_choked

    def pass_time(self):
        for server in list(self.openings):
            if self.chance.random() < 0.3:
                self.fail_opening()
            elif server in self.openings:
                self.open()
        self.sweep(self.chance.choice([0.1, 1.0, 12.0]))
        if self._server is not None and self._server.state is CLOSING:
            self.socket.peer_hangs_up()

    def hear_all(self, client):
        """What has come is a part of what was due, in order, and all of it if nothing was taken back."""
        due = iter(split(self.expected[client]))
        for message in split(heard(client)):
            if message[0] == codes.NOTIFICATION_RESPONSE:
                assert any(message == each for each in due), "out of order, twice, or somebody else's"

    def finish(self):
        for client in self.expected:
            client.is_choked = False
        for _ in range(100):
            for server in list(self.openings):
                if server in self.openings:
                    self.open()
            self.answer_all()
            self.sweep(1.0)
            if self._server is not None and self._server.state is CLOSING:
                self.socket.peer_hangs_up()
                self.loop.turn()
        assert not self.hub.books.waits
        assert set(self.hub.books.channels) == self.listening
        for client in self.expected:
            self.hear_all(client)
        for client in self.expected:
            news(client)
            self.expected[client] = b""
        for name in self.NAMES:
            self.tell(name)
        for client, due in self.expected.items():
            assert heard(client) == due


def split(data):
    messages = []
    while data:
        end = 1 + int.from_bytes(data[1:5], "big")
        messages.append(data[:end])
        data = data[end:]
    return messages


# Among all pools.


class Yard(FakeWorld):
    """All pools of a configuration, as the proxy has them."""

    def __init__(self, *databases, **said):
        super().__init__()
        self.config = config(databases, **said)
        self.pools = Pools(self, self.config)

    def find(self, database, user="web"):
        pool = self.pools.find(self.config.find_database(database), user)
        pool.welcome = {"client_encoding": "UTF8"}
        return pool

    def find_obstacle(self, pool):
        return self.pools.find_obstacle(pool)

    def make_room(self, pool, obstacle):
        self.pools.make_room(pool, obstacle)

    def room_made(self, pool):
        self.pools.room_made(pool)

    def listen(self, pool, name=b"news"):
        answers = []
        hub = self.pools.find_hub(pool)
        client = self.new_client(pool=pool)
        hub.listen(client, name, answers.append)
        return hub, client, answers

    def reload(self, *databases, **said):
        changes = compare(self.config, config(databases, **said))
        self.config = changes.effective
        self.pools.reconcile(changes, {})

    def check(self):
        for pool in self.pools:
            check_pool(pool)
        for hub in self.pools.hubs():
            hub.check()


@pytest.fixture(name="yard")
def _yard():
    def build(*databases, **said):
        yard = Yard(*databases, **said)
        yards.append(yard)
        return yard

    yards = []
    stage = FakeWorld()
    with stage.loop.running():
        yield build
    for yard in yards:
        yard.check()


def test_each_pool_has_one_hub_of_its_own(yard):
    world = yard(Database(name="shop"))
    anna, bert = world.find("shop", "anna"), world.find("shop", "bert")
    assert world.pools.find_hub(anna) is world.pools.find_hub(anna)
    assert world.pools.find_hub(anna) is not world.pools.find_hub(bert)
    assert [pool.user for pool in world.pools] == ["anna", "bert", "anna", "bert"]
    assert len(world.pools) == len(world.pools.serving()) == 2


def test_a_limit_of_one_leaves_no_place_to_listen(yard):
    for world in (
        yard(Database(name="shop", max_db_connections=1)),
        yard(Database(name="shop"), max_user_connections=1),
    ):
        _, _, (error,) = world.listen(world.find("shop"))
        assert error.sqlstate == "53300"
        assert not world.openings


def test_those_that_listen_never_take_the_last_place(yard):
    world = yard(Database(name="shop", max_db_connections=2))
    _, _, answers = world.listen(world.find("shop", "anna"))
    world.finish_opening()
    _, _, (error,) = world.listen(world.find("shop", "bert"))
    assert error.sqlstate == "53300"
    assert answers == []
    assert world.find("shop", "bert").find_obstacle() is None


def test_an_idle_server_makes_room_for_it(yard):
    world = yard(Database(name="shop", max_db_connections=2))
    pool = world.find("shop")
    idle, _ = world.new_server(pool), world.new_server(pool)
    hub, _, answers = world.listen(pool)
    assert pool.places[CLOSING]
    next(iter(pool.places[CLOSING])).transport.peer_hangs_up()
    world.loop.turn()
    (opening,) = world.openings
    assert opening.pool is hub.ear.pool
    assert answers == []
    assert idle.state in (IDLE, CLOSING, CLOSED)


def test_it_is_not_asked_to_leave_for_others(yard):
    world = yard(Database(name="shop", max_db_connections=2))
    hub, _, _ = world.listen(world.find("shop", "anna"))
    world.finish_opening()
    anna, bert = world.find("shop", "anna"), world.find("shop", "bert")
    server = world.new_server(anna)
    world.new_client(pool=anna).transport.peer_sends(asked("Q:select_1"))
    world.new_client(pool=bert).transport.peer_sends(asked("Q:select_1"))
    world.clock.advance(2)
    world.pools.relieve(bert)
    assert server.doomed is Closing.EVICTED
    assert hub.ear.server.doomed is None


def test_pause_kill_and_resume_reach_it(yard):
    world = yard(Database(name="shop"))
    pool = world.find("shop")
    hub, client, _ = world.listen(pool)
    server = world.finish_opening()
    concerned = world.pools.pause("shop")
    assert hub.ear.pool in concerned
    assert server.state is CLOSING
    server.transport.peer_hangs_up()
    world.loop.turn()
    assert all(each.is_quiet for each in concerned)
    world.pools.resume("shop")
    (opening,) = world.openings
    assert opening.pool is hub.ear.pool
    server = world.finish_opening()
    world.pools.kill("shop")
    assert client.state is GONE
    assert server.state is CLOSING
    hub.forget(client)


def test_reconnect_reaches_it(yard):
    world = yard(Database(name="shop"))
    world.listen(world.find("shop"))
    server = world.finish_opening()
    world.pools.retire("shop", Closing.RECONNECT)
    assert server.state is CLOSING


def test_a_reload_changes_its_limits_but_not_its_nature(yard):
    world = yard(Database(name="shop"))
    hub, _, _ = world.listen(world.find("shop"))
    world.finish_opening()
    world.reload(Database(name="shop", pool_size=9, max_db_connections=7))
    limits = hub.ear.pool.limits
    assert (limits.pool_size, limits.max_db_connections) == (1, 7)
    assert hub.ear.server is not None


def test_a_reload_that_moves_the_database_replaces_it(yard):
    world = yard(Database(name="shop"))
    world.listen(world.find("shop"))
    server = world.finish_opening()
    world.reload(Database(name="shop", hosts=("elsewhere",)))
    assert server.state is CLOSING


def test_a_reload_without_the_database_ends_it(yard):
    world = yard(Database(name="shop"), Database(name="blog"))
    hub, client, _ = world.listen(world.find("shop"))
    server = world.finish_opening()
    world.reload(Database(name="blog"))
    assert client.state is GONE
    hub.forget(client)
    assert hub.ear.pool.state is PoolState.DYING
    assert hub.ear.pool in world.pools.dying
    server.transport.peer_hangs_up()
    world.loop.turn()
    assert world.pools.dying == []
    assert world.pools.databases() == []
    assert world.pools.hubs() == []


def test_a_pool_made_while_everything_is_paused_has_a_paused_ear(yard):
    world = yard(Database(name="shop"))
    world.pools.pause(None)
    hub, _, answers = world.listen(world.find("shop"))
    assert isinstance(hub.ear.pool, EarPool)
    assert hub.ear.pool.state is PoolState.PAUSED
    assert (answers, world.openings) == ([], [])


def test_a_forgotten_star_pool_takes_its_hub_along(yard):
    world = yard(Database(name="*"), autodb_idle_timeout=10.0)
    pool = world.find("whatever")
    hub, client, _ = world.listen(pool)
    server = world.finish_opening()
    client.transport.peer_hangs_up()
    hub.forget(client)
    world.loop.turn()
    world.pools.forget_unused()
    world.clock.advance(60)
    world.pools.forget_unused()
    assert world.pools.hubs() == []
    server.transport.peer_hangs_up()
    world.loop.turn()
    assert world.pools.dying == []
    assert not any(pool.places[LINKED] for pool in world.pools)
