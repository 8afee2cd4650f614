"""
Host-based authentication beside PostgreSQL's own: the same files, the same callers, the same answer.

A second PostgreSQL reads the very files that the proxy reads. Each file is tried by everybody through each door, at
PostgreSQL itself and at the proxy; whoever is let in by one must be let in by the other, and whoever is refused must
hear the same SQLSTATE.
"""

import itertools
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest

from deploy.cluster import LocalCluster
from proxy.auth.pattern import BadPattern, parse_pattern
from tests.certificates import Authority
from tests.live.stand import SECONDS, Stand, find_account, wait_until
from tests.live.tls import certificates, opened, settings_of
from tests.live.upstream import Upstream
from tests.live.wire import Raw, error, startup
from tests.ports import find_free_port

pytestmark = pytest.mark.live

WORD = "a word for everybody"
ME = pwd.getpwuid(os.geteuid()).pw_name
USERS = ("anna", "bob", "app_1", "app_22", "all", *(() if ME == "postgres" else (ME,)))
DATABASES = ("shop", "bank", "anna")


class Door(NamedTuple):
    """How somebody comes: to which address, and from which."""

    host: str
    source: str = ""


LOCAL = Door("unix")
FOUR, ELSEWHERE, SIX = Door("127.0.0.1", "127.0.0.1"), Door("127.0.0.1", "127.0.0.9"), Door("::1", "::1")
DOORS = (LOCAL, FOUR, ELSEWHERE, SIX)


class Caller(NamedTuple):
    """Who somebody says he is, what he wants, and what he answers when he is asked."""

    user: str
    database: str = "shop"
    word: str = WORD
    replication: str = ""


CALLERS = (
    Caller("anna"),
    Caller("anna", "anna"),
    Caller("bob", "bank"),
    Caller("bob", word="a wrong one"),
    Caller("app_22"),
    Caller("all"),
    Caller(ME),
    Caller("anna", replication="true"),
    Caller("anna", replication="database"),
)

