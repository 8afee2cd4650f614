"""Our own image: the proxy in one container, PostgreSQL in another."""

import os
import time
from contextlib import ExitStack, closing
from pathlib import Path

import psycopg
import pytest

from tests.live.upstream import PASSWORD, engine_answers
from tests.ports import find_free_port

pytestmark = pytest.mark.live

IMAGE = os.environ.get("PGSHUTTLE_TEST_PROXY_IMAGE", "")
FOLDER = "/etc/pgshuttle/test"
SECONDS = 30.0

INI = """
[proxy]
listen_addr = *
listen_port = 6432
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {folder}/userlist.txt
default_pool_size = {size}
[databases]
* = host={host} port={port}
"""


class Ship:
    """The container, its settings and the way to it."""

    def __init__(self, upstream, folder: Path) -> None:
        from testcontainers.core.container import DockerContainer  # noqa: PLC0415 - only where an engine answers

        self.upstream, self.folder, self.port = upstream, folder, find_free_port()
        folder.chmod(0o755)
        (folder / "userlist.txt").write_text(f'"app" "{PASSWORD}"\n')
        self.write(size=2)
        self._container = (
            DockerContainer(IMAGE)
            .with_bind_ports(6432, self.port)
            .with_volume_mapping(str(folder), FOLDER, "ro")
            .with_command(f"{FOLDER}/proxy.ini")
        )
        self._container.start()
        self.docker = self._container.get_wrapped_container()

    def write(self, *, size: int) -> None:
        host, port = self.upstream.host, self.upstream.port
        (self.folder / "proxy.ini").write_text(INI.format(folder=FOLDER, size=size, host=host, port=port))

    def connect(self):
        host = self._container.get_container_host_ip()
        return psycopg.connect(
            host={"localhost": "127.0.0.1"}.get(host, host),
            port=self.port,
            user="app",
            dbname="postgres",
            password=PASSWORD,
            autocommit=True,
            prepare_threshold=None,
        )

    def wait_log(self, words: str) -> None:
        self._wait(lambda: words in self.docker.logs().decode(), f"no {words!r} in its log")

    def wait_listening(self) -> None:
        self.wait_log("process up")
        self._wait(self._answers, "it does not answer")

    def _answers(self) -> bool:
        try:
            self.connect().close()
        except psycopg.OperationalError:
            return False
        return True

    def _wait(self, is_so, otherwise: str) -> None:
        end = time.monotonic() + SECONDS
        while not is_so():
            assert time.monotonic() < end, f"{otherwise}:\n{self.docker.logs().decode()}"
            time.sleep(0.1)

    def remove(self) -> None:
        self._container.stop()


@pytest.fixture(name="ship")
def _ship(upstream, tmp_path_factory):
    if not engine_answers():
        pytest.skip("no Docker engine answers")
    if not IMAGE:
        pytest.skip("PGSHUTTLE_TEST_PROXY_IMAGE names no image; `python -m tests.live.images` makes one")
    ship = Ship(upstream, tmp_path_factory.mktemp("ship"))
    try:
        ship.wait_listening()
        yield ship
    finally:
        ship.remove()


def test_the_image_serves_reloads_is_healthy_and_stops_cleanly(ship):
    with ExitStack() as stack:
        _serve_reload_and_stop(ship, [stack.enter_context(closing(ship.connect())) for _ in range(10)])


def _serve_reload_and_stop(ship, lines):
    backends = {line.execute("select pg_backend_pid()").fetchone()[0] for line in lines for _ in range(3)}
    assert 1 <= len(backends) <= 2

    done = ship.docker.exec_run(["/opt/pgshuttle/bin/python3", "/opt/pgshuttle/healthcheck.py"])
    assert done.exit_code == 0, done.output

    ship.write(size=5)
    ship.docker.kill("HUP")
    ship.wait_log("default_pool_size '2' -> '5'")
    assert lines[0].execute("select 1").fetchone() == (1,), "nobody was dropped"

    ship.docker.stop(timeout=10)
    assert ship.docker.wait(timeout=15)["StatusCode"] == 0
    with pytest.raises(psycopg.OperationalError):
        lines[0].execute("select 1")
