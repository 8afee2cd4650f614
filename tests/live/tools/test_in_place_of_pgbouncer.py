"""
A DBA stops PgBouncer and starts pgshuttle on the same file, list of users and port, and everything goes on working.

Theory. The same people are let loose on both, one after the other: applications that log in by md5, one through a
forced user, one through `*`, one who does not know the password, operators on the console. What they get is compared.
The file is written as people write them for PgBouncer, with an %include, old names, odd numbers and settings that mean
nothing to us.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.live.stand import ROOT, find_account, is_listening, wait_until
from tests.live.tools.needed import need_program
from tests.live.upstream import PASSWORD
from tests.ports import find_free_port

pytestmark = pytest.mark.live

INI = """\
;; The pooler of our shop
[databases]
shop = host={host} port={port} dbname=postgres
reports = host={host} port={port} dbname=postgres user=other password='{password}' pool_size=2 reserve_pool=1
%include {folder}/more.ini

[pgbouncer]
logfile = {folder}/log
pidfile = {folder}/pid
listen_addr = 127.0.0.1
listen_port = {listen}
unix_socket_dir =
auth_type = md5
auth_file = {folder}/userlist.txt
admin_users = boss
stats_users = watcher, exporter
  pool_mode = Transaction
max_client_conn = 0x64
default_pool_size = 010
server_check_query = select 1
server_lifetime = 1200.5
ignore_startup_parameters = extra_float_digits
pkt_buf = 8192
"""
MORE = "; generated\n* = host={host} port={port}\n"


@pytest.fixture(name="folder")
def _folder(upstream):
    """The files of a PgBouncer at work. (Not in pytest's folder: each pytest that starts closes it to other users.)"""
    folder = Path(tempfile.mkdtemp(prefix="pgshuttle-in-place-"))
    folder.chmod(0o777)
    where = {"host": upstream.host, "port": upstream.port, "folder": folder, "listen": find_free_port()}
    text = INI.format(**where, password=PASSWORD.replace("'", "''"))
    (folder / "pgbouncer.ini").write_text(text)
    (folder / "more.ini").write_text(MORE.format(**where))
    secrets = {"app": PASSWORD, "boss": "b", "watcher": "w"} | {"stranger": "s"}
    lines = [f'"{name}" "{word}"' for name, word in secrets.items()]
    (folder / "userlist.txt").write_text("; users\n" + "\n".join(lines) + "\n")
    (folder / "port").write_text(str(where["listen"]))
    yield folder
    shutil.rmtree(folder)


def start(folder: Path, *command: object) -> None:
    """In the background, as an init script does."""
    become = ["-u", find_account()] if os.geteuid() == 0 else []
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run(
        [*map(str, command), "-d", *become, folder / "pgbouncer.ini"], env=environment, check=True, timeout=30
    )
    wait_until(lambda: is_listening(int((folder / "port").read_text())), "it listens")
    wait_until(lambda: (folder / "pid").exists() and (folder / "pid").read_text(), "its number is written")


def stop(folder: Path) -> None:
    os.kill(int((folder / "pid").read_text()), signal.SIGINT)
    wait_until(lambda: not is_listening(int((folder / "port").read_text())), "it does not listen")
    wait_until(lambda: not (folder / "pid").exists(), "its file is gone")


def say(folder: Path, user: str, password: str, database: str, *texts: str, **more: Any) -> list[object]:
    """The rows of each statement; an error is its first words."""
    port = int((folder / "port").read_text())
    options = {"host": "127.0.0.1", "port": port, "user": user, "password": password, "dbname": database} | more
    try:
        with psycopg.connect(**options, autocommit=True, cursor_factory=psycopg.ClientCursor) as connection:
            return [run(connection, text) for text in texts]
    except psycopg.OperationalError as error:
        return [str(error).strip().rpartition("FATAL: ")[2].strip().splitlines()[0].partition(" for user")[0]]


def run(connection: "psycopg.Connection[Any]", text: str) -> object:
    try:
        cursor = connection.execute(text.encode(), prepare=False)
        return cursor.fetchall() if cursor.description else cursor.statusmessage
    except psycopg.Error as error:
        return str(error).splitlines()[0]


def live_with_it(folder: Path) -> dict[str, object]:
    """What everybody gets."""
    where = "select current_user, current_database(), current_setting('application_name')"
    columns = "name, port, database, force_user, pool_size"
    console = say(
        folder, "boss", "b", "pgbouncer", "SHOW DATABASES", "SHOW CONFIG", "PAUSE shop", "RESUME shop", "RELOAD"
    )
    databases: Any = console[0]
    config: Any = console[1]
    wanted = (
        "max_client_conn default_pool_size server_lifetime pool_mode auth_type stats_users ignore_startup_parameters"
    )
    return {
        "app": say(folder, "app", PASSWORD, "shop", where, "begin", "select 1/0", "rollback", application_name="till"),
        "forced": say(folder, "app", PASSWORD, "reports", where),
        "star": say(folder, "app", PASSWORD, "template1", where),
        "wrong": say(folder, "app", "guess", "shop", where),
        "unknown": say(folder, "nobody", "guess", "shop", where),
        "floats": say(folder, "app", PASSWORD, "shop", "select 0.1::float8", options="", application_name="x"),
        columns: sorted((row[0], row[2], row[3], row[4], row[5]) for row in databases if row[0] != "pgbouncer"),
        wanted: sorted((row[0], row[1]) for row in config if row[0] in wanted.split()),
        "commands": console[2:],
        "watcher": [type(each) for each in say(folder, "watcher", "w", "pgbouncer", "SHOW POOLS")],
        "watcher reloads": [str(each)[:6] for each in say(folder, "watcher", "w", "pgbouncer", "RELOAD")],
        "stranger": say(folder, "stranger", "s", "pgbouncer", "SHOW POOLS"),
    }


def test_everything_goes_on_working(folder):
    start(folder, need_program("pgbouncer", "pgbouncer"))
    before = live_with_it(folder)
    stop(folder)
    assert before["app"] == [[("app", "postgres", "till")], "BEGIN", "division by zero", "ROLLBACK"]
    start(folder, sys.executable, "-m", "proxy")
    try:
        after = live_with_it(folder)
    finally:
        stop(folder)
    for name, answers in before.items():
        assert (name, after[name]) == (name, answers)
    log = (folder / "log").read_text()
    assert "Traceback" not in log
    assert "pkt_buf is accepted but has no effect" in log
