"""
What TLS costs towards clients: logins, short answers, bulk data.

Theory. A pooler that speaks TLS is started afresh for each measure, beside the one of the other measures, since the
others shall not pay for it: same file but for a certificate and the way to log in. Both poolers show a certificate of
the same kind, P-256: with RSA of 2048 bits half a millisecond of signing, the same in both, would hide what differs.
Logins are SCRAM-SHA-256 with a stored verifier, so neither pooler derives a key. TLS 1.3 is what both agree on with
their clients.

The clients are a pgbench that speaks TLS, which the one beside the bench's PostgreSQL may not do, and a bare socket.
"""

import base64
import hashlib
import hmac
import shutil
import ssl
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

from tests.bench import pgbench
from tests.bench.figures import Figures
from tests.bench.processes import Failed, cpu_seconds
from tests.bench.targets import OPENERS, Target
from tests.bench.wire import SSL_REQUEST, Address, Line
from tests.certificates import Authority

PASSWORD = "of the bench"
ITERATIONS = 4096
MICRO, MILLI = 1e6, 1e3


def add_tls(folder: Path) -> str:
    """A certificate, for those who ask; nobody needs a password."""
    pair = Authority(folder).issue("pooler", sans="DNS:localhost,IP:127.0.0.1")
    pair.key.chmod(0o644)
    return f"client_tls_sslmode = allow\nclient_tls_cert_file = {pair.cert}\nclient_tls_key_file = {pair.key}\n"


def add_tls_and_scram(folder: Path) -> str:
    """The same, and everybody logs in with a password."""
    (folder / "userlist.txt").write_text(f'"postgres" "{_verifier(PASSWORD)}"\n')
    return add_tls(folder) + "auth_type = scram-sha-256\n"


def _verifier(password: str) -> str:
    salt = b"sixteen bytes..."
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, ITERATIONS)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    parts = (salt, stored, hmac.digest(salted, b"Server Key", "sha256"))
    encoded = [base64.b64encode(part).decode() for part in parts]
    return f"SCRAM-SHA-256${ITERATIONS}:{encoded[0]}${encoded[1]}:{encoded[2]}"


class EncryptedLine(Line):
    """A blocking connection that asks for TLS first and believes any certificate."""

    def prepare(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self._socket.sendall(SSL_REQUEST)
        if self._socket.recv(1) != b"S":
            raise Failed("the pooler speaks no TLS")
        self._socket = context.wrap_socket(self._socket)


def encrypted_pgbench(clients: int, cost: str, add: Callable[[Path], str], *options: str) -> Callable[..., Figures]:
    """pgbench over TLS; the CPU of one transaction goes under the name `cost`."""

    def work(bench: Any, target: Target) -> Figures:
        with OPENERS[target.name](bench.cluster.address, _log(bench, target), add) as fresh:
            cpu = cpu_seconds(fresh.pid)
            done = pgbench.timed(_programs(), _conninfo(fresh.address), clients, bench.seconds, options)
            return {"tps": done.tps, cost: (cpu_seconds(fresh.pid) - cpu) / done.transactions * MICRO}

    return work


def encrypted_copy_out(bench: Any, target: Target) -> Figures:
    """Rows of 1 kB, until the bench's seconds are gone; each figure per COPY."""
    text = f"COPY (SELECT g, repeat('x', 1000) FROM generate_series(1, {bench.wide_rows}) AS g) TO STDOUT"
    with OPENERS[target.name](bench.cluster.address, _log(bench, target), add_tls) as fresh:
        with EncryptedLine(fresh.address) as line:
            line.ask(text)
            count, cpu, started = 0, cpu_seconds(fresh.pid), perf_counter()
            while not count or perf_counter() - started < bench.seconds:
                line.ask(text)
                count += 1
            took = (perf_counter() - started) / count
        return {"seconds": took, "cpu_ms": (cpu_seconds(fresh.pid) - cpu) / count * MILLI}


def _log(bench: Any, target: Target) -> Path:
    folder: Path = bench.folder
    return folder / f"{target.name}-tls.log"


def _programs() -> Path:
    """Where a pgbench is that speaks TLS."""
    found = shutil.which("pgbench")
    if found is None:
        raise Failed("there is no pgbench that speaks TLS (Debian: apt-get install postgresql-contrib)")
    return Path(found).parent


def _conninfo(address: Address) -> Address:
    """pgbench takes a whole connection string where a database's name is due."""
    return replace(address, database=f"dbname={address.database} sslmode=require password='{PASSWORD}'")