FILES = {
    "nobody": "# nobody at all\n",
    "everybody by trust": "local all all trust\nhost all all all trust\n",
    "replication too": "local all,replication all trust\nhost replication anna 127.0.0.1/32 trust\n",
    "only some doors": "host all all 127.0.0.1/32 trust\n",
    "a network": "host all all 127.0.0.0/29 trust\nhost all all ::1/128 scram-sha-256\n",
    "a mask": "host all all 127.0.0.9 255.255.255.255 trust\nhost all all :: ffff:: trust\n",
    "bits behind the mask": "host all all 127.0.0.77/24 trust\n",
    "one family is not the other": "host all all 0.0.0.0/0 trust\n",
    "nor the other way": "host all all ::/0 trust\n",
    "this host": "host all all samehost trust\nlocal all all reject\n",
    "this net": "host shop all samenet trust\n",
    "passwords in clear text": "local all all password\nhost all all all password\n",
    "passwords by md5 or scram": "local all all md5\nhost all all all scram-sha-256\n",
    "the first counts": "host all bob all reject\nlocal all anna md5\nhost all all all trust\nlocal all all trust\n",
    "lists": "host shop,bank anna, bob all trust\nlocal bank,anna all trust\n",
    "quoted words are names": 'host all "all" all trust\nlocal "shop" anna,"bob" trust\n',
    "a keyword is no name": "host all all 127.0.0.1/32 trust\nhost all sameuser all trust\n",
    "sameuser": "host sameuser all all trust\nlocal sameuser,bank all trust\n",
    "expressions": "host /^(shop|bank)$ /^app_[0-9]+$ all trust\nlocal /^b /^(anna|bob)$ trust\n",
    "expressions in quotes": 'host all "/^app_[0-9]{1,2}$" all trust\nlocal all "/^(a|an)na",bob trust\n',
    "a comment and a continuation": "host all \\\n all 127.0.0.1/32 \\\n trust # no\n# local all \\\nall all trust\n",
    "files of names": "host @bases @names all trust\nlocal all bob,@names trust\n",
    "files in files": "include more.conf\ninclude_if_exists nowhere.conf\ninclude_dir parts\n",
    "peer": "local all all peer\nhost all all all trust\n",
    "peer with a map": "local all all peer map=m\n",
    "peer with an expression": "local all all peer map=n\n",
    "peer with a map nobody has": "local all all peer map=nobody\n",
    "ident is peer": "local all all ident map=all\n",
    "no gss": "hostnogssenc all anna all trust\nhostnossl all bob all trust\n",
}
LETTING_NOBODY_IN = ("nobody", "peer with a map nobody has")
FOR_PGBOUNCER = {  # what Debian's 1.18 has of it: no address `all`, no replication, expressions, maps, includes
    "nobody": "",
    "trust": "local all all trust\nhost all all 0.0.0.0/0 trust\nhost all all ::/0 trust\n",
    "a network": "host all all 127.0.0.0/29 trust\nhost all all ::1/128 md5\n",
    "a mask": "host all all 127.0.0.9 255.255.255.255 trust\nhost all all :: ffff:: trust\n",
    "one family": "host all all 0.0.0.0/0 trust\n",
    "in clear text": "local all all password\nhost all all 127.0.0.0/8 password\n",
    "md5": "local all all md5\nhost all all 127.0.0.0/8 md5\n",
    "the first counts": "host all bob 0.0.0.0/0 reject\nlocal all anna md5\nhost all all 127.0.0.1/32 trust\n",
    "quoted": 'host all "all" 127.0.0.1/32 trust\nlocal "shop" anna,"bob" trust\n',
    "sameuser": "host sameuser all 127.0.0.1/32 trust\nlocal sameuser,bank all trust\n",
    "files of names": "host @bases bob,@few 127.0.0.1/32 trust\nlocal all bob,@few trust\n",
    "peer": "local all all peer\n",
}
OTHERS = {
    "bases": "shop, anna\n",
    "few": "anna,app_22\n",
    "names": 'bob\n# and\n"app_22" @more_names\n',
    "more_names": "anna\n",
    "more.conf": "host bank bob all reject\n",
    "parts/10.conf": "host all bob all trust\n",
    "parts/20.conf": "host all anna 127.0.0.1/32 trust\nlocal all @../names trust\n",
    "parts/.hidden.conf": "host all all all trust\n",
    "parts/not.this": "host all all all trust\n",
    "ident.conf": f'm {ME} anna\nm {ME} /^app\nn /^(.*)$ \\1\nn /^.(.*)$ "b\\1"\nall {ME} all\nother {ME} bob\n',
}


class Knocking(Raw):
    """A bare socket that comes by a door."""

    def __init__(self, door: Door, port: int, folder: Path) -> None:
        if door.host == "unix":
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.settimeout(SECONDS)
            self.socket.connect(str(folder / f".s.PGSQL.{port}"))
        else:
            self.socket = socket.create_connection((door.host, port), SECONDS, source_address=(door.source, 0))
        self.key, self._unread = b"", b""

    def try_to_enter(self, caller: Caller) -> str:
        """ "in", or the SQLSTATE that is heard."""
        more = {"replication": caller.replication} if caller.replication else {}
        with self:
            messages = self.login(caller.user, caller.database, caller.word, **more)
            return "in" if messages and messages[-1].kind == "Z" else error(messages).get("C", "nothing")


