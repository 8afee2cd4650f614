"""Certificates where the proxy's account can read them, and bare sockets that speak TLS."""

import shutil
import socket
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.certificates import Authority, Pair
from tests.live.wire import SSL_REQUEST, Raw

ALPN = "postgresql"


@contextmanager
def certificates() -> Iterator[Path]:
    """A folder that the proxy can look into."""
    folder = Path(tempfile.mkdtemp(prefix="pgshuttle-certificates-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def opened(pair: Pair) -> Pair:
    """The same, for everybody to read: a stand runs as another account than the tests."""
    pair.key.chmod(0o644)
    return pair


def settings_of(pair: Pair, authority: Authority | None = None, mode: str = "require") -> dict[str, object]:
    """For the proxy's side of TLS towards clients."""
    settings: dict[str, object] = {
        "client_tls_sslmode": mode,
        "client_tls_cert_file": pair.cert,
        "client_tls_key_file": pair.key,
    }
    return settings | ({"client_tls_ca_file": authority.cert} if authority is not None else {})


def client_context(
    authority: Authority | None = None, pair: Pair | None = None, alpn: tuple[str, ...] = ()
) -> ssl.SSLContext:
    """A client's: what it believes, what it shows, what it offers to speak."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = authority is not None
    context.verify_mode = ssl.CERT_REQUIRED if authority is not None else ssl.CERT_NONE
    if authority is not None:
        context.load_verify_locations(authority.cert)
    if pair is not None:
        context.load_cert_chain(pair.cert, pair.key)
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


def wrap(line: Raw, context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> ssl.SSLSocket:
    """TLS on a bare line, after what has been agreed upon."""
    wrapped = context.wrap_socket(line.socket, server_hostname="localhost", session=session)
    line.socket = wrapped
    return wrapped


def ask_for_tls(line: Raw, context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> ssl.SSLSocket:
    """SSLRequest, S, handshake."""
    line.send(SSL_REQUEST)
    assert line.read_byte() == b"S"
    return wrap(line, context, session)


class Handshake:
    """A client's, without a socket: `hello` is what it says first."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.side = context.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")
        with suppress(ssl.SSLWantReadError):
            self.side.do_handshake()
        self.hello = self._outgoing.read()

    def finish(self, line: Raw) -> ssl.SSLObject:
        """Our half: until all has been heard that was to be heard."""
        for _ in range(20):
            self._incoming.write(line.socket.recv(65536))
            try:
                self.side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            return self.side
        raise AssertionError("the handshake has no end")


def has_hung_up(line: socket.socket) -> bool:
    """Is there an end, with or without a reset?"""
    try:
        return line.recv(1) == b""
    except OSError:
        return True
