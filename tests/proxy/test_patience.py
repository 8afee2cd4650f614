"""Those who wait are told why, sent away when it takes too long, and the log hears who is in the way."""

from dataclasses import replace

import pytest

from protocol.backend import parse_error
from proxy.explain import SENTENCE
from proxy.janitor import TICK
from proxy.patience import WARN_AGAIN, Patience, find_refusal
from proxy.pool import LoginFailed
from proxy.states import GONE, OPENING, WAITING, Leaving, Waiting
from tests.fakes import FakeWorld
from tests.lined import Lined, answers, asks, cancels, free, passes, says, sent, sent_for, server_hangs_up, silence, to
from tests.play import Play, another_client, asked, client, server
from tests.proxy.test_janitor import Night, later
from tests.ward import messages


def queue(count, **limits):
    """One server, held in a transaction, and so many who wait for it."""
    play = Night(**{"query_wait_timeout": None, **limits}) >> client("Q:begin") >> server("C Z:T")
    play.holder, play.waiting = play.client, []
    for _ in range(count):
        play >> another_client >> client("Q:a")
        play.waiting.append(play.client)
    return play


def heard(one):
    return [(chr(message[0]), parse_error(message[5:])) for message in messages(bytes(one.transport.arrived))]


def test_the_notice_begins_with_pgbouncers_sentence_and_says_what_it_is_about():
    play = queue(2, query_wait_notify=1.0) >> later(2.0)
    ((kind, notice),) = heard(play.waiting[1])
    assert (kind, notice.severity, notice.sqlstate, notice.message) == ("N", "NOTICE", "00000", SENTENCE)
    assert notice.detail.startswith("The one server of pool shop/web is busy: 1 idle in a transaction; ")
    assert notice.detail.endswith("You are number 2 of 2 in the queue.")
    assert notice.hint


def test_who_waits_for_servers_that_will_not_come_any_more_is_sent_away_at_once():
    """SHUTDOWN WAIT_FOR_SERVERS: the one who works may finish, the others had better connect elsewhere."""
    play = queue(2)
    play.world.leaving = Leaving.WAIT_FOR_SERVERS
    play >> later(TICK)
    for one in play.waiting:
        ((_, error),) = heard(one)
        assert (error.severity, error.sqlstate, error.message) == ("FATAL", "57P01", "server shutting down")
        assert one.state is GONE
    assert play.holder.state is not GONE


def test_who_waits_while_it_logs_in_is_refused_in_the_same_words():
    play = queue(1, query_wait_timeout=1.0) >> later(2.0)
    ((_, error),) = heard(play.waiting[0])
    refusal = find_refusal(queue(1).world.pool, "web", 1.0)
    assert (refusal.sqlstate, refusal.sentence, refusal.hint) == (error.sqlstate, error.message, error.hint)
    assert refusal.detail.startswith("The one server of pool shop/web is busy")
    assert refusal.note.startswith("waited for 1.0 s: The one server of pool shop/web is busy")


def test_everybody_gets_one_and_nobody_two():
    play = queue(5, query_wait_notify=1.0) >> later(5.0)
    assert [len(heard(one)) for one in play.waiting] == [1] * 5


def test_those_who_come_later_are_told_later():
    play = queue(1, query_wait_notify=2.0) >> later(1.5) >> another_client >> client("Q:a") >> later(1.0)
    assert (len(heard(play.waiting[0])), len(heard(play.client))) == (1, 0)


def test_the_reason_is_worked_out_once_for_a_whole_queue(monkeypatch):
    count = []
    monkeypatch.setattr("proxy.explain.find_holders", lambda pool: count.append(1) or [])
    queue(50, query_wait_notify=1.0) >> later(1.2)
    assert len(count) == 1


def test_a_crowd_is_told_in_slices(monkeypatch):
    monkeypatch.setattr("proxy.patience.MAX_TOLD", 3)
    play = queue(8, query_wait_notify=1.0) >> later(0.9)
    counts = []
    for _ in range(4):
        play >> later(TICK)
        counts.append(sum(len(heard(one)) for one in play.waiting))
    assert counts == [3, 6, 8, 8]


# Those who stand in line.


def sweeps(play):
    Patience(play.world.clock.now).sweep_lines(play.pool)


def notice(name, *words):
    """`name` has heard one notice with these in it, and no more."""

    def check(play):
        (message,) = messages(play.hear(name, play.socket(name)))
        assert message[:1] == b"N"
        told = parse_error(message[5:])
        assert (told.severity, told.message) == ("NOTICE", SENTENCE)
        for word in words:
            assert word in f"{told.detail} {told.hint}", told

    return check


