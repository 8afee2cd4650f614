"""What is asked about a session, and what follows: a server's set, which is always true, and what a client believes."""

import pytest

from protocol.doubts import (
    MAX_CANDIDATES,
    MAX_NAMES,
    MAX_SEARCHED,
    Doubts,
    Ground,
    Sets,
    Told,
    after_reset_all,
    why_unsayable,
)
from protocol.effects import Reader
from protocol.inspection import FIRST, Answer, Fact, Question
from protocol.parameters import MAX_SET

READER = Reader([b"dblink_connect"])
BASE = {"TimeZone": "UTC", "application_name": "app"}
SPELLED = {"timezone": "TimeZone", "application_name": "application_name"}


def make_told(values):
    return Told({name: value for name, value in values.items() if name.lower() in SPELLED}, SPELLED, SPELLED)


class Case:
    """One client on one server, and what it has said since both were in agreement."""

    def __init__(self, *texts, origin=BASE, before=None, told=None, held=()):
        self.ground = Ground(origin, SPELLED, "web")
        self.before = dict(origin if before is None else before)
        self.now = {**self.before, **(told or {})}
        self.told = make_told(self.now)
        self.doubts = Doubts(self.before)
        for text in texts:
            self.doubts.add(READER.read(text.encode()), text.encode(), held=held)

    def ask(self, known=()):
        return self.doubts.ask(self.ground, self.now, self.told, known)

    def conclude(self, listed=None, facts=None, **values):
        answer = Answer({key.replace("__", "."): value for key, value in values.items()}, facts or {}, listed or {})
        return self.doubts.conclude(self.ask(), answer, Sets(self.now, self.now), self.ground, self.told)


def own(parameters):
    return {key: value for key, value in parameters.items() if key not in BASE}


# SET.


def test_a_set_is_asked_by_name_and_believed_as_the_server_says_it():
    case = Case("set work_mem = 8192")
    assert case.ask() == Question(("work_mem",))
    client, server = case.conclude(work_mem="8MB")
    assert own(client) == own(server) == {"work_mem": "8MB"}


def test_what_the_server_reports_by_itself_is_not_asked():
    case = Case("set timezone = 'CET'", told={"TimeZone": "CET"})
    assert not case.ask()
    client, server = case.conclude()
    assert client["TimeZone"] == server["TimeZone"] == "CET"


def test_several_texts_make_one_question():
    case = Case("set work_mem = 1", "select set_config('my.x', 'y', false)", "create temp table t (a int)")
    assert case.ask() == Question(("my.x", "work_mem"), (Fact.TEMP,))


@pytest.mark.parametrize(
    "text", ["set local work_mem = 1", "select set_config('my.x', 'y', true)", "set transaction read only"]
)
def test_what_is_gone_with_its_transaction_is_not_asked(text):
    assert not Case(text).ask()


@pytest.mark.parametrize("text", ["set transaction_isolation = 'serializable'", "set seed = 0.5"])
def test_what_is_not_of_the_session_is_not_asked(text):
    assert not Case(text).ask()


def test_a_timeout_of_the_connection_is_the_servers_until_it_is_put_back_and_never_the_clients():
    for text, listed in (("set idle_session_timeout = 20", None), ("do ''", {"idle_session_timeout": "20ms"})):
        client, server = Case(text).conclude(listed, idle_session_timeout="20ms")
        assert not own(client)
        assert own(server) == {"idle_session_timeout": "20ms"}
    client, _ = Case("set idle_session_timeout = 20", origin={**BASE, "idle_session_timeout": "1h"}).conclude()
    assert own(client) == {"idle_session_timeout": "1h"}


def test_a_custom_parameter_that_is_made_empty_is_set():
    """At login it may have been something else: ALTER DATABASE ... SET."""
    client, server = Case("set my.x = ''").conclude(my__x="")
    assert own(client) == own(server) == {"my.x": ""}


@pytest.mark.parametrize(("text", "has_failed"), [("reset my.x", False), ("reset all", False), ("set my.x = 1", True)])
def test_a_custom_parameter_that_has_become_empty_is_not_set(text, has_failed):
    case = Case(text, before={**BASE, "my.x": "1"})
    case.doubts.has_failed = has_failed
    client, server = case.conclude(my__x="")
    assert not own(client)
    assert not own(server)


@pytest.mark.parametrize(("name", "value"), [("role", "none"), ("session_authorization", "web")])
def test_nobody_elses_identity_is_no_value(name, value):
    client, server = Case(f"set {name} = x", before={**BASE, name: "x"}).conclude(**{name: value})
    assert not own(client)
    assert not own(server)


