"""A new process takes over: what it trusts, what it gets, and that its clients are those the old one had."""

import asyncio
import os
import socket
import threading

import pytest

from protocol.frontend import build_query
from protocol.startup import build_cancel_request, build_startup
from proxy import inherit, takeover
from proxy.config.settings import Settings
from proxy.courier import Kind, build_frame, close_all
from proxy.daemon import PidFile, StartFailed
from proxy.states import WAITING, Closing, Leaving
from tests.succession import open_descriptors, play

ME = {os.geteuid()}


def settings_of(path):
    return Settings(unix_socket_dir=str(path), listen_port=6432)


class Impostor:
    """Somebody listens where the running process should, and answers with `said`."""

    def __init__(self, path, said, descriptors=()):
        self.door = socket.socket(socket.AF_UNIX)
        self.door.bind(path)
        self.door.listen()
        self.thread = threading.Thread(target=self._answer, args=[said, descriptors])

    def _answer(self, said, descriptors):
        line, _ = self.door.accept()
        with line:
            line.settimeout(5)
            line.recv(100)
            if said:
                socket.send_fds(line, [said], descriptors)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.thread.join(10)
        self.door.close()


def test_without_a_unix_socket_there_is_nobody_to_ask():
    with pytest.raises(StartFailed, match="unix_socket_dir is empty"):
        inherit.claim(Settings(unix_socket_dir=""), ME)


def test_where_nobody_is_there_is_nothing_to_inherit(tmp_path):
    assert inherit.claim(settings_of(tmp_path), ME) is None
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / ".s.PGSQL.6432"))
    assert inherit.claim(settings_of(tmp_path), ME) is None


def test_somebody_elses_socket_is_not_even_spoken_to(tmp_path):
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(tmp_path / ".s.PGSQL.6432"))
        door.listen()
        with pytest.raises(StartFailed, match=f"process {os.getpid()} of user id {os.geteuid()}, whom we do not trust"):
            inherit.claim(settings_of(tmp_path), {os.geteuid() + 1})
        line, _ = door.accept()
        with line:
            assert line.recv(100) == b""


@pytest.mark.parametrize("lent", [0, 1, 2])
def test_who_hands_over_too_few_descriptors_or_no_proof_gets_them_closed(tmp_path, lent):
    """Two files where a listening socket and a pipe should be."""
    before = open_descriptors()
    files = [os.open(tmp_path, os.O_RDONLY) for _ in range(lent)]
    said = build_frame(Kind.TESTAMENT, {"listeners": 1, "pid": 1}, lent) + build_frame(Kind.SERVERS, {})
    with (
        Impostor(str(tmp_path / ".s.PGSQL.6432"), said, files),
        pytest.raises(StartFailed, match="no listening sockets, or no proof" if lent < 2 else "no pipe"),
    ):
        inherit.claim(settings_of(tmp_path), ME)
    close_all(files)
    assert open_descriptors() == before


def test_the_proof_is_read_at_once_and_neither_keeps_an_end_of_the_pipe(tmp_path):
    async def act(scene):
        pipes = [each for each in open_descriptors().values() if each.startswith("pipe:")]
        await scene.claim()
        assert [each for each in open_descriptors().values() if each.startswith("pipe:")] == pipes
        await scene.accept()
        await scene.until(lambda: scene.old.leaving is Leaving.SUCCEEDED, "it is believed")

    play(tmp_path, act)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"", "hung up"),
        (b"E\0\0\0\x30SFATAL\0C08P01\0Munsupported frontend protocol\0\0" + bytes(60), "hands nothing over"),
        (build_frame(Kind.REFUSAL, {"why": "it is paused: RESUME first"}), "it is paused: RESUME first"),
        (build_frame(Kind.DONE, {}), "begins with DONE"),
        (
            build_frame(Kind.TESTAMENT, {"listeners": 1, "pid": 1}) + build_frame(Kind.SERVERS, {}),
            "no listening sockets",
        ),
    ],
)
def test_who_does_not_hand_over_is_named_with_the_reason(tmp_path, said, why):
    with Impostor(str(tmp_path / ".s.PGSQL.6432"), said), pytest.raises(StartFailed, match=why):
        inherit.claim(settings_of(tmp_path), ME)


