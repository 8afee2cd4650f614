"""What a RESET in a transaction leads to is what the client came with, which its server does not know."""

import pytest

from protocol.effects import Reader
from protocol.undone import Again, Undone, build_again

READER = Reader()
ORIGIN = {"role": "clerk", "search_path": "spare", "my.x": "7", "TimeZone": "CET"}
PATH = Again("search_path", "spare")


def make_undone(*texts):
    undone = Undone()
    for text in texts:
        for act in READER.read(text.encode()).acts:
            undone.note(act)
    return undone


def take(*texts, origin=ORIGIN, **reported):
    return make_undone(*texts).take(origin, "web", reported.get)


@pytest.mark.parametrize(
    "texts",
    [
        ["reset search_path"],
        ["set search_path = 'public'", "reset search_path"],
        ["set search_path = 'public'; set search_path to default"],
        ["reset search_path; reset search_path"],
        ["reset search_path; set local search_path = 'public'"],
        ["select set_config('search_path', null, false)"],
        ["reset search_path; savepoint z; set search_path = public; rollback to z"],
    ],
)
def test_a_reset_that_may_hold_is_looked_at(texts):
    assert take(*texts) == [PATH]


@pytest.mark.parametrize(
    "texts",
    [
        [],
        ["set search_path = public"],
        ["reset search_path; set search_path = public"],
        ["reset all", "set search_path = public", "set my.x = 1", "set timezone = utc"],
        ["reset work_mem"],
        ["set local search_path = public"],
        ["savepoint z; rollback to z"],
    ],
)
def test_what_was_set_behind_it_or_never_reset_is_left_alone(texts):
    assert take(*texts) == []


def test_it_is_taken_once_and_the_next_reset_is_another():
    undone = make_undone("reset search_path")
    assert undone.take(ORIGIN, "web", {}.get) == [PATH]
    assert not undone
    assert undone.take(ORIGIN, "web", {}.get) == []
    for act in READER.read(b"reset search_path").acts:
        undone.note(act)
    assert undone.take(ORIGIN, "web", {}.get) == [PATH]


def test_what_a_server_reports_to_be_as_it_was_is_left_alone():
    assert take("reset search_path", search_path="spare") == []
    assert take("reset search_path", search_path="public") == [PATH]


def test_what_is_for_the_transaction_alone_comes_back_for_that():
    assert take("set local search_path to default") == [PATH._replace(is_local=True)]
    assert take("set search_path = public; set local search_path to default") == [PATH._replace(is_local=True)]
    assert take("reset search_path; set local search_path to default") == [PATH]
    assert take("set local search_path to default; reset search_path") == [PATH]


def test_all_are_all_but_who_the_session_is():
    assert [again.key for again in take("reset all")] == ["search_path", "my.x", "TimeZone"]
    assert [again.key for again in take("reset role; reset all")] == ["search_path", "my.x", "TimeZone", "role"]
    assert [again.key for again in take("discard all")] == ["search_path", "my.x", "TimeZone", "role"]
    assert [again.key for again in take("reset session authorization")] == ["role"]


def test_who_the_session_is_comes_last_and_its_user_before_its_role():
    origin = {"role": "clerk", "session_authorization": "bob", "search_path": "spare"}
    keys = [again.key for again in take("reset role; reset session authorization; reset search_path", origin=origin)]
    assert keys == ["search_path", "session_authorization", "role"]


def test_a_block_may_have_reset_anything():
    agains = {again.key: again for again in take("do $$ begin reset search_path; end $$", TimeZone="CET")}
    assert agains.keys() == {"search_path", "my.x", "role"}
    assert agains["my.x"].nothing == ""
    assert agains["role"].nothing == "none"
    assert [again.key for again in take("select set_config($1, $2, false)", TimeZone="CET")] == [
        "search_path", "my.x", "role",
    ]  # fmt: skip


def test_the_server_sets_it_only_if_the_session_has_it_no_more():
    assert build_again([PATH]) == (
        b"SELECT pg_catalog.set_config(E'search_path',E'spare',false) WHERE EXISTS(SELECT FROM pg_catalog.pg_settings"
        b" WHERE pg_catalog.lower(name COLLATE pg_catalog.\"C\") OPERATOR(pg_catalog.=) E'search_path'"
        b" AND source OPERATOR(pg_catalog.<>) 'session')"
    )
    assert build_again(take("reset my.x")) == b"SELECT pg_catalog.set_config(E'my.x',E'7',false)"
    assert build_again(take("reset role")) == (
        b"SELECT pg_catalog.set_config(E'role',E'clerk',false)"
        b" WHERE COALESCE(pg_catalog.current_setting(E'role',true),'') OPERATOR(pg_catalog.=) E'none'"
    )
    assert build_again([PATH, PATH]).count(b";") == 1