@pytest.mark.parametrize("value", ["none", "web"])
def test_no_role_is_one_where_the_login_has_one(value):
    """ALTER ROLE ... SET role."""
    case = Case(f"set role {value}")
    answer = Answer({"role": value}, at_login={"role": "clerk", "session_authorization": "web"})
    sets = case.doubts.conclude(case.ask(), answer, Sets(case.now, case.now), case.ground, case.told)
    assert own(sets.client) == own(sets.server) == {"role": value}


def test_a_new_user_has_no_role():
    case = Case("set session authorization bob", before={**BASE, "role": "clerk"})
    assert case.ask().names == ("role", "session_authorization")
    assert own(case.conclude(session_authorization="bob", role="none").client) == {"session_authorization": "bob"}


def test_what_a_server_has_reported_in_odd_bytes_is_not_known_unless_it_is_followed():
    told = Told({"search_path": "\udcfc", "TimeZone": "\udcfc"}, {"search_path": "search_path", **SPELLED}, SPELLED)
    assert told.get("search_path") is None
    assert told.get("TimeZone") == "\udcfc"
    assert told.get("work_mem") is None


# RESET.


def test_a_reset_goes_back_to_what_the_client_came_with():
    origin = {**BASE, "work_mem": "5MB"}
    case = Case("reset work_mem", origin=origin)
    assert case.ask() == Question(("work_mem",))
    client, server = case.conclude(work_mem="4MB")
    assert own(client) == {"work_mem": "5MB"}
    assert not own(server)


def test_a_reset_that_was_rolled_back_changes_nothing():
    case = Case("reset work_mem", before={**BASE, "work_mem": "8MB"})
    client, server = case.conclude(work_mem="8MB")
    assert own(client) == own(server) == {"work_mem": "8MB"}


def test_a_reset_that_nobody_came_with_leaves_both_sets():
    client, server = Case("reset work_mem", before={**BASE, "work_mem": "8MB"}).conclude(work_mem="4MB")
    assert not own(client)
    assert not own(server)


def test_reset_all_of_one_who_has_set_nothing_costs_no_question():
    case = Case("reset all", told={"application_name": ""})
    assert not case.ask()
    client, server = case.conclude()
    assert client["application_name"] == "app"
    assert server["application_name"] == ""


def test_reset_all_asks_for_whatever_is_set():
    case = Case("reset all", before={**BASE, "work_mem": "8MB", "my.x": "1", "role": "clerk"})
    assert case.ask() == Question(("my.x", "role", "work_mem"))
    client, server = case.conclude(work_mem="4MB", my__x="", role="clerk")
    assert own(client) == own(server) == {"role": "clerk"}


def test_where_a_value_does_not_tell_set_from_reset_the_list_does():
    case = Case("set timezone = 'CET'; reset timezone", told={"TimeZone": "Asia/Tokyo"})
    assert case.ask() == Question(lists=True)
    assert case.conclude().client["TimeZone"] == "UTC"
    assert case.conclude({"timezone": "Asia/Tokyo"}).client["TimeZone"] == "Asia/Tokyo"


@pytest.mark.parametrize(("has_failed", "theirs"), [(False, "CET"), (True, "UTC")])
def test_a_value_that_is_the_servers_own_does_not_tell_a_reset_and_the_failure_of_its_transaction_does(
    has_failed, theirs
):
    case = Case("discard all", origin={**BASE, "TimeZone": "CET"}, before={**BASE, "TimeZone": "UTC"})
    case.doubts.has_failed = has_failed
    assert case.ask().lists
    client, _ = case.conclude(listed={})
    assert client["TimeZone"] == theirs


def test_a_value_that_is_the_servers_own_is_not_lost_where_everything_is_asked():
    """It is not in the list, since on this server nobody had to set it."""
    case = Case("do ''", origin={**BASE, "TimeZone": "CET"}, before={**BASE, "TimeZone": "UTC"})
    client, _ = case.conclude(listed={})
    assert client["TimeZone"] == "UTC"


def test_what_the_list_does_not_have_is_asked_by_name():
    origin = {**BASE, "my.x": "1", "work_mem": "5MB"}
    case = Case("reset all", origin=origin, before={**origin, "my.x": "2"})
    assert case.ask() == Question(("my.x",), lists=True)
    client, server = case.conclude(my__x="")
    assert own(client) == {"my.x": "1", "work_mem": "5MB"}
    assert not own(server)


