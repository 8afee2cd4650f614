"""The running process, when a new one wants its place: nobody is lost, whoever dies, and nobody has two masters."""

import asyncio
import contextlib
import os
import socket
import struct

import pytest

from protocol.frontend import build_query
from proxy import takeover
from proxy.courier import VERSION, Kind, build_frame, receive
from proxy.daemon import PidFile
from proxy.states import OPENING, RESTING, WAITING, Leaving
from tests.succession import Stranger, open_descriptors, play


async def settle(scene, count=5):
    for _ in range(count):
        await asyncio.sleep(0.01)


def test_it_is_told_everything_it_needs_to_begin(tmp_path):
    async def act(scene):
        await scene.join()
        stranger = Stranger(scene.path)
        first = await stranger.ask()
        assert first.kind is Kind.TESTAMENT
        assert first.body["version"] == VERSION
        assert first.body["pid"] == os.getpid()
        assert first.body["listeners"] == len(first.descriptors) - 1 == 1, "and a proof"
        with socket.socket(fileno=os.dup(first.descriptors[0])) as listening:
            assert listening.getsockname() == scene.path
        pool = await stranger.wait()
        assert (pool.kind, pool.body["database"]) == (Kind.POOL, "shop")
        assert (await stranger.wait()).kind is Kind.SERVERS
        assert scene.old.leaving is None, "nothing has changed yet"
        assert len(scene.clients(scene.old)) == 1
        stranger.die()
        await scene.until(lambda: scene.old.kin.heir is None, "it is forgotten")
        assert "nothing has changed" in scene.old.log.text
        await scene.join()

    play(tmp_path, act)


# What it must prove.


@pytest.mark.parametrize("proof", [None, "", "0" * 64, 7, "\udcff"])
def test_who_has_not_got_the_descriptors_gets_no_client_and_changes_nothing(tmp_path, proof):
    async def act(scene):
        person = await scene.join()
        (client,) = scene.clients(scene.old)
        before = open_descriptors()
        stranger = Stranger(scene.path)
        await stranger.ask()
        stranger.say(Kind.READY, pid=4711, proof=proof)
        await stranger.wait(Kind.SEVERED)
        assert [frame.kind for frame in stranger.heard] == [Kind.TESTAMENT, Kind.POOL, Kind.SERVERS, Kind.SEVERED]
        assert client.key.decode("latin-1") not in str(stranger.heard)
        stranger.die()
        await scene.until(lambda: scene.old.kin.heir is None, "it is left")
        assert "it has not got our descriptors" in scene.old.log.text
        assert "nothing has changed" in scene.old.log.text
        await scene.until(lambda: open_descriptors() == before, "nothing is left open")
        assert scene.old.leaving is None
        person.say(build_query(b"select 1"))
        await scene.until(lambda: client.state is WAITING, "it is served here")
        await scene.join(database="lost")
        await scene.accept()

    play(tmp_path, act)


def test_with_the_proof_it_is_believed_and_no_pipe_stays_open(tmp_path):
    async def act(scene):
        before = sorted(open_descriptors().values())
        stranger = Stranger(scene.path)
        testament = await stranger.ask()
        stranger.say(Kind.PULSE)
        stranger.say(Kind.READY, pid=4711, proof=stranger.read_proof(testament))
        await scene.until(lambda: scene.old.leaving is Leaving.SUCCEEDED, "it has taken over")
        stranger.die()
        await scene.until(lambda: scene.old.leaving is None, "it is gone")
        assert sorted(open_descriptors().values()) == before

    play(tmp_path, act)


@pytest.mark.parametrize("kind", sorted(set(Kind) - {Kind.PULSE, Kind.READY}, key=lambda kind: kind.name))
def test_before_that_it_is_heard_in_nothing_else(tmp_path, kind):
    async def act(scene):
        await scene.join()
        stranger = Stranger(scene.path)
        await stranger.ask()
        stranger.say(kind, number=1, key="00", question=1, database="shop", pool=["shop", "anna"], channels=[])
        await stranger.wait(Kind.SEVERED)
        assert Kind.CANCELED not in [frame.kind for frame in stranger.heard]
        stranger.die()
        assert f"{kind.name} before it accepts" in scene.old.log.text
        assert scene.old.leaving is None

    play(tmp_path, act)


