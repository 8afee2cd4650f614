"""SCRAM bound to our certificate, with real clients: libpq's channel_binding, and somebody in between."""

import asyncio
import shutil
import subprocess

import asyncpg
import psycopg
import pytest

from tests.certificates import Authority, Pair
from tests.live.between import Between, hide_plus
from tests.live.stand import Stand
from tests.live.tls import certificates, opened, settings_of
from tests.live.upstream import PASSWORD
from tests.live.wire import scram_secret

pytestmark = pytest.mark.live


@pytest.fixture(scope="module", name="authority")
def _authority():
    with certificates() as folder:
        yield Authority(folder)


@pytest.fixture(scope="module", name="pair")
def _pair(authority):
    return opened(authority.issue("pooler", sans="DNS:localhost,IP:127.0.0.1"))


@pytest.fixture(scope="module", name="stand")
def _stand(upstream, pair):
    with Stand(upstream, {"auth_type": "scram-sha-256", **settings_of(pair, mode="allow")}) as stand:
        yield stand


def answer(stand, **options):
    with stand.connect(**options) as connection:
        return connection.execute("select 1").fetchone()


@pytest.mark.parametrize("binding", ["disable", "prefer", "require"])
def test_libpq_binds_as_it_is_told(stand, binding):
    assert answer(stand, sslmode="require", channel_binding=binding) == (1,)


def test_without_tls_nothing_can_be_bound(stand):
    assert answer(stand, sslmode="disable", channel_binding="prefer") == (1,)
    with pytest.raises(psycopg.OperationalError, match="channel binding"):
        answer(stand, sslmode="disable", channel_binding="require")


@pytest.mark.parametrize("binding", ["prefer", "require"])
def test_a_wrong_password_stays_one(stand, binding):
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        answer(stand, sslmode="require", channel_binding=binding, password="wrong")


@pytest.mark.skipif(psycopg.pq.version() < 170000, reason="this libpq is too old for direct TLS")
def test_it_works_over_direct_tls_too(stand):
    assert answer(stand, sslmode="require", sslnegotiation="direct", channel_binding="require") == (1,)


@pytest.mark.parametrize("auth_type", ["md5", "scram-sha-256"])
def test_a_stored_verifier_is_as_good_as_a_password(upstream, pair, auth_type):
    """Under md5 too: whose secret is a verifier meets SCRAM there."""
    secrets = upstream.secrets | {"app": scram_secret(PASSWORD)}
    entry = f"host={upstream.host} port={upstream.port} user=other password='{PASSWORD.replace(chr(39), chr(39) * 2)}'"
    settings = {"auth_type": auth_type, **settings_of(pair)}
    with Stand(upstream, settings, secrets=secrets, databases={"postgres": entry}) as stand:
        assert answer(stand, sslmode="require", channel_binding="require") == (1,)


def test_another_driver_that_does_not_bind_is_let_in(stand):
    async def ask():
        connection = await asyncpg.connect(
            host="127.0.0.1", port=stand.port, user="app", password=PASSWORD, database="postgres", ssl="require"
        )
        try:
            return await connection.fetchval("select 1")
        finally:
            await connection.close()

    assert asyncio.run(ask()) == 1


@pytest.mark.skipif(shutil.which("psql") is None, reason="psql is not installed")
def test_psql_binds(stand):
    where = f"host=127.0.0.1 port={stand.port} user=app dbname=postgres sslmode=require channel_binding=require"
    environment = {"PATH": "/usr/bin:/bin", "PGPASSWORD": PASSWORD}
    done = subprocess.run(
        ["psql", "-X", "-At", where, "-c", "select 1"], capture_output=True, text=True, check=False, env=environment
    )
    assert (done.stdout, done.stderr) == ("1\n", "")


# Somebody in between, whose certificate a careless client takes.


@pytest.mark.parametrize("binding", ["prefer", "require"])
def test_a_client_that_sees_another_certificate_is_refused_and_told_why(stand, authority, binding):
    with Between(stand.port, authority.issue("between")) as between:
        with pytest.raises(psycopg.OperationalError, match="SCRAM channel binding check failed"):
            answer(stand, port=between.port, sslmode="require", channel_binding=binding)
        assert b"SCRAM-SHA-256-PLUS\0" in between.heard
        assert answer(stand, port=between.port, sslmode="require", channel_binding="disable") == (1,), "who wants it so"


def test_a_client_from_whom_the_offer_is_hidden_is_refused_and_told_why(stand, authority):
    with Between(stand.port, authority.issue("between"), hide_plus) as between:
        with pytest.raises(psycopg.OperationalError, match="SCRAM channel binding negotiation error"):
            answer(stand, port=between.port, sslmode="require", channel_binding="prefer")
        assert b"y,,n=" in between.heard


# Other certificates.


def test_after_a_reload_it_is_the_new_certificate_that_counts(upstream, authority, pair):
    with Stand(upstream, {"auth_type": "scram-sha-256", **settings_of(pair)}) as stand:
        assert answer(stand, sslmode="require", channel_binding="require") == (1,)
        stand.settings |= settings_of(opened(authority.issue("renewed", kind="RSA")))
        stand.reload()
        assert answer(stand, sslmode="require", channel_binding="require") == (1,)


def test_a_certificate_to_which_nothing_can_be_bound_offers_only_the_plain_mechanism(upstream):
    """PostgreSQL offers both with a signature of Ed25519, and then nobody of libpq gets in."""
    with certificates() as folder:
        own = Authority(folder, "itself", "ED25519")
        settings = {"auth_type": "scram-sha-256", **settings_of(opened(Pair(own.cert, own.key)))}
        with Stand(upstream, settings) as stand:
            assert answer(stand, sslmode="require", channel_binding="prefer") == (1,)
            with pytest.raises(psycopg.OperationalError, match="channel binding"):
                answer(stand, sslmode="require", channel_binding="require")