@pytest.mark.parametrize(
    ("texts", "theirs"),
    [
        (["reset role"], "clerk"),
        (["reset role", "set role none"], "none"),
        (["set role none", "reset role"], "clerk"),
        (["reset role", "do ''"], "clerk"),
    ],
)
def test_who_came_with_a_role_and_has_none_wants_none_or_has_reset_it(texts, theirs):
    case = Case(*texts, origin={**BASE, "role": "clerk"}, before={**BASE, "role": "squire"})
    assert own(case.conclude(role="none", session_authorization="web").client) == {"role": theirs}


def test_what_the_database_has_for_everybody_is_not_what_a_client_that_came_with_another_goes_back_to():
    origin = {**BASE, "my.x": "own", "role": "clerk"}
    case = Case("reset all; reset role", origin=origin, before={**origin, "TimeZone": "Asia/Tokyo"})
    assert case.ask().lists
    sets = case.conclude(my__x="everybody's", role="porter", session_authorization="web")
    assert (own(sets.client), own(sets.server)) == ({"my.x": "own", "role": "clerk"}, {})
    assert own(case.conclude(my__x="own", role="clerk").client) == {"my.x": "own", "role": "clerk"}, "it was undone"


@pytest.mark.parametrize(
    ("before", "texts", "theirs"),
    [
        ("none", ["do ''"], "none"),
        ("squire", ["set role none", "do ''"], "none"),
        ("none", ["do 'set default_transaction_read_only = on'"], "none"),
        ("squire", ["set role none", "select set_config($1, $2, false)"], "none"),
        ("squire", ["do ''"], "clerk"),
        ("none", ["do 'reset role'"], "clerk"),
        ("none", ["select set_config(lower($1), NULL, false)"], "clerk"),
    ],
)
def test_a_text_that_does_not_say_what_it_does_has_undone_what_there_was(before, texts, theirs):
    case = Case(*texts, origin={**BASE, "role": "clerk"}, before={**BASE, "role": before})
    agains = case.doubts.take_undone(case.ground, case.now, case.told)
    assert ("role" in [again.key for again in agains]) == (theirs == "clerk")
    case = Case(*texts, origin={**BASE, "role": "clerk"}, before={**BASE, "role": before})
    assert own(case.conclude(role="none", session_authorization="web").client) == {"role": theirs}


def test_a_bind_that_sets_a_parameter_to_no_value_may_have_undone_it():
    case = Case("do ''", origin={**BASE, "role": "clerk"}, before={**BASE, "role": "none"})
    case.doubts.add(Reader().read(b"select set_config($1, $2, false)"), b"", b"B..\xff\xff\xff\xff..")
    assert own(case.conclude(role="none", session_authorization="web").client) == {"role": "clerk"}


def test_what_was_brought_back_is_no_reset_any_more():
    origin = {**BASE, "role": "clerk"}
    case = Case("reset role", origin=origin)
    agains = case.doubts.take_undone(case.ground, case.now, case.told)
    assert [again.key for again in agains] == ["role"]
    assert case.ask().lists
    assert own(case.conclude(role="none").client) == {"role": "none"}
    assert own(case.conclude(role="clerk").client) == {"role": "clerk"}


def test_a_reset_that_could_not_be_settled_is_still_one():
    case = Case("set session authorization web", origin={**BASE, "role": "clerk"})
    case.doubts.absorb(Case("reset role").doubts)
    assert own(case.conclude(role="none", session_authorization="web").client) == {"role": "clerk"}


# Anything.


def test_where_nobody_knows_what_was_set_everything_is_asked():
    case = Case("do $$ begin perform set_config('my.x', '1', false); end $$", before={**BASE, "work_mem": "8MB"})
    question = case.ask(known=["other.y"])
    assert question.names == ("my.x", "other.y", "role", "session_authorization")
    assert question.facts == tuple(Fact)
    assert question.lists
    client, server = case.conclude({"work_mem": "8MB"}, my__x="1", role="clerk", session_authorization="web")
    assert own(client) == own(server) == {"work_mem": "8MB", "my.x": "1", "role": "clerk"}
    assert after_reset_all(server, SPELLED) == {**BASE, "role": "clerk"}


def test_the_values_of_a_bind_are_looked_through_as_well():
    doubts = Doubts(BASE)
    doubts.add(READER.read(b"select set_config($1, $2, false)"), b"select", b"\0\0my.tenant\x007")
    assert "my.tenant" in doubts.ask(Ground(BASE, SPELLED, "web"), BASE, make_told({}), ()).names


def test_as_many_names_as_fit_are_asked_for():
    case = Case(*(f"set my.x{number} = 1" for number in range(MAX_NAMES)))
    assert len(case.ask().names) == MAX_NAMES
    assert not case.ask().lists
    assert not case.doubts.is_lost