def test_nobody_is_told_of_a_cancel_key_before_it_has_proven_who_it_is(tmp_path):
    async def act(scene):
        stranger = Stranger(scene.path)
        await stranger.ask()
        scene.old.leave(Leaving.WAIT_FOR_CLIENTS)
        scene.old.kin.finish()
        assert not await scene.old.kin.cancel(b"a key of somebody else")
        stranger.say(Kind.DONE)
        await stranger.wait(Kind.SEVERED)
        assert Kind.CANCEL not in [frame.kind for frame in stranger.heard]
        stranger.die()

    play(tmp_path, act)


# Clients go.


def test_a_client_is_sent_once_and_forgotten_when_it_is_confirmed(tmp_path):
    async def act(scene):
        person = await scene.join()
        (client,) = scene.clients(scene.old)
        stranger = Stranger(scene.path)
        await stranger.succeed()
        sent = await stranger.wait(Kind.CLIENT)
        assert sent.body["number"] == client.number
        assert not scene.clients(scene.old), "nobody finds it meanwhile"
        assert scene.old.client_count == 1, "but it counts"
        stranger.say(Kind.TAKEN, number=client.number)
        await asyncio.wait_for(scene.old._gone.wait(), 10)
        person.say(b"hello")
        with socket.socket(fileno=os.dup(sent.descriptors[0])) as line:
            line.setblocking(True)
            assert line.recv(100) == b"hello"
        scene.old.kin.finish()
        await stranger.wait(Kind.DONE)
        stranger.die()
        assert scene.old.leaving is Leaving.SUCCEEDED, "who has ended does not begin again"

    play(tmp_path, act)


def test_who_dies_in_the_middle_loses_nobody_nor_a_byte(tmp_path):
    async def act(scene):
        person = await scene.join()
        (client,) = scene.clients(scene.old)
        stranger = Stranger(scene.path)
        await stranger.succeed()
        await stranger.wait(Kind.CLIENT)
        person.say(build_query(b"select 'while it was on its way'"))
        await settle(scene)
        assert client.state is RESTING, "it is not read meanwhile"
        stranger.die()
        await scene.until(lambda: scene.old.leaving is None, "it is as before")
        assert scene.clients(scene.old) == {client}
        await scene.until(lambda: client.state is WAITING, "what it said is heard")
        assert client.held == build_query(b"select 'while it was on its way'")
        assert "1 on their way are taken back" in scene.old.log.text
        await scene.join(database="lost")

    play(tmp_path, act)


def test_who_was_confirmed_stays_with_the_one_that_died(tmp_path):
    async def act(scene):
        await scene.join()
        await scene.join()
        first, second = sorted(scene.clients(scene.old), key=lambda client: client.number)
        stranger = Stranger(scene.path)
        await stranger.succeed()
        await stranger.wait(Kind.CLIENT)
        await stranger.wait(Kind.CLIENT)
        stranger.say(Kind.TAKEN, number=first.number)
        stranger.die()
        await scene.until(lambda: scene.old.leaving is None, "it is as before")
        assert scene.clients(scene.old) == {second}

    play(tmp_path, act)


def test_a_client_that_is_declined_stays_and_is_not_sent_again(tmp_path):
    async def act(scene):
        person = await scene.join()
        (client,) = scene.clients(scene.old)
        stranger = Stranger(scene.path)
        await stranger.succeed()
        await stranger.wait(Kind.CLIENT)
        stranger.say(Kind.DECLINED, number=client.number, why="no such database here")
        await scene.until(lambda: scene.clients(scene.old), "it is back")
        assert "stays with this process: no such database here" in scene.old.log.text
        person.say(build_query(b"select 1"))
        await scene.until(lambda: client.state is WAITING, "it is served here")
        await settle(scene, 10)
        stranger.line.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while receive(stranger.line, stranger.reader):
                pass
        assert Kind.CLIENT not in [frame.kind for frame in stranger.reader.frames()]
        stranger.die()

    play(tmp_path, act)


def test_who_has_not_even_said_who_he_is_is_waited_for(tmp_path):
    async def act(scene):
        caller = await asyncio.open_unix_connection(scene.path)
        await settle(scene)
        stranger = Stranger(scene.path)
        await stranger.succeed()
        await scene.until(lambda: scene.old.leaving is Leaving.SUCCEEDED, "it has taken over")
        await settle(scene)
        assert not scene.old._gone.is_set()
        caller[1].close()
        await asyncio.wait_for(scene.old._gone.wait(), 10)
        scene.old.kin.finish()
        stranger.die()

    play(tmp_path, act)


