"""The books: what is decided about a channel, when, and that callbacks may turn everything over."""

import random

import pytest

from protocol.backend import ErrorFields
from proxy.channels import ASKED, DEAF, HEARD, LEAVING, Books

NO = ErrorFields("ERROR", "25006", "no")


class Client:
    """As little as the books ask: to be somebody."""


class Reader:
    def __init__(self):
        self.closed, self.gone = [], 0

    def mailbox_closed(self, mailbox):
        self.closed.append(mailbox)

    def all_gone(self):
        self.gone += 1


@pytest.fixture
def books():
    books = Books(Reader())
    yield books
    books.check()


def wait(books, client, name=b"news", done=lambda error: None):
    return books.wait(books.open_mailbox(client), books.open_channel(name), done, 0.0)


def hear(books, client, name=b"news"):
    """`client` hears `name`, as after a LISTEN and its answer."""
    wait(books, client, name)
    channels = books.take_to_listen(10)
    books.change(channels, HEARD)
    books.confirm(channels)
    return books.channels[name]


def test_what_is_wanted_is_asked_for_once(books):
    wait(books, Client())
    wait(books, Client())
    (channel,) = books.take_to_listen(10)
    assert channel.hearing is ASKED
    wait(books, Client())
    assert books.take_to_listen(10) == []
    books.check()


def test_who_waits_is_told_and_hears(books):
    answers, client = [], Client()
    wait(books, client, done=answers.append)
    channels = books.take_to_listen(10)
    books.change(channels, HEARD)
    books.confirm(channels)
    assert answers == [None]
    assert list(books.mailboxes[client].channels) == [b"news"]
    assert not books.waits


def test_who_is_refused_hears_nothing_and_is_forgotten(books):
    answers = []
    wait(books, Client(), done=answers.append)
    books.change(books.take_to_listen(10), DEAF)
    books.fail(books.waits, NO)
    assert answers == [NO]
    assert not books.channels
    assert not books.mailboxes
    assert books.reader.gone == 1
    assert len(books.reader.closed) == 1


def test_what_nobody_wants_while_it_is_asked_for_is_decided_at_the_answer(books):
    client = Client()
    wait(books, client)
    (channel,) = books.take_to_listen(10)
    books.unsubscribe(books.mailboxes[client], b"news")
    assert not books.to_leave
    books.check()
    books.change([channel], HEARD)
    books.confirm([channel])
    assert books.take_to_leave(10) == [channel]
    assert channel.hearing is LEAVING
    books.change([channel], DEAF)
    assert not books.channels


def test_what_is_wanted_again_before_it_was_left_is_kept(books):
    client = Client()
    channel = hear(books, client)
    books.close_mailbox(books.mailboxes[client])
    assert list(books.to_leave) == [channel]
    books.subscribe(books.open_mailbox(client), books.open_channel(b"news"))
    assert not books.to_leave


def test_what_is_wanted_again_while_it_is_being_left_is_asked_for_again(books):
    client = Client()
    channel = hear(books, client)
    books.close_mailbox(books.mailboxes[client])
    books.take_to_leave(10)
    wait(books, client)
    assert not books.to_listen
    books.change([channel], DEAF)
    assert list(books.to_listen) == [channel]


def test_one_that_leaves_while_others_are_told_is_not_told(books):
    told = []
    first, second = Client(), Client()
    wait(books, first, done=lambda error: books.close_mailbox(books.mailboxes[second]))
    wait(books, second, done=told.append)
    channels = books.take_to_listen(10)
    books.change(channels, HEARD)
    books.confirm(channels)
    assert told == []
    assert list(books.mailboxes) == [first]


def test_one_that_asks_again_when_it_is_refused_waits_again(books):
    client, told = Client(), []

    def again(error):
        told.append(error)
        wait(books, client, done=told.append)

    wait(books, client, done=again)
    books.change(books.take_to_listen(10), DEAF)
    books.fail(books.waits, NO)
    assert told == [NO]
    assert len(books.waits) == 1
    assert list(books.to_listen) == [books.channels[b"news"]]


def test_unsubscribing_takes_letters_and_waits_away(books):
    client = Client()
    hear(books, client, b"a")
    hear(books, client, b"b")
    mailbox = books.mailboxes[client]
    for name in (b"a", b"b"):
        mailbox.put(name, b"text on " + name)
    books.unsubscribe(mailbox, b"a")
    books.unsubscribe(mailbox, b"nothing")
    assert mailbox.take() == b"text on b"


def test_those_that_failed_together_come_first_again(books):
    for name in (b"a", b"b", b"c"):
        wait(books, Client(), name)
    failed = books.take_to_listen(2)
    wait(books, Client(), b"d")
    books.change(failed, DEAF)
    books.put_first(failed)
    assert [channel.name for channel in books.take_to_listen(9)] == [b"a", b"b", b"c", b"d"]
    books.check()


@pytest.mark.parametrize("seed", range(30))
def test_the_laws_hold_whatever_happens(seed):
    chance = random.Random(seed)
    books, clients, names = Books(Reader()), [Client() for _ in range(4)], [b"a", b"b", b"c"]
    asked = []
    for _ in range(300):
        client, name = chance.choice(clients), chance.choice(names)
        step = chance.randrange(7)
        mailbox = books.mailboxes.get(client)
        if step == 0:
            wait(books, client, name)
        elif step == 1 and name in books.channels and books.channels[name].hearing is HEARD:
            books.subscribe(books.open_mailbox(client), books.channels[name])
        elif step == 2 and mailbox:
            books.unsubscribe(mailbox, name)
        elif step == 3 and mailbox:
            books.close_mailbox(mailbox)
        elif step == 4 and not asked:
            asked = books.take_to_listen(2) or books.take_to_leave(2)
        elif step == 5 and asked:
            was_listen = asked[0].hearing is ASKED
            books.change(asked, HEARD if was_listen == (chance.random() < 0.8) else DEAF)
            books.confirm(asked)
            if chance.random() < 0.2:
                books.fail(books.waits, NO)
            asked = []
        elif step == 6 and chance.random() < 0.2:
            books.change(list(books.channels.values()), DEAF)
            asked = []
        books.check()
