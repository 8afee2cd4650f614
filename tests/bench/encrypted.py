"""
What TLS costs towards clients: logins, short answers, bulk data.

Theory. A pooler that speaks TLS is started afresh for each measure, beside the one of the other measures, since the
others shall not pay for it: same file but for a certificate and the way to log in. Both poolers show a certificate of
the same kind, P-256: with RSA of 2048 bits half a millisecond of signing, the same in both, would hide what differs.
Logins are SCRAM-SHA-256 with a stored verifier, so neither pooler derives a key. TLS 1.3 is what both agree on with
their clients.

The clients are a pgbench that speaks TLS, which the one beside the bench's PostgreSQL may not do, and a bare socket.
"""

import shutil
import ssl
from pathlib import Path
from time import perf_counter

from tests.bench import pgbench
from tests.bench.figures import Figures
from tests.bench.measure import MICRO, MILLI, Bench, Work, metered
from tests.bench.processes import Failed
from tests.bench.scram import PASSWORD, write_verifier
from tests.bench.targets import Addition, Target
from tests.bench.wire import SSL_REQUEST, Line, with_options
from tests.certificates import Authority

ITERATIONS = 4096


def add_tls(folder: Path) -> str:
    """A certificate, for those who ask; nobody needs a password."""
    pair = Authority(folder).issue("pooler", sans="DNS:localhost,IP:127.0.0.1")
    pair.key.chmod(0o644)
    return f"client_tls_sslmode = allow\nclient_tls_cert_file = {pair.cert}\nclient_tls_key_file = {pair.key}\n"


def add_tls_and_scram(folder: Path) -> str:
    """The same, and everybody logs in with a password."""
    return add_tls(folder) + write_verifier(folder, ITERATIONS)


class EncryptedLine(Line):
    """A blocking connection that asks for TLS first and believes any certificate."""

    def prepare(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self._socket.sendall(SSL_REQUEST)
        if self._socket.recv(1) != b"S":
            raise Failed("the pooler speaks no TLS")
        self._socket = context.wrap_socket(self._socket)


def encrypted_pgbench(clients: int, cost: str, add: Addition, *options: str) -> Work:
    """pgbench over TLS; the CPU of one transaction goes under the name `cost`."""

    def work(bench: Bench, target: Target) -> Figures:
        with bench.freshly(target, "tls", add) as fresh, metered(fresh) as meter:
            address = with_options(fresh.address, sslmode="require", password=PASSWORD)
            done = pgbench.timed(_programs(), address, clients, bench.seconds, options)
        return {"tps": done.tps, cost: meter.cpu / done.transactions * MICRO}

    return work


def encrypted_copy_out(bench: Bench, target: Target) -> Figures:
    """Rows of 1 kB, until the bench's seconds are gone; each figure per COPY."""
    text = f"COPY (SELECT g, repeat('x', 1000) FROM generate_series(1, {bench.wide_rows}) AS g) TO STDOUT"
    with bench.freshly(target, "tls", add_tls) as fresh, EncryptedLine(fresh.address) as line:
        line.ask(text)
        count, end = 0, perf_counter() + bench.seconds
        with metered(fresh) as meter:
            while not count or perf_counter() < end:
                line.ask(text)
                count += 1
    return {"seconds": meter.seconds / count, "cpu_ms": meter.cpu / count * MILLI}


def _programs() -> Path:
    """Where a pgbench is that speaks TLS."""
    found = shutil.which("pgbench")
    if found is None:
        raise Failed("there is no pgbench that speaks TLS (Debian: apt-get install postgresql-contrib)")
    return Path(found).parent
