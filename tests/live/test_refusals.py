"""
Every refusal of ours, provoked from outside: severity, SQLSTATE and words, and that it explains itself.

One row per refusal: what is done, what is heard. The words begin as PgBouncer's where it has the same refusal, since
people look for them; the SQLSTATE is the one that drivers act on; DETAIL and HINT are there where they help.
"""

import signal
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from tests.live.stand import Stand
from tests.live.upstream import PASSWORD
from tests.live.wire import SSL_REQUEST, SYNC, bind, cancel_request, error, message, parse, query, rows, startup

pytestmark = pytest.mark.live

CLOSED_PORT = 1


@pytest.fixture(scope="module", name="stand")
def _stand(upstream):
    databases = {
        "postgres": "",
        "one": "dbname=postgres pool_size=1",
        "statement": "dbname=postgres pool_mode=statement",
        "full": "dbname=postgres max_db_client_connections=1",
        "closed": f"host=127.0.0.1 port={CLOSED_PORT}",
        "gone": "dbname=no_such_database",
        "shut": "dbname=postgres",
        "leaving": "dbname=postgres",
        "session": "dbname=postgres pool_mode=session",
    }
    users = {
        "hasty": "query_timeout=0.3",
        "lingerer": "transaction_timeout=0.3",
        "dreamer": "idle_transaction_timeout=0.3",
        "sleeper": "client_idle_timeout=0.6",
        "impatient": "query_wait_timeout=0.3 pool_size=1",
        "other": "max_user_client_connections=1",
    }
    settings = {"server_login_retry": 5, "server_fast_close": 1, "stats_users": "app"}
    with (
        Stand(upstream, settings, databases=databases, users=users) as stand,
        stand.raw("postgres", "pgbouncer") as console,
    ):
        stand.console = console
        yield stand


# What is done.


def refused(user="app", database="postgres", password=PASSWORD, **parameters):
    """A login that is not let in."""

    def provoke(stand):
        with stand.call() as line:
            return error(line.login(user, database, password, **parameters))

    return provoke


def answered(*texts, user="app", database="postgres"):
    """The answer to the last of these simple queries."""

    def provoke(stand):
        with stand.raw(user, database) as line:
            for text in texts[:-1]:
                line.ask(text)
            line.send(query(texts[-1]))
            return error(line.read_until("ZE"))

    return provoke


def sent(*parts, database="postgres", user="app"):
    """What is heard when that is said after the login."""

    def provoke(stand):
        with stand.raw(user, database) as line:
            line.send(*parts)
            return error(line.read_until("ZE"))

    return provoke


def said_first(*parts):
    """What a stranger hears who says that."""

    def provoke(stand):
        with stand.call() as line:
            line.send(*parts)
            return error(line.read_to_end())

    return provoke


def idled(*texts, user):
    """The last words to somebody who does no more than that."""

    def provoke(stand):
        with stand.raw(user) as line:
            for text in texts:
                line.ask(text)
            return error(line.read_to_end())

    return provoke


@contextmanager
def setting(stand, name, value, back):
    assert not error(stand.console.ask(f"SET {name} = '{value}'"))
    try:
        yield
    finally:
        assert not error(stand.console.ask(f"SET {name} = '{back}'"))


def while_set(name, value, back, provoke):
    def act(stand):
        with setting(stand, name, value, back):
            return provoke(stand)

    return act


def beside(provoke, user="app", database="postgres"):
    """The same while somebody else is connected, in a transaction."""

    def act(stand):
        with stand.raw(user, database) as other:
            other.ask("begin; select 1")
            return provoke(stand)

    return act


def after_command(command, undo=None, user="app", database="shut"):
    """The last words to a client that rests when an operator says that."""

    def provoke(stand):
        with stand.raw(user, database) as line:
            line.ask("select 1")
            assert not error(stand.console.ask(command))
            try:
                return error(line.read_to_end())
            finally:
                if undo:
                    stand.console.ask(undo)

    return provoke


def killed(stand):
    with stand.raw("copier") as line:
        number = next(row[20] for row in rows(stand.console.ask("SHOW CLIENTS")) if row[1] == "copier")
        stand.console.ask(f"KILL_CLIENT {number}")
        return error(line.read_to_end())


def canceled_in_the_queue(stand):
    with stand.raw(database="one") as holder, stand.raw(database="one") as line:
        holder.ask("begin; select 1")
        line.send(query("select 1"))
        stand.wait_pools("one", cl_waiting=1)
        with stand.call() as caller:
            caller.send(cancel_request(line.key))
            caller.read_to_end()
        return error(line.read_until())


