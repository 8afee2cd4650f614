"""TLS towards a real PostgreSQL: which mode believes what, direct TLS, reload, cancel, tunnels, liars in between."""

import threading

import psycopg
import pytest

from tests.certificates import Authority, Pair
from tests.live.between import Between, Line, hide_plus
from tests.live.encrypted import EncryptedUpstream, encrypted_upstream
from tests.live.stand import Stand, wait_until
from tests.live.tls import certificates, opened
from tests.live.upstream import COPIER, PASSWORD

pytestmark = pytest.mark.live

FACTS = "select ssl, version, cipher, client_dn from pg_stat_ssl where pid = pg_backend_pid()"
PLAIN = (False, None, None, None)

# Alternative names, common name, what the entry names, and what is wrong with that.
NAMED = (
    ("DNS:localhost", "x", "name", ""),
    ("IP:127.0.0.1", "x", "ip", ""),
    ("DNS:elsewhere,DNS:localhost", "x", "name", ""),
    ("", "localhost", "name", ""),  # without alternative names the common name counts
    ("DNS:elsewhere", "localhost", "name", "Hostname mismatch, certificate is not valid for 'localhost'"),
    ("IP:127.0.0.1", "x", "name", "Hostname mismatch, certificate is not valid for 'localhost'"),
    ("DNS:localhost", "127.0.0.1", "ip", "IP address mismatch, certificate is not valid for '127.0.0.1'"),
    ("DNS:127.0.0.1", "x", "ip", "IP address mismatch, certificate is not valid for '127.0.0.1'"),
    ("DNS:*.localhost", "x", "name", "Hostname mismatch"),
    ("DNS:localhost.elsewhere", "localhost", "name", "Hostname mismatch"),
)


@pytest.fixture(scope="module", name="secure")
def _secure():
    with encrypted_upstream() as upstream:
        yield upstream


@pytest.fixture(name="usual")
def _usual(secure):
    """Whatever a test has PostgreSQL show, afterwards it shows what it usually does."""
    yield
    secure.show(secure.place.usual)


def a_stand(secure: EncryptedUpstream, mode: str = "verify-full", entry: str = "", **settings: object) -> Stand:
    """Its databases: `postgres` and `name...` by name, `ip...` by address."""
    tls = {"server_tls_sslmode": mode, "server_tls_ca_file": secure.authority.cert}
    patience = {"server_login_retry": 0.2, "query_wait_timeout": 3}
    databases = {"postgres": f"host=localhost port={secure.port} {entry}"}
    for number in range(len(NAMED)):  # a pool of its own for each test
        databases[f"name{number}"] = f"host=localhost port={secure.port} dbname=postgres"
        databases[f"ip{number}"] = f"host=127.0.0.1 port={secure.port} dbname=postgres"
    secrets = secure.secrets | dict.fromkeys(("ann", "picky", "plain"), "secret")
    return Stand(secure, tls | patience | settings, databases=databases, secrets=secrets)


def facts(stand, user="app", dbname="postgres"):
    """How PostgreSQL was reached, in its own words: ssl, version, cipher, client_dn."""
    with stand.connect(user, dbname) as connection:
        return connection.execute(FACTS).fetchone()


def shown(console):
    """The column `tls` of SHOW SERVERS."""
    rows = console.execute("SHOW SERVERS")
    at = [column.name for column in rows.description].index("tls")
    return [row[at] for row in rows]


def failure(stand, user="app", dbname="postgres"):
    with pytest.raises(psycopg.OperationalError) as caught:
        facts(stand, user, dbname)
    return str(caught.value)


