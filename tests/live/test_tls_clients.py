"""TLS towards clients, from outside: every sslmode with real clients, and what strangers try around it."""

import asyncio
import signal
import socket
import ssl
import subprocess
import time

import asyncpg
import psycopg
import pytest

from tests.certificates import Authority
from tests.live.stand import Stand, wait_until
from tests.live.tls import (
    ALPN,
    Handshake,
    ask_for_tls,
    certificates,
    client_context,
    has_hung_up,
    opened,
    settings_of,
    wrap,
)
from tests.live.upstream import PASSWORD
from tests.live.wire import GSS_REQUEST, SSL_REQUEST, cancel_request, error, query, rows, sqlstate, startup

pytestmark = pytest.mark.live

HAS_DIRECT = psycopg.pq.version() >= 170000
MODES = ("disable", "allow", "prefer", "require")  # libpq's, which verify nothing
NEEDS_TLS = ("require", "verify-ca", "verify-full")


@pytest.fixture(scope="module", name="folder")
def _folder():
    with certificates() as folder:
        yield folder


@pytest.fixture(scope="module", name="authority")
def _authority(folder):
    return Authority(folder)


@pytest.fixture(scope="module", name="pair")
def _pair(authority):
    return opened(authority.issue("pooler", sans="DNS:localhost,IP:127.0.0.1"))


@pytest.fixture(scope="module", name="doors")
def _doors(upstream, authority, pair):
    """One proxy for each client_tls_sslmode."""
    asking = {mode: authority if mode.startswith("verify") else None for mode in ("allow", "prefer", *NEEDS_TLS)}
    stands = {"disable": Stand(upstream, {"auth_type": "scram-sha-256"})}
    for mode, ca in asking.items():
        stands[mode] = Stand(upstream, {"auth_type": "scram-sha-256", **settings_of(pair, ca, mode)})
    for stand in stands.values():
        stand.start()
    yield stands
    for stand in stands.values():
        stand.finish()


@pytest.fixture(name="door")
def _door(doors):
    return doors["require"]


def version_of(connection):
    """What libpq says: TLSv1.3 or nothing."""
    return connection.pgconn.ssl_in_use


def with_sockets(stand):
    """Its Unix socket's folder."""
    sockets = stand.folder / "sockets"
    sockets.mkdir()
    sockets.chmod(0o777)
    stand.settings["unix_socket_dir"] = sockets
    return sockets


@pytest.mark.parametrize("theirs", MODES)
@pytest.mark.parametrize("ours", ["disable", "allow", "prefer", "require"])
def test_libpq_in_each_of_its_modes_meets_each_of_ours(doors, ours, theirs):
    works = not (ours == "disable" and theirs == "require") and not (ours == "require" and theirs == "disable")
    if not works:
        with pytest.raises(psycopg.OperationalError, match=r"SSL required|does not support SSL"):
            doors[ours].connect(sslmode=theirs)
        return
    is_encrypted = ours != "disable" and (theirs in ("prefer", "require") or ours == "require")
    with doors[ours].connect(sslmode=theirs) as connection:
        assert version_of(connection) == is_encrypted
        assert connection.execute("select 42").fetchone() == (42,)


@pytest.mark.parametrize("ours", ["verify-ca", "verify-full"])
def test_a_client_without_a_certificate_is_refused_where_it_must_have_one_and_is_told_so(doors, ours):
    with pytest.raises(psycopg.OperationalError, match="certificate required"):
        doors[ours].connect(sslmode="require")
    assert "WARNING" in doors[ours].wait_log("TLS handshake error: peer did not return a certificate")


@pytest.mark.parametrize("ours", ["verify-ca", "verify-full"])
def test_a_client_with_a_certificate_of_ours_is_let_in_and_one_with_anothers_is_not(doors, ours, authority, folder):
    stranger = Authority(folder, "stranger")
    for issuer, is_believed in ((authority, True), (stranger, False)):
        mine = issuer.issue("app")
        shown = {"sslmode": "require", "sslcert": str(mine.cert), "sslkey": str(mine.key)}
        if is_believed:
            with doors[ours].connect(**shown) as connection:
                assert connection.execute("select 1").fetchone() == (1,)
        else:
            with pytest.raises(psycopg.OperationalError, match="unknown ca"):
                doors[ours].connect(**shown)
            doors[ours].wait_log("TLS handshake error: certificate verify failed: unable to get local issuer")


