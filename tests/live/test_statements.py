"""SHOW STATEMENTS and SHOW LINES in front of a real PostgreSQL: what is asked, who waits for it, and no value."""

import psycopg
import pytest

from tests.live.stand import Stand, wait_until
from tests.live.together import READ_GATE, Shut, build_gate, earn_trust, send_together
from tests.live.wire import query

pytestmark = pytest.mark.live

SECRET = "zzgeheim"


@pytest.fixture(scope="module", name="stand")
def _stand(upstream):
    databases = {
        "tracked": "dbname=postgres pool_size=2",
        "session": "dbname=postgres pool_mode=session",
        "lines": "dbname=postgres pool_size=2 pipeline_depth=16 pipeline_servers=1",
    }
    with Stand(upstream, {"track_statements": 1}, databases=databases) as stand:
        yield stand


def show(stand, command):
    """The rows, as dicts."""
    with stand.connect("postgres", "pgbouncer", autocommit=True, row_factory=psycopg.rows.dict_row) as console:
        return console.execute(command).fetchall()


def figures(stand, database):
    """By statement: calls and errors."""
    return {row["statement"]: (row["calls"], row["errors"]) for row in show(stand, f"show statements {database}")}


@pytest.mark.parametrize("database", ["tracked", "session"])
def test_whatever_a_driver_says_is_counted_and_none_of_its_values_shown(stand, database):
    table = f"paid_{database}"
    with stand.connect("postgres", "pgbouncer", autocommit=True) as console:
        console.execute("reset statements")
    with stand.connect(dbname=database, autocommit=True) as one:
        one.execute(f'create table if not exists {table} (a int, "B" text)')
        for number in range(3):
            one.execute(f"insert into {table} values (%s, %s)", (number, SECRET))
            one.execute(f"""select "B" from {table} where "B" = '{SECRET}' /* {SECRET}{number} */""")
        for number in range(8):
            one.execute(f"select a from {table} where a = %s", (number,), prepare=True)
        with pytest.raises(psycopg.errors.SyntaxError):
            one.execute(f"alter user app password {SECRET}")
        with pytest.raises(psycopg.errors.DivisionByZero):
            one.execute(f"select 1 / a from {table} where a = 0")
        with one.transaction():
            one.execute(f"update {table} set a = a + 1 where a > %s", (7,))
        with one.pipeline():
            for number in range(4):
                one.execute(f"select a, a from {table} where a = %s", (number,))
        one.execute(f"drop table {table}")
    found = figures(stand, database)
    assert SECRET not in str(found)
    name = f"paid_{database}"
    assert found[f"insert into {name} values (?)"] == (3, 0)
    assert found[f'select "B" from {name} where "B" = ?'] == (3, 0)
    assert found[f"select a from {name} where a = ?"] == (8, 0)
    assert found[f"update {name} set a = a + ? where a > ?"] == (1, 0)
    assert found[f"select a, a from {name} where a = ?"][0] == 4
    assert found["<none that went well>"] == (0, 2)


def test_time_is_the_servers_and_waiting_the_clients(stand):
    with stand.connect(dbname="tracked", autocommit=True) as one:
        one.execute("select pg_sleep(0.2)")
        one.execute("select pg_sleep(0.1)")
    (row,) = [row for row in show(stand, "show statements tracked") if row["statement"] == "select pg_sleep(?)"]
    assert 290_000 <= row["total_time"] <= 2_000_000
    assert 145_000 <= row["mean_time"] <= 1_000_000
    assert row["p99_time"] >= 195_000
    assert row["wait_time"] < 200_000
    assert (row["shared"], row["why_not"]) == ("no", "lines are off")


def test_a_line_behind_a_lock_is_seen_on_the_console(stand, upstream):
    with upstream.connect(autocommit=True) as admin:
        build_gate(admin)
        clients = [stand.raw(database="lines") for _ in range(4)]
        earn_trust(stand, clients, READ_GATE.format(0))
        with Shut(admin):
            send_together(stand, clients, [query(READ_GATE.format(number)) for number in range(4)])
            wait_until(lambda: len(show(stand, "show lines lines")) > 1 and find_head(stand), "a head that waits")
            head = find_head(stand)
            ids = {row["id"] for row in show(stand, "show clients lines")}
            assert head["client_id"] in ids
            assert head["server_pid"] in {row["remote_pid"] for row in show(stand, "show servers lines")}
            (pool,) = show(stand, "show pools lines")
            assert pool["cl_active"] + pool["cl_waiting"] == 4
            holders = [row for row in show(stand, "show holders") if row["database"] == "lines"]
            assert {row["state"] for row in holders} == {"active"}
        for client in clients:
            client.read_until()
            client.leave()
    assert any(row["statement"].startswith("select ?, is_open") for row in show(stand, "show statements lines"))


def find_head(stand):
    """The line whose head has run for long."""
    found = [row for row in show(stand, "show lines lines") if row["depth"] and row["age"] > 0.05]
    return found[0] if found else None