def test_too_many_names_are_everything_and_what_cannot_be_listed_is_lost():
    case = Case(*(f"set my.x{number} = 1" for number in range(MAX_NAMES + 1)))
    assert case.ask().lists
    assert case.doubts.is_lost
    assert not Case(*(f"set x{number} = 1" for number in range(MAX_NAMES + 1))).doubts.is_lost


@pytest.mark.parametrize("text", ['set "my.\u00fc" = 1', f"set my.{'x' * 70} = 1"])
def test_a_name_that_cannot_be_said_is_everything_and_lost(text):
    assert Case(text).ask().lists
    assert Case(text).doubts.is_lost
    assert Case(text.replace("set", "reset").removesuffix("= 1")).ask().lists
    assert not Case(text.replace("set", "reset").removesuffix("= 1")).doubts.is_lost


def do(*names, pad=0):
    return (
        "do $$ begin "
        + " " * pad
        + "; ".join(f"perform set_config('{name}', 'x', false)" for name in names)
        + " end $$"
    )


@pytest.mark.parametrize(
    "text",
    [
        do(*(f"my.x{number}" for number in range(MAX_CANDIDATES + 1))),
        do("my." + "x" * 70),
        do("my.\u00fc"),
        do("m\u00fc.x"),
        do("my.x", pad=MAX_SEARCHED),
    ],
)
def test_what_a_text_may_set_beyond_what_can_be_asked_for_is_lost(text):
    assert Case(text).doubts.is_lost
    assert Case("do ''", text).doubts.is_lost


@pytest.mark.parametrize(
    "text",
    [
        do(*(f"my.x{number}" for number in range(MAX_CANDIDATES))),
        "do $$ begin insert into " + "s.t" * 50 + " values ('\u00fc.\u00fc'); end $$",
        "call p()" + " " * MAX_SEARCHED,
        "do $$ begin set my.x = 'w\u00fcste'; end $$",
    ],
)
def test_what_sets_nothing_or_nothing_else_is_not_lost(text):
    assert not Case(text).doubts.is_lost


def test_what_was_lost_stays_so_when_it_stands_beside_the_next():
    younger = Case("set work_mem = 1").doubts
    younger.absorb(Case("set my.\u00fc = 1").doubts)
    assert younger.is_lost


@pytest.mark.parametrize("name", ["a..b", "a b.x", "a.1", "1.a", "a."])
def test_a_name_that_postgresql_refuses_is_not_lost(name):
    assert not Case(f'set "{name}" = 1').doubts.is_lost


# What was refused.


def refused(*texts, **more):
    case = Case(*texts, **more)
    case.doubts.has_erred = True
    return case


def test_where_something_was_refused_the_list_tells_what_was_set():
    case = refused("set lo_compat_privileges = on", "set work_mem = 1")
    assert case.ask() == Question(lists=True)
    client, server = case.conclude({"work_mem": "64kB"})
    assert own(client) == own(server) == {"work_mem": "64kB"}


def test_what_the_client_had_before_it_still_has():
    case = refused("set lock_timeout = x", "set work_mem = 1", before={**BASE, "lock_timeout": "1s"})
    assert own(case.conclude({"lock_timeout": "1s"}).client) == {"lock_timeout": "1s"}
    assert not refused("set lock_timeout = x", before={**BASE, "lock_timeout": "1s"}).ask().lists


@pytest.mark.parametrize("text", ["set timezone = 'x'", "set role nix", "set my.x = 1", "reset work_mem"])
def test_what_can_be_told_without_the_list_is(text):
    assert not refused(text).ask().lists


# What may be in the way.


def test_a_timeout_that_is_short_is_read_first_though_it_is_not_in_doubt():
    assert Case("set work_mem = 1", before={**BASE, "statement_timeout": "1ms"}).ask().first == ("statement_timeout",)
    assert Case("set work_mem = 1", before={**BASE, "statement_timeout": "1s"}).ask().first == ()
    assert Case("set statement_timeout = 1").ask() == Question(("statement_timeout",))
    assert not Case("reset x", before={**BASE, "role": "clerk"}, told={"x": "1"}).ask().lists


def test_who_has_a_role_is_asked_as_who_logged_in():
    assert Case("set work_mem = 1", before={**BASE, "role": "clerk"}).ask() == Question(("role", "work_mem"))


def test_where_a_question_has_failed_nothing_is_asked_by_name_that_can_be_listed():
    """Perhaps it was named in vain, and nobody here may read it."""
    case = Case("set dynamic_library_path = x", "set my.x = 1")
    case.doubts.is_careful = True
    question = case.ask()
    assert question.first == FIRST
    assert question.rest == ("my.x",)
    assert question.lists
    assert question.is_calm
    assert own(case.conclude(my__x="1").client) == {"my.x": "1"}


