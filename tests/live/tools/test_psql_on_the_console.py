r"""psql on the console, as operators use it: every SHOW, \watch, scripts that stop at an error, \d by mistake."""

import os
import shutil
import subprocess

import pytest

from tests.live.clients.fleet import find_postgresql_program
from tests.live.crowd import Crowd
from tests.live.stand import Stand

pytestmark = pytest.mark.live

SHOWS = (
    "VERSION CONFIG DATABASES POOLS CLIENTS SERVERS STATS STATS_TOTALS STATS_AVERAGES TOTALS LISTS USERS STATE PEERS"
).split()
PROGRAMS = sorted(
    {str(find_postgresql_program("psql")), shutil.which("psql") or ""} - {""}
)  # of the wheel and Debian's


@pytest.fixture(name="stand", scope="module")
def _stand():
    with Crowd() as crowd, Stand(crowd, databases={"shop": ""}) as stand, stand.raw(database="shop") as line:
        line.ask("select 1")
        yield stand


@pytest.fixture(name="psql", params=PROGRAMS)
def _psql(request, stand):
    """`psql(script, options...)` is what psql prints and says."""

    def psql(script, *options, code=0):
        where = {"PGHOST": "127.0.0.1", "PGPORT": str(stand.port), "PGUSER": "postgres", "PGDATABASE": "pgbouncer"}
        done = subprocess.run(
            [request.param, "--no-psqlrc", *options],
            input=script,
            env=os.environ | where | {"PAGER": "cat"},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == code, done.stderr
        return done.stdout, done.stderr

    return psql


def test_every_show_is_a_table(psql):
    out, err = psql("".join(f"SHOW {name};\n" for name in SHOWS), "--csv", "--set=ON_ERROR_STOP=1")
    assert err == ""
    assert out.startswith("version\nPgBouncer 1.")
    assert "\nshop,app,1,0," in out
    assert out.count("\nname,host,port,database,") == 1


@pytest.mark.parametrize("psql", [str(find_postgresql_program("psql"))], indirect=True)  # one that can count
def test_a_watch_asks_again_and_again(psql):
    out, err = psql("SHOW POOLS \\watch i=0.2 c=3\n", "--csv")
    assert (out.count("shop,app,"), err) == (3, "")


def test_expanded_output_and_variables(psql):
    out, err = psql("\\x on\nSHOW STATE;\n\\x off\nSHOW VERSION \\gset\n\\echo :version\n")
    assert err == ""
    assert "key   | active" in out
    assert out.splitlines()[-1].startswith("PgBouncer 1.")


def test_commands_are_answered_by_their_names(psql):
    out, err = psql("PAUSE shop;\nRESUME shop;\nRELOAD;\nSET query_timeout = 5;\nSHOW HELP;\n", "--set=ON_ERROR_STOP=1")
    assert out.splitlines()[:4] == ["PAUSE", "RESUME", "RELOAD", "SET query_timeout=5"]
    assert "Console usage" in err


def test_what_is_no_command_is_an_error_and_the_console_goes_on(psql):
    out, err = psql("\\d\nSELECT 1+1;\nSHOW NONSENSE;\nSHOW STATE;\n", "--tuples-only", "--no-align")
    assert err.count("ERROR:") >= 2
    assert "active|yes" in out


def test_a_script_stops_at_its_first_error(psql):
    out, err = psql("SHOW NONSENSE;\nSHOW STATE;\n", "--set=ON_ERROR_STOP=1", code=3)
    assert (out, err.count("ERROR:")) == ("", 1)
