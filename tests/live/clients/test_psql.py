r"""psql as people type into it: \d, \copy, \watch, \gdesc, \bind, \parse, pipelines, and Ctrl-C on a terminal."""

import os
import pty
import re
import select
import subprocess
import time

import pytest

from tests.live.clients.fleet import SECONDS, find_postgresql_program, together

pytestmark = pytest.mark.live

OPTIONS = ("--no-psqlrc", "--no-align", "--tuples-only", "--quiet", "--set=ON_ERROR_STOP=1")


def psql(fleet, script, *options, check=True, **variables):
    """What psql prints for this script."""
    done = subprocess.run(
        [find_postgresql_program("psql"), *OPTIONS, *options],
        input=script,
        env=fleet.environment | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    assert not check or done.returncode == 0, done.stderr
    return done.stdout if check else done.stderr


def test_describing_tables(fleet, owner):
    owner.execute("create table lamp (id int primary key, name text not null default 'x')")
    owner.execute("create view bright as select name from lamp")

    def one(number):
        out = psql(fleet, "\\t off\n\\d lamp\n\\t on\n\\dt\n\\dv+\n\\l\n" + f"select {number};")
        assert "id|integer||not null|" in out
        assert '"lamp_pkey" PRIMARY KEY' in out
        assert "public|bright|view" in out
        assert out.endswith(f"\n{number}\n")

    together(one)


def test_copying_files_in_and_out(fleet, owner, tmp_path):
    owner.execute("create table rope (client int, t text)")

    def one(number):
        given, taken = tmp_path / f"in{number}", tmp_path / f"out{number}"
        given.write_text(f"{number}\tü\n" * 1000)
        psql(
            fleet,
            rf"""\copy rope from '{given}'
            \copy (select * from rope where client = {number}) to '{taken}'
            """,
        )
        assert taken.read_text() == given.read_text()

    together(one)


def test_watching(fleet):
    def one(number):
        out = psql(fleet, rf"select {number} \watch interval=0.05 count=4" + "\n")
        assert re.findall(rf"^{number}$", out, re.MULTILINE) == [f"{number}"] * 4

    together(one)


def test_variables_settings_and_errors(fleet):
    def one(number):
        script = rf"""
            set timezone = 'Asia/Tokyo'; set myapp.tenant = '{number}';
            select pg_backend_pid() is not null as known, {number} as mine \gset
            begin; set local myapp.tenant = 'local'; select current_setting('myapp.tenant'); commit;
            select :mine, current_setting('myapp.tenant'), current_setting('timezone');
            \unset ON_ERROR_STOP
            begin; select 1/0; select 'lost'; rollback;
            \set ON_ERROR_ROLLBACK on
            begin; select 1/0; select 'kept'; commit;
            select 'one' \; select 'two';
            \echo :LAST_ERROR_SQLSTATE
        """
        out = psql(fleet, script)
        assert out.split() == ["local", f"{number}|{number}|Asia/Tokyo", "kept", "one", "two", "22012"]

    together(one)


def test_the_extended_protocol_by_hand(fleet):
    def one(number):
        script = rf"""
            select $1::int + {number} \parse mine
            \bind_named mine 10 \g
            begin \; select 'in a block';
            \bind_named mine 20 \g
            commit;
            \close_prepared mine
            select $1::int, $2 \bind {number} 'text' \g
            select 1 as a, 'x'::text as b \gdesc
            \startpipeline
            select $1::int * 2 \bind {number} \sendpipeline
            select $1::int * 3 \bind {number} \sendpipeline
            \syncpipeline
            select $1::int * 4 \bind {number} \sendpipeline
            \endpipeline
            \bind_named mine 10 \g
        """
        error = psql(fleet, script, check=False)
        assert 'prepared statement "mine" does not exist' in error
        out = psql(fleet, script.rpartition(r"\bind_named")[0])
        expected = [f"{number + 10}", "in a block", f"{number + 20}", f"{number}|text", "a|integer", "b|text"]
        assert out.splitlines() == [*expected, *(f"{number * factor}" for factor in (2, 3, 4))]

    together(one)


def test_one_transaction_for_a_whole_script(fleet, owner):
    owner.execute("create table step (client int)")

    def one(number):
        insert = f"insert into step values ({number});\n"
        psql(fleet, insert * 3, "--single-transaction")
        error = psql(fleet, insert * 3 + "select * from nowhere;\n", "--single-transaction", check=False)
        assert "nowhere" in error

    together(one)
    found = owner.execute("select client, count(*) from step group by 1 order by 1").fetchall()
    assert found == [(number, 3) for number in range(20)]


def test_rows_fetched_in_parts_and_a_connection_made_anew(fleet):
    def one(number):
        script = rf"""
            \set FETCH_COUNT 7
            select {number} * 1000 + n from generate_series(1, 50) n;
            set myapp.tenant = 'before';
            \connect
            select coalesce(nullif(current_setting('myapp.tenant', true), ''), 'new');
        """
        out = psql(fleet, script).split()
        assert out == [*(str(number * 1000 + n) for n in range(1, 51)), "new"]

    together(one)


def test_settings_of_the_environment(fleet):
    def one(number):
        options = f"-c statement_timeout={number + 100}s -c myapp.tenant=t{number}"
        out = psql(
            fleet,
            "show statement_timeout; show myapp.tenant; show timezone; show application_name; show client_encoding;",
            PGOPTIONS=options,
            PGTZ="Asia/Tokyo",
            PGAPPNAME=f"psql {number}",
            PGCLIENTENCODING="latin1",
        )
        timeouts = (f"{number + 100}s", "2min")
        assert out.splitlines()[0] in timeouts
        assert out.splitlines()[1:] == [f"t{number}", "Asia/Tokyo", f"psql {number}", "LATIN1"]

    together(one)


class Terminal:
    """psql on a terminal, typed into."""

    def __init__(self, fleet):
        self._far, near = pty.openpty()
        self._unread = ""
        program = find_postgresql_program("psql")
        self._process = subprocess.Popen(
            [program, "--no-psqlrc", "--no-readline", "--set=PROMPT1=ready%x ", "--pset=pager=off"],
            stdin=near,
            stdout=near,
            stderr=near,
            env=fleet.environment | {"TERM": "dumb"},
            start_new_session=True,
            preexec_fn=lambda: _take_terminal(),  # noqa: PLW1509, PLW0108
        )
        os.close(near)

    def __enter__(self):
        self.wait("ready ")
        return self

    def __exit__(self, *_):
        os.close(self._far)
        self._process.kill()
        self._process.wait()

    def type(self, text):
        os.write(self._far, text.encode())

    def wait(self, text):
        """What is on the screen up to `text`."""
        end = time.monotonic() + SECONDS
        while text not in self._unread:
            assert time.monotonic() < end, f"no {text!r} on the screen: {self._unread!r}"
            if select.select([self._far], [], [], 0.5)[0]:
                self._unread += os.read(self._far, 65536).decode()
        seen, _, self._unread = self._unread.partition(text)
        return seen


def _take_terminal():
    """Ctrl-C is a signal only for those whose controlling terminal it is typed at."""
    import fcntl  # noqa: PLC0415
    import termios  # noqa: PLC0415

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def test_ctrl_c_ends_the_query_and_nothing_else(fleet, admin):
    with Terminal(fleet) as one, Terminal(fleet) as other:
        other.type("set myapp.tenant = 'still mine';\n")
        other.wait("SET")
        other.wait("ready ")
        one.type("begin;\nselect pg_sleep(30);\n")
        running = "select count(*) from pg_stat_activity where query = 'select pg_sleep(30);' and state = 'active'"
        end = time.monotonic() + 10
        while admin.execute(running).fetchone() == (0,):
            assert time.monotonic() < end
            time.sleep(0.02)
        one.type("\x03")
        one.wait("canceling statement due to user request")
        one.wait("ready! ")
        one.type("rollback;\nselect 'alive' || 'again';\n")
        one.wait("aliveagain")
        other.type("\x03")
        other.wait("ready ")
        other.type("show myapp.tenant;\n")
        other.wait("still mine")
        assert admin.execute(running).fetchone() == (0,)


def test_notifications_are_printed(fleet, owner):
    with Terminal(fleet) as terminal:
        terminal.type("listen bell;\n")
        terminal.wait("LISTEN")
        owner.execute("notify bell, 'ding'")
        time.sleep(0.2)
        terminal.type("select 1;\n")
        terminal.wait('Asynchronous notification "bell" with payload "ding" received')
