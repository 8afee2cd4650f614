"""
Prometheus exporters made for PgBouncer, unmodified.

Theory. Two of them exist as packages: the one on PyPI, in Python with psycopg2, and Debian's, which is older than the
columns PgBouncer has had since 1.8 and ends in the same way in front of Debian's own pgbouncer. The one in Go is not
packaged; what it says (lib/pq's startup, its queries) and which columns it reads is written out here.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.live.crowd import Crowd
from tests.live.stand import SECONDS, Stand, find_account, wait_until
from tests.live.tools.needed import need_module, need_program
from tests.live.tools.oracle import MAIN, table
from tests.live.wire import error
from tests.ports import find_free_port

pytestmark = pytest.mark.live


@pytest.fixture(name="stand", scope="module")
def _stand():
    with Crowd() as crowd, Stand(crowd, databases={"shop": "", "bare": "user=app"}) as stand:
        yield stand


def scrape(port: int, process: "subprocess.Popen[bytes]") -> dict[str, float]:
    """Metrics by their name with labels, once the exporter listens."""
    end = time.monotonic() + SECONDS
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=SECONDS) as answer:
                text = answer.read().decode()
            break
        except urllib.error.URLError:
            assert process.poll() is None, "the exporter has ended"
            assert time.monotonic() < end, "the exporter does not listen"
            time.sleep(0.05)
    lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


@contextmanager
def running(*command: object) -> "Iterator[subprocess.Popen[bytes]]":
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen([*map(str, command)], stdout=log, stderr=log)
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def test_the_exporter_of_pypi_finds_everything_it_looks_for(stand, tmp_path):
    need_module("prometheus_pgbouncer_exporter")
    need_module("psycopg2")
    port = find_free_port()
    (tmp_path / "config.yml").write_text(
        f"exporter_host: 127.0.0.1\nexporter_port: {port}\npgbouncers:\n"
        f"  - dsn: postgresql://postgres:x@127.0.0.1:{stand.port}/pgbouncer\n    connect_timeout: 5\n"
    )
    program = "from prometheus_pgbouncer_exporter.cli import main; main()"
    with (
        stand.raw(database="shop") as one,
        stand.raw(database="shop") as two,
        running(sys.executable, "-c", program, "--config", tmp_path / "config.yml") as process,
    ):
        one.ask("select 1")
        two.ask("select 1")
        found = scrape(port, process)
        assert found["pgbouncer_up"] == 1
        shop = '{database="shop",user="app"}'
        assert found[f"pgbouncer_pools_client_active_connections{shop}"] == 2
        assert found[f"pgbouncer_pools_server_idle_connections{shop}"] == 1
        assert found[f"pgbouncer_pools_client_maxwait_seconds{shop}"] == 0
        assert found['pgbouncer_stats_queries_total{database="shop"}'] >= 2
        assert found['pgbouncer_stats_received_bytes_total{database="shop"}'] > 0
        assert found['pgbouncer_databases_database_pool_size{backend_database="bare",database="bare"}'] == 20
        assert found["pgbouncer_config_max_client_conn"] == 1000
        one.ask("select 1")
        again = scrape(port, process)
        name = 'pgbouncer_stats_queries_total{database="shop"}'
        assert again[name] == found[name] + 1


@pytest.fixture(name="folder")
def _folder():
    """Open to other users, which pytest's own is not."""
    folder = Path(tempfile.mkdtemp(prefix="pgshuttle-exporters-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def test_debians_exporter_ends_as_it_does_in_front_of_debians_pgbouncer(stand, folder):
    exporter = need_program("prometheus-pgbouncer-exporter", "prometheus-pgbouncer-exporter")
    pgbouncer = need_program("pgbouncer", "pgbouncer")
    port = find_free_port()
    (folder / "users").write_text('"postgres" "x"\n')
    main = MAIN.replace("{port}", str(port)).replace("{folder}", str(folder)).replace("= adm", "= postgres")
    (folder / "p.ini").write_text(main + "[databases]\nshop = host=127.0.0.1\n")
    command = [pgbouncer, "-u", find_account()] if os.geteuid() == 0 else [pgbouncer]
    with running(*command, folder / "p.ini"):
        theirs = last_words(exporter, port)
    ours = last_words(exporter, stand.port)
    assert theirs == ours == "KeyError: 'total_requests'"


def last_words(exporter: str, port: int) -> str:
    """What the exporter says last before it ends."""

    def ask() -> str:
        options = ["--host", "127.0.0.1", "--port", str(find_free_port()), "--pgbouncer-host", "127.0.0.1"]
        command = [exporter, *options, "--pgbouncer-port", str(port), "--pgbouncer-user", "postgres"]
        plain = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}  # it has modules of its own
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS, env=plain)
        return done.stderr.strip().splitlines()[-1]

    said = [ask()]
    wait_until(lambda: "Connection refused" not in said[-1] or said.append(ask()), "the pooler listens")
    return said[-1]


# Of the exporter in Go: every column it makes a metric of.
GO_COLUMNS = {
    "SHOW STATS": "total_server_assignment_count total_xact_count total_query_count total_received total_sent"
    " total_xact_time total_query_time total_wait_time total_client_parse_count total_server_parse_count"
    " total_bind_count",
    "SHOW POOLS": "cl_active cl_waiting cl_active_cancel_req cl_waiting_cancel_req sv_active sv_active_cancel"
    " sv_being_canceled sv_idle sv_used sv_tested sv_login maxwait maxwait_us",
    "SHOW DATABASES": "port pool_size reserve_pool_size max_connections current_connections paused disabled",
}
GO_LISTS = (
    "databases users pools free_clients used_clients login_clients free_servers used_servers dns_names dns_zones"
    " dns_queries dns_pending"
)


def test_what_the_exporter_in_go_says_is_understood_and_what_it_reads_is_there(stand):
    """lib/pq's startup parameters; without arguments it speaks the simple protocol."""
    with stand.call() as line:
        said = {"extra_float_digits": "2", "client_encoding": "UTF8", "datestyle": "ISO, MDY"}
        assert not error(line.login("postgres", "pgbouncer", **said))
        for text, columns in GO_COLUMNS.items():
            (first, *_) = table(line, text)
            assert all(float(first[column] or "nan") >= 0 for column in columns.split())
        lists = {row["list"]: row["items"] for row in table(line, "SHOW LISTS")}
        assert all(float(lists[name] or "nan") >= 0 for name in GO_LISTS.split())
        config = {row["key"]: row["value"] for row in table(line, "SHOW CONFIG")}
        assert config["max_client_conn"] == "1000"
        assert config["max_user_connections"] == "0"
        (version,) = table(line, "SHOW VERSION")
        assert str(version["version"]).startswith("PgBouncer 1.")
