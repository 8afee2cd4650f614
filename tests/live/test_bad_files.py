"""Files that are none: each is a clear error with its place, soon and with little memory; a reload changes nothing."""

import os
import re
import subprocess
import sys
import time

import pytest

from tests.live.stand import ROOT, Stand
from tests.live.wire import rows

pytestmark = pytest.mark.live

MEGABYTE = 1 << 20
MEMORY = 500 * MEGABYTE
SECONDS = 60  # on a machine that has other things to do


def fifo(path):
    os.mkfifo(path)
    path.chmod(0o644)


def sparse(path):
    """100 MB of zero bytes that take no room."""
    with path.open("wb") as file:
        file.truncate(100 * MEGABYTE)


def written(data):
    return lambda path: path.write_bytes(data)


def including(name):
    """A file that includes the file `name` beside it; there is a FIFO of that name."""

    def make(path):
        if not (path.parent / "fifo").exists():
            fifo(path.parent / "fifo")
        path.write_text(f"[proxy]\n%include {path.parent / name}\n")

    return make


HEAD = b"[proxy]\nauth_type = trust\n[databases]\n"
MANY = b"".join(b"d%d = host=h\n" % number for number in range(510_000))
INI = {
    "a file of 100 MB": (sparse, r": is larger than 16 MB"),
    "510,000 databases": (written(HEAD + MANY), r":100004: more than 100000 entries"),
    "15 MB of mistakes": (written(HEAD + b"a = hots=x\n" * (15 * MEGABYTE // 11)), r":4: a: unknown key"),
    "a binary file": (written(b"\x7fELF\x01\0" + os.urandom(5000)), r": is not a text file: line 1 holds a zero"),
    "random bytes": (written(HEAD + os.urandom(2000).replace(b"\0", b"")), r":\d+: this is"),
    "a zero byte": (written(HEAD + b"a = host=a\0b\n"), r": is not a text file: line 4 holds a zero byte"),
    "another encoding": (written(HEAD + b"gr\xfcn =\n"), r":4: this is not UTF-8 text: the byte 0xfc"),
    "a very long line": (written(HEAD + b"x" * (10 * MEGABYTE)), r":4: the line is longer than 262144 characters"),
    "a very long name": (written(HEAD + b'"' + b"x" * 200_000 + b'" =\n'), r":4: x+: the database's name is longer"),
    "an include of itself": (including("proxy.ini"), r":2: \S*proxy.ini includes itself"),
    "an include of a FIFO": (including("fifo"), r":2: \S*fifo is a FIFO, not a file"),
    "an include of /dev/zero": (written(HEAD + b"%include /dev/zero\n"), r":4: /dev/zero is larger than"),
    "a FIFO": (fifo, r": is a FIFO, not a file"),
    "a folder": (lambda path: path.mkdir(), r": is a folder, not a file"),
    "nothing": (lambda path: None, r": cannot be read: No such file"),
    "an empty file": (written(b""), r": there is no main section"),
}

USERS = {
    "a file of 100 MB": (sparse, r": is larger than 64 MB"),
    "510,000 users": (written(MANY.replace(b"d", b'"d').replace(b" = host=h", b'" "x"')), r":500001: more than 500000"),
    "random bytes": (written(os.urandom(5000)), r":\d+: "),
    "a FIFO": (fifo, r": is a FIFO, not a file"),
    "a folder": (lambda path: path.mkdir(), r": is a folder, not a file"),
    "nothing": (lambda path: None, r": cannot be read: No such file"),
    "a very long line": (written(b'"ann" "' + b"x" * (10 * MEGABYTE)), r":1: the secret has no closing quote"),
    "a zero byte": (written(b'"ann" "a\0b"\n'), r":1: a zero byte in the secret"),
    "no quotes": (written(b'"ann" "x"\nbob y\n'), r":2: a user name in double quotes is missing"),
}


def check(path):
    """(exit code, output, seconds, bytes of memory at most)"""
    program = (
        "import resource, sys; from proxy.__main__ import run;"
        "import atexit; atexit.register(lambda: print('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss));"
        "sys.argv = ['pgshuttle', '--check', sys.argv[1]]; run()"
    )
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", program, path],
        cwd=path.parent,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS * 3,
    )
    assert "Traceback" not in done.stderr, done.stderr
    *lines, last = done.stdout.splitlines()
    return done.returncode, "\n".join(lines), time.monotonic() - begun, int(last.split()[1]) * 1024


@pytest.mark.parametrize("name", INI)
def test_a_configuration_that_is_none(tmp_path, name):
    make, wanted = INI[name]
    make(tmp_path / "proxy.ini")
    code, out, seconds, memory = check(tmp_path / "proxy.ini")
    assert code == 1
    assert re.search(f"proxy.ini{wanted.replace(': ', ': error: ', 1)}", out), out[:2000]
    assert out.count("\n") < 300
    assert seconds < SECONDS
    assert memory < MEMORY


@pytest.mark.parametrize("name", USERS)
def test_a_list_of_users_that_is_none(tmp_path, name):
    make, wanted = USERS[name]
    (tmp_path / "proxy.ini").write_text("[proxy]\nauth_file = users\n[databases]\na = host=h\n")
    make(tmp_path / "users")
    code, out, seconds, memory = check(tmp_path / "proxy.ini")
    assert code == 1
    assert re.search(f"users{wanted.replace(': ', ': error: ', 1)}", out), out[:2000]
    assert seconds < SECONDS
    assert memory < MEMORY


@pytest.fixture(name="stand", scope="module")
def _stand(upstream):
    with Stand(upstream) as stand:
        yield stand


def put_in_place(path, make):
    """Whatever was there before."""
    if path.is_dir():
        path.rmdir()
    else:
        path.unlink(missing_ok=True)
    make(path)


@pytest.mark.parametrize(
    ("which", "name"), [*(("file", name) for name in INI), *(("user_list", name) for name in USERS)]
)
def test_a_reload_of_it_changes_nothing(stand, which, name):
    make, wanted = (INI if which == "file" else USERS)[name]
    stand.folder.chmod(0o777)
    with stand.raw() as line:
        before = line.value("select pg_backend_pid()")
        put_in_place(getattr(stand, which), make)
        stand.mark()
        stand.signal(1)
        stand.wait_log("reload failed, nothing has changed", SECONDS)
        assert re.search(r"ERROR \S+" + wanted, stand.fresh_log), stand.fresh_log[:2000]
        assert line.value("select pg_backend_pid()") == before
        with stand.raw("other") as newcomer:
            assert rows(newcomer.ask("select 1")) == [("1",)]
    put_in_place(getattr(stand, which), lambda path: None)
    assert "reloaded: " in stand.reload()