def disabled(stand):
    stand.console.ask("DISABLE shut")
    try:
        return refused(database="shut")(stand)
    finally:
        stand.console.ask("ENABLE shut")


def while_paused(provoke):
    def act(stand):
        stand.console.ask("PAUSE one")
        try:
            return provoke(stand)
        finally:
            stand.console.ask("RESUME one")

    return act


def impatient_in_a_pause(stand):
    with stand.raw("impatient", "one") as line:
        line.ask("select 1")
        stand.console.ask("PAUSE one")
        try:
            line.send(query("select 1"))
            return error(line.read_to_end())
        finally:
            stand.console.ask("RESUME one")


def removed_from_the_file(stand):
    with stand.raw(database="leaving") as line:
        entry = stand.databases.pop("leaving")
        stand.reload()
        words = error(line.read_to_end())
    stand.databases["leaving"] = entry
    stand.reload()
    return words


def again(provoke, words):
    """When it is no news any more: between two tries, which come more and more seldom."""

    def act(stand):
        heard = [provoke(stand)]
        while not heard[-1]["M"].startswith(words) and len(heard) < 50:
            heard.append(provoke(stand))
        return heard[-1]

    return act


@dataclass(frozen=True)
class Row:
    """One refusal. `more` are the fields that explain it: D, H, both or none."""

    severity: str
    sqlstate: str
    words: str  # with which the message begins
    more: str
    provoke: Callable[[Stand], dict[str, str]]