@pytest.mark.parametrize("mode", ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"])
def test_each_mode_reaches_a_server_with_tls_and_only_disable_does_without(secure, mode):
    with a_stand(secure, mode) as stand:
        found = facts(stand)
        if mode == "disable":
            assert found == PLAIN
            return
        assert found == (True, "TLSv1.3", "TLS_AES_256_GCM_SHA384", None)
        assert "SSL established: TLSv1.3/TLS_AES_256_GCM_SHA384" in stand.log
        with stand.connect("postgres", "pgshuttle") as console:
            assert shown(console) == ["TLSv1.3/TLS_AES_256_GCM_SHA384"]


@pytest.mark.parametrize("mode", ["allow", "prefer"])
def test_a_server_without_tls_is_good_enough_where_tls_need_not_be(upstream, mode):
    with Stand(upstream, {"server_tls_sslmode": mode}) as stand, stand.connect() as connection:
        assert connection.execute("select 1").fetchone() == (1,)
        assert "SSL established" not in stand.log


@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
def test_a_server_without_tls_is_none_where_tls_must_be(upstream, mode):
    with Stand(upstream, {"server_tls_sslmode": mode, "server_login_retry": 0.2}) as stand:
        assert "TLS handshake failed: server refused SSL" in failure(stand)
        assert "closing because: TLS handshake failed" in stand.log


def test_hba_rules_of_postgresql_for_tls_and_against_it_are_seen(secure):
    with a_stand(secure, "prefer") as stand:
        assert facts(stand, "picky")[0] is True
        assert "pg_hba.conf rejects" in failure(stand, "plain")  # PgBouncer's prefer does not come again in plain
    with a_stand(secure, "disable") as stand:
        assert facts(stand, "plain") == PLAIN
        assert "pg_hba.conf rejects" in failure(stand, "picky")


# Whose certificate it is.


@pytest.fixture(scope="module", name="careful")
def _careful(secure):
    """A stand that verifies all there is, and one that wants to know the authority only."""
    with a_stand(secure, "verify-full") as full, a_stand(secure, "verify-ca") as ca:
        yield full, ca


@pytest.mark.parametrize("number", range(len(NAMED)))
def test_verify_full_wants_the_name_of_the_entry(secure, usual, careful, number):
    sans, name, prefix, words = NAMED[number]
    full, ca = careful
    dbname = f"{prefix}{number}"
    secure.show(secure.authority.issue(name, sans=sans, stem="named"))
    if words:
        assert f"TLS handshake failed: certificate verify failed: {words}" in failure(full, dbname=dbname)
        assert words in full.log
    else:
        assert facts(full, dbname=dbname)[0] is True
    assert facts(ca, dbname=dbname)[0] is True


def test_of_several_hosts_each_is_checked_by_its_own_name(secure, usual):
    secure.show(secure.authority.issue("x", sans="DNS:localhost", stem="named"))
    with a_stand(secure) as stand:
        stand.databases = {"postgres": f"host=127.0.0.1,localhost port={secure.port}"}
        stand.reload()
        assert facts(stand)[0] is True
        assert "IP address mismatch" in stand.log


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda secure: secure.authority.issue("localhost", days="-1", stem="expired"), "certificate has expired"),
        (lambda secure: secure.stranger.issue("localhost"), "unable to get local issuer certificate"),
    ],
)
def test_a_certificate_that_nobody_vouches_for_is_believed_only_where_nobody_asks(secure, usual, make, words):
    secure.show(make(secure))
    for mode in ("verify-ca", "verify-full"):
        with a_stand(secure, mode) as stand:
            assert f"certificate verify failed: {words}" in failure(stand)
    with a_stand(secure, "require") as stand:
        assert facts(stand)[0] is True


def test_a_certificate_of_our_own_is_shown_and_its_name_is_ours(secure):
    ours, other = opened(secure.authority.issue("ann")), opened(secure.authority.issue("bert"))
    files = {"server_tls_cert_file": ours.cert, "server_tls_key_file": ours.key}
    with a_stand(secure, **files) as stand:
        assert facts(stand, "ann")[3] == "/CN=ann"
    files = {"server_tls_cert_file": other.cert, "server_tls_key_file": other.key}
    with a_stand(secure, **files) as stand:
        assert 'certificate authentication failed for user "ann"' in failure(stand, "ann")
    with a_stand(secure) as stand:
        assert "connection requires a valid client certificate" in failure(stand, "ann")