def test_a_client_can_verify_us_by_name_and_by_address(door, authority):
    with door.connect(host="localhost", sslmode="verify-full", sslrootcert=str(authority.cert)) as connection:
        assert version_of(connection)
    with door.connect(host="127.0.0.1", sslmode="verify-full", sslrootcert=str(authority.cert)) as connection:
        assert version_of(connection)


def test_asyncpg_speaks_tls(door, authority):
    async def main():
        context = client_context(authority)
        connection = await asyncpg.connect(
            host="localhost", port=door.port, user="app", password=PASSWORD, database="postgres", ssl=context
        )
        values = await connection.fetch("select generate_series(1, $1::int)", 10_000)
        await connection.close()
        return len(values)

    assert asyncio.run(main()) == 10_000


@pytest.mark.skipif(not HAS_DIRECT, reason="this libpq is older than 17")
def test_libpq_may_begin_with_tls_at_once(door):
    with door.connect(sslmode="require", sslnegotiation="direct") as connection:
        assert connection.execute("select repeat('x', 100000)").fetchone() == ("x" * 100_000,)


def test_a_direct_handshake_in_small_pieces_is_put_together(door):
    """A hello may come in several segments, the first of which we have read as if it were a startup packet."""
    with door.call() as line:
        handshake = Handshake(client_context(alpn=(ALPN,)))
        for pos in range(0, len(handshake.hello), 100):
            line.send(handshake.hello[pos : pos + 100])
            time.sleep(0.002)
        assert handshake.finish(line).selected_alpn_protocol() == ALPN


@pytest.mark.parametrize("is_direct", [True, False], ids=["direct", "asked"])
def test_who_wants_to_speak_something_else_is_told_so_by_an_alert(door, is_direct):
    """ALPACA: a browser's connection that somebody has led to us."""
    door.mark()
    with door.call() as line, pytest.raises(ssl.SSLError, match="no application protocol"):
        (wrap if is_direct else ask_for_tls)(line, client_context(alpn=("h2", "http/1.1")))
    door.wait_log("TLS handshake error: no application protocol")


def test_who_asks_for_tls_may_name_the_protocol_among_others(door):
    with door.call() as line:
        assert ask_for_tls(line, client_context(alpn=("h2", ALPN))).selected_alpn_protocol() == ALPN
        assert line.login("app", "postgres", PASSWORD)[-1].kind == "Z"


def test_who_begins_with_tls_must_name_the_protocol(door):
    with door.call() as line:
        wrap(line, client_context())
        line.send(startup("app"))
        heard = error(line.read_to_end())
        assert heard["C"] == "08P01"
        assert "ALPN" in heard["M"]


def test_plain_clients_hear_that_ssl_is_required_before_anything_is_asked_of_them(door):
    with door.call() as line:
        line.send(startup("app"))
        heard = line.read_to_end()
        assert [each.kind for each in heard] == ["E"]
        assert (error(heard)["C"], error(heard)["M"]) == ("28000", "SSL required")


def test_bytes_that_somebody_slips_in_behind_an_ssl_request_are_never_taken_for_the_clients(door):
    """CVE-2021-23222: a man in the middle puts a login and a query in front of the encrypted ones."""
    with door.call() as line:
        line.send(SSL_REQUEST + startup("app") + query("select 'slipped in'"))
        heard = line.read_to_end()
        assert [each.kind for each in heard] == ["E"]
        assert error(heard)["M"] == "received unencrypted data after SSL request"


def test_bytes_that_come_after_our_answer_and_are_no_handshake_end_the_connection(door):
    door.mark()
    with door.call() as line:
        line.send(SSL_REQUEST)
        assert line.read_byte() == b"S"
        line.send(startup("app"))
        assert has_hung_up(line.socket) or has_hung_up(line.socket)
    door.wait_log("TLS handshake error: ")


def test_tls_is_not_asked_for_twice(door):
    with door.call() as line:
        ask_for_tls(line, client_context())
        line.send(SSL_REQUEST)
        assert error(line.read_to_end())["M"] == "SSL req inside SSL"


