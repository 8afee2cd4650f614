"""Waiting at the console: done, called off, or abandoned."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from protocol.errors import Refused
from proxy.admin.session import Session
from proxy.inbox import PeerGone
from proxy.login import Visitor
from proxy.states import Closing
from tests.proxy.admin.desk import open_proxy, settle
from tests.proxy.auth.wire import alone, joined, wired


def play(folder: Path, story: Any) -> None:
    async def scene() -> None:
        async with open_proxy(folder) as proxy:
            us, them = joined()
            visitor = Visitor("ann", "pgbouncer", {}, b"", 0)
            await story(Session(us, proxy, visitor, ("127.0.0.1", 5), b"k" * 8), them)

    asyncio.run(asyncio.wait_for(scene(), 5))


async def for_ever() -> None:
    await asyncio.get_running_loop().create_future()


def test_what_is_hoped_for_comes(tmp_path: Path) -> None:
    async def story(session: Session, _: Any) -> None:
        await session.wait(asyncio.sleep(0))
        assert not session.cancel_waiting()

    play(tmp_path, story)


def test_a_cancel_request_calls_it_off_once(tmp_path: Path) -> None:
    async def story(session: Session, _: Any) -> None:
        asyncio.get_running_loop().call_soon(session.cancel_waiting)
        with pytest.raises(Refused, match="canceling statement due to user request"):
            await session.wait(for_ever())
        assert not session.cancel_waiting()

    play(tmp_path, story)


def test_an_operator_who_hangs_up_waits_no_longer(tmp_path: Path) -> None:
    async def story(session: Session, them: Any) -> None:
        asyncio.get_running_loop().call_soon(them.close)
        with pytest.raises(PeerGone):
            await session.wait(for_ever())

    play(tmp_path, story)


def test_what_is_said_while_waiting_is_read_afterwards(tmp_path: Path) -> None:
    async def story(session: Session, them: Any) -> None:
        waiting = asyncio.ensure_future(session.wait(asyncio.sleep(0.01)))
        await settle()
        them.write(b"Q\0\0\0\6x\0")
        await waiting
        assert await session.inbox.wait_message(100) == (ord("Q"), b"x\0")
        next_message = asyncio.ensure_future(session.inbox.wait_message(100))
        await settle()
        them.write(b"X\0\0\0\4")
        assert await next_message == (ord("X"), b"")

    play(tmp_path, story)


def test_closing_says_why(tmp_path: Path) -> None:
    async def story(session: Session, _: Any) -> None:
        session.inbox = alone()
        session.close(Closing.ADMIN)
        assert b"admin forced disconnect" in wired(session.inbox).written

    play(tmp_path, story)