class Oracle:
    """PostgreSQL with files that the tests write."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = find_free_port()
        settings = {"listen_addresses": "127.0.0.1,::1", "fsync": "off"}
        self.cluster = LocalCluster(folder / "cluster", self.port, settings)
        self._marks = itertools.count()

    def start(self) -> None:
        for name, text in OTHERS.items():
            (self.folder / name).parent.mkdir(exist_ok=True)
            (self.folder / name).write_text(text)
        self.cluster.settings |= {"hba_file": str(self.hba), "ident_file": str(self.folder / "ident.conf")}
        self.write("host all postgres 127.0.0.1/32 scram-sha-256\n")
        self.cluster.start()
        self.admin = psycopg.connect(self.cluster.dsn(), autocommit=True)
        for user in USERS:
            self.admin.execute(f"create role \"{user}\" login replication password '{WORD}'")
        for database in DATABASES:
            self.admin.execute(f"create database {database}")

    def stop(self) -> None:
        self.admin.close()
        self.cluster.remove()

    @property
    def hba(self) -> Path:
        return self.folder / "hba.conf"

    @property
    def sockets(self) -> Path:
        folder = self.cluster.socket_directory
        assert folder is not None
        return folder

    def write(self, text: str) -> None:
        self.hba.write_text(text)
        self.hba.chmod(0o644)

    def take(self, text: str) -> None:
        """Rules for both. The first line tells by its user when PostgreSQL has read them."""
        mark = f"mark_{next(self._marks)}"
        self.write(f"local postgres {mark} trust\n{text}")
        self.admin.execute("select pg_reload_conf()")
        end = time.monotonic() + SECONDS
        while "does not exist" not in (said := self._try_mark(mark)):
            assert time.monotonic() < end, f"{said}\n{text}"
            time.sleep(0.01)

    def _try_mark(self, mark: str) -> str:
        with Knocking(LOCAL, self.port, self.sockets) as line:
            return error(line.login(mark, "postgres"))["M"]


@pytest.fixture(scope="module", name="oracle")
def _oracle() -> Iterator[Oracle]:
    folder = Path(tempfile.mkdtemp(prefix="pgshuttle-hba-"))
    folder.chmod(0o755)
    oracle = Oracle(folder)
    try:
        oracle.start()
        yield oracle
    finally:
        oracle.stop()
        shutil.rmtree(folder, ignore_errors=True)


def quoted(upstream: Upstream) -> str:
    """The password of our own, for an entry."""
    return upstream.secrets["postgres"].replace("'", "''")


def hba_stand(upstream: Upstream, oracle: Oracle, **more: object) -> Stand:
    """A proxy that reads the oracle's files. Behind it everybody is the same user."""
    login = f"dbname=postgres user=postgres password='{quoted(upstream)}'"
    stand = Stand(
        upstream,
        {
            "auth_type": "hba",
            "auth_hba_file": oracle.hba,
            "auth_ident_file": oracle.folder / "ident.conf",
            "listen_addr": "127.0.0.1,::1",
            "admin_users": "anna",
        }
        | more,
        databases=dict.fromkeys(DATABASES, login),
        secrets=dict.fromkeys(USERS, WORD),
    )
    stand.settings["unix_socket_dir"] = stand.folder
    stand.folder.chmod(0o777)
    return stand


@pytest.fixture(scope="module", name="stand")
def _stand(upstream: Upstream, oracle: Oracle) -> Iterator[Stand]:
    with hba_stand(upstream, oracle) as stand:
        yield stand


@pytest.mark.parametrize("name", FILES)
def test_whoever_postgresql_lets_in_is_let_in_and_nobody_else(oracle: Oracle, stand: Stand, name: str) -> None:
    oracle.take(FILES[name])
    assert "reloaded" in stand.reload(), stand.tail
    theirs, ours = (
        {(door, caller): Knocking(door, port, folder).try_to_enter(caller) for door in DOORS for caller in CALLERS}
        for port, folder in ((oracle.port, oracle.sockets), (stand.port, stand.folder))
    )
    different = {key: (said, ours[key]) for key, said in theirs.items() if ours[key] != said}
    assert not different, "\n".join(f"{key}: PostgreSQL {pair[0]}, we {pair[1]}" for key, pair in different.items())
    assert ("in" in theirs.values()) is (name not in LETTING_NOBODY_IN)


GOOD = r"""# as many ways of writing it as there are
local all,"all" all trust
host    shop , bank
host shop,bank   anna  127.0.0.1/32  md5
host "a b"  "#x",bob  10.1.2.3/8 \
   scram-sha-256
host all all 10.0.0.0 255.255.0.0 reject
host all all ::1/128 password
host all all 2001:db8:: ffff:ffff:: password
host replication /^r all scram-sha-256
hostnossl sameuser all samehost trust
host all @names samenet reject
include more.conf
local all all peer map=m
host all all all trust colour=red
host all all all tru
host all all 10.0.0.0/33 trust
host all all 10.0.0.0
local all all peer map
hostssl
local all all cert
host all all all peer
host all /( all trust
host all all 10.0.0.1 ffff:: trust
"""


def test_whoever_may_replicate_by_trust_is_no_administrator_by_trust(oracle: Oracle, stand: Stand) -> None:
    """As the console's database is named, so he is judged there, whatever he says of replication."""
    oracle.take("host replication all 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n")
    stand.reload()
    for said in ({}, {"replication": "true"}, {"replication": "database"}):
        with stand.call() as line:
            line.send(startup("anna", "pgbouncer", **said))
            assert line.read().body == b"\0\0\0\nSCRAM-SHA-256\0\0", said