def test_everybody_comes_over_and_the_old_process_ends(tmp_path):
    async def act(scene):
        people = [await scene.join(application_name=f"person {number}") for number in range(150)]
        before = {client.number: client for client in scene.clients(scene.old)}
        await scene.accept()
        await asyncio.wait_for(scene.old._gone.wait(), 10)
        await scene.until(lambda: len(scene.clients(scene.new)) == 150, "all are here")
        for client in scene.clients(scene.new):
            was = before[client.number]
            assert (client.key, client.followed, client.user) == (was.key, was.followed, was.user)
        assert scene.new.client_count == 150
        assert scene.old.client_count == 0
        people[7].say(build_query(b"select 7"))
        await scene.until(lambda: any(each.state is WAITING for each in scene.clients(scene.new)), "it is heard here")
        (asking,) = [each for each in scene.clients(scene.new) if each.state is WAITING]
        assert asking.followed["application_name"] == "person 7"
        scene.old.kin.finish()
        await scene.join(scene.new, database="lost")

    play(tmp_path, act, "max_client_conn = 300\n")


def test_who_goes_over_is_counted_once_at_every_moment(tmp_path):
    async def act(scene):
        for _ in range(100):
            await scene.join()
        await scene.claim()
        counts = []
        hear = scene.inheritance.hear

        def count(frame):
            hear(frame)
            counts.append(scene.new.client_count + scene.new.pools.elders.clients)

        scene.inheritance.hear = count
        await scene.accept()
        await scene.until(lambda: len(scene.clients(scene.new)) == 100, "all are here")
        assert len(counts) > 100
        assert set(counts[1:]) == {100}, "from the moment it knows how many there are"
        scene.old.kin.finish()

    play(tmp_path, act, "max_client_conn = 100\n")


@pytest.mark.parametrize("limit", ["max_db_client_connections", "max_user_client_connections"])
def test_who_has_stayed_there_counts_within_the_limits_of_clients_here(tmp_path, limit):
    async def act(scene):
        for person in [await scene.join() for _ in range(2)]:
            person.say(build_query(b"select 'it waits for a server'"))
        await scene.until(lambda: all(each.state is WAITING for each in scene.clients(scene.old)), "they must stay")
        await scene.accept()
        await scene.until(lambda: scene.old.leaving is Leaving.SUCCEEDED, "it has taken over")
        scene.pool(scene.new)
        reader, writer = await asyncio.open_unix_connection(scene.path)
        writer.write(build_startup({"user": "anna", "database": "shop"}))
        said = await asyncio.wait_for(reader.read(), 10)
        writer.close()
        assert b"C53300" in said
        assert f"({limit})".encode() in said
        scene.old.pools.close_all(None, Closing.SHUTDOWN)
        await scene.until(lambda: scene.new.kin.elder.pid and not scene.new.pools.elders.clients, "they have left")
        await scene.join(scene.new)

    play(tmp_path, act, f"{limit} = 2\n")


def test_what_a_client_says_on_the_way_is_heard_where_it_arrives(tmp_path, monkeypatch):
    async def act(scene):
        person = await scene.join()
        await scene.claim()
        adopt = scene.inheritance._adopt
        later = []
        monkeypatch.setattr(scene.inheritance, "_adopt", lambda *who: later.append(who))
        await scene.accept()
        await scene.until(lambda: later, "it is taken, and not read yet")
        person.say(build_query(b"select 'in between'"))
        await asyncio.wait_for(scene.old._gone.wait(), 10)
        adopt(*later[0])
        await scene.until(lambda: any(each.state is WAITING for each in scene.clients(scene.new)), "it is heard here")
        (client,) = scene.clients(scene.new)
        assert client.held == build_query(b"select 'in between'")
        scene.old.kin.finish()

    play(tmp_path, act)


