"""What would be replayed, pinned, shared: counted by application, shown without a value of anybody's."""

from types import SimpleNamespace

import pytest

from protocol.effects import Reader
from proxy.audit import MAX_ENTRIES, Audit, Would, build_report
from proxy.config.kinds import ListenMode
from proxy.learnt import Learnt

READER = Reader([b"dblink_connect"])


def a_client(application="app", listen_mode=ListenMode.SHARED):
    pool = SimpleNamespace(
        limits=SimpleNamespace(listen_mode=listen_mode), database="shop", user="web", learnt=Learnt()
    )
    return SimpleNamespace(pool=pool, user="web", followed={"application_name": application})


def audited(*texts, client=None):
    audit = Audit()
    for text in texts:
        audit.note(client or a_client(), READER.read(text.encode()), text.encode())
    return [(word, entry.would, entry.count) for _, _, word, entry in audit]


@pytest.mark.parametrize(
    ("text", "word", "would"),
    [
        ("set work_mem = 1", "set", Would.REPLAYED),
        ("reset all", "reset", Would.REPLAYED),
        ("discard all", "discard", Would.REPLAYED),
        ("create temp table t (a int)", "temporary object", Would.PINNED),
        ("select pg_advisory_lock(1)", "advisory lock", Would.PINNED),
        ("declare c cursor with hold for select 1", "cursor with hold", Would.PINNED),
        ("load 'x'", "library", Would.PINNED),
        ("select dblink_connect('x')", "function", Would.PINNED),
        ("listen x", "listen", Would.SHARED),
        ("prepare p as select 1", "prepare", Would.PREPARED),
        ("do ''", "unclear", Would.ASKED),
    ],
)
def test_what_transaction_mode_would_do(text, word, would):
    assert audited(text) == [(word, would, 1)]


def test_what_leaves_nothing_is_not_counted():
    assert not audited("create table t (a int)", "begin", "close all")


def test_where_listening_pins_it_is_said():
    assert audited("listen x", client=a_client(listen_mode=ListenMode.PIN)) == [("listen", Would.PINNED, 1)]


def test_the_first_statement_stands_for_all_and_has_no_values():
    audit, client = Audit(), a_client()
    for text in (b"set my.secret = 'a'", b"set other.secret = 'b'"):
        audit.note(client, READER.read(text), text)
    ((user, application, word, entry),) = audit
    assert (user, application, word, entry.count) == ("web", "app", "set", 2)
    assert entry.statement == "set my.secret = ?"


def test_entries_are_bounded():
    audit = Audit()
    for number in range(MAX_ENTRIES + 9):
        audit.count(a_client(f"app {number}"), "set", Would.REPLAYED, b"set x = 1")
    assert len(list(audit)) == MAX_ENTRIES


def test_the_report_has_a_line_for_each():
    client = a_client()
    client.pool.learnt.audit.note(client, READER.read(b"set my.x = 1"), b"set my.x = 1")
    assert list(build_report([client.pool])) == [
        "audit: shop/web application 'app': set 1 times, in transaction mode it would be replayed; "
        "first by: set my.x = ?"
    ]
