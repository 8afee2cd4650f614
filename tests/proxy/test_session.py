"""What a client did to its session: asked when it is over, carried along, or a reason to keep the server."""

import pytest

from protocol.acts import What
from protocol.backend import build_data_row, build_parameter_status
from protocol.frontend import build_parse, build_query
from protocol.inspection import FIRST, MAX_ANSWER, Fact, Question, build_inspection
from protocol.undone import Again, build_again
from proxy.pins import PinReason
from proxy.session import note, pin_for_statement
from proxy.states import CLEANING, CLOSED, CLOSING, GONE, IDLE, LINKED, WAITING
from tests.play import (
    Play,
    asked,
    client,
    client_hangs_up,
    error_to_client,
    released,
    said,
    server,
    stays_linked,
    to_client,
    to_server,
)

ASK = build_query("select 1")
DISCARD = "Q:DISCARD_ALL"
LOCK = build_query("select pg_advisory_lock(1)")
UNLOCK = build_query("select pg_advisory_unlock(1)")
LOCKED = Question(facts=(Fact.LOCKS,))


def q(text):
    return build_query(text)


def parsed(text):
    """The Parse without a name."""
    return build_parse(b"", text.encode())


def asks(*names, **more):
    return to_server(build_inspection(Question(names, **more)))


def answers(*values):
    """One row, as the answer to an inspection."""
    return server(said("T") + build_data_row(values) + said("C Z:I"))


def a_play(**more):
    return Play(session_state="track", **more)


def set_to(play, text, name, value):
    """The whole of a SET, its inspection and its end."""
    play >> client(q(text)) << to_server(q(text)) >> server("C Z:I") << to_client("C Z:I")
    return play << asks(name) >> answers(value)


def locked(**more):
    """A play whose client has an advisory lock."""
    play = a_play(**more) >> client(LOCK) >> server("C Z:I") << to_server(LOCK + build_inspection(LOCKED))
    return play << to_client("C Z:I") >> answers("t") << stays_linked


def own(parameters):
    return {key: value for key, value in parameters.items() if key.islower() and key in ("work_mem", "my.x", "role")}


# Costs nothing.


def test_a_client_that_changes_nothing_has_no_session():
    play = a_play() >> client("Q:select_1") >> server("C Z:I") << released
    assert play.client.session is None


@pytest.mark.parametrize("text", ["create role r", "begin", "set local work_mem = 1", "deallocate x", "close all"])
def test_what_leaves_nothing_in_a_session_is_not_looked_at(text):
    play = a_play() >> client(q(text)) << to_server(q(text)) >> server("C Z:I") << released << to_server("")
    assert play.client.session is None or not play.client.session.pins


def test_what_a_server_reports_by_itself_is_not_asked():
    play = a_play() >> client(q("set timezone = 'CET'")) >> server("C S:TimeZone=CET Z:I") << released
    assert play.client.followed["TimeZone"] == play.server.followed["TimeZone"] == "CET"


def test_a_drivers_reset_of_one_who_has_set_nothing_is_not_asked():
    play = a_play() >> client(q("reset all")) << to_server(q("reset all"))
    play >> server("C Z:I") << released << to_server("")


# Asked.


def test_a_set_is_asked_when_its_transaction_is_over_and_then_the_server_goes():
    play = set_to(a_play(), "set work_mem = 8192", "work_mem", "8MB") << released << to_client("")
    assert own(play.client.followed) == {"work_mem": "8MB"}
    assert play.client.followed is play.server.followed


def test_in_a_transaction_nothing_is_asked():
    play = a_play() >> client(q("begin; set work_mem = 1")) >> server("C C Z:T") << stays_linked
    play >> client(q("set my.x = 1")) >> server("C Z:T") >> client("Q:commit") >> server("C Z:I")
    heard = play.hear("server")
    assert heard.endswith(build_inspection(Question(("my.x", "work_mem"))))
    play >> answers("1", "64kB") << released
    assert own(play.client.followed) == {"my.x": "1", "work_mem": "64kB"}


def test_what_the_client_says_meanwhile_is_held_and_goes_on():
    play = a_play() >> client(q("set work_mem = 1")) >> server("C Z:I") << to_client("C Z:I")
    play.hear("server")
    play >> client(ASK) << to_server("") >> answers("64kB") << to_server(ASK) >> server("C Z:I") << released
    play << to_client("C Z:I")