def in_line(names="a b c", **limits):
    """a is at the head and does not come to an end."""
    limits = {"query_wait_notify": 1.0, "pipeline_stall_ms": 60_000, **limits}
    return Lined(names.replace(" ", ""), **limits) >> asks(names) >> free() << sent_for(names)


def test_who_waits_for_a_place_in_a_line_is_told_once_and_then_served():
    play = Lined("ab", query_wait_notify=1.0) >> asks("a b") >> passes(0.9) >> sweeps << silence("a b") >> passes(0.2)
    play >> sweeps << notice("a", "The one server of pool shop/web is busy", "You are number 1 of those who wait")
    play << notice("b", "number 2") >> passes(5.0) >> sweeps << silence("a b")
    play >> free() << sent_for("a b") >> answers("a b") << to("a") << to("b")


def test_who_stands_behind_one_that_does_not_end_is_told_and_that_one_is_not():
    play = in_line() >> passes(1.1) >> sweeps << silence("a") << notice("c", "number 3 in line")
    play << notice("b", "number 2 in line", "done so for 1.1 s", "pipeline_stall_ms (60000)") >> sweeps
    play << silence("b c") >> answers("a b c") << to("a") << to("b") << to("c")


def test_nobody_is_told_in_the_middle_of_his_answer_and_it_counts_anew_for_who_is_next():
    play = in_line("a b") >> says("T D:a") << to("a", "T D:a") >> passes(1.1) >> sweeps << silence("a") << notice("b")
    play >> says("C Z:I T D:b") << to("a", "C Z:I") << to("b", "T D:b") >> passes(5.0) >> sweeps << silence("b")
    play >> says("C Z:I") << to("b", "C Z:I")


def test_nor_when_what_came_of_it_is_kept_back():
    play = in_line("a b") >> cancels("a") >> says("C Z:I T D:b") << to("a", "C Z:I") << silence("b")
    play >> passes(5.0) >> sweeps << silence("b") >> says("C Z:I") << to("b", "T D:b C Z:I")


def test_who_is_rescued_or_goes_alone_is_not_told_again():
    play = in_line("a b", pipeline_stall_ms=2_000) >> passes(1.1) >> sweeps << notice("b") >> passes(3.0) << sent()
    assert play.unit("b").runs == 2
    play >> passes(3.0) >> sweeps << silence("a b")
    play >> (lambda play: play.lines.send_alone(play.lines.pending.popleft())) >> passes(3.0)
    play >> (lambda play: Patience(play.world.clock.now).sweep(play.pool)) << silence("a b")


def test_what_no_one_waits_for_any_more_is_nobodys_notice():
    play = in_line() >> (lambda play: play.socket("b").peer_hangs_up()) >> passes(1.1) >> sweeps << notice("c")
    play << silence("a b")


def test_with_no_query_wait_notify_nobody_in_line_is_told():
    in_line(query_wait_notify=None) >> passes(100.0) >> sweeps << silence("a b c")


def test_the_janitor_sees_to_it():
    play = Night(pipeline_depth=16, pipeline_servers=1, query_wait_notify=1.0) >> client("Q:begin") >> server("C Z:T")
    play.world.pool.lines.book.find(b"select 1").is_trusted = True
    play >> another_client >> client("Q:select_1") >> later(2.0)
    assert [kind for kind, _ in heard(play.client)] == ["N"]


def last_words(one):
    (*_, (kind, error)) = heard(one)
    assert kind == "E"
    return error


def test_who_has_waited_too_long_hears_why_and_so_does_the_log():
    play = queue(1, query_wait_timeout=2.0) >> later(2.5)
    error = last_words(play.waiting[0])
    assert (error.severity, error.sqlstate, error.message) == ("FATAL", "53300", "query_wait_timeout")
    assert "The one server of pool shop/web is busy" in error.detail
    assert "idle_transaction_timeout" in error.hint
    (line,) = [line for line in play.world.log.lines if "pooler error" in line]
    assert "pooler error: query_wait_timeout: waited for 2." in line
    assert 'the longest belongs to application ""' in line
    assert "closing because: query_wait_timeout (age=2s)" in play.world.log.text


def test_a_pause_gives_another_sqlstate():
    play = queue(1, query_wait_timeout=2.0) >> (lambda play: play.world.pool.pause()) >> later(2.5)
    assert last_words(play.waiting[0]).sqlstate == "57P03"


def test_logins_that_fail_give_the_servers_own():
    world = FakeWorld(pool_size=1, query_wait_timeout=2.0)
    with world.loop.running():
        one = world.new_client()
        one.transport.peer_sends(asked("Q:a"))
        (failed,) = world.pool.places[OPENING]
        world.openings.remove(failed)
        world.pool.opening_failed(LoginFailed("53300", "too many clients already"))
        world.pool.server_closed(failed)
        world.advance(2.1)
        Patience(world.clock.now).sweep(world.pool)
    error = last_words(one)
    assert error.sqlstate == "53300"
    assert "too many clients already" in error.detail


