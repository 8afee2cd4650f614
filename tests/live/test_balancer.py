"""Behind a load balancer, as seen from outside: real drivers come through one that speaks the PROXY protocol."""

import os
import shutil
import socket
import subprocess
import time

import psycopg
import pytest
from psycopg.rows import dict_row

from deploy import healthcheck
from deploy.cluster import find_free_port
from tests.live.balancer import Balancer, build_v1, build_v2
from tests.live.stand import Stand, is_listening, wait_until
from tests.live.wire import Raw, cancel_request, error, query, sqlstate

pytestmark = pytest.mark.live

SETTINGS = {"proxy_protocol_from": "127.0.0.0/8", "auth_type": "scram-sha-256"}


def claim(source):
    """A balancer that says everybody comes from there."""
    return lambda _: build_v2(source)


def through(stand, balancer, **more):
    return psycopg.connect(**stand.options("app", "postgres", port=balancer.port, autocommit=True, **more))


def ask_console(balancer, stand, text):
    more = {"port": balancer.port, "password": stand.secrets["postgres"], "autocommit": True}
    options = stand.options("postgres", "pgbouncer", **more)
    with psycopg.connect(**options, cursor_factory=psycopg.ClientCursor, row_factory=dict_row) as console:
        return console.execute(text).fetchall()


@pytest.mark.parametrize("build", [build_v1, claim(("192.0.2.7", 40000))], ids=["v1", "v2"])
def test_a_driver_is_served_and_its_address_is_its_own(upstream, build):
    with Stand(upstream, SETTINGS) as stand, Balancer(stand.port, build) as balancer:
        with through(stand, balancer) as client:
            assert client.execute("select 7").fetchone() == (7,)
            host = "192.0.2.7" if build is not build_v1 else "127.0.0.1"
            port = 40000 if build is not build_v1 else local_port(client)
            (row,) = [row for row in ask_console(balancer, stand, "SHOW CLIENTS") if row["database"] == "postgres"]
            assert (row["addr"], row["port"]) == (host, port)
            assert row["via"].startswith("127.0.0.1:")
            assert row["via"] != f"{host}:{port}"
        stand.wait_log(rf"postgres/app@{host}:{port} login attempt")
        stand.wait_log(rf"postgres/app@{host}:{port} closing because: client close request")


def local_port(client):
    with socket.socket(fileno=os.dup(client.pgconn.socket)) as line:
        return line.getsockname()[1]


def test_the_containers_health_check_speaks_for_itself(upstream):
    with Stand(upstream, SETTINGS) as stand:
        environ = {"PGSHUTTLE_LISTEN_PORT": str(stand.port)}
        assert healthcheck.main([], environ) == 1
        assert healthcheck.main([], environ | {"PGSHUTTLE_PROXY_PROTOCOL": "1"}) == 0


def test_the_balancer_may_reach_us_by_the_unix_socket(upstream):
    stand = Stand(upstream, SETTINGS | {"proxy_protocol_from": "unix"})
    stand.settings["unix_socket_dir"] = stand.folder
    stand.folder.chmod(0o777)
    with stand, Balancer(f"{stand.folder}/.s.PGSQL.{stand.port}", claim(("2.2.2.2", 2))) as balancer:
        with through(stand, balancer) as client:
            client.execute("select 1")
        stand.wait_log("postgres/app@2.2.2.2:2 login attempt")


def test_a_cancel_comes_through_the_balancer_too(upstream):
    settings = {"proxy_protocol_from": "127.0.0.1"}
    with (
        Stand(upstream, settings) as stand,
        Balancer(stand.port) as balancer,
        Raw(balancer.port) as line,
        Raw(balancer.port) as second,
    ):
        line.login("app", "postgres")
        line.send(query("select pg_sleep(10)"))
        time.sleep(0.3)
        second.send(cancel_request(line.key))
        assert second.read_to_end() == []
        assert sqlstate(line.read_until()) == "57014"


def test_nobody_else_may_say_who_he_is_and_the_balancer_must(upstream):
    with Stand(upstream, {"proxy_protocol_from": "192.0.2.0/24"}) as stand:
        with stand.call() as liar:
            liar.send(build_v2(("192.0.2.7", 40000)))
            assert error(liar.read_to_end())["M"] == "a PROXY header from somebody who is not in proxy_protocol_from"
        stand.settings["proxy_protocol_from"] = "127.0.0.1"
        stand.reload()
        with pytest.raises(psycopg.OperationalError, match="PROXY header: missing, and it must come first"):
            stand.connect(sslmode="disable")
        with Balancer(stand.port) as balancer, through(stand, balancer) as client:
            assert client.execute("select 1").fetchone() == (1,)


def test_a_header_in_pieces_and_one_that_is_never_finished(upstream):
    with Stand(upstream, {"proxy_protocol_from": "127.0.0.1", "client_login_timeout": "1"}) as stand:
        header = build_v2(("192.0.2.7", 40000))
        with stand.call() as line, stand.call() as silent:
            silent.send(header[:20])
            for byte in header:
                line.send(bytes([byte]))
                time.sleep(0.005)
            assert line.login("app", "postgres")[-1].kind == "Z"
            assert "has not come in time" in error(silent.read_to_end())["M"]
            assert line.value("select 1") == "1"


HAPROXY = """
defaults
    mode tcp
    timeout connect 5s
    timeout client 60s
    timeout server 60s
listen pg
    bind 127.0.0.1:{port}
    server one 127.0.0.1:{target} {how} check
"""


@pytest.mark.skipif(shutil.which("haproxy") is None, reason="haproxy is not installed")
@pytest.mark.parametrize("how", ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c,unique-id"])
def test_behind_haproxy(upstream, how):
    with Stand(upstream, SETTINGS) as stand:
        port = find_free_port()
        file = stand.folder / "haproxy.cfg"
        file.write_text(HAPROXY.format(port=port, target=stand.port, how=how))
        haproxy = subprocess.Popen(
            ["haproxy", "-db", "-f", str(file)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            wait_until(lambda: is_listening(port), "haproxy listens")
            time.sleep(0.5)
            with Raw(port) as line:
                local = line.socket.getsockname()[1]
                found = line.login("app", "postgres", upstream.secrets["app"])
                assert found[-1].kind == "Z", error(found)
                stand.wait_log(rf"postgres/app@127.0.0.1:{local} login attempt")
        finally:
            haproxy.terminate()
            haproxy.wait(10)
