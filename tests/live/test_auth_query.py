"""Users that only PostgreSQL knows: found by auth_query, let in by what it says now, and nobody learns who exists."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import asyncpg
import psycopg
import pytest

from tests.live.stand import Stand, wait_until
from tests.live.upstream import PASSWORD
from tests.live.wire import error, kinds, message, sqlstate, startup

pytestmark = pytest.mark.live

GUARD = "guard"
ASKING = ("scram-sha-256", "md5", "plain")
SEEN = "pg_catalog.pg_stat_activity WHERE usename = 'guard'"
COUNTED = "SELECT * FROM counting.find($1)"


@pytest.fixture(scope="module", autouse=True)
def _guard(upstream):
    """auth_user, who may read secrets; and a function that counts how often it is asked."""
    with upstream.connect() as admin:
        admin.execute(f"CREATE ROLE {GUARD} LOGIN PASSWORD 'halt'")
        admin.execute(f"GRANT SELECT ON pg_authid TO {GUARD}")
        admin.execute("CREATE SCHEMA counting; CREATE SEQUENCE counting.asked")
        admin.execute(
            "CREATE FUNCTION counting.find(who text, OUT name text, OUT secret text) LANGUAGE sql SECURITY DEFINER AS"
            " 'SELECT rolname, rolpassword FROM pg_authid WHERE rolname = who AND nextval(''counting.asked'') > 0'"
        )
        admin.execute(f"GRANT USAGE ON SCHEMA counting TO {GUARD}; GRANT USAGE ON SEQUENCE counting.asked TO {GUARD}")
    yield
    with upstream.connect() as admin:
        admin.execute("DROP SCHEMA counting CASCADE")
        admin.execute(f"DROP OWNED BY {GUARD}; DROP ROLE {GUARD}")


@pytest.fixture
def role(admin):
    """Roles made on the way, by name; they are gone afterwards."""
    made = []

    def make(name, password="first", more=""):
        admin.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{password}' {more}")
        made.append(name)
        return name

    yield make
    for name in made:
        admin.execute(f"DROP ROLE IF EXISTS {name}")


def a_stand(upstream, auth_type="scram-sha-256", *, secrets=None, databases=None, **settings):
    """A proxy that knows nobody but the guard."""
    patient = {"server_login_retry": 1, "auth_failure_delay": 0}  # many fail here, all from one address
    settings = {"auth_type": auth_type, "auth_user": GUARD, **patient, **settings}
    return Stand(upstream, settings, databases=databases, secrets={GUARD: "halt", **(secrets or {})})


@pytest.fixture
def hashed(admin, role):
    """A role with an md5, for which PostgreSQL asks for md5."""
    (path,) = admin.execute("SHOW hba_file").fetchone()
    admin.execute(f"COPY (SELECT 1) TO PROGRAM 'sed -i \"1i host all hashed all md5\" {path}'")
    admin.execute("SELECT pg_reload_conf()")
    admin.execute("SET password_encryption = md5")
    yield role("hashed")
    admin.execute(f"COPY (SELECT 1) TO PROGRAM 'sed -i 1d {path}'")
    admin.execute("SELECT pg_reload_conf()")


def count(admin):
    """How often counting.find was asked since the last count."""
    row = admin.execute("SELECT last_value, is_called FROM counting.asked").fetchone()
    admin.execute("SELECT setval('counting.asked', 1, false)")
    return row[0] if row[1] else 0


def who_am_i(stand, user, password="first", database="postgres"):
    with stand.connect(user, database, password=password) as client:
        return client.execute("SELECT session_user").fetchone()[0]


@pytest.mark.parametrize("auth_type", ASKING)
def test_a_user_of_no_file_logs_in_here_and_there(upstream, role, auth_type):
    role("ann")
    with a_stand(upstream, auth_type) as stand:
        assert who_am_i(stand, "ann") == "ann"
        with pytest.raises(psycopg.OperationalError, match='password authentication failed for user "ann"'):
            who_am_i(stand, "ann", "other")
        assert "first" not in stand.log
        assert "SCRAM-SHA-256$" not in stand.log


@pytest.mark.parametrize("auth_type", ["md5", "plain"])
def test_an_md5_that_was_found_is_good_for_servers_that_ask_for_md5(upstream, hashed, auth_type):
    with a_stand(upstream, auth_type) as stand:
        assert who_am_i(stand, hashed) == hashed
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            who_am_i(stand, hashed, "other")


def test_asyncpg_logs_in(upstream, role):
    role("ann")

    async def ask(port):
        client = await asyncpg.connect(
            host="127.0.0.1", port=port, user="ann", database="postgres", password="first", statement_cache_size=0
        )
        try:
            return await client.fetchval("SELECT session_user::text")
        finally:
            await client.close()

    with a_stand(upstream) as stand:
        assert asyncio.run(ask(stand.port)) == "ann"


@pytest.mark.parametrize("auth_type", ASKING)
def test_whoever_is_in_the_file_is_not_asked_for(upstream, admin, role, auth_type):
    role("ann")
    count(admin)
    with a_stand(upstream, auth_type, secrets={"ann": "first"}, auth_query=COUNTED) as stand:
        assert who_am_i(stand, "ann") == "ann"
        assert count(admin) == 0


@pytest.mark.parametrize("auth_type", ["md5", "plain"])
def test_a_rotated_password_works_at_once(upstream, admin, role, auth_type):
    role("ann")
    with a_stand(upstream, auth_type, auth_query_ttl=600) as stand:
        assert who_am_i(stand, "ann") == "ann"
        time.sleep(1.1)  # a wrong password is no reason to ask again within a second
        admin.execute("SET password_encryption = 'md5'" if auth_type == "md5" else "SELECT 1")
        admin.execute("ALTER ROLE ann PASSWORD 'second'")
        if auth_type == "md5":  # it was asked by SCRAM, as the old secret was
            with pytest.raises(psycopg.OperationalError):
                who_am_i(stand, "ann", "second")
        assert who_am_i(stand, "ann", "second") == "ann"
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            who_am_i(stand, "ann", "first")


def test_under_scram_a_rotated_password_works_at_the_second_try_at_the_latest(upstream, admin, role):
    role("ann")
    with a_stand(upstream, auth_query_ttl=600) as stand:
        for word, before in (("second", "first"), ("third", "second")):
            assert who_am_i(stand, "ann", before) == "ann"
            time.sleep(1.1)
            admin.execute(f"ALTER ROLE ann PASSWORD '{word}'")
            with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
                who_am_i(stand, "ann", word)
            assert who_am_i(stand, "ann", word) == "ann"
            with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
                who_am_i(stand, "ann", before)
            admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'ann'")
            wait_until(lambda: not admin.execute("SELECT FROM pg_stat_activity WHERE usename='ann'").fetchall(), "gone")
            assert who_am_i(stand, "ann", word) == "ann"  # on a server opened with the new key


def test_valid_until_passes(upstream, admin, role):
    role("ann")
    admin.execute("ALTER ROLE ann VALID UNTIL 'tomorrow'")
    with a_stand(upstream, auth_query_ttl=0) as stand:
        assert who_am_i(stand, "ann") == "ann"
        admin.execute("ALTER ROLE ann VALID UNTIL 'yesterday'")
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            who_am_i(stand, "ann")
        admin.execute("ALTER ROLE ann NOLOGIN VALID UNTIL 'infinity'")
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            who_am_i(stand, "ann")
        admin.execute("ALTER ROLE ann LOGIN")
        assert who_am_i(stand, "ann") == "ann"


@pytest.mark.parametrize("auth_type", ASKING)
def test_an_unknown_user_hears_what_a_wrong_password_hears(upstream, role, auth_type):
    role("ann")

    def outline(stand, user):
        with stand.call() as line:
            messages = line.login(user, "postgres", "wrong")
            said = error(messages)
            return kinds(messages), sqlstate(messages), said["M"].replace(user, "X"), said.get("D"), said.get("H")

    with a_stand(upstream, auth_type) as stand:
        known = outline(stand, "ann")
        assert known[1:3] == ("28P01", 'password authentication failed for user "X"')
        assert outline(stand, "nobody-of-that-name") == known
        assert outline(stand, "x" * 63) == known
        assert outline(stand, "' OR true --") == known


def test_a_name_that_is_no_text_is_nobody(upstream):
    with a_stand(upstream, "plain") as stand, stand.call() as line:
        line.send(startup("a__", "postgres").replace(b"a__", b"a\xff\xfe"))
        assert line.read()[0] == "R"
        line.send(message("p", b"first\0"))
        assert sqlstate(line.read_to_end()) == "28P01"


def test_a_storm_of_logins_is_one_question(upstream, admin, role):
    role("ann")
    count(admin)
    with a_stand(upstream, auth_query=COUNTED, auth_query_ttl=60, max_client_conn=2000) as stand:
        with ThreadPoolExecutor(50) as threads:
            assert set(threads.map(lambda _: who_am_i(stand, "ann"), range(500))) == {"ann"}
        assert count(admin) == 1


def test_a_flood_of_made_up_names_leaves_those_in_who_are_known(upstream, admin, role):
    role("ann")
    slow = "SELECT rolname, rolpassword FROM pg_authid, pg_sleep(0.02) WHERE rolname = $1"
    with a_stand(upstream, auth_query=slow, auth_query_ttl=0) as stand:

        def knock(number):
            with stand.call() as line:
                return sqlstate(line.login(f"nobody{number}", "postgres", "x"))

        who_am_i(stand, "ann")
        with ThreadPoolExecutor(20) as threads:
            flood = threads.map(knock, range(200))
            began = time.monotonic()
            assert who_am_i(stand, "ann") == "ann"
            assert time.monotonic() - began < 1.5  # behind 20 of the flood it would be four times as long
            assert set(flood) == {"28P01"}
        assert admin.execute(f"SELECT count(*) FROM {SEEN}").fetchone()[0] <= 4


def test_what_a_client_says_at_startup_reaches_no_auth_query(upstream, admin, role):
    """CVE-2025-12819: who names a schema of his own in search_path must not choose where secrets are read."""
    role("mallory")
    admin.execute("CREATE ROLE victim LOGIN PASSWORD 'unknown to mallory'")
    admin.execute("CREATE SCHEMA evil AUTHORIZATION mallory; GRANT USAGE ON SCHEMA evil TO public")
    admin.execute(
        "CREATE TABLE evil.pg_authid AS SELECT rolname, rolcanlogin, rolvaliduntil,"
        " (SELECT rolpassword FROM pg_authid WHERE rolname = 'mallory') AS rolpassword FROM pg_authid"
    )
    admin.execute("GRANT SELECT ON evil.pg_authid TO public")
    path = "evil, pg_catalog"
    forced = {"postgres": f"user=app password='{PASSWORD.replace(chr(39), chr(39) * 2)}'"}
    try:
        for more in ({}, {"track_extra_parameters": "search_path"}):
            with a_stand(upstream, "plain", databases=forced, **more) as stand:
                for said in ({"search_path": path}, {"options": f"-c search_path={path.replace(' ', '')}"}):
                    assert asks_in_vain(stand, "victim", "first", **said)
                    with stand.call() as line:
                        line.login("mallory", "postgres", "first", **said)
                        assert line.value("SHOW search_path").replace(" ", "") == path.replace(" ", "")
                    assert asks_in_vain(stand, "victim", "first", **said)
                seen = admin.execute(f"SELECT application_name FROM {SEEN}").fetchall()
                assert seen == [("",)]
        admin.execute("ALTER TABLE evil.pg_authid RENAME TO authids")
        query = "SELECT rolname, rolpassword FROM authids WHERE rolname = $1"
        admin.execute(f"ALTER ROLE {GUARD} SET search_path = {path}")  # if it did reach it, he would be in
        with a_stand(upstream, "plain", databases=forced, auth_query=query) as stand:
            assert not asks_in_vain(stand, "victim", "first")
    finally:
        admin.execute(f"ALTER ROLE {GUARD} RESET search_path")
        admin.execute("DROP SCHEMA evil CASCADE; DROP ROLE victim")


@pytest.mark.parametrize("path", ["evil", "evil, pg_catalog", "''"])
def test_the_owner_of_a_database_does_not_choose_which_pg_authid_is_read(upstream, admin, role, path):
    """ALTER DATABASE says where names are looked for first, and his function would run with the rights of auth_user."""
    role("ann")
    admin.execute("CREATE DATABASE rented OWNER app")
    try:
        with upstream.connect(dbname="rented") as there, upstream.connect("app", "rented") as owner:
            there.execute(f"GRANT SELECT ON pg_catalog.pg_authid TO {GUARD}")
            owner.execute("CREATE SCHEMA evil; CREATE TABLE evil.ran (as_whom name)")
            owner.execute("GRANT ALL ON SCHEMA evil TO public; GRANT ALL ON ALL TABLES IN SCHEMA evil TO public")
            owner.execute(
                "CREATE FUNCTION evil.run() RETURNS text LANGUAGE sql AS"
                " 'INSERT INTO evil.ran VALUES (current_user); SELECT ''mine''::text'"
            )
            owner.execute(
                "CREATE VIEW evil.pg_authid AS SELECT 'ann'::name AS rolname, evil.run() AS rolpassword,"
                " NULL::timestamptz AS rolvaliduntil, true AS rolcanlogin; GRANT SELECT ON evil.pg_authid TO public"
            )
            owner.execute(f"ALTER DATABASE rented SET search_path = {path}")
            entry = f"host={upstream.host} port={upstream.port}"
            with a_stand(upstream, "plain", databases={"rented": entry}) as stand:
                with stand.call() as line:
                    assert sqlstate(line.login("ann", "rented", "mine")) == "28P01"
                assert who_am_i(stand, "ann", database="rented") == "ann"
            assert owner.execute("SELECT * FROM evil.ran").fetchall() == []
    finally:
        admin.execute("DROP DATABASE rented WITH (FORCE)")


def asks_in_vain(stand, user, password, **said):
    with stand.call() as line:
        return sqlstate(line.login(user, "postgres", password, **said)) == "28P01"


def test_what_a_client_does_as_auth_user_reaches_no_auth_query(upstream, admin, role):
    role("ann")
    with a_stand(upstream, "plain", pool_mode="session") as stand, stand.connect(GUARD, password="halt") as guard:
        guard.execute("SET search_path = pg_temp, pg_catalog")
        guard.execute("CREATE TEMP TABLE pg_authid AS SELECT * FROM pg_catalog.pg_authid")
        guard.execute("UPDATE pg_temp.pg_authid SET rolpassword = 'mine'")
        assert asks_in_vain(stand, "ann", "mine")
        assert who_am_i(stand, "ann") == "ann"


WRONG = {
    "SELECT 1": "error response from auth_query",  # no $1
    "SELECT rolname, 1 FROM pg_authid WHERE rolname = $1": "unexpected response from auth_query",
    "SELECT rolname, rolpassword, 'x' FROM pg_authid WHERE rolname = $1": "unexpected response from auth_query",
    "SELECT rolname, rolpassword FROM nowhere WHERE rolname = $1": "error response from auth_query",
    "SELECT $1, rolpassword FROM pg_authid": "password authentication failed",  # many rows
    "SELECT upper(rolname), rolpassword FROM pg_authid WHERE rolname = $1": "password authentication failed",
    "SELECT rolname, rolpassword::int::text FROM pg_authid WHERE rolname = $1": "error response from auth_query",
    "SET work_mem = 100": "error response from auth_query",
    "SELECT rolname, 'SCRAM-SHA-256$x' FROM pg_authid WHERE rolname = $1": "password authentication failed",
}


@pytest.mark.parametrize("query", WRONG)
def test_a_query_that_is_wrong_is_told_to_the_log_and_in_general_words_to_the_client(upstream, role, query):
    role("ann")
    with a_stand(upstream, auth_query=query) as stand:
        with pytest.raises(psycopg.OperationalError, match=WRONG[query]):
            who_am_i(stand, "ann")
        line = stand.wait_log('WARNING auth_query as "guard" in database "postgres", asked for user "ann": ')
        assert "SCRAM-SHA-256$" not in stand.log, line


def test_a_query_that_hangs_is_bounded(upstream, admin, role):
    role("ann")
    query = "SELECT rolname, rolpassword FROM pg_authid, pg_sleep(60) WHERE rolname = $1"
    with a_stand(upstream, auth_query=query, client_login_timeout=1) as stand:
        with pytest.raises(psycopg.OperationalError, match="client_login_timeout"):
            who_am_i(stand, "ann")
        asleep = f"SELECT FROM {SEEN} AND state = 'active'"
        wait_until(lambda: not admin.execute(asleep).fetchall(), "the query is cancelled", 15)


def test_a_server_that_is_down_is_said_to_be_down(upstream, role):
    role("ann")
    down = {"postgres": "host=127.0.0.1 port=1"}
    words = "auth_query cannot be run: there is no connection to the server"
    with a_stand(upstream, databases=down) as stand, pytest.raises(psycopg.OperationalError, match=words):
        who_am_i(stand, "ann")


def test_that_auth_user_cannot_log_in_is_not_told_to_strangers(upstream, role):
    role("ann")
    with a_stand(upstream, secrets={GUARD: "wrong"}) as stand:
        with pytest.raises(psycopg.OperationalError, match="bouncer config error"):
            who_am_i(stand, "ann")
        stand.wait_log('auth_query as "guard" in database "postgres" cannot log in: ')


def test_who_mistypes_the_database_sees_a_wrong_password_and_the_log_says_which_it_is(upstream, role):
    """Each time, also where the answer is remembered."""
    role("ann")
    words = r'pooler error: password authentication failed for user "ann": database "shpo" does not exist$'
    with a_stand(upstream) as stand:
        for _ in range(2):
            stand.mark()
            with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
                who_am_i(stand, "ann", database="shpo")
            stand.wait_log(words)


def test_secrets_may_be_kept_in_another_database(upstream, admin, role):
    role("ann")
    place = f"host={upstream.host} port={upstream.port}"
    databases = {"shop": f"{place} dbname=postgres", "vault": f"{place} dbname=postgres"}
    with a_stand(upstream, databases=databases, auth_dbname="vault", admin_users="ann") as stand:
        with stand.connect("ann", "shop", password="first") as client:
            assert client.execute("SELECT session_user").fetchone() == ("ann",)
            with stand.connect("ann", "pgbouncer", password="first") as console:
                pools = console.execute("SHOW POOLS").fetchall()
                assert {row[:2] for row in pools} == {
                    ("shop", "ann"),
                    ("vault", GUARD),
                    ("pgbouncer", "pgbouncer"),
                }
                users = {row[0] for row in console.execute("SHOW USERS").fetchall()}
                assert {"ann", GUARD, "pgbouncer"} <= users
        stand.settings["auth_dbname"] = "nowhere"
        stand.reload()
        with pytest.raises(psycopg.OperationalError, match="bouncer config error"):
            stand.connect("ann", "shop", password="first")
        stand.wait_log('authentication database "nowhere" is not configured')


def test_a_database_may_have_a_query_of_its_own(upstream, admin, role):
    role("ann")
    place = f"host={upstream.host} port={upstream.port} dbname=postgres"
    own = "auth_query='SELECT ''first''::text WHERE $1 = ''ann'''"
    databases = {"one": f"{place} {own} user=app password='{PASSWORD.replace(chr(39), chr(39) * 2)}'", "two": place}
    with a_stand(upstream, databases=databases, auth_user="", auth_type="plain") as stand:
        assert asks_in_vain(stand, "ann", "first")
        stand.databases["one"] += f" auth_user={GUARD}"
        stand.reload()
        with stand.connect("ann", "one", password="first") as client:
            assert client.execute("SELECT session_user").fetchone() == ("app",)
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            stand.connect("ann", "two", password="first")


def test_a_database_that_only_the_star_knows_and_postgresql_does_not_has_no_users(upstream, role):
    role("ann")
    with a_stand(upstream) as stand, stand.call() as line:
        assert sqlstate(line.login("ann", "made-up", "first")) == "28P01"


def test_the_pool_of_the_guard_is_bounded_with_all_others(upstream, admin, role):
    """The last place of a database is given up to who asks for a secret, and given back."""
    role("ann")
    with a_stand(upstream, max_db_connections=1, auth_query_ttl=0) as stand:
        for _ in range(3):
            assert who_am_i(stand, "ann") == "ann"
        assert (
            admin.execute("SELECT count(*) FROM pg_stat_activity WHERE usename IN ('ann','guard')").fetchone()[0] == 1
        )


def test_a_reload_forgets_what_was_found(upstream, admin, role):
    role("ann")
    count(admin)
    with a_stand(upstream, auth_query=COUNTED, auth_query_ttl=600) as stand:
        for _ in range(3):
            who_am_i(stand, "ann")
        assert count(admin) == 1
        stand.reload()
        who_am_i(stand, "ann")
        assert count(admin) == 1


def test_under_trust_a_user_must_exist_each_time(upstream, admin, hashed):
    with a_stand(upstream, "trust", auth_query_ttl=0) as stand:
        for _ in range(2):
            assert who_am_i(stand, hashed) == hashed
        with pytest.raises(psycopg.OperationalError, match='"trust" authentication failed'):
            who_am_i(stand, "nobody-of-that-name")
        admin.execute("ALTER ROLE hashed NOLOGIN")
        with pytest.raises(psycopg.OperationalError, match='"trust" authentication failed'):
            who_am_i(stand, hashed)


def test_rules_of_an_hba_file_are_about_those_who_were_found_too(upstream, role, tmp_path):
    role("ann")
    rules = tmp_path / "hba.conf"
    rules.write_text("host all bob all trust\nhost all all all scram-sha-256\n")
    for each in (tmp_path, *tmp_path.parents[:2]):
        each.chmod(0o755)
    with a_stand(upstream, "hba", auth_hba_file=rules) as stand:
        assert who_am_i(stand, "ann") == "ann"
        assert asks_in_vain(stand, "ann", "other")
        assert asks_in_vain(stand, "nobody-of-that-name", "other")
        with pytest.raises(psycopg.OperationalError, match='"trust" authentication failed'):
            who_am_i(stand, "bob")


def test_another_message_than_a_proof_is_still_refused(upstream, role):
    role("ann")
    with a_stand(upstream) as stand, stand.call() as line:
        line.send(startup("ann", "postgres"))
        assert line.read()[0] == "R"
        line.send(message("Q", b"SELECT 1\0"))
        assert sqlstate(line.read_to_end()) == "08P01"
