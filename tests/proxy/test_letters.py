"""Notifications for clients on their way: asked for before, kept meanwhile, put together after; none is lost."""

from types import SimpleNamespace

import pytest

from proxy.courier import Broken, Kind
from proxy.letters import GRACE, MAX_NAMED, Ghost, Receiver, Sender, merge
from tests.listening import Stage, news, notification, warnings


def letters(*numbers):
    return [(b"news", notification(b"news", b"%d" % number)) for number in numbers]


@pytest.mark.parametrize(
    ("earlier", "later", "all_of_it"),
    [
        ((), (), ()),
        ((1, 2), (), (1, 2)),
        ((), (1, 2), (1, 2)),
        ((1, 2), (3, 4), (1, 2, 3, 4)),
        ((1, 2, 3), (2, 3, 4), (1, 2, 3, 4)),
        ((1, 2, 3), (3,), (1, 2, 3)),
        ((1, 1), (1, 1, 2), (1, 1, 2)),
        ((3, 4), (1, 2, 3, 4, 5), (3, 4, 5)),  # 1 and 2 were told before it left
        ((3, 4), (1, 2, 3, 4), (3, 4)),
        ((1, 2, 3), (2,), (1, 2, 3, 2)),  # cannot be told apart from a second 2
    ],
)
def test_the_end_of_the_one_row_is_the_beginning_of_the_other(earlier, later, all_of_it):
    assert merge(letters(*earlier), letters(*later)) == letters(*all_of_it)


class Side:
    """One process: its hub on a stage, and what it sends to the other."""

    def __init__(self):
        self.stage = Stage()
        self.stage.pool.habits.is_listening_shared = True
        self.proxy = SimpleNamespace(
            find_hub=lambda pool: self.stage.hub,
            find_database=lambda name: None if name == "lost" else SimpleNamespace(name=name),
            pools=SimpleNamespace(find=lambda entry, user: self.stage.pool),
            log=self.stage.log,
        )
        self.sent = []

    def send(self, kind, body):
        self.sent.append((kind, body))

    def take(self, kind):
        """The one message of that kind that was sent since."""
        found = [body for each, body in self.sent if each is kind]
        self.sent = [each for each in self.sent if each[0] is not kind]
        (body,) = found
        return body


@pytest.fixture(name="old")
def _old():
    side = Side()
    side.box = Sender(side.proxy, side.send)
    with side.stage.loop.running():
        yield side


@pytest.fixture(name="new")
def _new():
    side = Side()
    side.box = Receiver(side.proxy, side.send)
    return side


def a_listener(side, *names):
    client = side.stage.ready(*names)
    client.stall = object()
    client.number = 7
    return client


def test_a_client_that_listens_waits_until_the_other_process_listens_too(old, new):
    client = a_listener(old, b"news", b"more")
    assert not old.box.may_go(client)
    question = old.take(Kind.CHANNELS)
    assert not old.box.may_go(client)
    assert not old.sent, "it is asked once"
    new.box.listen(question)
    assert not new.sent, "not before PostgreSQL has confirmed"
    new.stage.open()
    new.stage.answer_all()
    assert new.stage.listening == {b"news", b"more"}
    for _, answer in new.sent:
        assert not old.box.may_go(client)
        old.box.heard(answer)
    assert old.box.may_go(client)
    news(client)


def test_who_does_not_listen_may_go_at_once(old):
    client = old.stage.new_client()
    assert old.box.may_go(client)
    assert old.box.hold(client) == []
    assert not old.box.is_held(client)
    assert not old.sent


def test_many_channels_are_named_in_pieces(old):
    client = a_listener(old, *(b"n%d" % number for number in range(MAX_NAMED + 5)))
    assert not old.box.may_go(client)
    assert [len(body["channels"]) for _, body in old.sent] == [MAX_NAMED, 5]