def test_gssapi_is_declined_and_tls_may_follow(door):
    with door.call() as line:
        line.send(GSS_REQUEST)
        assert line.read_byte() == b"N"
        ask_for_tls(line, client_context())
        assert line.login("app", "postgres", PASSWORD)[-1].kind == "Z"
        assert line.value("select 7") == "7"


def test_a_unix_socket_is_offered_no_tls_and_needs_none(upstream, pair):
    stand = Stand(upstream, {"auth_type": "scram-sha-256", **settings_of(pair)})
    sockets = with_sockets(stand)
    with stand:
        with stand.connect(host=str(sockets)) as connection:
            assert not version_of(connection)
        with socket.socket(socket.AF_UNIX) as line:
            line.connect(f"{sockets}/.s.PGSQL.{stand.port}")
            line.sendall(SSL_REQUEST)
            assert line.recv(1) == b"N"


def test_a_slow_handshake_costs_only_itself_and_ends_with_the_login(upstream, pair):
    settings = {"auth_type": "scram-sha-256", "client_login_timeout": 1, **settings_of(pair)}
    with Stand(upstream, settings) as stand, stand.call() as slow:
        slow.send(SSL_REQUEST)
        assert slow.read_byte() == b"S"
        slow.send(b"\x16\x03\x01\x02\x00\x01")
        began = time.monotonic()
        with stand.connect(sslmode="require") as connection:
            assert connection.execute("select 1").fetchone() == (1,)
        assert has_hung_up(slow.socket)
        assert 0.5 < time.monotonic() - began < 5
        stand.wait_log("closing because: client_login_timeout")


def test_handshakes_that_never_end_make_room_for_those_who_mean_it(upstream, pair):
    settings = {"auth_type": "scram-sha-256", "max_half_open": 20, **settings_of(pair)}
    with Stand(upstream, settings) as stand:
        slow = [stand.call() for _ in range(40)]
        for line in slow:
            line.send(SSL_REQUEST)
            assert line.read_byte() == b"S"
            line.send(b"\x16\x03\x01\x02\x00\x01")
        with stand.connect(sslmode="require") as connection:
            assert connection.execute("select 1").fetchone() == (1,)
        stand.wait_log("max_half_open")
        assert all(has_hung_up(line.socket) for line in slow[:19]), "the oldest are gone"
        for line in slow:
            line.close()


def test_a_cancel_request_over_tls_and_one_in_plain_reach_the_query(door):
    for is_encrypted in (True, False):
        with door.call() as line, door.call() as asker:
            ask_for_tls(line, client_context())
            line.login("app", "postgres", PASSWORD)
            line.send(query("select pg_sleep(30)"))
            time.sleep(0.3)
            if is_encrypted:
                ask_for_tls(asker, client_context())
            asker.send(cancel_request(line.key))
            assert sqlstate(line.read_until()) == "57014"


def test_the_console_works_over_tls_and_shows_version_and_cipher(door, upstream):
    operator = {"user": "postgres", "dbname": "pgbouncer", "password": upstream.secrets["postgres"]}
    with door.connect(sslmode="require") as client, door.connect(**operator, sslmode="require") as console:
        client.execute("select 1")
        shown = console.execute("show clients").fetchall()
        names = [each.name for each in console.execute("show clients").description]
        tls = {row[names.index("tls")] for row in shown}
        assert tls == {"TLSv1.3/TLS_AES_256_GCM_SHA384"}
        sockets = console.execute("show sockets").fetchall()
        assert any("TLSv1.3/TLS_AES_256_GCM_SHA384" in row for row in sockets)


def test_a_login_is_logged_with_version_and_cipher(door):
    door.mark()
    with door.connect(sslmode="require"):
        door.wait_log("login attempt: db=postgres user=app tls=TLSv1.3/TLS_AES_256_GCM_SHA384 replication=no")


def test_openssl_agrees(door, authority):
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{door.port}", "-starttls", "postgres"]
    command += ["-verify_return_error", "-verify_hostname", "localhost", "-CAfile", str(authority.cert)]
    done = subprocess.run(command, input=b"", capture_output=True, timeout=20, check=False)
    assert b"Verify return code: 0 (ok)" in done.stdout, done.stderr.decode()