REFUSALS = {
    # Logging in.
    "unknown database": Row("FATAL", "3D000", "no such database: nowhere", "H", refused(database="nowhere")),
    "unknown user, trust": Row(
        "FATAL", "28000", '"trust" authentication failed for user "nobody"', "", refused("nobody")
    ),
    "unknown user, any": Row(
        "FATAL", "28000", "bouncer config error", "D", while_set("auth_type", "any", "trust", refused())
    ),
    "wrong password, plain": Row(
        "FATAL", "28P01", 'password authentication failed for user "app"', "",
        while_set("auth_type", "plain", "trust", refused(password="wrong")),
    ),
    "wrong password, md5": Row(
        "FATAL", "28P01", 'password authentication failed for user "app"', "",
        while_set("auth_type", "md5", "trust", refused(password="wrong")),
    ),
    "wrong password, scram": Row(
        "FATAL", "28P01", 'password authentication failed for user "app"', "",
        while_set("auth_type", "scram-sha-256", "trust", refused(password="wrong")),
    ),
    "no user at all": Row("FATAL", "28000", "no PostgreSQL user name specified in startup packet", "", refused("")),
    "disabled database": Row("FATAL", "08004", 'database "shut" is disabled', "DH", disabled),
    "max_client_conn": Row(
        "FATAL", "53300", "no more connections allowed (max_client_conn)", "H",
        beside(while_set("max_client_conn", "1", "1000", refused())),
    ),
    "max_db_client_connections": Row(
        "FATAL", "53300", "client connections exceeded (max_db_client_connections)", "DH",
        beside(refused(database="full"), database="full"),
    ),
    "max_user_client_connections": Row(
        "FATAL", "53300", "client connections exceeded (max_user_client_connections)", "DH",
        beside(refused("other"), user="other"),
    ),
    "unknown parameter": Row(
        "FATAL", "42704", 'unrecognized configuration parameter "no_such"', "", refused(no_such="1")
    ),
    "value PostgreSQL does not take": Row(
        "FATAL", "22023", 'invalid value for parameter "TimeZone": "Nowhere/At_All"', "",
        refused(timezone="Nowhere/At_All"),
    ),
    "options we do not take": Row(
        "FATAL", "0A000", "unsupported startup parameter in options: -B", "", refused(options="-B 3")
    ),
    "protocol 2": Row(
        "FATAL", "0A000", "unsupported frontend protocol 2.0", "", said_first(startup("app", protocol=2 << 16))
    ),
    "bytes behind an SSLRequest": Row(
        "FATAL", "08P01", "received unencrypted data after SSL request", "", said_first(SSL_REQUEST, startup("app"))
    ),
    "client_login_timeout": Row(
        "FATAL", "57014", "client_login_timeout", "D",
        while_set("client_login_timeout", "0.3", "60", said_first(startup("app", "postgres")[:9])),
    ),
    "client_login_timeout in a pause": Row(
        "FATAL", "57P03", "client_login_timeout", "DH",
        while_set("client_login_timeout", "0.3", "60", while_paused(refused("sleeper", database="one"))),
    ),
    # PostgreSQL.
    "nobody listens": Row("FATAL", "08006", "connect failed: ", "", refused(database="closed")),
    "nobody listened a moment ago": Row(
        "FATAL", "08006", "server login has been failing, cached error: connect failed: ", "D",
        again(refused("hasty", database="closed"), "server login has been failing"),
    ),
    "PostgreSQL knows no such database": Row(
        "FATAL", "3D000", 'database "no_such_database" does not exist', "", refused(database="gone")
    ),
    # Waiting and running.
    "query_wait_timeout": Row(
        "FATAL", "53300", "query_wait_timeout", "DH", beside(answered("select 1", user="impatient"), user="impatient")
    ),
    "query_wait_timeout in a pause": Row(
        "FATAL", "57P03", "query_wait_timeout", "DH", impatient_in_a_pause
    ),
    "query_timeout": Row("FATAL", "57014", "query timeout", "DH", answered("select pg_sleep(9)", user="hasty")),
    "query_timeout in the queue": Row(
        "FATAL", "57014", "query_timeout", "DH",
        beside(answered("select 1", user="hasty", database="one"), user="hasty", database="one"),
    ),
    "transaction_timeout": Row(
        "FATAL", "25P04", "transaction timeout", "D", idled("begin; select 1", user="lingerer")
    ),
    "idle_transaction_timeout": Row(
        "FATAL", "25P03", "idle transaction timeout", "D", idled("begin; select 1", user="dreamer")
    ),
    "client_idle_timeout": Row("FATAL", "57P05", "client_idle_timeout", "D", idled("select 1", user="sleeper")),
    "a cancel in the queue": Row(
        "ERROR", "57014", "canceling statement due to user request", "", canceled_in_the_queue
    ),
    # What is said.
    "a transaction in statement mode": Row(
        "FATAL", "0A000", "transaction blocks not allowed in statement pooling mode", "DH",
        answered("begin", database="statement"),
    ),
    "an unknown statement": Row(
        "ERROR", "26000", 'prepared statement "nobody" does not exist', "", sent(bind(statement="nobody"), SYNC)
    ),
    "a statement twice": Row(
        "ERROR", "42P05", 'prepared statement "twin" already exists', "",
        sent(parse("select 1", "twin"), parse("select 1", "twin"), SYNC),
    ),
    "a message of no known type": Row("FATAL", "08P01", "invalid frontend message type 122", "", sent(message("z"))),
    "an absurd length": Row("FATAL", "08P01", "", "", sent(b"Q\xff\xff\xff\xff")),
    # What an operator does.
    "KILL_CLIENT": Row("FATAL", "57P01", "admin forced disconnect", "D", killed),
    "KILL": Row("FATAL", "57P01", "database removed", "D", after_command("KILL shut", "RESUME shut")),
    "server_fast_close": Row(
        "FATAL", "57P01", "database configuration changed", "DH", after_command("RECONNECT session", database="session")
    ),
    "its database leaves the file": Row(
        "FATAL", "57P01", "database removed from the configuration", "", removed_from_the_file
    ),
    # The console.
    "somebody else's console": Row("FATAL", "42501", "not allowed", "H", refused("other", "pgbouncer")),
    "a command for others": Row(
        "ERROR", "42501", "admin access needed", "", answered("PAUSE", database="pgbouncer")
    ),
    "an unknown command": Row(
        "ERROR", "42601", "invalid command 'DANCE', use SHOW HELP;", "", answered("DANCE", database="pgbouncer")
    ),
}  # fmt: skip


def check(row, words):
    more = "".join(key for key in "DH" if words.get(key))
    told = Row(words["S"], words["C"], words["M"][: len(row.words)], more, row.provoke)
    assert told == row


@pytest.mark.parametrize("row", REFUSALS.values(), ids=REFUSALS)
def test_a_refusal_has_its_words_its_sqlstate_and_its_explanation(stand, row):
    check(row, row.provoke(stand))


def test_simple_queries_where_they_are_refused(upstream):
    with Stand(upstream, {"disable_pqexec": 1}) as stand:
        check(Row("FATAL", "0A000", "PQexec disallowed", "DH", answered), answered("select 1")(stand))


def test_a_pooler_that_shuts_down(upstream):
    with Stand(upstream) as stand, stand.raw() as line:
        line.ask("select 1")
        stand.signal(signal.SIGQUIT)
        check(Row("FATAL", "57P01", "pooler is shutting down", "", answered), error(line.read_to_end()))
        stand.wait_end()