def test_what_it_hears_on_the_way_comes_behind_what_it_has_heard_and_once(old, new):
    client = a_listener(old, b"news")
    old.box.may_go(client)
    new.box.listen(old.take(Kind.CHANNELS))
    new.stage.open()
    new.stage.answer_all()
    old.stage.notify(b"news", b"before")
    assert news(client) == notification(b"news", b"before")
    channels = old.box.hold(client)
    old.stage.notify(b"news", b"1")
    there = new.stage.new_client()
    there.number = client.number
    new.box.subscribe(there, channels)
    for side in (old, new):
        for payload in (b"2", b"3"):
            side.stage.notify(b"news", payload)
    assert news(client) == b""
    old.box.post(client)
    with new.stage.loop.running():
        new.box.deliver(7, old.take(Kind.LETTERS))
        new.stage.notify(b"news", b"4")
        assert news(there) == b"", "not yet: what the old process heard last may not have come here"
        new.stage.advance(GRACE)
        new.stage.loop.turn()
        assert news(there) == b"".join(notification(b"news", b"%d" % number) for number in (1, 2, 3, 4))
        new.stage.notify(b"news", b"5")
        assert news(there) == notification(b"news", b"5")
        new.stage.check()


def test_who_stays_after_all_hears_what_came_meanwhile(old):
    client = a_listener(old, b"news")
    old.box.hold(client)
    said = old.stage.notify(b"news", b"1")
    assert old.box.is_held(client)
    assert not old.box.may_go(client), "not with letters"
    assert news(client) == b""
    old.box.let_go(client)
    assert news(client) == said


def test_who_has_unlistened_meanwhile_is_not_told(old, new):
    there = a_listener(new, b"news", b"more")
    with new.stage.loop.running():
        new.box.subscribe(there, ["news", "more"])
        new.stage.unlisten(there, b"news")
        new.box.deliver(7, {"letters": [["news", "old"], ["more", "new"]], "lost": 0})
        new.stage.advance(GRACE)
        new.stage.loop.turn()
        assert news(there) == b"new"


def test_what_was_lost_there_is_said_here(new):
    there = a_listener(new, b"news")
    with new.stage.loop.running():
        new.box.subscribe(there, ["news"])
        new.box.deliver(7, {"letters": [], "lost": 3})
        new.stage.advance(GRACE)
        new.stage.loop.turn()
        assert warnings(news(there)) == ["some notifications were lost"]


def test_when_the_other_process_dies_its_listeners_are_warned(new):
    there = a_listener(new, b"news")
    with new.stage.loop.running():
        new.box.subscribe(there, ["news"])
        new.stage.notify(b"news", b"1")
        new.box.finish()
        said = news(there)
        assert warnings(said) == ["notifications may have been missed"]
        assert said.endswith(notification(b"news", b"1"))
        new.box.deliver(7, {})
        new.stage.check()


def test_a_channel_that_is_not_heard_here_keeps_its_client_there(new):
    client = new.stage.new_client()
    with new.stage.loop.running(), pytest.raises(ValueError, match="not heard here"):
        new.box.subscribe(client, ["news"])
    assert client not in new.stage.hub.books.mailboxes


def test_the_ghost_goes_when_nobody_is_to_come_any_more(new):
    with new.stage.loop.running():
        new.box.listen({"pool": ["shop", "web"], "channels": ["news"]})
        new.stage.open()
        new.stage.answer_all()
        new.stage.notify(b"news")
        new.box.finish()
        new.stage.sweep()
        new.stage.answer_all()
        assert not new.stage.hub.books.channels
        assert not new.stage.listening
    Ghost().deliver(b"nothing happens")


@pytest.mark.parametrize("database", ["lost", "shop"])
def test_where_clients_listen_themselves_or_not_at_all_nothing_is_promised(database):
    side = Side()
    side.box = Receiver(side.proxy, side.send)
    if database == "shop":
        side.stage.pool.habits.is_listening_shared = False
    side.box.listen({"pool": [database, "web"], "channels": ["news"]})
    assert not side.sent
    assert not side.stage.openings


@pytest.mark.parametrize(
    "body", [{}, {"pool": ["shop"]}, {"pool": ["shop", "web"]}, {"pool": ["a", "b"], "channels": 1}]
)
def test_nonsense_breaks_it_off(old, new, body):
    for hear in (old.box.heard, new.box.listen):
        with pytest.raises(Broken):
            hear(body)
    there = a_listener(new, b"news")
    new.box.subscribe(there, ["news"])
    with pytest.raises(Broken):
        new.box.deliver(7, body)