def test_the_lines_of_a_file_are_read_as_postgresql_reads_them(oracle: Oracle, stand: Stand) -> None:
    """Its view pg_hba_file_rules reads the file as it is; so does RELOAD, and SHOW HBA tells what it found."""
    oracle.take("host pgbouncer anna 127.0.0.1/32 trust\n")
    stand.reload()
    bad = "host    shop , bank\n"  # PostgreSQL reads three fields here, we say that it guesses
    text = GOOD.replace(bad, "\n")
    with oracle.admin.cursor() as cursor:
        oracle.write(text)
        cursor.execute(
            "select line_number, type, database, user_name, address, netmask, auth_method, options, error"
            " from pg_hba_file_rules order by rule_number nulls last, line_number"
        )
        theirs = cursor.fetchall()
    mistakes = {row[0] for row in theirs if row[-1]}
    good = "\n".join("" if number in mistakes else line for number, line in enumerate(text.split("\n"), 1))
    with stand.connect("anna", "pgbouncer", password=WORD) as console:
        assert "failed" in stand.reload()
        shown = [row for row in console.execute("show hba").fetchall() if row[0] is None]
        assert {int(row[2]) for row in shown} == mistakes
        oracle.write(good)
        assert "reloaded" in stand.reload()
        ours = console.execute("show hba").fetchall()
    assert [
        (row[2], row[3], row[4].split(","), row[5].split(","), row[6], row[7], row[8], row[9] and row[9].split())
        for row in ours
    ] == [row[:-1] for row in theirs if not row[-1]]


PGBOUNCER = shutil.which("pgbouncer") or "/usr/sbin/pgbouncer"


@pytest.fixture(scope="module", name="bouncer")
def _bouncer(oracle: Oracle, upstream: Upstream) -> Iterator[tuple[int, Path, "subprocess.Popen[bytes]"]]:
    """PgBouncer on the same files."""
    if not Path(PGBOUNCER).exists():
        pytest.skip("PgBouncer is not installed")
    folder, port = Path(tempfile.mkdtemp(prefix="pgshuttle-bouncer-")), find_free_port()
    folder.chmod(0o777)
    to = f"host={upstream.host} port={upstream.port} dbname=postgres user=postgres"
    entries = "".join(f"{name} = {to} password='{quoted(upstream)}'\n" for name in DATABASES)
    (folder / "users").write_text("".join(f'"{user}" "{WORD}"\n' for user in USERS))
    (folder / "p.ini").write_text(
        f"[databases]\n{entries}[pgbouncer]\nlisten_addr = 127.0.0.1,::1\nlisten_port = {port}\n"
        f"unix_socket_dir = {folder}\nauth_type = hba\nauth_file = {folder}/users\nauth_hba_file = {oracle.hba}\n"
        "ignore_startup_parameters = replication\n"
    )
    user = find_account() if os.geteuid() == 0 else None
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([PGBOUNCER, folder / "p.ini"], stdout=log, stderr=log, user=user)
    try:
        wait_until(lambda: b"process up" in (folder / "log").read_bytes(), "PgBouncer is up")
        yield port, folder, process
    finally:
        process.terminate()
        process.wait(SECONDS)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize("name", FOR_PGBOUNCER)
def test_whoever_pgbouncer_lets_in_is_let_in_and_nobody_else(
    oracle: Oracle, stand: Stand, bouncer: tuple[int, Path, "subprocess.Popen[bytes]"], name: str
) -> None:
    oracle.write(FOR_PGBOUNCER[name])
    assert "reloaded" in stand.reload(), stand.tail
    port, folder, process = bouncer
    before = (folder / "log").read_bytes().count(b"SIGHUP")
    process.send_signal(signal.SIGHUP)
    wait_until(lambda: (folder / "log").read_bytes().count(b"SIGHUP") > before, "PgBouncer reads its files")
    callers = [caller for caller in CALLERS if not caller.replication]
    for door, caller in itertools.product(DOORS, callers):
        theirs = Knocking(door, port, folder).try_to_enter(caller)
        ours = Knocking(door, stand.port, stand.folder).try_to_enter(caller)
        assert (ours == "in") is (theirs == "in"), f"{door}, {caller}: PgBouncer {theirs}, we {ours}"


