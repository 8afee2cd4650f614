"""
What pgAdmin says when it connects and what its browser and dashboard ask, through a pool of two servers.

Theory. pgAdmin sets parameters in one query of several statements, names itself by application_name, asks who and where
it is, lists databases and tables, and then polls the activity once a second, each tab on a connection of its own. The
statements here are of that kind, written anew; what matters is that several statements come in one query, that what was
set is still set later on whichever server, and that the activity shows the name.
"""

import psycopg
import pytest

from tests.live.stand import Stand

pytestmark = pytest.mark.live

SETTING_UP = (
    "SET DateStyle=ISO; SET client_min_messages=notice;"
    " SELECT set_config('bytea_output', 'hex', false) FROM pg_show_all_settings() WHERE name = 'bytea_output';"
    " SET client_encoding='utf-8';"
)
WHERE = (
    "SELECT db.oid, db.datname, db.datallowconn, pg_encoding_to_char(db.encoding),"
    " has_database_privilege(db.oid, 'CREATE'), db.datistemplate"
    " FROM pg_catalog.pg_database db WHERE db.datname = current_database()"
)
WHO = (
    "SELECT r.oid, r.rolname, r.rolsuper, r.rolcreaterole OR r.rolsuper, r.rolcreatedb OR r.rolsuper"
    " FROM pg_catalog.pg_roles r WHERE r.rolname = current_user"
)
RECOVERING = (
    "SELECT CASE WHEN usesuper THEN pg_is_in_recovery() ELSE false END,"
    " CASE WHEN usesuper AND pg_is_in_recovery() THEN pg_is_wal_replay_paused() ELSE false END"
    " FROM pg_catalog.pg_user WHERE usename = current_user"
)
GSS = "SELECT gss_authenticated, encrypted FROM pg_catalog.pg_stat_gssapi WHERE pid = pg_backend_pid()"
BROWSER = (
    "SELECT nsp.oid, nsp.nspname, has_schema_privilege(nsp.oid, 'USAGE')"
    " FROM pg_catalog.pg_namespace nsp WHERE nsp.nspname NOT LIKE 'pg\\_%' ORDER BY nsp.nspname"
)
DASHBOARD = (
    "/*dashboard*/ SELECT 'session_stats' AS chart, row_to_json(t) AS data FROM (SELECT"
    " (SELECT count(*) FROM pg_catalog.pg_stat_activity) AS total,"
    " (SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE state = 'active') AS active) t"
    " UNION ALL SELECT 'tps_stats', row_to_json(t) FROM (SELECT sum(xact_commit) AS commits"
    " FROM pg_catalog.pg_stat_database WHERE datname = current_database()) t"
)
ACTIVITY = "SELECT pid, datname, application_name FROM pg_catalog.pg_stat_activity WHERE pid = pg_backend_pid()"


@pytest.fixture(name="stand", scope="module")
def _stand(upstream):
    with Stand(upstream, {"auth_type": "scram-sha-256"}, databases={"*": "pool_size=2"}) as stand:
        yield stand


def connect(stand, tab):
    """As pgAdmin does: with TLS if there is any, a time limit, a name."""
    name = f"pgAdmin 4 - {tab}"
    options = stand.options("postgres", password=stand.secrets["postgres"], application_name=name)
    connection = psycopg.connect(**options, sslmode="prefer", connect_timeout=10, autocommit=True)
    connection.execute(SETTING_UP.encode(), prepare=False)
    return connection


def test_a_connection_is_set_up_and_asks_who_and_where_it_is(stand):
    with connect(stand, "DB:postgres") as tab:
        where, who = tab.execute(WHERE).fetchone(), tab.execute(WHO).fetchone()
        assert where is not None
        assert where[1:4] == ("postgres", True, "UTF8")
        assert who is not None
        assert who[1:3] == ("postgres", True)
        assert tab.execute(RECOVERING).fetchone() == (False, False)
        assert tab.execute(GSS).fetchone() == (False, False)
        assert ("public",) in [row[1:2] for row in tab.execute(BROWSER)]


def test_many_tabs_share_two_servers_and_keep_what_they_have_set(stand):
    tabs = [connect(stand, f"CONN:{number}") for number in range(8)]
    for number, tab in enumerate(tabs):
        tab.execute(f"SET statement_timeout = {1000 + number}")
    for _ in range(5):
        for number, tab in enumerate(tabs):
            assert [row[0] for row in tab.execute(DASHBOARD)] == ["session_stats", "tps_stats"]
            row = tab.execute(ACTIVITY).fetchone()
            assert row is not None
            assert row[1:] == ("postgres", f"pgAdmin 4 - CONN:{number}")
            assert tab.execute("SHOW statement_timeout").fetchone() == (f"{1000 + number}ms" if number else "1s",)
            assert tab.execute("SHOW client_min_messages").fetchone() == ("notice",)
    for tab in tabs:
        tab.close()


def test_a_query_tool_runs_a_transaction_is_stopped_and_explains(stand):
    with connect(stand, "CONN:query") as tab, connect(stand, "DB:postgres") as other:
        tab.autocommit = False
        pid = tab.execute("SELECT pg_backend_pid()").fetchone()
        tab.execute("CREATE TEMP TABLE scratch ON COMMIT DROP AS SELECT 1 AS one")
        assert tab.execute("EXPLAIN (FORMAT json) SELECT * FROM scratch").fetchone()
        assert pid is not None
        assert other.execute("SELECT pg_cancel_backend(%s)", pid).fetchone() == (True,)
        tab.rollback()
        assert tab.execute("SELECT 2").fetchone() == (2,)
        tab.rollback()
