"""
The same small file for PgBouncer and for us, and what each of them makes of it.

Theory. A case is a few lines that follow MAIN, which every file needs. Each pooler runs on the file in a folder and on
a port of its own, without any PostgreSQL: what it has understood is told by its console, SHOW CONFIG, DATABASES and
USERS, in which folder and port are written back as `{folder}` and `{port}`, so that two answers can be compared word by
word. Whoever does not start has refused the file.

Starting Python costs as much as all the rest. So our processes are forked from one that has imported everything.
"""

import multiprocessing
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from struct import unpack_from
from typing import Any

from proxy.__main__ import run
from tests.live.stand import find_account
from tests.live.wire import Raw, error, rows
from tests.ports import find_free_port

SECONDS = 45.0
SHOWN = ("config", "databases", "users")
MAIN = """[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {folder}/users
admin_users = adm
"""

Tables = dict[str, dict[str, Mapping[str, str | None]]]


@dataclass(frozen=True)
class Case:
    """Lines that follow MAIN, or the `whole` file; files beside it by name; the lines of a RELOAD."""

    lines: str = ""
    whole: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    users: str = '"adm" "x"\n'
    reload: str | None = None


@dataclass(frozen=True)
class Verdict:
    """What a pooler made of a case: did it start, did its RELOAD work, what its console shows by table and name."""

    accepted: bool
    reloaded: bool = True
    tables: Tables = field(default_factory=dict)
    log: str = ""


class Theirs:
    """Debian's pgbouncer, in a process of an ordinary user."""

    def __init__(self, program: str) -> None:
        self._program = program

    def start(self, folder: Path) -> "subprocess.Popen[bytes]":
        user = find_account() if os.geteuid() == 0 else None
        with (folder / "log").open("wb") as log:
            command = [self._program, folder / "p.ini"]
            return subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, user=user)


class Ours:
    """The command line, as it is."""

    def __init__(self) -> None:
        self._forks = multiprocessing.get_context("forkserver")
        self._forks.set_forkserver_preload(["proxy.__main__", "uvloop", "psycopg", "tests.live.tools.oracle"])

    def start(self, folder: Path) -> "_Forked":
        process = self._forks.Process(target=_become, args=(str(folder),), daemon=True)
        process.start()
        return _Forked(process)


class _Forked:
    """As far as we need it, what subprocess offers."""

    def __init__(self, process: Any) -> None:
        self._process = process
        self.kill = process.kill
        self.wait = process.join

    def poll(self) -> int | None:
        exit_code: int | None = self._process.exitcode
        return exit_code


def _become(folder: str) -> None:
    os.chdir(folder)
    log = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    become = ["-u", find_account()] if os.geteuid() == 0 else []
    sys.argv = ["pgshuttle", *become, os.path.join(folder, "p.ini")]
    run()


def judge(pooler: "Theirs | Ours", case: Case) -> Verdict:
    """Run `pooler` on `case`."""
    folder, port = Path(tempfile.mkdtemp(prefix="pgshuttle-oracle-")), find_free_port()
    folder.chmod(0o755)
    try:
        for name, text in case.files.items():
            (folder / name).parent.mkdir(exist_ok=True)
            _write(folder / name, text, folder, port)
        _write(folder / "users", case.users, folder, port)
        _write(folder / "p.ini", case.whole or MAIN + case.lines, folder, port)
        return _run(pooler, folder, port, case)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write(path: Path, text: str, folder: Path, port: int) -> None:
    """Lone surrogates in `text` become the bytes they stand for."""
    filled = text.replace("{folder}", str(folder)).replace("{port}", str(port))
    path.write_bytes(filled.encode("utf-8", "surrogateescape"))


def _run(pooler: "Theirs | Ours", folder: Path, port: int, case: Case) -> Verdict:
    process = pooler.start(folder)
    try:
        if not _is_up(process, port):
            return Verdict(accepted=False, log=_read(folder))
        with Raw(port, SECONDS) as line:
            refusal = error(line.login("adm", "pgbouncer"))
            assert not refusal, (refusal, _read(folder))
            return _look(line, folder, port, case)
    finally:
        process.kill()
        process.wait()


def _is_up(process: "subprocess.Popen[bytes] | _Forked", port: int) -> bool:
    """Until it listens or has ended."""
    end = time.monotonic() + SECONDS
    while process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return True
        assert time.monotonic() < end, "the pooler neither listens nor ends"
        time.sleep(0.01)
    return False


def _look(line: Raw, folder: Path, port: int, case: Case) -> Verdict:
    reloaded = True
    if case.reload is not None:
        _write(folder / "p.ini", MAIN + case.reload, folder, port)
        before = len(_read(folder))
        reloaded = not error(line.ask("RELOAD")) and "config file loading failed" not in _read(folder)[before:]
    tables: Tables = {}
    for name in SHOWN:
        shown = table(line, f"SHOW {name}")
        key = next(iter(shown[0]))
        tables[name] = {
            str(row[key]): {each: _clean(value, folder, port) for each, value in row.items()} for row in shown
        }
    return Verdict(accepted=True, reloaded=reloaded, tables=tables, log=_read(folder))


def table(line: Raw, text: str) -> list[dict[str, str | None]]:
    messages = line.ask(text)
    names = next(_names(each.body) for each in messages if each.kind == "T")
    return [dict(zip(names, row, strict=True)) for row in rows(messages)]


def _names(body: bytes) -> list[str]:
    (count,) = unpack_from("!H", body)
    names, pos = list[str](), 2
    for _ in range(count):
        end = body.index(b"\0", pos)
        names.append(body[pos:end].decode())
        pos = end + 19
    return names


def _clean(value: str | None, folder: Path, port: int) -> str:
    return re.sub(
        rf"(?<!\d){port}(?!\d)", "{port}", (value or "").replace(str(folder), "{folder}")
    )  # not in 2147483647


def _read(folder: Path) -> str:
    return (folder / "log").read_text(errors="replace")


def differences(theirs: Verdict, ours: Verdict) -> dict[str, Any]:
    """What both know and say differently: `table.name` or `table.name.column` to (theirs, ours)."""
    if not (theirs.accepted and ours.accepted):
        return {} if theirs.accepted == ours.accepted else {"accepted": (theirs.accepted, ours.accepted)}
    found: dict[str, Any] = {} if theirs.reloaded == ours.reloaded else {"reloaded": (theirs.reloaded, ours.reloaded)}
    for table in SHOWN:
        one, other = theirs.tables[table], ours.tables[table]
        if table != "config" and one.keys() != other.keys():
            found[table] = (sorted(one), sorted(other))
        for name in one.keys() & other.keys():
            for column in one[name].keys() & other[name].keys() - {"default", "changeable"}:
                if one[name][column] != other[name][column]:
                    found[f"{table}.{name}.{column}"] = (one[name][column], other[name][column])
    return found