@pytest.mark.parametrize("how", [Leaving.WAIT_FOR_CLIENTS, Leaving.WAIT_FOR_SERVERS])
def test_who_is_told_to_end_before_the_new_one_accepts_leaves_it_everything(tmp_path, how):
    path = tmp_path / "proxy.pid"

    async def act(scene):
        scene.old.pid_file = PidFile(str(path))
        scene.old.pid_file.write()
        await scene.join()
        if how is Leaving.WAIT_FOR_SERVERS:  # else it would end at once
            scene.pool(scene.old).places[OPENING]["somebody"] = None
        await scene.claim()
        scene.new.pid_file = PidFile(str(path))
        scene.old.leave(how)
        assert os.path.exists(scene.path), "the new one will be reached by it"
        await scene.accept()
        await scene.until(lambda: scene.clients(scene.new), "it comes over all the same")
        scene.pool(scene.old).places[OPENING].clear()
        scene.old.check_drained()
        await asyncio.wait_for(scene.old._gone.wait(), 10)
        scene.old.kin.finish()
        scene.old.pid_file.remove()
        assert path.read_text() == f"{os.getpid()}\n"
        scene.new.pid_file.remove()
        await scene.join(scene.new)

    play(tmp_path, act)


def test_who_ends_before_the_new_one_accepts_leaves_it_everything_too(tmp_path):
    path = tmp_path / "proxy.pid"

    async def act(scene):
        scene.old.pid_file = PidFile(str(path))
        scene.old.pid_file.write()
        await scene.claim()
        scene.new.pid_file = PidFile(str(path))
        scene.old.leave(Leaving.WAIT_FOR_CLIENTS)
        assert scene.old._gone.is_set()
        scene.old.kin.finish()
        scene.old.kin.heir._courier._line.close()
        scene.old.pid_file.remove()
        await scene.accept()
        await scene.until(lambda: scene.new.kin.elder is None, "it goes on alone")
        assert path.read_text() == f"{os.getpid()}\n"
        await scene.join(scene.new)
        scene.new.pid_file.remove()

    play(tmp_path, act)


def test_who_changes_its_mind_before_it_accepts_ends_nothing_but_itself(tmp_path):
    async def act(scene):
        await scene.claim()
        scene.inheritance.prepare(scene.new)
        scene.new.leave(Leaving.WAIT_FOR_CLIENTS)
        await settle(scene)
        scene.inheritance._courier.cut("it ends")
        await scene.until(lambda: scene.old.kin.heir is None, "it is gone")
        assert "nothing has changed" in scene.old.log.text
        await scene.join(scene.old)
        for each in scene.inheritance.listeners:
            each.close()

    play(tmp_path, act)


# Silence.


def test_who_is_silent_for_too_long_is_told_and_everything_is_taken_back(tmp_path):
    async def act(scene):
        await scene.join()
        stranger = Stranger(scene.path)
        await stranger.succeed()
        await stranger.wait(Kind.CLIENT)
        scene.old.clock.advance(takeover.PATIENCE + 1)
        await scene.until(lambda: scene.old.leaving is None, "it is as before")
        assert len(scene.clients(scene.old)) == 1
        await stranger.wait(Kind.SEVERED)
        with pytest.raises(BrokenPipeError):
            stranger.say(Kind.TAKEN, number=1)
        stranger.die()
        await scene.join()

    play(tmp_path, act)


def test_who_answers_may_take_its_time(tmp_path):
    async def act(scene):
        await scene.join()
        stranger = Stranger(scene.path)
        await stranger.succeed()
        sent = await stranger.wait(Kind.CLIENT)
        stranger.say(Kind.DECLINED, number=sent.body["number"], why="not now")
        await scene.until(lambda: scene.clients(scene.old), "it is back")
        for _ in range(4):
            scene.old.clock.advance(takeover.PATIENCE - 1)
            await stranger.wait(Kind.PULSE)
            stranger.say(Kind.PULSE)
            await settle(scene)
        assert scene.old.leaving is Leaving.SUCCEEDED
        stranger.die()

    play(tmp_path, act)


@pytest.mark.parametrize("kind", [Kind.DONE, Kind.TESTAMENT, Kind.READY, Kind.TAKEN])
def test_who_speaks_out_of_turn_is_left(tmp_path, kind):
    async def act(scene):
        await scene.join()
        stranger = Stranger(scene.path)
        await stranger.succeed()
        stranger.say(kind)
        await scene.until(lambda: scene.old.kin.heir is None, "it is left")
        assert scene.old.leaving is None
        assert len(scene.clients(scene.old)) == 1
        await stranger.wait(Kind.SEVERED)
        stranger.die()

    play(tmp_path, act)