ATOMS = [
    "a",
    "b",
    ".",
    "[ab]",
    "[^a]",
    r"\w",
    r"\d",
    "[[:alpha:]]",
    "[a-c1]",
    r"[\d_]",
    "^",
    "$",
    r"\.",
    "",
    "{",
    "[]x]",
]
TAILS = ["*", "+", "?", "{2}", "{1,2}", "{0}", "{1,}", "*?", "+?", "", "", "", "", "**"]
SUBJECTS = ["", "a", "ab", "ba", "aab", "b1", "a_1", "a.b", "é", "abcabc", "x]", "a{", "a\nb", "b\n"]


def make_pattern(chance: random.Random, depth: int = 2) -> str:
    """Of pieces that make sense, in ways that may make none."""
    pieces = []
    for _ in range(chance.randint(1, 3)):
        inner = chance.choice(ATOMS)
        if depth and chance.random() < 0.4:
            inner = chance.choice(["({})", "(?:{})"]).format(make_pattern(chance, depth - 1))
        pieces.append(inner + chance.choice(TAILS))
    joined = "".join(pieces)
    return f"{joined}|{make_pattern(chance, depth - 1)}" if depth and chance.random() < 0.2 else joined


def test_an_expression_means_what_it_means_to_postgresql(admin: psycopg.Connection[Any]) -> None:
    """Whatever is taken is taken by PostgreSQL too, and matches the same names."""
    chance = random.Random(5)
    taken = 0
    for _ in range(1500):
        text = make_pattern(chance)
        try:
            pattern = parse_pattern(text)
        except BadPattern:
            continue
        taken += 1
        query = (
            'select array_agg(name ~ (%s collate "C") order by at) from unnest(%s::text[]) with ordinality t(name, at)'
        )
        row = admin.execute(query, (text, SUBJECTS)).fetchone()
        assert row is not None
        ours = [pattern.search(name) is not None for name in SUBJECTS]
        assert row[0] == ours, (text, dict(zip(SUBJECTS, zip(row[0], ours, strict=True), strict=True)))
    assert taken > 500


def test_psql_hears_why_and_the_log_knows_the_line(oracle: Oracle, stand: Stand) -> None:
    oracle.take("host all bob all reject\nhost all anna 127.0.0.1/32 scram-sha-256\n")
    stand.reload()
    psql = oracle.cluster.program("psql")

    def ask(user: str, host: str, word: str = WORD) -> str:
        dsn = f"host={host} port={stand.port} user={user} dbname=shop password='{word}'"
        done = subprocess.run([psql, dsn, "-Atc", "select 1"], capture_output=True, text=True, timeout=30, check=False)
        return done.stdout + done.stderr

    stand.mark()
    assert ask("anna", "127.0.0.1") == "1\n"
    assert "FATAL:  login rejected\nDETAIL:  pg_hba.conf rejects connection" in ask("bob", "127.0.0.1")
    stand.wait_log(rf"bob@127.0.0.1.* pooler error: login rejected: rule {oracle.hba}:2")
    assert 'no pg_hba.conf entry for host "::1", user "anna", database "shop", no encryption' in ask("anna", "::1")
    assert 'no pg_hba.conf entry for host "[local]"' in ask("anna", str(stand.folder))
    assert 'password authentication failed for user "anna"' in ask("anna", "127.0.0.1", "no")
    stand.wait_log(rf"password authentication failed for user .anna.: it is not the stored one, rule {oracle.hba}:3")
    assert "hba.conf" not in ask("anna", "127.0.0.1", "no")


def test_a_start_with_a_bad_file_is_refused_with_every_mistake(oracle: Oracle, upstream: Upstream) -> None:
    oracle.write("local all all trust\nhost all all all trsut\nhost all\n")
    stand = hba_stand(upstream, oracle)
    stand.write()
    try:
        done = subprocess.run(stand._command(), capture_output=True, text=True, timeout=30, check=False)
        checked = subprocess.run(stand._command("--check"), capture_output=True, text=True, timeout=30, check=False)
    finally:
        shutil.rmtree(stand.folder)
    assert (done.returncode, checked.returncode) == (1, 1)
    assert f"{oracle.hba}:2: 'trsut' is no method" in done.stderr
    assert f"{oracle.hba}:3: the line ends in front of the users" in done.stderr
    assert f"{oracle.hba}:2: error: 'trsut' is no method" in checked.stdout


