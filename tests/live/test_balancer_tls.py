"""TLS behind a balancer: the header comes first, and the handshake finds the socket as if nothing had been there."""

import psycopg
import pytest

from tests.certificates import Authority
from tests.live.balancer import Balancer, build_v2
from tests.live.stand import Stand
from tests.live.tls import ALPN, Handshake, certificates, client_context, opened, settings_of
from tests.live.wire import SSL_REQUEST, sqlstate

pytestmark = pytest.mark.live


@pytest.fixture(scope="module", name="pair")
def _pair():
    with certificates() as folder:
        yield opened(Authority(folder).issue("pooler", sans="DNS:localhost,IP:127.0.0.1"))


@pytest.fixture(name="door")
def _door(upstream, pair):
    settings = {"auth_type": "scram-sha-256", "proxy_protocol_from": "127.0.0.1", **settings_of(pair, None, "require")}
    with Stand(upstream, settings) as stand:
        yield stand


def test_libpq_speaks_tls_through_the_balancer(door):
    with Balancer(door.port, lambda _: build_v2(("192.0.2.7", 40000))) as balancer:
        ways = ["postgres", "direct"] if psycopg.pq.version() >= 170000 else ["postgres"]
        for way in ways:
            more = {"sslmode": "require", "port": balancer.port} | ({"sslnegotiation": way} if way == "direct" else {})
            with psycopg.connect(**door.options("app", "postgres", **more)) as client:
                assert client.execute("select 1").fetchone() == (1,)
                assert client.pgconn.ssl_in_use
    door.wait_log("postgres/app@192.0.2.7:40000 login attempt: .* tls=TLSv1.3")


def test_the_header_and_a_direct_hello_may_come_in_one_piece(door):
    with door.call() as line:
        handshake = Handshake(client_context(alpn=(ALPN,)))
        line.send(build_v2(("192.0.2.7", 40000)) + handshake.hello)
        assert handshake.finish(line).selected_alpn_protocol() == ALPN


def test_who_stops_in_the_middle_of_a_handshake_is_half_open_and_gives_way(upstream, pair):
    settings = {"max_half_open": 5, **settings_of(pair, None, "allow")}
    with Stand(upstream, settings) as stand:
        slow = [stand.call() for _ in range(9)]
        for line in slow:
            line.send(SSL_REQUEST)
            assert line.read_byte() == b"S"
            line.send(b"\x16\x03\x01\x02\x00\x01")
        with stand.call() as line:
            assert sqlstate(line.login("app", "postgres")) == ""
        gone = 0
        for line in slow:
            line.socket.settimeout(0.3)
            try:
                while line.socket.recv(1000):
                    pass
                gone += 1
            except ConnectionResetError:
                gone += 1
            except TimeoutError:
                pass
        assert gone >= 4
        for line in slow:
            line.close()