def test_the_versions_are_those_that_the_file_names(upstream, pair):
    with Stand(upstream, settings_of(pair) | {"client_tls_protocols": "tlsv1.2"}) as stand:
        with stand.call() as line:
            assert ask_for_tls(line, client_context()).version() == "TLSv1.2"
        with stand.call() as line:
            modern = client_context()
            modern.minimum_version = ssl.TLSVersion.TLSv1_3
            with pytest.raises(ssl.SSLError, match=r"alert protocol version|PROTOCOL_VERSION"):
                ask_for_tls(line, modern)
        stand.wait_log("TLS handshake error: unsupported protocol")


# Certificates that say who somebody is.


@pytest.fixture(scope="module", name="by_certificate")
def _by_certificate(upstream, authority, pair):
    settings = {"auth_type": "cert", **settings_of(pair, authority, "verify-full")}
    with Stand(upstream, settings) as stand:
        yield stand


def test_auth_type_cert_lets_in_whose_name_is_in_the_certificate(by_certificate, authority):
    mine = authority.issue("app")
    with by_certificate.connect(sslmode="require", sslcert=str(mine.cert), sslkey=str(mine.key)) as connection:
        assert connection.execute("select current_user").fetchone() == ("app",)


@pytest.mark.parametrize(("cn", "user"), [("app", "other"), ("nobody", "nobody"), ("*", "app"), ("app/CN=x", "app")])
def test_auth_type_cert_refuses_everybody_else_in_the_same_words(by_certificate, authority, cn, user):
    mine = authority.issue(f"as-{cn.replace('/', '-').replace('*', 'star')}", subject=f"/CN={cn}")
    with pytest.raises(psycopg.OperationalError, match=f'certificate authentication failed for user "{user}"'):
        by_certificate.connect(user, sslmode="require", sslcert=str(mine.cert), sslkey=str(mine.key))


# Reload, resumption, leaving.


def resumed(stand, context, session):
    """(was the session resumed, the session that a next connection may resume)"""
    with stand.call() as line:
        encrypted = ask_for_tls(line, context, session)
        assert line.login("app", "postgres", PASSWORD)[-1].kind == "Z"
        line.value("select 1")
        return encrypted.session_reused, encrypted.session


def test_a_session_is_resumed_and_still_carries_its_certificate(by_certificate, authority):
    context = client_context(pair=authority.issue("app"))
    was_resumed, session = resumed(by_certificate, context, None)
    assert not was_resumed
    was_resumed, _ = resumed(by_certificate, context, session)
    assert was_resumed, "and auth_type = cert has let it in: the certificate is in the ticket"


def test_after_a_reload_an_old_session_is_worth_nothing_where_its_certificate_is_not_believed(
    upstream, authority, pair, folder
):
    """Its ticket was sealed by the context of before, and nobody is dropped."""
    other = Authority(folder, "successor")
    stand = Stand(upstream, {"auth_type": "cert", **settings_of(pair, authority, "verify-full")})
    with stand:
        context = client_context(pair=authority.issue("app"))
        _, session = resumed(stand, context, None)
        with stand.call() as line:
            ask_for_tls(line, context)
            line.login("app", "postgres")
            stand.settings["client_tls_ca_file"] = other.cert
            assert "client_tls_ca_file" in stand.reload()
            assert line.value("select 1") == "1", "who is connected stays"
        with stand.call() as line:
            encrypted = ask_for_tls(line, context, session)
            with pytest.raises(ssl.SSLError, match="unknown ca"):  # TLS 1.3 tells it with the first answer
                encrypted.recv(1)


def test_new_files_under_old_names_are_taken_with_a_reload_and_a_bad_set_keeps_the_old_one(upstream, folder):
    old, new = (Authority(folder, name) for name in ("before", "after"))
    pairs = [opened(each.issue("pooler", sans="DNS:localhost")) for each in (old, new)]
    names = settings_of(pairs[0])
    cert, key = folder / "current.crt", folder / "current.key"
    names |= {"client_tls_cert_file": cert, "client_tls_key_file": key}

    def put(pair_):
        cert.write_bytes(pair_.cert.read_bytes())
        key.write_bytes(pair_.key.read_bytes())

    def shown_by(authority_):
        with stand.connect(host="localhost", sslmode="verify-full", sslrootcert=str(authority_.cert)):
            return True

    put(pairs[0])
    with Stand(upstream, {"auth_type": "scram-sha-256", **names}) as stand, stand.connect(sslmode="require") as client:
        assert shown_by(old)
        put(pairs[1])
        assert "reload failed" not in stand.reload()
        assert shown_by(new)
        key.write_bytes(pairs[0].key.read_bytes())
        assert "reload failed" in stand.reload()
        assert f"client_tls_key_file: {key}: is not the key of {cert}" in stand.fresh_log
        assert "TLS configuration could not be reloaded, keeping old configuration" in stand.fresh_log
        assert "PRIVATE" not in stand.log
        assert shown_by(new)
        assert client.execute("select 1").fetchone() == (1,), "nobody is dropped"