def test_a_certificate_of_our_own_that_postgresql_does_not_believe_is_told_in_its_words(secure):
    ours = opened(secure.stranger.issue("ann"))
    with a_stand(secure, server_tls_cert_file=ours.cert, server_tls_key_file=ours.key) as stand:
        assert "unknown ca" in failure(stand, "ann").lower()


def test_versions_and_ciphers_are_those_of_the_file(secure):
    with a_stand(secure, server_tls_protocols="tlsv1.2", server_tls_ciphers="ECDHE-ECDSA-AES128-GCM-SHA256") as stand:
        assert facts(stand)[:3] == (True, "TLSv1.2", "ECDHE-ECDSA-AES128-GCM-SHA256")


# Direct TLS.


def test_direct_tls_is_tls_from_the_first_byte(secure):
    with Line(secure.port) as relay, a_stand(secure, server_tls_negotiation="direct") as stand:
        stand.databases = {"postgres": f"host=localhost port={relay.port}"}
        stand.reload()
        assert facts(stand)[0] is True
        assert relay.sent[0][:1] == b"\x16"


def test_direct_tls_may_be_for_one_database_alone(secure):
    with Line(secure.port) as relay, a_stand(secure) as stand:
        place = f"host=localhost port={relay.port} dbname=postgres"
        stand.databases = {"one": f"{place} server_tls_negotiation=direct", "other": place}
        stand.reload()
        assert facts(stand, dbname="one")[0] is True
        assert facts(stand, dbname="other")[0] is True
        assert [sent[:1] for sent in relay.sent] == [b"\x16", b"\0"]


def test_direct_tls_where_tls_need_not_be_is_a_mistake(secure):
    with a_stand(secure) as stand:
        stand.settings["server_tls_sslmode"] = "prefer"
        stand.databases["postgres"] += " server_tls_negotiation=direct"
        assert "reload failed" in stand.reload()
        assert "direct needs server_tls_sslmode = require, verify-ca or verify-full" in stand.log
        assert facts(stand)[0] is True


def test_a_server_that_knows_only_the_old_way_is_told_from_one_that_is_down(upstream):
    settings = {"server_tls_sslmode": "require", "server_tls_negotiation": "direct", "server_login_retry": 0.2}
    with Stand(upstream, settings) as stand:
        assert "(direct TLS is for PostgreSQL 17 and later)" in failure(stand)


# Reload.


def pid_of(stand):
    with stand.connect() as connection:
        return connection.execute("select pg_backend_pid()").fetchone()[0]


def test_a_reload_that_changes_nothing_keeps_the_servers_and_one_that_changes_a_file_replaces_them(secure, tmp_path):
    with a_stand(secure) as stand:
        ca = stand.folder / "ca.crt"
        ca.write_bytes(secure.authority.cert.read_bytes())
        stand.settings["server_tls_ca_file"] = ca
        stand.reload()
        before = pid_of(stand)
        stand.reload()
        assert pid_of(stand) == before
        assert "TLS towards servers has changed" not in stand.fresh_log

        ca.write_bytes(ca.read_bytes() + secure.stranger.cert.read_bytes())
        stand.reload()
        assert "TLS towards servers has changed" in stand.fresh_log
        after = pid_of(stand)
        assert after != before

        ca.write_text("this is no certificate")
        assert "reload failed" in stand.reload()
        assert "TLS configuration could not be reloaded, keeping old configuration" in stand.fresh_log
        assert pid_of(stand) == after

        ca.write_bytes(secure.stranger.cert.read_bytes())
        stand.reload()
        assert "certificate verify failed" in failure(stand)
        ca.write_bytes(secure.authority.cert.read_bytes())
        stand.reload()
        assert pid_of(stand) not in (before, after)


