"""SUSPEND: nothing is read, everything goes out, and RESUME finds all as it was."""

import asyncio
from pathlib import Path

import pytest

from protocol.replication import Replication
from proxy import lines as lines_module
from proxy.janitor import Janitor
from proxy.main import Proxy
from proxy.states import CLOSING, GONE, Closing, Leaving
from proxy.suspend import TICK
from proxy.tunnel import Stage, Tunnel
from tests.fakes import socket_of
from tests.proxy.admin.desk import Line, Operator, a_client, a_server, at_desk, hang_up, settle


def test_nobody_is_read_until_resume(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        server, idle = a_server(proxy), a_server(proxy)
        client = a_client(proxy, server)
        streams = [client, server, idle]
        assert (await operator.ask("SUSPEND")).tag == "SUSPEND"
        assert [stream.transport.is_read for stream in streams] == [False] * 3
        client.let_go()  # for whatever other reason it was held
        server.let_go()
        assert [stream.transport.is_read for stream in streams] == [False] * 3
        assert (await operator.ask("RESUME")).tag == "RESUME"
        assert [stream.transport.is_read for stream in streams] == [True] * 3
        assert idle.state < CLOSING, "servers are kept, unlike with PAUSE"

    at_desk(tmp_path, story)


def test_the_answer_comes_when_everything_has_gone_out(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        client = a_client(proxy, a_server(proxy))
        socket_of(client).unsent = 100
        operator.say("SUSPEND")
        await asyncio.sleep(TICK * 2)
        assert not operator.inbox.has_unread
        socket_of(client).unsent = 0
        assert (await operator.answer()).tag == "SUSPEND"

    at_desk(tmp_path, story)


def test_who_does_not_read_is_closed_when_the_time_is_over(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        slow, quick = a_client(proxy, a_server(proxy)), a_client(proxy, a_server(proxy))
        await operator.ask("SET suspend_timeout = 4")
        socket_of(slow).unsent = 100
        operator.say("SUSPEND")
        await settle()
        proxy.clock.advance(5)
        await asyncio.sleep(TICK * 2)
        socket_of(slow).unsent = 0
        assert (await operator.answer()).tag == "SUSPEND"
        assert slow.state is GONE
        assert quick.state is not GONE
        assert b"suspend_timeout" in slow.transport.written

    at_desk(tmp_path, story)


def test_whoever_becomes_a_stream_meanwhile_is_held_too(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        await operator.ask("SUSPEND")
        late = a_server(proxy)
        await asyncio.sleep(TICK * 2)
        assert not late.transport.is_read

    at_desk(tmp_path, story)


def test_who_is_held_for_another_reason_stays_held(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        server = a_server(proxy)
        client = a_client(proxy, server)
        await operator.ask("SUSPEND")
        client.is_choked = True  # it does not read: neither it nor its server is asked for more
        await operator.ask("RESUME")
        assert not server.transport.is_read
        assert not client.transport.is_read
        client.resume_writing()
        assert client.transport.is_read
        assert server.transport.is_read

    at_desk(tmp_path, story)


def test_a_server_that_is_closed_meanwhile_is_heard_hanging_up(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        server = a_server(proxy)
        await operator.ask("SUSPEND")
        server.close(Closing.ADMIN)
        assert server.transport.is_read
        hang_up(server)

    at_desk(tmp_path, story)


def test_tunnels_stand_still_as_well(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        tunnel = Tunnel(a_server(proxy).pool, "joe", Replication.PHYSICAL, b"k" * 8, ("10.1.1.1", 40000))
        tunnel.near.connection_made(Line())
        tunnel.far.connection_made(Line())
        tunnel.stage = Stage.OPEN
        proxy.tunnel_wanted(tunnel)
        await operator.ask("SUSPEND")
        ends = [tunnel.near.transport, tunnel.far.transport]
        assert [end.is_read for end in ends] == [False, False]
        tunnel.near.pause_writing()
        await operator.ask("RESUME")
        assert [end.is_read for end in ends] == [True, False]
        tunnel.near.resume_writing()
        assert [end.is_read for end in ends] == [True, True]

    at_desk(tmp_path, story)


def test_the_time_that_stood_still_counts_for_no_timeout(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        await operator.ask("SET query_timeout = 10")
        client = a_client(proxy, a_server(proxy))
        await operator.ask("SET pipeline_depth = 16")
        lines = client.pool.lines
        lines.members.append(line := lines_module.Line(lines))
        janitor = Janitor(proxy)
        before, stood = client.request_at, line.head_since
        await operator.ask("SUSPEND")
        proxy.clock.advance(1000)
        janitor.sweep()
        assert client.state is not GONE
        server = a_server(proxy, "bare", "joe")
        server.deadline = 1.0
        proxy.pools.dying.append(proxy.pools._pools.pop(("bare", "joe")))
        await operator.ask("RESUME")
        assert client.request_at == before + 1000
        assert line.head_since == stood + 1000
        assert server.deadline == 1001.0, "nor for those whose database is gone"

    at_desk(tmp_path, story)


def test_resume_while_it_waits_undoes_it_and_says_so(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        client = a_client(proxy, a_server(proxy))
        socket_of(client).unsent = 100
        operator.say("SUSPEND")
        await settle()
        proxy.on_resume()
        answer = await operator.answer()
        assert answer.error == "55000 SUSPEND was undone by RESUME while it waited"
        assert client.transport.is_read

    at_desk(tmp_path, story)


def test_an_operator_who_calls_it_off_or_disappears_leaves_nothing_suspended(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        client = a_client(proxy, a_server(proxy))
        socket_of(client).unsent = 100
        operator.say("SUSPEND")
        await settle()
        (session,) = proxy.consoles
        assert session.cancel_waiting()
        assert (await operator.answer()).error == "57014 canceling statement due to user request"
        assert not proxy.is_suspended
        operator.say("SUSPEND")
        await settle()
        assert proxy.is_suspended
        operator.us.eof_received()
        await asyncio.wait({operator.talk}, timeout=1)
        assert not proxy.is_suspended

    at_desk(tmp_path, story)


@pytest.mark.parametrize("how", [Leaving.WAIT_FOR_CLIENTS, Leaving.WAIT_FOR_SERVERS])
def test_a_gentle_end_needs_everybody_to_go_on(how: Leaving, tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        client = a_client(proxy, a_server(proxy))
        await operator.ask("SUSPEND")
        proxy.leave(how)
        assert client.transport.is_read

    at_desk(tmp_path, story)


def test_a_login_waits_and_its_timeout_with_it(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        await operator.ask("SUSPEND")

        async def log_in() -> str:
            async with asyncio.timeout(0.05) as scope:
                await proxy.suspension.wait_over(scope)
                return "in"

        login = asyncio.ensure_future(log_in())
        await asyncio.sleep(0.1)
        assert not login.done()
        await operator.ask("RESUME")
        assert await login == "in"

    at_desk(tmp_path, story)


def test_signals_pause_and_resume_what_can_be_paused_and_resumed(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        server = a_server(proxy)
        proxy.on_resume()
        await operator.ask("SUSPEND")
        proxy.on_pause()
        assert not proxy.pools.is_paused
        assert server.state < CLOSING
        for act in (proxy.on_resume, proxy.on_pause, proxy.on_resume):
            act()
        assert not proxy.is_suspended
        assert not proxy.pools.is_paused
        log = (tmp_path / "log").read_text().splitlines()
        assert [line.partition(" LOG ")[2] for line in log if "got SIG" in line] == [
            "got SIGUSR2, but not paused/suspended",
            "got SIGUSR1, but already paused/suspended",
            "got SIGUSR2, continuing from SUSPEND",
            "got SIGUSR1, pausing all activity",
            "got SIGUSR2, continuing from PAUSE",
        ]

    at_desk(tmp_path, story)


def test_one_task_holds_everybody_however_often_it_is_begun_and_ended(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        for _ in range(3):
            await operator.ask("SUSPEND")
            await operator.ask("RESUME")
        await operator.ask("SUSPEND")
        await settle()
        assert len([task for task in asyncio.all_tasks() if task.get_name() == "suspend"]) == 1

    at_desk(tmp_path, story)
