"""check_postgres, as monitoring calls it: its ten actions for PgBouncer, unmodified, against our console."""

import re
import subprocess

import pytest

from tests.live.crowd import Crowd
from tests.live.stand import Stand
from tests.live.tools.needed import need_program

pytestmark = pytest.mark.live

OK, WARNING, CRITICAL, UNKNOWN = range(4)


@pytest.fixture(name="stand", scope="module")
def _stand():
    need_program("check_postgres", "check-postgres")
    need_program("psql", "postgresql-client")
    with Crowd() as crowd, Stand(crowd, {"max_client_conn": 100}, databases={"shop": ""}) as stand:
        yield stand


def check(stand: Stand, action: str, *options: str) -> tuple[int, str]:
    """(exit code, what it prints)"""
    program = need_program("check_postgres", "check-postgres")
    where = ("--host=127.0.0.1", f"--port={stand.port}", "--dbuser=postgres")
    done = subprocess.run(
        [program, f"--action={action}", *where, *options], capture_output=True, text=True, check=False, timeout=60
    )
    assert not done.stderr, done.stderr
    return done.returncode, done.stdout


@pytest.mark.parametrize(
    ("action", "wanted"),
    [
        ("pgb_pool_cl_active", "shop=3 "),
        ("pgb_pool_cl_waiting", "shop=0 "),
        ("pgb_pool_sv_active", "shop=0 "),
        ("pgb_pool_sv_idle", "shop=1 "),
        ("pgb_pool_sv_used", "shop=0 "),
        ("pgb_pool_sv_tested", "shop=0 "),
        ("pgb_pool_sv_login", "shop=0 "),
        ("pgb_pool_maxwait", "shop=0 "),
        ("pgbouncer_backends", "4 of 100 connections (4%)"),
    ],
)
def test_each_action_reads_its_number(stand, action, wanted):
    lines = [stand.raw(database="shop") for _ in range(3)]
    for line in lines:
        line.ask("select 1")
    code, text = check(stand, action, "--warning=50", "--critical=90")
    assert (code, wanted in text) == (OK, True), text
    for line in lines:
        line.leave()


def test_a_limit_that_is_exceeded_is_critical(stand):
    with stand.raw(database="shop") as one, stand.raw(database="shop") as two:
        one.ask("select 1")
        two.ask("select 1")
        assert check(stand, "pgb_pool_cl_active", "--warning=1", "--critical=2")[0] == CRITICAL
        assert check(stand, "pgb_pool_cl_active", "--warning=2", "--critical=5")[0] == WARNING
        assert check(stand, "pgbouncer_backends", "--warning=1%", "--critical=2%")[0] == CRITICAL


def test_the_checksum_of_the_settings_changes_when_they_do(stand):
    code, text = check(stand, "pgbouncer_checksum", "--critical=0")
    found = re.search(r"checksum: ([0-9a-f]{32})", text)
    assert code == UNKNOWN, "as the manual says"
    assert found, text
    assert check(stand, "pgbouncer_checksum", f"--critical={found[1]}")[0] == OK
    stand.settings["query_timeout"] = 77
    stand.reload()
    assert check(stand, "pgbouncer_checksum", f"--critical={found[1]}")[0] == CRITICAL