def test_a_transaction_ends_where_it_began_whatever_is_reloaded(secure):
    with a_stand(secure) as stand, stand.connect(autocommit=False) as connection:
        first = connection.execute(FACTS).fetchone()
        stand.settings["server_tls_sslmode"] = "disable"
        stand.reload()
        assert connection.execute(FACTS).fetchone() == first
        connection.commit()
        assert connection.execute(FACTS).fetchone() == PLAIN


def test_set_on_the_console_changes_how_new_servers_are_reached(secure):
    with a_stand(secure) as stand:
        assert facts(stand)[0] is True
        with stand.connect("postgres", "pgshuttle") as console:
            console.execute("SET server_tls_sslmode = 'disable'")
        assert facts(stand) == PLAIN


# Cancel, tunnels, and what else ends a connection.


def test_a_cancel_request_travels_encrypted_as_the_query_it_is_for(secure):
    with Line(secure.port) as relay, a_stand(secure) as stand:
        stand.databases = {"postgres": f"host=localhost port={relay.port}"}
        stand.reload()
        with stand.connect() as connection:
            threading.Timer(0.3, connection.cancel_safe).start()
            with pytest.raises(psycopg.errors.QueryCanceled):
                connection.execute("select pg_sleep(30)")
        wait_until(lambda: len(relay.sent) == 2, "the cancel request has come by")
        assert all(sent[:8] == b"\0\0\0\x08\x04\xd2\x16\x2f" and sent[8:9] == b"\x16" for sent in relay.sent)


def count(secure, where):
    with secure.connect() as admin:
        return admin.execute(f"select count(*) from pg_stat_activity where {where}").fetchone()[0]


def test_a_backend_whose_client_has_left_does_not_work_on(secure):
    with a_stand(secure) as stand:
        line = stand.raw()
        line.send(b"Q\0\0\0\x19select pg_sleep(333)\0")
        wait_until(lambda: count(secure, "query like '%pg_sleep(333)' and state = 'active'"), "it sleeps")
        line.close()
        wait_until(lambda: not count(secure, "query like '%pg_sleep(333)' and state = 'active'"), "it has ended", 5)


@pytest.mark.parametrize("kind", ["true", "database"])
def test_a_replication_connection_goes_the_same_way_in(secure, kind):
    with a_stand(secure) as stand, stand.call() as line:
        line.login(COPIER, "postgres", PASSWORD, replication=kind)
        line.ask("IDENTIFY_SYSTEM")
        with secure.connect() as admin:
            ssl_of = "select s.ssl from pg_stat_ssl s join pg_stat_activity a using (pid) where a.backend_type = %s"
            assert admin.execute(ssl_of, ["walsender"]).fetchall() == [(True,)]
        with stand.connect("postgres", "pgshuttle") as console:
            assert shown(console) == ["TLSv1.3/TLS_AES_256_GCM_SHA384"]
    wait_until(lambda: not count(secure, "backend_type = 'walsender'"), "PostgreSQL has hung up", 5)


def test_what_a_tunnel_runs_is_cancelled_when_its_client_is_gone(secure):
    with a_stand(secure) as stand:
        line = stand.call()
        line.login(COPIER, "postgres", PASSWORD, replication="database")
        line.send(b"Q\0\0\0\x19select pg_sleep(444)\0")
        wait_until(lambda: count(secure, "query like '%pg_sleep(444)' and state = 'active'"), "it sleeps")
        line.close()
        wait_until(lambda: not count(secure, "query like '%pg_sleep(444)' and state = 'active'"), "it has ended", 5)


