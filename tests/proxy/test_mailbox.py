"""A subscriber's mailbox: when letters may be read, that they stay in order, and that they never pile up."""

import pytest

from protocol import codes
from protocol.backend import parse_error
from proxy.mailbox import MAX_BYTES, MAX_LETTERS, Mailbox
from proxy.states import ACTIVE, BEGUN, GONE, RESTING, WAITING


class Ledger:
    is_settled = True


class Server:
    def __init__(self, status=codes.IDLE):
        self.status, self.ledger = status, Ledger()


class Client:
    def __init__(self, state=RESTING, server=None):
        self.state, self.server = state, server
        self.is_choked = self.is_cut = False
        self.remain = 0
        self.begun = b""
        self.followed = {"client_encoding": "LATIN1"}

    def _is_in_message(self):
        return self.is_cut


@pytest.mark.parametrize(("state", "hears"), [(RESTING, True), (WAITING, True), (BEGUN, False), (GONE, False)])
def test_who_has_no_server_hears_unless_it_is_gone(state, hears):
    assert Mailbox(Client(state)).may_hear() is hears


@pytest.mark.parametrize(
    ("status", "hears"), [(codes.IDLE, True), (codes.IN_TRANSACTION, False), (codes.FAILED, False)]
)
def test_who_keeps_its_server_hears_between_transactions(status, hears):
    assert Mailbox(Client(ACTIVE, Server(status))).may_hear() is hears


@pytest.mark.parametrize("why", ["choked", "owed", "cut", "half sent", "begun"])
def test_nobody_is_disturbed(why):
    client = Client(ACTIVE, Server())
    client.is_choked = why == "choked"
    client.is_cut = why == "cut"
    client.begun = b"BEGIN" if why == "begun" else b""
    client.remain = 7 if why == "half sent" else 0
    client.server.ledger.is_settled = why != "owed"
    assert not Mailbox(client).may_hear()


def test_letters_come_out_in_order_and_once():
    box = Mailbox(Client())
    for text in (b"one", b"two", b"three"):
        assert box.put(b"news", text) == []
    assert box.size == 11
    assert box.take() == b"onetwothree"
    assert box.take() == b""
    assert box.size == 0


def test_the_oldest_make_room_and_the_client_is_told_first():
    box = Mailbox(Client())
    lost = [box.put(b"news", b"%07d" % number) for number in range(MAX_LETTERS + 5)]
    assert [name for names in lost for name in names] == [b"news"] * box.lost == [b"news"] * 5
    heard = box.take()
    notice, letters = heard[: -7 * MAX_LETTERS], heard[-7 * MAX_LETTERS :]
    assert letters.startswith(b"0000005")
    assert letters.endswith(b"%07d" % (MAX_LETTERS + 4))
    fields = parse_error(notice[5:])
    assert (fields.severity, fields.sqlstate, fields.message) == ("WARNING", "01000", "some notifications were lost")
    assert fields.detail.startswith("5 were thrown away")
    box.put(b"news", b"more")
    assert box.take() == b"more"


def test_bytes_are_bounded_too():
    box = Mailbox(Client())
    for _ in range(300):
        box.put(b"news", b"x" * 8000)
        assert box.size <= MAX_BYTES
    assert box.lost == 300 - MAX_BYTES // 8000


def test_what_is_not_wanted_any_more_is_taken_out():
    box = Mailbox(Client())
    for channel, text in ((b"a", b"1"), (b"b", b"22"), (b"a", b"3"), (b"", b"notice")):
        box.put(channel, text)
    box.drop(b"a")
    assert box.size == 8
    box.drop(b"nothing")
    assert box.take() == b"22notice"


def test_it_is_used_while_it_hears_or_waits():
    box = Mailbox(Client())
    assert not box.is_used
    box.waits[object()] = None
    assert box.is_used
    assert box.encoding == "LATIN1"


def test_who_is_on_its_way_to_another_process_hears_nothing():
    mailbox = Mailbox(Client())
    mailbox.is_held = True
    assert not mailbox.may_hear()
