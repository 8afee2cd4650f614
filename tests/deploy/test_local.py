"""`make run` from outside, with a stand-in for the proxy that answers SSLRequests and tells which signals it got."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time

import psycopg
import pytest

from deploy.cluster import ClusterFailed, LocalCluster
from deploy.local import CLUSTER_PORT, PROXY_PORT, read_ports
from tests.ports import find_free_port

pytestmark = pytest.mark.live

STAND_IN = """
import signal, socket, sys
behaviour, port = sys.argv[1], int(open(sys.argv[2]).readline().split("=")[1])
def told(number, frame):
    print("told", signal.Signals(number).name, file=sys.stderr, flush=True)
    if behaviour != "stubborn" or number == signal.SIGQUIT:
        sys.exit(0)
for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
    signal.signal(number, told)
if behaviour == "stillborn":
    print("FATAL no proxy today", file=sys.stderr)
    sys.exit(3)
listening = socket.create_server(("127.0.0.1", port))
while True:
    line, _ = listening.accept()
    with line:
        line.recv(100)
        line.sendall(b"N")
    if behaviour == "mortal":
        print("ERROR goodbye", file=sys.stderr)
        sys.exit(4)
"""
RUN = """
import pathlib, sys
from deploy.local import ClusterFailed, run
where = pathlib.Path(sys.argv[1])
try:
    sys.exit(run(where / "proxy.ini", where / "local", (sys.executable, "-c", sys.argv[3], sys.argv[2])))
except ClusterFailed as error:
    sys.exit(str(error))
"""


@pytest.fixture(scope="module")
def where(tmp_path_factory):
    """A folder with a cluster that all tests of this file start again, and an ini file."""
    where = tmp_path_factory.mktemp("run")
    cluster = LocalCluster(where / "local", find_free_port())
    cluster.create()
    (where / "proxy.ini").write_text(
        f"listen_port = {find_free_port()}\n[databases]\n* = host=127.0.0.1 port={cluster.port}\n"
    )
    yield where
    cluster.remove()


@contextlib.contextmanager
def make_run(where, behaviour):
    command = [sys.executable, "-c", RUN, str(where), behaviour, STAND_IN]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            process.communicate(timeout=30)
        process.stdout.close()


def read_until(process, words):
    text = ""
    for line in process.stdout:
        text += line
        if words in line:
            return text
    raise AssertionError(f"{words!r} was never said, only:\n{text}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_prints_a_dsn_and_stops_both_when_told(where, number):
    with make_run(where, "gentle") as process:
        said = read_until(process, "Ctrl-C stops both")
        proxy_port, cluster_port = read_ports(where / "proxy.ini")
        assert re.search(rf"postgresql://postgres:[\w-]+@127.0.0.1:{proxy_port}/postgres\n", said)
        behind = re.search(rf"postgresql://\S+:{cluster_port}/postgres", said)[0]
        with psycopg.connect(behind) as connection:
            assert connection.execute("select 1").fetchone() == (1,)
        process.send_signal(number)
        rest, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "told SIGINT" in rest, "the proxy is asked to finish first"
    assert rest.index("told SIGINT") < rest.index("stopping PostgreSQL") < rest.index("all stopped")
    assert not LocalCluster(where / "local", cluster_port).is_running()


def test_a_second_ctrl_c_makes_haste(where):
    with make_run(where, "stubborn") as process:
        read_until(process, "Ctrl-C stops both")
        begun = time.monotonic()
        process.send_signal(signal.SIGINT)
        read_until(process, "told SIGINT")
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=30)
    assert "told SIGQUIT" in rest
    assert time.monotonic() - begun < 8, "it did not wait out its patience"


def test_a_proxy_that_dies_is_reported_with_its_last_lines_and_postgresql_stops(where):
    with make_run(where, "mortal") as process:
        said, _ = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "ended by itself with status 4. Its last lines:\nERROR goodbye\n" in said
    assert "all stopped" in said


def test_a_proxy_that_does_not_even_start_is_reported_too(where):
    with make_run(where, "stillborn") as process:
        said, _ = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "ended by itself with status 3. Its last lines:\nFATAL no proxy today\n" in said


def test_a_proxy_port_in_use_is_told_before_anything_is_started(where):
    port, _ = read_ports(where / "proxy.ini")
    with socket.create_server(("127.0.0.1", port)), make_run(where, "gentle") as process:
        said, _ = process.communicate(timeout=30)
    assert process.returncode == 1
    assert f"port {port} is wanted by the proxy (listen_port in {where / 'proxy.ini'}), but it is taken" in said
    assert "starting PostgreSQL" not in said


def test_ports_are_read_from_the_ini_file_comments_aside(tmp_path):
    ini = tmp_path / "proxy.ini"
    ini.write_text("; listen_port = 1\n  listen_port=7000\n[databases]\n;x = host=a port=2\n* = host=b port='7001'\n")
    assert read_ports(ini) == (7000, 7001)
    ini.write_text("")
    assert read_ports(ini) == (PROXY_PORT, CLUSTER_PORT)


def test_a_missing_ini_file_is_a_clear_error(tmp_path):
    with pytest.raises(ClusterFailed, match=re.escape(f"cannot read {tmp_path / 'proxy.ini'}: {os.strerror(2)}")):
        read_ports(tmp_path / "proxy.ini")