def test_a_client_that_hung_up_on_the_way_is_gone_and_counted_no_more(tmp_path):
    async def act(scene):
        person = await scene.join()
        await scene.claim()
        person.writer.close()
        await scene.accept()
        await asyncio.wait_for(scene.old._gone.wait(), 10)
        await scene.until(lambda: scene.new.client_count == 0, "nobody is left")
        scene.old.kin.finish()

    play(tmp_path, act)


def test_whose_database_is_dropped_in_the_moment_it_arrives_is_told_so(tmp_path, monkeypatch):
    async def act(scene):
        person = await scene.join()
        await scene.claim()
        adopt = scene.inheritance._adopt

        def drop_first(client, connected):
            scene.new.pools._dismiss(client.pool, Closing.DATABASE_GONE)
            adopt(client, connected)

        monkeypatch.setattr(scene.inheritance, "_adopt", drop_first)
        await scene.accept()
        assert await person.hear(b"database removed from the configuration")
        await scene.until(lambda: scene.new.client_count == 0, "nobody is left in a pool that is no more")

    play(tmp_path, act)


def test_a_database_that_is_not_here_keeps_its_clients_there(tmp_path):
    async def act(scene):
        await scene.join(database="lost")
        await scene.join()
        scene.file.write_text(scene.file.read_text().replace("lost = ", ";"))
        await scene.accept()
        await scene.until(lambda: scene.clients(scene.new), "one has come")
        await scene.until(lambda: "no such database here: lost" in scene.old.log.text, "one has not")
        assert len(scene.clients(scene.old, "lost")) == 1
        assert not scene.old._gone.is_set()

    play(tmp_path, act)


def test_numbers_on_the_console_stay_and_new_ones_are_new(tmp_path):
    async def act(scene):
        await scene.join()
        (client,) = scene.clients(scene.old)
        await scene.accept()
        await scene.until(lambda: scene.clients(scene.new), "it is here")
        await scene.join(scene.new)
        numbers = sorted(each.number for each in scene.clients(scene.new))
        assert numbers[0] == client.number
        assert numbers[1] > client.number + 1000

    play(tmp_path, act)


def test_the_pid_file_is_held_at_every_moment_and_goes_with_the_last(tmp_path):
    path = tmp_path / "proxy.pid"

    async def act(scene):
        scene.old.pid_file = PidFile(str(path))
        scene.old.pid_file.write()
        await scene.claim()
        scene.new.pid_file = PidFile(str(path))
        with pytest.raises(StartFailed, match="already running"):
            scene.new.pid_file.write()
        assert scene.inheritance.has_pid_file(str(path))
        await scene.accept()
        await asyncio.wait_for(scene.old._gone.wait(), 10)
        scene.old.pid_file.remove()
        assert path.read_text() == f"{os.getpid()}\n"
        with pytest.raises(StartFailed, match="already running"):
            PidFile(str(path)).write()
        scene.new.pid_file.remove()
        assert not path.exists()
        scene.old.kin.finish()

    play(tmp_path, act)


def test_a_disabled_database_stays_disabled(tmp_path):
    async def act(scene):
        scene.old.disabled.add("shop")
        await scene.accept()
        assert scene.new.disabled == {"shop"}

    play(tmp_path, act)


def test_a_changed_address_is_warned_of(tmp_path):
    async def act(scene):
        scene.file.write_text(scene.file.read_text().replace("listen_addr =", "listen_addr = 127.0.0.1"))
        await scene.accept()
        assert "listen_addr has changed" in scene.new.log.text

    play(tmp_path, act)


def test_a_cancel_request_finds_its_client_wherever_it_is(tmp_path):
    async def act(scene):
        staying = await scene.join(database="lost")
        scene.file.write_text(scene.file.read_text().replace("lost = ", ";"))
        (client,) = scene.clients(scene.old, "lost")
        await scene.accept()
        await scene.until(lambda: "no such database here" in scene.old.log.text, "it stays there")
        staying.say(build_query(b"select pg_sleep(100)"))
        await scene.until(lambda: client.state is WAITING, "it waits for a server there")
        _, writer = await asyncio.open_unix_connection(scene.path)
        writer.write(build_cancel_request(client.key))
        assert b"57014" in await staying.hear(b"Z\0\0\0\x05I")
        writer.close()

    play(tmp_path, act)