def test_what_is_held_may_be_another_set_and_is_asked_in_its_turn():
    play = a_play() >> client(q("set work_mem = 1")) >> server("C Z:I") >> client(q("set my.x = 1"))
    play.hear("server")
    (
        play
        >> answers("64kB")
        << to_server(q("set my.x = 1"))
        >> server("C Z:I")
        << asks("my.x")
        >> answers("1")
        << released
    )
    assert own(play.client.followed) == {"my.x": "1", "work_mem": "64kB"}


def test_two_sets_in_one_write_are_asked_once():
    play = a_play() >> client(q("set work_mem = 1") + q("set my.x = 1")) >> server("C Z:I") >> server("C Z:I")
    assert play.hear("server").endswith(build_inspection(Question(("my.x", "work_mem"))))
    play >> answers("1", "64kB") << released


def test_who_waits_is_served_before_what_was_held():
    play = a_play() >> client(q("set work_mem = 1")) >> server("C Z:I")
    play.hear("server")
    other = play.world.new_client()
    with play.world.loop.running():
        other.data_received(q("select 2"))
    assert other.state is WAITING
    play >> client(ASK) >> answers("64kB")
    assert other.server is play.server
    assert play.client.state is WAITING
    assert play.hear("server").startswith(q('RESET "work_mem"'))


def test_our_question_ends_the_unnamed_statement_which_is_made_again():
    """A simple Query does, ours too. It is not taken to be there still by one who keeps his server."""
    play = locked() >> client(parsed("set work_mem = 1") + asked("B E S")) >> server("1 2 C Z:I")
    play.hear("server")
    play >> answers("64kB") << stays_linked >> client("B E S")
    assert play.hear("server").startswith(parsed("set work_mem = 1"))


def test_so_does_what_brings_back_what_its_client_came_with():
    play = with_work_mem() >> client("Q:begin") >> server("C Z:T") >> client(parsed("reset work_mem") + asked("B E S"))
    play >> server("1 2 C Z:T")
    assert play.hear("server").endswith(WORK_MEM_AGAIN)
    play >> server("T D C Z:T") >> client("B E S")
    assert play.hear("server").startswith(parsed("reset work_mem"))


def asks_everything(play):
    heard = play.hear("server")
    assert b"FROM pg_catalog.pg_settings WHERE source" in heard, heard
    assert b"pg_advisory" in heard or b"'advisory'" in heard


def test_a_function_called_by_its_number_may_have_done_anything():
    a_play() >> client("F") >> server("V Z:I") << asks_everything << stays_linked


@pytest.mark.parametrize("is_parsed", [False, True])
def test_a_text_whose_quotes_nobody_can_be_sure_of_may_have_done_anything(is_parsed):
    """In sjis a letter may end with a byte that looks like a backslash, or like a part of a name."""
    play = a_play(followed={"client_encoding": "SJIS"})
    play.server.followed = play.client.followed
    text = b"select '\x83\\', set_config('work_mem', '1', false)"
    said_ = build_parse(b"", text) + asked("B E S") if is_parsed else build_query(text)
    play >> client(said_) >> server("1 2 D C Z:I" if is_parsed else "T D C Z:I") << asks_everything << stays_linked