def test_an_encrypted_client_stays_with_the_old_process_until_it_leaves(upstream, pair):
    stand = Stand(upstream, {"auth_type": "scram-sha-256", **settings_of(pair, mode="allow")})
    with_sockets(stand)
    with stand:
        encrypted, plain = stand.connect(sslmode="require"), stand.connect(sslmode="disable")
        elder = stand.succeed()
        stand.wait_log("1 encrypted")
        for client in (encrypted, plain):
            assert client.execute("select 1").fetchone() == (1,)
        assert elder.poll() is None
        with stand.connect(sslmode="require") as newcomer:
            assert newcomer.execute("select 1").fetchone() == (1,)
        encrypted.close()
        wait_until(lambda: elder.poll() is not None, "the old process ends when its last client has left")
        assert plain.execute("select 1").fetchone() == (1,)
        plain.close()


def test_a_client_that_is_told_to_go_hears_why_over_tls_too(upstream, pair):
    with Stand(upstream, {"auth_type": "scram-sha-256", **settings_of(pair)}) as stand:
        client = stand.connect(sslmode="require")
        client.execute("select 1")
        stand.signal(signal.SIGQUIT)
        stand.wait_end()
        with pytest.raises(psycopg.OperationalError) as gone:
            client.execute("select 1")
        assert gone.value.sqlstate == "57P01" or "shutting down" in str(gone.value)


def test_bulk_data_and_a_slow_reader_are_carried_whole(door):
    with door.connect(sslmode="require") as connection, connection.cursor() as cursor:
        total = 0
        with cursor.copy("copy (select repeat('x', 1000) from generate_series(1, 20000)) to stdout") as copy:
            for number, piece in enumerate(copy):
                total += len(piece)
                if number % 5000 == 0:
                    time.sleep(0.05)
        assert total == 20_000 * 1001
        cursor.execute("create temp table heap (t text)")
        with cursor.copy("copy heap from stdin") as copy:
            for _ in range(2000):
                copy.write("y" * 1000 + "\n")
        assert cursor.execute("select count(*), sum(length(t)) from heap").fetchone() == (2000, 2_000_000)


def test_replication_goes_through_tls_too(door):
    with door.call() as line:
        ask_for_tls(line, client_context())
        line.login("copier", "postgres", PASSWORD, replication="database")
        answer = rows(line.ask("IDENTIFY_SYSTEM"))
        assert len(answer[0]) == 4
        assert line.value("select 1") == "1", "a walsender with a database runs statements as well"


def test_suspend_stops_encrypted_clients_and_resume_lets_them_go_on(door, upstream):
    operator = {"user": "postgres", "dbname": "pgbouncer", "password": upstream.secrets["postgres"]}
    with door.connect(**operator) as console, door.call() as line:
        ask_for_tls(line, client_context())
        line.login("app", "postgres", PASSWORD)
        console.execute("suspend")
        line.send(query("select 5"))
        line.socket.settimeout(0.3)
        with pytest.raises(TimeoutError):
            line.read()
        line.socket.settimeout(15)
        console.execute("resume")
        assert rows(line.read_until()) == [("5",)]


def test_many_small_messages_in_one_record_and_one_message_in_many_records(door):
    """Records and messages do not care about each other."""
    with door.call() as line:
        ask_for_tls(line, client_context())
        line.login("app", "postgres", PASSWORD)
        line.send(b"".join(query(f"select {number}") for number in range(200)))
        assert [rows(line.read_until())[0][0] for _ in range(200)] == [str(number) for number in range(200)]
        text = query(f"select length('{'x' * 50_000}')")
        for pos in range(0, len(text), 1000):
            line.send(text[pos : pos + 1000])
        assert rows(line.read_until()) == [("50000",)]