def test_ddl_in_one_process_counts_in_the_other(tmp_path):
    async def act(scene):
        await scene.join(database="lost")
        scene.file.write_text(scene.file.read_text().replace("lost = ", ";"))
        old = scene.pool(scene.old)
        await scene.accept()
        new = scene.pool(scene.new)
        before = old.generation, new.generation
        scene.new.schema_changed(new)
        await scene.until(lambda: old.generation > before[0], "the old one hears of it")
        scene.old.schema_changed(old)
        await scene.until(lambda: new.generation > before[1] + 1, "and the new one")
        await asyncio.sleep(0.05)
        assert (old.generation, new.generation) == (before[0] + 2, before[1] + 2), "each once"

    play(tmp_path, act)


def test_when_the_old_process_dies_the_new_one_goes_on(tmp_path):
    async def act(scene):
        await scene.join()
        await scene.join(database="lost")
        scene.file.write_text(scene.file.read_text().replace("lost = ", ";"))
        await scene.accept()
        await scene.until(lambda: scene.clients(scene.new), "one is here")
        scene.old.kin.heir._courier._line.close()
        await scene.until(lambda: scene.new.kin.elder is None, "it is noticed")
        assert "is lost" in scene.new.log.text
        assert scene.new.leaving is None
        assert len(scene.clients(scene.new)) == 1

    play(tmp_path, act)


def test_who_is_cut_off_ends_with_the_clients_it_has_and_keeps_its_hands_off_the_rest(tmp_path):
    async def act(scene):
        await scene.join()
        await scene.join(database="lost")
        scene.file.write_text(scene.file.read_text().replace("lost = ", ";"))
        await scene.accept()
        await scene.until(lambda: scene.clients(scene.new), "one is here")
        scene.old.clock.advance(takeover.PATIENCE + 1)
        await scene.until(lambda: scene.new.leaving is Leaving.WAIT_FOR_CLIENTS, "it ends")
        assert scene.old.leaving is None
        assert not scene.new.listeners
        assert len(scene.clients(scene.new)) == 1
        assert os.path.exists(scene.path)
        await scene.join()
        assert len(scene.clients(scene.old)) == 1

    play(tmp_path, act)


def test_who_is_cut_off_before_it_accepts_never_does(tmp_path):
    path = tmp_path / "proxy.pid"

    async def act(scene):
        scene.old.pid_file = PidFile(str(path))
        scene.old.pid_file.write()
        path.write_text("4711\n")
        await scene.claim()
        scene.new.pid_file = PidFile(str(path))
        scene.old.clock.advance(takeover.START_PATIENCE + 1)
        await scene.until(lambda: scene.old.kin.heir is None, "it is given up")
        await scene.accept()
        assert not scene.new.listeners
        assert scene.new._gone.is_set()
        assert path.read_text() == "4711\n", "the file is the other one's"
        await scene.join(scene.old)
        scene.old.pid_file.remove()

    play(tmp_path, act)


def test_what_is_no_client_breaks_it_off(tmp_path):
    async def act(scene):
        await scene.join(database="lost")
        scene.file.write_text(scene.file.read_text().replace("lost = ", ";"))
        await scene.accept()
        scene.old.kin.heir.send(Kind.CLIENT, {"number": 1})
        await scene.until(lambda: scene.new.kin.elder is None, "it is left")
        assert scene.old.leaving is None, "and the old one serves again"

    play(tmp_path, act)


def test_a_defect_of_the_new_process_costs_nobody_his_connection(tmp_path, monkeypatch):
    async def act(scene):
        person = await scene.join(database="lost")
        await scene.claim()
        monkeypatch.setattr(inherit, "unpack_client", lambda *_: 1 / 0)
        await scene.accept()
        (client,) = scene.clients(scene.old, "lost")
        await scene.until(lambda: "a defect of the new process" in scene.old.log.text, "it is declined")
        person.say(build_query(b"select 1"))
        await scene.until(lambda: client.state is WAITING, "it is served where it was")
        assert "ZeroDivisionError" in scene.new.log.text
        scene.new.log.lines.clear()

    play(tmp_path, act)