def test_an_answer_that_is_far_too_long_is_not_kept_and_not_believed():
    play = a_play() >> client(q("set work_mem = 1")) >> server("C Z:I")
    play.hear("server")
    asking = play.client.session._asking
    play >> server(said("T") + build_data_row(["64kB"]) + said("D:" + "x" * 100_000) * (MAX_ANSWER // 100_000 + 1))
    play >> server(said("D:" + "x" * 100_000) * 5)
    assert MAX_ANSWER < len(asking.data) <= 2 * MAX_ANSWER
    play >> server("C Z:I")
    assert own(play.client.followed) == {}


def test_an_answer_may_come_in_pieces():
    play = a_play() >> client(q("set work_mem = 1")) >> server("C Z:I")
    for byte in said("T") + build_data_row(["64kB"]) + said("C Z:I"):
        play >> server(bytes([byte]))
    play << released
    assert own(play.client.followed) == {"work_mem": "64kB"}


# The next server.


def test_another_server_is_brought_to_the_same_state_and_the_first_one_back():
    play = set_to(a_play(pool_size=2), "set work_mem = 1", "work_mem", "64kB") << released
    neighbour = play.world.new_client()
    with play.world.loop.running():
        neighbour.data_received(q("select 2"))
    play << to_server(q('RESET "work_mem"')) >> server("C Z:I") << to_server(q("select 2")) >> server("C Z:I")
    assert not own(play.server.followed)
    play >> client(ASK) << to_server(q("SELECT pg_catalog.set_config(E'work_mem',E'64kB',false)"))
    play >> server("T D:64kB C Z:I") << to_server(ASK) >> server("C Z:I") << released << to_client("C Z:I")
    assert play.client.followed is play.server.followed


def test_a_replay_that_is_refused_ends_the_client_and_its_request_never_runs():
    play = (
        a_play() >> client(q("set role clerk")) >> server("C Z:I") >> answers("web", "clerk", "web", "none") << released
    )
    play.hear("server")
    play.server.followed = play.world.pool.intern({**play.client.origin})
    play.hear("client")
    play >> client(ASK)
    assert play.hear("server") == q("SELECT pg_catalog.set_config(E'role',E'clerk',false)")
    play >> server("ERROR:denied Z:I") << error_to_client("denied")
    assert play.client.state is GONE
    assert play.server.state is IDLE
    assert not own(play.server.followed)
    assert b"select 1" not in bytes(play.server_socket.arrived)


def test_a_replay_that_a_timeout_strikes_is_tried_elsewhere():
    play = set_to(a_play(), "set work_mem = 1", "work_mem", "64kB") << released
    play.server.followed = play.world.pool.intern({**play.client.origin, "statement_timeout": "1ms"})
    play.hear("client")
    play >> client(ASK)
    assert b'RESET "statement_timeout"' in play.hear("server")
    canceled = said("ERROR:x").replace(b"22012", b"57014")
    play >> server(canceled + said("Z:I")) << to_server(DISCARD)
    assert play.client.state is WAITING
    play >> server("C Z:I") << to_server(q("SELECT pg_catalog.set_config(E'work_mem',E'64kB',false)"))
    play >> server("C Z:I") << to_server(ASK) >> server("C Z:I") << to_client("C Z:I") << released


RESET_IDLE = q('RESET "idle_session_timeout"')


def test_a_timeout_of_idle_connections_is_put_back_before_the_server_is_idle():
    play = set_to(a_play(), "set idle_session_timeout = 20", "idle_session_timeout", "20ms") << to_server(RESET_IDLE)
    play << stays_linked >> client(ASK) << to_server("") >> server("C Z:I") << to_server(ASK) >> server("C Z:I")
    play << to_client("C Z:I") << released
    assert "idle_session_timeout" not in {**play.client.followed, **play.server.followed}


def test_nor_does_it_last_for_a_client_that_keeps_its_server():
    play = set_to(locked(), "set idle_session_timeout = 20", "idle_session_timeout", "20ms") << to_server(RESET_IDLE)
    play >> server("C Z:I") << stays_linked << to_server("")
    play >> client(ASK) << to_server(ASK) << stays_linked


def test_a_set_that_was_refused_is_no_parameter_of_anybodys():
    """Nobody could RESET it."""
    text = q("set lo_compat_privileges = on")
    play = a_play() >> client(text) >> server("ERROR:no Z:I") << to_client("ERROR:no Z:I")
    play << to_server(text + build_inspection(Question(lists=True))) >> server("T C Z:I") << released
    assert play.client.followed is play.server.followed
    assert "lo_compat_privileges" not in play.server.followed


def test_who_may_not_reset_what_was_left_there_gets_a_server_that_was_cleaned():
    play = a_play()
    play.server.followed = play.world.pool.intern({**play.server.followed, "lo_compat_privileges": "off"})
    play >> client(ASK) << to_server(q('RESET "lo_compat_privileges"')) >> server("ERROR:no Z:I") << to_server(DISCARD)
    play >> server("C Z:I") << to_server(ASK) >> server("C Z:I") << to_client("C Z:I") << released


def test_who_is_kept_there_by_something_else_may_not_lose_it_for_that():
    play = locked()
    play.server.followed = play.world.pool.intern({**play.server.followed, "lo_compat_privileges": "off"})
    play >> client(ASK) << to_server(ASK) >> server("C Z:I") << to_client("C Z:I")
    play << to_server(q('RESET "lo_compat_privileges"')) >> server("ERROR:no Z:I")
    assert play.client.state is GONE
    assert b"lo_compat_privileges" in play.hear("client")


def test_a_server_that_somebody_has_touched_is_not_cleaned_under_one_who_has_something_there():
    play = locked()
    play.server.is_touched = True
    play >> client(ASK) << to_server(ASK) >> server("C Z:I") << stays_linked << to_server("")
    play >> client(UNLOCK) << to_server(UNLOCK) >> server("C Z:I")
    play.hear("server")
    play >> answers("f") << to_server(DISCARD)


# RESET.


def test_a_reset_brings_back_what_the_client_came_with_and_tells_it():
    play = a_play(followed={"TimeZone": "CET"})
    play.world.pool.proven.add(("TimeZone", "CET"))
    play >> client(q("reset timezone")) >> server("C S:TimeZone=CET Z:I") >> server("C S:TimeZone=UTC Z:I")
    assert play.hear("client") == said("C S:TimeZone=UTC Z:I") + build_parameter_status("TimeZone", "CET")
    play << released
    assert play.client.followed["TimeZone"] == "CET"
    assert play.server.followed["TimeZone"] == "UTC"
    play.hear("server")
    play >> client(ASK) << to_server(q("SET TimeZone=E'CET'") + ASK)


def test_a_reset_of_what_is_reported_but_not_followed_is_told_too():
    """PostgreSQL 18 reports search_path."""
    play = a_play(followed={"search_path": "mine"})
    play.server.followed = play.client.followed
    play.server.parameters["search_path"] = "mine"
    public, mine = (build_parameter_status("search_path", value) for value in ("public", "mine"))
    play >> client(q("reset search_path")) >> server(public + said("C Z:I")) << to_client(public + said("C Z:I") + mine)
    play << released


def test_a_pinned_client_gets_back_what_it_came_with_on_its_own_server():
    play = a_play(followed={"work_mem": "8MB"})
    play.server.followed = play.client.followed
    play >> client(LOCK) >> server("C Z:I") >> answers("t") << stays_linked
    play.hear("server")
    play >> client(q("reset work_mem")) << to_server(q("reset work_mem")) >> server("C Z:I") << asks("work_mem")
    play >> answers("4MB") << to_server(q("SELECT pg_catalog.set_config(E'work_mem',E'8MB',false)"))
    play >> client(ASK) << to_server("") >> server("C Z:I") << to_server(ASK) << stays_linked
    assert own(play.server.followed) == {"work_mem": "8MB"}


SET_WORK_MEM = q("SELECT pg_catalog.set_config(E'work_mem',E'8MB',false)")


WORK_MEM_AGAIN = q(build_again([Again("work_mem", "8MB")]).decode())


def with_work_mem():
    """A play whose client came with a work_mem, on a server that has it."""
    play = a_play(followed={"work_mem": "8MB"})
    play.server.followed = play.client.followed
    return play


def test_in_a_transaction_a_reset_brings_it_back_at_once_and_what_follows_waits_for_that():
    play = with_work_mem() >> client(q("begin; reset work_mem")) >> server("C C Z:T")
    play << to_server(q("begin; reset work_mem") + WORK_MEM_AGAIN) << to_client("C C Z:T")
    play >> client(ASK) << to_server("") >> server("C Z:T") << to_server(ASK) >> server("C Z:T") << to_client("C Z:T")
    play >> client("Q:commit") >> server("C Z:I")
    assert play.hear("server").endswith(build_inspection(Question(lists=True)))
    listed = said("T") + build_data_row(["work_mem", "8MB"]) + said("C Z:I")
    play >> server(listed) << released
    assert own(play.client.followed) == own(play.server.followed) == {"work_mem": "8MB"}


def test_in_a_transaction_that_has_failed_nothing_is_brought_back():
    play = with_work_mem() >> client(q("begin; reset work_mem; x")) >> server("C C ERROR:x Z:E")
    assert play.hear("server") == q("begin; reset work_mem; x")
    play >> client("Q:rollback") >> server("C Z:I")
    assert WORK_MEM_AGAIN not in play.hear("server")


def test_a_reset_in_a_transaction_that_has_failed_is_none_though_the_value_is_the_servers_own():
    play = a_play(followed={"TimeZone": "CET"})
    play.client.followed = play.server.followed
    play >> client(q("begin; discard all")) >> server("C ERROR:no Z:E") >> client("Q:commit") >> server("C Z:I")
    play >> server(said("T Z:I")) << released
    assert play.client.followed["TimeZone"] == "UTC"


def test_a_reset_that_has_failed_does_not_keep_a_later_one_from_being_brought_back():
    play = with_work_mem() >> client("Q:begin") >> server("C Z:T")
    play >> client(q("discard all")) >> server("ERROR:no Z:E") >> client(q("rollback and chain")) >> server("C Z:T")
    play.hear("server")
    play >> client(q("reset work_mem")) >> server("C Z:T") << to_server(q("reset work_mem") + WORK_MEM_AGAIN)


@pytest.mark.parametrize(
    "texts",
    [
        ["reset work_mem", "reset work_mem"],
        ["set work_mem = 1", "reset work_mem"],
        ["set work_mem to default", "rollback to z", "reset work_mem"],
        ["reset work_mem", "commit and chain", "reset all"],
        ["do $$ begin reset work_mem; end $$", "reset work_mem"],
    ],
)
def test_each_reset_in_a_transaction_is_brought_back(texts):
    play = with_work_mem() >> client(q("begin; savepoint z")) >> server("C C Z:T")
    for text in texts:
        play.hear("server")
        play >> client(q(text)) >> server("C Z:T")
        heard = play.hear("server")
        if heard != q(text):
            assert heard == q(text) + WORK_MEM_AGAIN
            play >> server("C Z:T")
    assert heard.endswith(WORK_MEM_AGAIN)


def test_what_was_reset_for_the_transaction_is_brought_back_for_that_and_nothing_is_asked_at_its_end():
    play = with_work_mem() >> client(q("begin; set local work_mem to default")) >> server("C C Z:T")
    assert play.hear("server").endswith(q(build_again([Again("work_mem", "8MB", is_local=True)]).decode()))
    play >> server("C Z:T") >> client("Q:commit") << to_server("Q:commit") >> server("C Z:I") << released


def test_what_is_set_beside_its_reset_is_not_brought_back():
    play = with_work_mem() >> client(q("begin; reset work_mem; set work_mem = 1")) >> server("C C C Z:T")
    assert b"set_config" not in play.hear("server")


def test_what_was_brought_back_is_told():
    play = a_play(followed={"TimeZone": "CET"})
    play.server.followed = play.client.followed
    (
        play
        >> client(q("begin; reset timezone"))
        >> server("C C S:TimeZone=UTC Z:T")
        << to_client("C C S:TimeZone=UTC Z:T")
    )
    play >> server("C S:TimeZone=CET Z:T")
    assert play.hear("client") == build_parameter_status("TimeZone", "CET")


def test_what_was_brought_back_is_told_though_it_is_not_followed():
    play = a_play(followed={"search_path": "mine"})
    play.server.followed = play.client.followed
    play.server.parameters["search_path"] = "mine"
    public, mine = (build_parameter_status("search_path", value) for value in ("public", "mine"))
    play >> client(q("begin; reset search_path")) >> server(public + said("C C Z:T"))
    play << to_client(public + said("C C Z:T")) >> server(mine + said("C Z:T")) << to_client(mine)


# Pins.


def test_a_lock_keeps_the_client_on_its_server_until_it_is_gone():
    play = locked() >> client(ASK) << to_server(ASK) >> server("C Z:I") << stays_linked
    play >> client(UNLOCK) << to_server(UNLOCK) >> server("C Z:I") << to_server(build_inspection(LOCKED))
    play >> answers("f") << released
    assert play.world.pool.learnt.pins.counts[PinReason.LOCK].now == 0
    assert play.world.pool.learnt.pins.counts[PinReason.LOCK].total == 1


def test_a_pin_says_since_when_and_by_what():
    pin = locked().client.session.pins[PinReason.LOCK]
    assert pin.since == 1000.0
    assert pin.statement == "select pg_advisory_lock(?)"


def test_a_lock_tried_in_vain_keeps_nobody():
    a_play() >> client(LOCK) >> server("C Z:I") >> answers("f") << released


@pytest.mark.parametrize("text", ["load 'auto_explain'", "select dblink_connect('x')"])
def test_what_no_reset_undoes_keeps_the_server_and_spoils_it(text):
    play = a_play() >> client(q(text)) >> server("C Z:I") << stays_linked >> client(ASK) >> server("C Z:I")
    play << stays_linked >> client("X") >> server("C Z:I")
    assert play.server.state in (CLOSING, CLOSED)


def test_a_pinned_client_that_leaves_leaves_a_server_that_is_reset_first():
    play = locked() >> client("X") << to_server(DISCARD)
    assert play.server.state is CLEANING
    play.server.statements["x"] = True
    play >> server("C Z:I")
    assert play.server.state is IDLE
    assert not play.server.statements
    assert play.world.pool.learnt.pins.counts[PinReason.LOCK].now == 0


def test_a_reset_query_of_the_operators_own_is_run_and_not_trusted():
    play = locked(server_reset_query="select 1") >> client("X") << to_server(q("select 1") + q("DISCARD ALL"))
    play >> server("C Z:I") >> server("C Z:I")
    assert play.server.state is IDLE


def test_without_a_reset_query_everything_is_discarded():
    play = locked(server_reset_query="") >> client("X") << to_server(DISCARD) >> server("C Z:I")
    assert play.server.state is IDLE


def test_a_value_that_cannot_be_said_again_keeps_the_client():
    play = set_to(a_play(), "set my.x = 1", "my.x", "x" * 2000) << stays_linked
    assert list(play.client.session.pins) == [PinReason.VALUE]
    play >> client(q("set my.x = 2")) >> server("C Z:I") >> answers("2") << released


def test_a_statement_under_a_name_of_its_own_keeps_the_client():
    play = a_play()
    pin_for_statement(play.client, b"prepare p as select 1")
    play >> client(ASK) >> server("C Z:I") << to_server(ASK + build_inspection(Question(facts=(Fact.STATEMENTS,))))
    play >> answers("t") << stays_linked
    assert play.client.session.pins[PinReason.STATEMENT].statement == "prepare p as select ?"


# Texts that do not say what they do.

UNCLEAR = q("do $$ begin end $$")


def unclear(play, *listed, facts="fffff"):
    """The answer to the question about everything."""
    play >> client(UNCLEAR) >> server("C Z:I")
    assert b"pg_settings" in play.hear("server")
    rows = b"".join(build_data_row(row) for row in listed)
    first = said("C T") + build_data_row(["web", "none", "web", "none"]) + said("C T")
    return play >> server(first + build_data_row([*facts]) + said("C T") + rows + said("C Z:I"))


def test_after_a_text_that_does_not_say_what_it_sets_the_server_is_wiped_before_it_goes():
    play = unclear(a_play(), ["work_mem", "8MB"]) << to_server(q("RESET ALL")) << stays_linked
    play.hear("client")
    play >> client(ASK) << to_server("") >> server("C S:TimeZone=UTC Z:I")
    play << to_server(SET_WORK_MEM) >> server("C Z:I") << to_server(ASK) >> server("C Z:I") << released
    play << to_client("C Z:I")
    assert own(play.client.followed) == {"work_mem": "8MB"}


def test_what_the_wipe_changes_is_not_the_clients_wish():
    play = a_play(followed={"TimeZone": "CET"})
    play.server.followed = play.client.followed
    unclear(play, ["TimeZone", "CET"]) >> server("C S:TimeZone=UTC Z:I") << released
    assert play.client.followed["TimeZone"] == "CET"
    assert play.server.followed["TimeZone"] == "UTC"


def test_where_a_name_cannot_be_asked_for_the_client_keeps_its_server_and_nothing_is_wiped():
    play = a_play() >> client(q("set my.\u00fc = 1")) >> server("C Z:I")
    play.hear("server")
    first = said("C T") + build_data_row(["web", "none", "web", "none"]) + said("C T")
    play >> server(first + said("C Z:I")) << to_server("") << stays_linked
    assert list(play.client.session.pins) == [PinReason.NAME]
    play >> client(q("set work_mem = 1")) >> server("C Z:I") >> answers("64kB") << stays_linked
    play >> client("X")
    assert play.hear("server").endswith(q("DISCARD ALL"))


def test_a_pinned_client_keeps_what_nobody_can_list_until_it_is_pinned_no_more():
    play = unclear(locked(), facts="ftfff") << to_server("") << stays_linked
    play >> client(UNLOCK) >> server("C Z:I") >> answers("f")
    assert play.hear("server").endswith(q("RESET ALL"))
    play >> server("C Z:I") << released


def test_a_wipe_that_fails_makes_the_server_to_be_reset():
    play = unclear(a_play()) >> server("ERROR:x Z:I") << to_server(q("RESET ALL") + q("DISCARD ALL"))
    assert play.client.server is None
    play >> server("C Z:I")
    assert play.server.state is IDLE


def test_a_client_that_leaves_during_the_wipe_leaves_a_server_that_is_reset():
    play = unclear(a_play()) >> client("X") >> server("C Z:I") << to_server(q("RESET ALL") + q("DISCARD ALL"))
    play >> server("C Z:I")
    assert play.server.state is IDLE


# What goes wrong.


def careful(*facts):
    return build_inspection(Question(FIRST, facts, lists=True, is_calm=True))


@pytest.mark.parametrize("answer", ["T D:a C Z:I", "C Z:I"])
def test_an_inspection_that_fails_keeps_the_client_and_is_tried_again_after_its_next_unit(answer):
    play = a_play() >> client(LOCK) >> server("C Z:I")
    play.hear("server")
    play >> server(answer) << stays_linked << to_server("")
    assert list(play.client.session.pins) == [PinReason.UNKNOWN]
    play >> client(ASK) << to_server(ASK) >> server("C Z:I") << to_server(build_inspection(LOCKED))
    play >> answers("f") << released
    assert not play.client.session.pins


FIRST_ROW = said("T") + build_data_row(["0", None, "web", "none", "0", None, "web", "none"]) + said("C")


def test_a_question_that_is_refused_is_asked_again_at_once_without_what_may_be_in_its_way():
    play = a_play() >> client(LOCK) >> server("C Z:I") << to_client("C Z:I")
    play.hear("server")
    play >> client(ASK) >> server("ERROR:no Z:I") << to_server(careful(Fact.LOCKS)) << stays_linked
    assert not play.client.session.pins
    play >> server(FIRST_ROW + said("T") + build_data_row(["f"]) + said("C Z:I"))
    play << to_server(ASK) >> server("C Z:I") << to_client("C Z:I") << released
    assert "statement_timeout" not in play.client.followed


def test_who_cannot_be_asked_at_all_keeps_its_server_and_is_asked_again_after_its_next_unit():
    play = a_play() >> client(LOCK) >> server("C Z:I") >> server("ERROR:no Z:I")
    play.hear("server")
    play >> server("ERROR:no Z:I") << stays_linked << to_server("")
    assert list(play.client.session.pins) == [PinReason.UNKNOWN]
    assert "no answer to what a session is like: no" in play.world.log.text
    play >> client(ASK) << to_server(ASK) >> server("C Z:I") << to_server(careful(Fact.LOCKS))
    play >> server(FIRST_ROW + said("T") + build_data_row(["f"]) + said("C Z:I")) << released
    assert not play.client.session.pins


def test_an_answer_without_end_is_not_kept():
    play = a_play() >> client(q("set my.x = 1")) >> server("C Z:I")
    for _ in range(MAX_ANSWER // 60_000 + 2):
        play >> server(said("D:" + "x" * 60_000))
    assert len(play.client.server.ledger.head[1].data) < MAX_ANSWER + 200_000
    play >> server("C Z:I") << stays_linked
    assert list(play.client.session.pins) == [PinReason.UNKNOWN]


@pytest.mark.parametrize("leaves", [client("X"), client_hangs_up])
def test_a_client_that_leaves_before_the_answer_leaves_a_server_that_is_reset(leaves):
    play = a_play() >> client(LOCK) >> server("C Z:I")
    play.hear("server")
    play >> leaves
    for each in list(play.world.cancels):
        play >> (lambda play, each=each: play.world.cancel_arrives(each))
    play >> answers("t") << to_server(DISCARD) >> server("C Z:I")
    assert play.server.state is IDLE


def test_a_client_that_leaves_before_it_was_asked_does_so_too():
    play = a_play() >> client(q("set my.x = 1")) >> client("X")
    play.hear("server")
    play >> server("C Z:I") << to_server(DISCARD) >> server("C Z:I")
    assert play.server.state is IDLE


def test_a_server_lost_while_it_is_asked_takes_its_client_along():
    play = a_play() >> client(LOCK) >> server("C Z:I") << to_client("C Z:I")
    play >> (lambda play: play.server_socket.peer_breaks()) << error_to_client("server conn crashed?")
    assert play.client.state is GONE


def test_pins_of_a_client_whose_server_is_lost_count_no_more():
    play = locked() >> (lambda play: play.server_socket.peer_breaks())
    assert play.client.state is GONE
    assert play.world.pool.learnt.pins.counts[PinReason.LOCK].now == 0


# Other ways to treat sessions.


def test_reset_asks_nothing_and_resets_the_server():
    play = Play(session_state="reset") >> client(q("set my.x = 1")) >> server("C Z:I") << to_client("C Z:I")
    play << to_server(q("set my.x = 1") + q("DISCARD ALL"))
    assert play.client.server is None
    assert play.server.state is CLEANING
    play >> server("C Z:I")
    assert play.server.state is IDLE


def test_reset_pins_nobody_and_closes_what_no_reset_undoes():
    play = Play(session_state="reset") >> client(q("load 'auto_explain'")) >> server("C Z:I") >> server("C Z:I")
    assert play.server.state in (CLOSING, CLOSED)
    assert not play.client.session.pins


def test_leak_does_not_look():
    Play(session_state="leak") >> client(q("set my.x = 1")) >> server("C Z:I") << released


def test_a_private_server_is_not_looked_at_either():
    play = (
        Play(session_state="track", pool_mode="session") >> client(q("set my.x = 1")) >> server("C Z:I") << stays_linked
    )
    assert play.hear("server") == q("set my.x = 1")
    assert play.server.state is LINKED


def test_a_listen_that_somebody_else_hears_is_no_doubt():
    play = a_play()
    reading = play.world.pool.habits.reader.read(b"listen x")
    assert reading.has(What.LISTEN)
    note(play.client, reading, b"listen x")
    play >> client(ASK) >> server("C Z:I") << released


def test_a_session_is_at_ease_when_all_of_it_stands_in_the_parameters():
    play = a_play() >> client(q("set lock_timeout to 5")) << to_server(q("set lock_timeout to 5"))
    assert not play.client.session.is_at_ease, "nobody knows yet what it has done"
    play >> server("C Z:I") << to_client("C Z:I") << asks("lock_timeout")
    assert not play.client.session.is_at_ease
    play >> answers("5ms") << released
    assert play.client.session.is_at_ease
    assert not locked().client.session.is_at_ease


def test_an_unlock_that_comes_while_the_lock_is_still_asked_for_is_asked_for_as_well():
    play = a_play() >> client(LOCK) >> server("C Z:I") << to_server(LOCK + build_inspection(LOCKED))
    play << to_client("C Z:I") >> client(UNLOCK) << to_server("") >> answers("t") << to_server(UNLOCK)
    play >> server("C Z:I") << to_server(build_inspection(LOCKED)) >> answers("f") << released


def test_what_a_statement_does_that_is_run_by_its_name_is_looked_at():
    play = a_play() >> client(q("prepare p as select pg_advisory_lock(1)")) >> server("C:PREPARE Z:I")
    play.hear("server")
    play >> answers("f") << released
    play >> client(q("execute p")) << to_server(q('execute "PGSHUTTLE_1"')) >> server("C Z:I")
    play << to_server(build_inspection(LOCKED)) >> answers("t") << stays_linked


@pytest.mark.parametrize(
    ("text", "count"), [("create role r", 1), ("alter user r rename to s", 1), ("alter role r nologin", 0)]
)
def test_who_may_have_changed_the_names_of_roles_says_so_when_it_is_done(text, count):
    play = a_play() >> client(q(text))
    assert play.world.roles_named == 0
    play >> server("C Z:I") << released
    assert play.world.roles_named == count