@pytest.mark.parametrize(
    ("texts", "value", "theirs"),
    [
        (["do ''"], "1ms", {"statement_timeout": "1ms"}),
        (["do ''"], "0", {"statement_timeout": "5s"}),
        (["do ''", "set statement_timeout = 0"], "0", {"statement_timeout": "0"}),
    ],
)
def test_what_was_put_back_before_the_list_was_made_is_told_by_its_value_at_login(texts, value, theirs):
    case = Case(*texts, origin={**BASE, "statement_timeout": "5s"})
    case.doubts.is_careful = True
    answer = Answer({"statement_timeout": value}, at_login={"statement_timeout": "0"})
    sets = case.doubts.conclude(case.ask(), answer, Sets(case.now, case.now), case.ground, case.told)
    assert own(sets.client) == theirs


def test_what_was_so_before_stays_so_though_it_is_the_servers_own():
    case = Case("do ''", origin={**BASE, "statement_timeout": "5s"}, before={**BASE, "statement_timeout": "0"})
    case.doubts.is_careful = True
    answer = Answer({"statement_timeout": "0"}, at_login={"statement_timeout": "0"})
    sets = case.doubts.conclude(case.ask(), answer, Sets(case.now, case.now), case.ground, case.told)
    assert own(sets.client) == {"statement_timeout": "0"}


@pytest.mark.parametrize("text", ["set session characteristics as transaction read only", "do ''"])
def test_where_its_transactions_may_wait_it_is_asked_in_another_kind(text):
    assert Case(text).ask().is_calm
    assert Case("set x = 1", before={**BASE, "default_transaction_deferrable": "on"}).ask().is_calm
    assert not Case("set x = 1", before={**BASE, "default_transaction_read_only": "on"}).ask().is_calm


# Facts.


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("create temp table t (a int)", Fact.TEMP),
        ("select pg_advisory_lock(1)", Fact.LOCKS),
        ("declare c cursor with hold for select 1", Fact.CURSORS),
        ("listen x", Fact.CHANNELS),
    ],
)
def test_what_may_exist_is_asked(text, fact):
    assert Case(text).ask() == Question(facts=(fact,))


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("discard temp", Fact.TEMP),
        ("select pg_advisory_unlock_all()", Fact.LOCKS),
        ("close all", Fact.CURSORS),
        ("unlisten *", Fact.CHANNELS),
        ("deallocate all", Fact.STATEMENTS),
    ],
)
def test_what_may_be_gone_is_asked_where_it_was(text, fact):
    assert not Case(text).ask()
    assert Case(text, held=[fact]).ask() == Question(facts=(fact,))


def test_doubts_that_could_not_be_settled_stand_beside_the_next():
    older, younger = Case("set work_mem = 1").doubts, Case("create temp table t (a int)").doubts
    younger.absorb(older)
    assert younger.before is older.before
    assert younger.ask(Ground(BASE, SPELLED, "web"), BASE, make_told({}), ()) == Question(("work_mem",), (Fact.TEMP,))


ANYTHING = [
    "set work_mem = 1",
    "set my.x = 1",
    "reset my.x",
    "reset all",
    "discard all",
    "set role clerk",
    "create temp table t (a int)",
    "select pg_advisory_lock(1)",
    "declare c cursor with hold for select 1",
    "listen news",
    "do $$ begin perform set_config('a.' || 'b', '1', false); perform 'c.d'; end $$",
]


@pytest.mark.parametrize("first", ANYTHING)
@pytest.mark.parametrize("second", ANYTHING)
def test_doubts_beside_others_ask_what_they_had_asked_together(first, second):
    before = {**BASE, "work_mem": "8MB"}
    older, younger, together = (Case(*texts, before=before) for texts in ([first], [second], [first, second]))
    younger.doubts.absorb(older.doubts)
    assert younger.ask(["other.y"]) == together.ask(["other.y"])


# What cannot be said again.


def test_what_can_be_replayed_has_no_reason():
    assert why_unsayable({**BASE, "my.x": "\u00fc", "TimeZone": "\udc80"}, SPELLED) == ""


@pytest.mark.parametrize("value", ["x" * 2000, "\udcfc"])
def test_a_value_that_cannot_be_said_is_named(value):
    assert why_unsayable({**BASE, "my.x": value}, SPELLED) == "my.x"


def test_too_many_parameters_are_a_reason():
    assert why_unsayable({f"my.x{number}": "1" for number in range(MAX_SET + 1)}, SPELLED)