def test_a_reload_with_a_bad_file_keeps_the_rules_and_those_who_are_inside(oracle: Oracle, stand: Stand) -> None:
    oracle.take("host shop anna all trust\n")
    stand.reload()
    with stand.connect("anna", "shop", password=WORD) as inside:
        oracle.write("host all all all trust\nhost all all all trsut\n")
        assert "failed" in stand.reload()
        assert f"{oracle.hba}:2: 'trsut' is no method" in stand.fresh_log
        assert inside.execute("select 1").fetchone() == (1,)
        assert Knocking(FOUR, stand.port, stand.folder).try_to_enter(Caller("bob")) == "28000"
        oracle.write("host all all all reject\n")
        stand.reload()
        stand.wait_log(f"{oracle.hba}: 1 rules, 1 added, 2 removed")
        assert inside.execute("select 1").fetchone() == (1,), "who is inside stays"
        assert Knocking(FOUR, stand.port, stand.folder).try_to_enter(Caller("anna")) == "28000"


def test_a_certificate_and_tls_decide_with_real_certificates(oracle: Oracle, upstream: Upstream) -> None:
    rules = r"""
hostssl shop anna all cert
hostssl shop all all cert map=c
hostssl bank all all scram-sha-256 clientcert=verify-ca
hostnossl anna all all trust
hostssl anna all all reject
"""
    with certificates() as folder:
        authority = Authority(folder)
        mine = opened(authority.issue("localhost", sans="DNS:localhost,IP:127.0.0.1"))
        theirs = {name: opened(authority.issue(name)) for name in ("anna", "bob@example.com", "carl")}
        stranger = opened(Authority(folder / "other", "another").issue("anna"))
        oracle.write(rules)
        (oracle.folder / "ident.conf").write_text(OTHERS["ident.conf"] + 'c /^(.*)@example\\.com$ "\\1"\n')
        settings = {name: str(value) for name, value in settings_of(mine, authority, "prefer").items()}
        with hba_stand(upstream, oracle, **settings) as stand:

            def enter(user: str, dbname: str, pair: Any = None, sslmode: str = "require", word: str = WORD) -> str:
                shown = {"sslcert": str(pair.cert), "sslkey": str(_private(pair.key))} if pair is not None else {}
                try:
                    with stand.connect(user, dbname, sslmode=sslmode, password=word, **shown):
                        return "in"
                except psycopg.OperationalError as no:
                    return str(no)

            assert enter("anna", "shop", theirs["anna"]) == "in"
            assert "certificate authentication failed" in enter("anna", "shop", theirs["carl"])
            assert "certificate authentication failed" in enter("anna", "shop")
            assert enter("anna", "shop", stranger) != "in"
            assert enter("bob", "shop", theirs["bob@example.com"]) == "in"
            assert "certificate authentication failed" in enter("all", "shop", theirs["bob@example.com"])
            assert enter("bob", "bank", theirs["carl"]) == "in"
            assert "password authentication failed" in enter("bob", "bank", theirs["carl"], word="no")
            assert "certificate authentication failed" in enter("bob", "bank")
            assert "no encryption" in enter("anna", "shop", sslmode="disable")
            assert enter("anna", "anna", sslmode="disable") == "in"
            assert "SSL encryption" in enter("anna", "anna")


def _private(key: Path) -> Path:
    """libpq takes no key that others may read."""
    copy = key.with_suffix(".private")
    shutil.copy(key, copy)
    copy.chmod(0o600)
    return copy


def test_a_cancel_request_is_asked_for_no_rule(oracle: Oracle, stand: Stand) -> None:
    oracle.take("host shop anna 127.0.0.1/32 trust\n")
    stand.reload()
    with stand.connect("anna", "shop", password=WORD) as inside:
        oracle.take("host all all all reject\n")
        stand.reload()
        threading.Timer(0.5, inside.cancel).start()
        with pytest.raises(psycopg.errors.QueryCanceled):
            inside.execute("select pg_sleep(20)")