def turned_away(state):
    """Somebody waits, PostgreSQL says `state` to our login, and a sweep comes by."""
    world = FakeWorld(pool_size=1, query_wait_timeout=60.0, query_wait_notify=None)
    with world.loop.running():
        one = world.new_client()
        one.transport.peer_sends(asked("Q:a"))
        (failed,) = world.pool.places[OPENING]
        world.openings.remove(failed)
        world.pool.opening_failed(LoginFailed(state, 'database "gone" does not exist', hint="Look for it."))
        world.pool.server_closed(failed)
        Patience(world.clock.now).sweep(world.pool)
    return one


@pytest.mark.parametrize("state", ["3D000", "28000", "28P01", "42501"])
def test_who_waits_where_postgresql_lets_us_in_no_more_is_told_so_at_once(state):
    one = turned_away(state)
    error = last_words(one)
    assert (error.severity, error.sqlstate, error.hint) == ("FATAL", state, "Look for it.")
    words = 'server login has been failing, cached error: database "gone" does not exist (server_login_retry)'
    assert error.message == words
    assert error.detail.startswith("Server logins have been failing for")
    assert one.state is GONE


@pytest.mark.parametrize("state", ["08006", "53300", "57P01", "57P03", "55000"])
def test_what_may_pass_by_itself_is_waited_for(state):
    assert turned_away(state).state is WAITING


def test_nobody_is_turned_away_while_there_is_a_server_or_a_pause():
    play = queue(1, pool_size=2)
    pool = play.world.pool
    with play.world.loop.running():
        failed = play.world.openings.pop()
        pool.opening_failed(LoginFailed("28P01", "no"))
        pool.server_closed(failed)
        Patience(play.world.clock.now).sweep(pool)
    assert play.waiting[0].state is WAITING


def test_those_in_line_are_turned_away_as_well():
    play = Lined("ab") >> asks("a b") << silence("a b") >> server_hangs_up()

    def fails(play):
        play.pool.opening_failed(LoginFailed("3D000", "no"))
        Patience(play.world.clock.now).sweep(play.pool)

    play >> fails
    assert [parse_error(messages(play.hear(name, play.socket(name)))[-1][5:]).sqlstate for name in "ab"] == [
        "3D000"
    ] * 2
    assert not play.pool.is_wanted


def warnings(play):
    return [line for line in play.world.log.lines if line.startswith("WARNING")]


def test_the_log_hears_of_an_exhausted_pool_once_a_minute_and_who_holds_it():
    play = queue(3, query_wait_notify=5.0) >> later(4.0)
    assert warnings(play) == []
    play >> later(2.0)
    (line,) = warnings(play)
    assert line.startswith("WARNING shop/web: 3 clients wait for a server, the first for 5.")
    assert 'the longest belongs to application "" (user web at 127.0.0.1:1), for 5.' in line
    play >> later(WARN_AGAIN - 3.0)
    assert len(warnings(play)) == 1
    play >> later(4.0)
    assert len(warnings(play)) == 2


def test_a_machine_that_has_just_been_switched_on_is_no_exception():
    play = queue(1, query_wait_notify=1.0)
    play.world.advance(2.0)
    Patience(lambda: 3.0).sweep(play.world.pool)
    assert len(warnings(play)) == 1


def test_it_does_not_when_nobody_waits_for_long_nor_when_notices_are_off():
    assert warnings(queue(0, query_wait_notify=5.0) >> later(90.0)) == []
    assert warnings(queue(3, query_wait_notify=None) >> later(90.0)) == []


def test_nor_of_a_pause():
    play = queue(1, query_wait_notify=1.0) >> (lambda play: play.world.pool.pause()) >> later(5.0)
    assert warnings(play) == []


def test_a_limit_that_comes_and_goes_is_the_one_of_the_moment():
    play = queue(1, query_wait_notify=1.0, query_wait_timeout=3.0)
    play.world.pool.set_limits(replace(play.world.pool.limits, pool_size=2))
    play.world.obstacle = Waiting.SHUTDOWN
    play >> later(2.0)
    assert play.waiting[0].state is WAITING
    assert "shutting down" in heard(play.waiting[0])[0][1].detail
    play >> later(2.0)
    assert last_words(play.waiting[0]).sqlstate == "57P01"
    assert play.waiting[0].state is GONE


@pytest.mark.parametrize("notify", [None, 1.0])
def test_a_play_without_waiting_says_nothing(notify):
    play = Night(query_wait_notify=notify) >> client("Q:a") >> later(10.0)
    assert isinstance(play, Play)
    assert play.hear("client") == b""
