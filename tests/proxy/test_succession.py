"""Who may take our place, and who may not, and what either is told."""

import asyncio
import os
import socket

import pytest

from protocol.startup import build_succession_request
from proxy import succession
from proxy.courier import VERSION, Kind
from proxy.log import Address
from proxy.states import Leaving
from tests.succession import Stranger, play


class Service:
    """A service of systemd, to whose control group nobody else belongs."""

    def believes_in(self, pid):
        return pid != os.getpid()  # the caller is this very process


def answer_to(path, version=VERSION):
    async def ask():
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(10)
            line.connect(path)
            line.sendall(build_succession_request(version))
            return await asyncio.to_thread(line.recv, 1000)

    return ask()


def test_another_user_is_refused_and_learns_nothing(tmp_path, monkeypatch):
    async def act(scene):
        monkeypatch.setattr(succession, "peer_of", lambda line: (1234, os.geteuid() + 77))
        said = await answer_to(scene.path)
        assert said[:1] == b"E"
        assert b"28000" in said
        assert f"process 1234 of user id {os.geteuid() + 77}" in scene.old.log.text
        assert scene.old.kin.heir is None

    play(tmp_path, act)


@pytest.mark.parametrize(
    ("prepare", "why"),
    [
        (lambda old: old.pools.pause(None), "it is paused: RESUME first"),
        (lambda old: old.pools.pause("shop"), "shop is paused: RESUME it by name first"),
        (lambda old: old.suspension.begin(), "it is suspended: RESUME first"),
        (lambda old: setattr(old, "is_activated", True), "systemd"),
        (lambda old: setattr(old, "notifier", Service()), "systemd, which would take it to have ended"),
        (lambda old: setattr(old, "leaving", Leaving.WAIT_FOR_CLIENTS), "ending (wait for clients)"),
    ],
)
def test_a_bad_moment_is_refused_with_the_reason(tmp_path, prepare, why):
    async def act(scene):
        prepare(scene.old)
        said = await answer_to(scene.path)
        assert said[:1] == Kind.REFUSAL.value
        assert why in said.decode()
        assert why in scene.old.log.text

    play(tmp_path, act)


def test_another_version_is_refused_and_both_are_named(tmp_path):
    async def act(scene):
        assert f"version {VERSION}, not 99" in (await answer_to(scene.path, 99)).decode()

    play(tmp_path, act)


def test_two_at_once_are_one_too_many(tmp_path):
    async def act(scene):
        stranger = Stranger(scene.path)
        await stranger.ask()
        assert b"already" in await answer_to(scene.path)
        stranger.die()

    play(tmp_path, act)


@pytest.mark.parametrize("words", [b"", b"\0\0\0\x0c" + b"pgsh" + b"\0\0\0", b"\0\0\0\x0dpgsh\0\0\0\1x"])
def test_a_question_that_is_none_is_an_error(tmp_path, words):
    async def act(scene):
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(10)
            line.connect(scene.path)
            line.sendall(words)
            line.shutdown(socket.SHUT_WR)
            said = await asyncio.to_thread(line.recv, 1000)
        assert said[:1] in (b"", b"E")
        assert scene.old.kin.heir is None

    play(tmp_path, act)


def test_over_tcp_nobody_may_whoever_he_is(tmp_path):
    async def act(scene):
        (listener,) = scene.old.listeners
        listener._arrive = lambda connected, address: scene.old.arrive(connected, Address("127.0.0.1", 51234))
        assert b"over the Unix socket only" in await answer_to(scene.path)
        assert scene.old.kin.heir is None

    play(tmp_path, act)
