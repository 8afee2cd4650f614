"""Who proves what to whom: SCRAM in both roles, a stranger's login to us, ours to a server that may be hostile."""

import asyncio
import base64
import tempfile
from collections.abc import Coroutine
from functools import cache
from pathlib import Path
from typing import Any

from protocol import backend, codes
from protocol.errors import ProtocolError, Refused
from protocol.frontend import build_password, build_sasl_initial
from protocol.passwords import ScramKeys, Secret, derive_salted_password, prepare
from protocol.scram import ScramClient, ScramServer, WrongPassword
from protocol.startup import build_cancel_request, build_ssl_request, build_startup
from proxy.auth.prove import ServerRefused, TooNew, prove_ourselves
from proxy.inbox import PeerGone
from proxy.main import Proxy
from proxy.visit import Visit
from tests.fuzz.registry import cut, target, text_of
from tests.proxy.auth.wire import a_keeper, alone, wired
from tests.proxy.test_login import a_proxy, find_pool

PASSWORD = Secret("swordfish")
KEYS = ScramKeys.from_salted_password(derive_salted_password(PASSWORD, b"salt", 2))
NONCE = "nonce"
FIRST, FINAL = b"n,,n=,r=abc", b"c=biws,r=abcnonce,p=" + base64.b64encode(b"x" * 32)
SERVER_FIRST = b"r=nonceabc,s=c2FsdA==,i=2"
PLUS_FIRST = b"p=tls-server-end-point,,n=,r=abc"
HELLO = build_startup({"user": "anna", "database": "shop"})


def be_scram_server(data: bytes) -> None:
    """The first byte says whether channel binding is offered; nobody gets in who does not know the password."""
    server = ScramServer(
        KEYS.verifier(b"salt", 2), nonce=NONCE, channel_binding=b"digest" if data[:1] == b"p" else None
    )
    first, final = cut(data[1:], 2)
    server.first(first)
    server.final(final)
    raise AssertionError("a proof was guessed")


def be_scram_client(data: bytes) -> None:
    """A server that does not know our password is never believed."""
    client = ScramClient(nonce=NONCE, channel_binding=b"digest" if data[:1] == b"p" else None)
    first, final = cut(data[1:], 2)
    client.first()
    client.challenge(first)
    client.proof(KEYS)
    client.check_final(final)
    raise AssertionError("a signature was guessed")


@cache
def loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


def play(conversation: Coroutine[Any, Any, Any]) -> None:
    loop().run_until_complete(asyncio.wait_for(conversation, 5))


@cache
def proxy_of(auth_type: str) -> Proxy:
    folder = tempfile.mkdtemp(prefix="fuzz-")
    proxy = a_proxy(Path(folder), auth_type=auth_type, scram_iterations="1")
    proxy.keeper.iterations = 1
    return proxy


def visit(data: bytes) -> None:
    """A stranger says all this and hangs up. He is refused in words, or let in, or has said too little."""
    auth_type = ("trust", "plain", "md5", "scram-sha-256")[data[0] % 4] if data else "trust"
    play(_visit(proxy_of(auth_type), data[1:], may_enter=auth_type in ("trust", "plain")))


async def _visit(proxy: Proxy, said: bytes, *, may_enter: bool) -> None:
    inbox = alone(said)
    find_pool(proxy).welcome = {"TimeZone": "UTC"}
    socket: Any = wired(inbox)
    socket.set_protocol = lambda phase: None
    socket.get_write_buffer_size = lambda: 0
    inbox.eof_received()
    talk = Visit(proxy, inbox, ("10.0.0.7", 1))
    try:
        await talk.serve()
    finally:
        talk.finish()
        has_entered = talk.is_handed_over
        for client in list(find_pool(proxy).clients):
            client.connection_lost(None)
    assert may_enter or not has_entered, "who knows no password is let in"
    proxy.log.lines.clear()  # type: ignore[attr-defined]


def log_in(data: bytes) -> None:
    """A server says all this to us. We never say our password but in the way it was asked for."""
    play(_log_in(data))


async def _log_in(said: bytes) -> None:
    inbox, keeper = alone(said), a_keeper()
    inbox.eof_received()
    try:
        await prove_ourselves(inbox, "joe", PASSWORD, keeper, minor=2)
    finally:
        keeper.close()


OK, LIST = backend.build_authentication_ok(), backend.build_sasl(["SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"])

target(
    "scram server", be_scram_server, *(ProtocolError, WrongPassword, Refused),
    seeds=(b" " + FIRST + b"\0" + FINAL, b"p" + PLUS_FIRST + b"\0" + FINAL, b" y,,n=,r=abc\0" + FINAL),
)  # fmt: skip
target(
    "scram client", be_scram_client, ProtocolError,
    seeds=(b" " + SERVER_FIRST + b"\0v=" + base64.b64encode(b"x" * 32), b"p" + SERVER_FIRST + b"\0e=no"),
)  # fmt: skip
target("password", lambda data: prepare(Secret(text_of(data))), seeds=("\u00aa\u200b\u05d0".encode(),), each=5_000)
target(
    "visit", visit, base=100_000, each=3_000,
    seeds=(
        b"\0" + HELLO,
        b"\1" + HELLO + build_password("secret"),
        b"\2" + build_ssl_request() + HELLO + build_password("md5" + 32 * "0"),
        b"\3" + HELLO + build_sasl_initial("SCRAM-SHA-256", FIRST) + build_password("x"),
        b"\0" + build_cancel_request(b"12345678"),
        b"\0" + build_startup({"user": "anna", "database": "shop", "options": "-c a.b=c", "replication": "database"}),
    ),
)  # fmt: skip
target(
    "server's login", log_in, *(ProtocolError, ServerRefused, PeerGone, TooNew), base=100_000, each=3_000,
    seeds=(
        OK,
        backend.build_authentication_cleartext() + OK,
        backend.build_negotiate(0, []) + backend.build_authentication_md5(b"salt") + OK,
        LIST + backend.build_sasl_continue(SERVER_FIRST) + backend.build_sasl_final(b"v=" + 43 * b"A" + b"=") + OK,
        backend.build_authentication(codes.AUTH_GSS),
        backend.build_error("FATAL", "28P01", "no"),
    ),
)  # fmt: skip