def test_what_nobody_asked_for_is_not_kept_open(tmp_path):
    async def act(scene):
        stranger = Stranger(scene.path)
        await stranger.succeed()
        hearing, saying = os.pipe()
        array = struct.pack("i", saying)
        stranger.line.sendmsg([build_frame(Kind.PULSE, {}, 1)], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array)])
        os.close(saying)
        await scene.until(lambda: scene.old.kin.heir is None, "it is left")
        assert await asyncio.wait_for(asyncio.to_thread(os.read, hearing, 1), 10) == b"", "the last end is closed"
        os.close(hearing)
        stranger.die()

    play(tmp_path, act)


def test_an_heir_that_ends_by_itself_is_not_replaced(tmp_path):
    async def act(scene):
        await scene.join()
        stranger = Stranger(scene.path)
        await stranger.succeed()
        sent = await stranger.wait(Kind.CLIENT)
        stranger.say(Kind.LEAVING, has_heir=False)
        stranger.say(Kind.DECLINED, number=sent.body["number"], why="it is ending")
        await scene.until(lambda: not scene.old.listeners, "nobody listens any more")
        assert os.path.exists(scene.path), "whose path it is"
        stranger.die()
        await scene.until(lambda: scene.old.kin.heir is None, "it is gone")
        assert scene.old.leaving is Leaving.SUCCEEDED
        assert len(scene.clients(scene.old)) == 1

    play(tmp_path, act)


def test_who_never_says_what_became_of_a_client_is_not_relied_upon(tmp_path):
    async def act(scene):
        await scene.join()
        stranger = Stranger(scene.path)
        await stranger.succeed()
        await stranger.wait(Kind.CLIENT)
        for _ in range(3):
            scene.old.clock.advance(takeover.PATIENCE / 2)
            stranger.say(Kind.PULSE)
            await settle(scene)
        await scene.until(lambda: scene.old.leaving is None, "it is as before")
        assert "what has become of a client" in scene.old.log.text
        assert len(scene.clients(scene.old)) == 1
        stranger.die()

    play(tmp_path, act)


def test_without_a_descriptor_left_a_client_goes_later(tmp_path, monkeypatch):
    async def act(scene):
        await scene.join()
        (client,) = scene.clients(scene.old)
        with monkeypatch.context() as patch:
            patch.setattr(takeover, "lift_descriptor", lambda client: os.open("/nowhere/at/all", os.O_RDONLY))
            stranger = Stranger(scene.path)
            await stranger.succeed()
            await scene.until(lambda: scene.old.leaving is Leaving.SUCCEEDED, "it has taken over")
            await settle(scene)
            assert scene.clients(scene.old) == {client}
        await stranger.wait(Kind.CLIENT)
        stranger.die()

    play(tmp_path, act)


def test_a_pause_of_the_one_that_was_succeeded_can_be_ended(tmp_path):
    async def act(scene):
        await scene.join()
        stranger = Stranger(scene.path)
        await stranger.succeed()
        await stranger.wait(Kind.CLIENT)
        scene.old.on_pause()
        scene.old.on_resume()
        assert not scene.old.pools.is_paused
        stranger.die()

    play(tmp_path, act)


def test_who_cannot_be_given_what_it_needs_is_left_and_may_ask_again(tmp_path, monkeypatch):
    async def act(scene):
        with monkeypatch.context() as patch:
            patch.setattr(takeover, "lend_all", lambda lent: os.listdir("/nowhere/at/all"))
            stranger = Stranger(scene.path)
            refusal = await stranger.ask()
            assert refusal.kind is Kind.REFUSAL
            assert "it cannot be given what it needs" in refusal.body["why"]
            stranger.die()
        assert scene.old.kin.heir is None
        assert "it cannot be given what it needs" in scene.old.log.text
        await scene.accept()

    play(tmp_path, act)


def test_two_clients_of_one_number_go_one_after_the_other(tmp_path):
    async def act(scene):
        await scene.join()
        await scene.join()
        for client in scene.clients(scene.old):
            client.number = 7
        stranger = Stranger(scene.path)
        await stranger.succeed()
        await stranger.wait(Kind.CLIENT)
        await settle(scene)
        assert len(scene.clients(scene.old)) == 1
        stranger.say(Kind.TAKEN, number=7)
        await stranger.wait(Kind.CLIENT)
        stranger.die()

    play(tmp_path, act)