def test_servers_with_tls_stay_behind_at_a_takeover_and_limits_hold(secure):
    stand = a_stand(secure, "verify-full", "max_db_connections=1")
    stand.settings |= {"unix_socket_dir": stand.folder, "pidfile": stand.folder / "pid"}
    stand.folder.chmod(0o777)
    with stand:
        with stand.connect("picky") as connection:
            assert connection.execute(FACTS).fetchone()[0] is True
            before = connection.execute("select pg_backend_pid()").fetchone()
            elder = stand.succeed()
            assert connection.execute(FACTS).fetchone()[0] is True
            wait_until(lambda: connection.execute("select pg_backend_pid()").fetchone() != before, "it has moved")
            assert connection.execute(FACTS).fetchone()[0] is True
        elder.wait(15)
        assert count(secure, "usename = 'picky'") <= 1


def test_much_goes_through_both_ways(secure):
    rows = 60_000
    with a_stand(secure) as stand, stand.connect() as connection, connection.transaction():
        connection.execute("create temp table t (n int, words text) on commit drop")
        with connection.cursor().copy("copy t from stdin") as copy:
            for number in range(rows):
                copy.write_row((number, "x" * 200))
        total = 0
        with connection.cursor().copy("copy t to stdout") as copy:
            for _ in copy:
                total += len(_)
        assert connection.execute("select count(*), sum(n) from t").fetchone() == (rows, rows * (rows - 1) // 2)
        assert total > rows * 200


# SCRAM-SHA-256-PLUS.


@pytest.mark.parametrize("kind", ["EC", "RSA"])
def test_scram_is_bound_to_the_certificate_where_it_can_be(secure, usual, kind):
    secure.show(secure.authority.issue("localhost", sans="DNS:localhost", kind=kind, stem=f"of-{kind}"))
    with a_stand(secure) as stand:
        assert facts(stand)[0] is True


def test_scram_goes_unbound_where_postgresql_offers_what_its_certificate_does_not_allow(secure, usual, tmp_path):
    """It offers the bound one with a signature of Ed25519 too, and then fails, as libpq does: we say that we cannot."""
    authority = Authority(tmp_path, "localhost", "ED25519")
    secure.show(Pair(authority.cert, authority.key))
    with pytest.raises(psycopg.OperationalError):
        secure.connect(sslmode="require", channel_binding="require")
    with a_stand(secure, "prefer") as stand:
        assert facts(stand)[0] is True
    with a_stand(secure, server_tls_ca_file=authority.cert) as stand:
        assert facts(stand)[0] is True


@pytest.mark.parametrize("mode", ["require", "verify-ca"])
def test_somebody_in_between_whose_certificate_allows_no_binding_is_not_spoken_to(secure, mode):
    """With Ed25519 he would not be noticed, as neither side could bind."""
    with certificates() as folder:
        authority = Authority(folder, "localhost", "ED25519")
        own = opened(Pair(authority.cert, authority.key))
        with Between(secure.port, own) as between, a_stand(secure, mode, server_tls_ca_file=own.cert) as stand:
            stand.databases = {"postgres": f"host=localhost port={between.port}"}
            stand.reload()
            assert "SCRAM cannot be bound to the server's certificate" in failure(stand)
            assert b"user\0app\0" in between.heard
            assert b",r=" not in between.heard


def test_somebody_in_between_with_another_certificate_is_found_out_even_where_nobody_checks_it(secure):
    with Between(secure.port, secure.stranger.issue("localhost")) as between, a_stand(secure, "require") as stand:
        stand.databases = {"postgres": f"host=localhost port={between.port}"}
        stand.reload()
        assert "SCRAM channel binding check failed" in failure(stand)
        assert b"SCRAM-SHA-256-PLUS\0" in between.heard


def test_somebody_in_between_who_hides_the_offer_is_found_out(secure):
    with (
        Between(secure.port, secure.stranger.issue("localhost"), hide_plus) as between,
        a_stand(secure, "require") as stand,
    ):
        stand.databases = {"postgres": f"host=localhost port={between.port}"}
        stand.reload()
        assert "SCRAM channel binding negotiation error" in failure(stand)
        assert b"y,,n=" in between.heard
