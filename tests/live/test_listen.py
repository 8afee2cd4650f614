"""LISTEN for clients that share servers, on a real PostgreSQL: what is said is heard, whatever happens."""

import asyncio
import socket
from collections.abc import Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from protocol import backend, codes
from protocol.backend import ErrorFields, Notification
from protocol.encodings import CODECS, from_utf8, to_utf8
from protocol.passwords import Plain, Secret
from proxy.auth.users import Users
from proxy.config.ini import read
from proxy.main import Proxy
from proxy.states import RESTING, Closing, Leaving
from tests.fakes import FakeLog

pytestmark = pytest.mark.live

SECONDS = 45.0
OURS = "select pid from pg_stat_activity where application_name = 'pgshuttle: listens'"
DOUBTFUL = {"gb18030", "cp936", "cp949", "johab", "gb2312", "utf-8"}  # of several bytes: not compared here


class Person:
    """As much of a client as a hub needs: always at rest, and it reads."""

    server = None
    state = RESTING
    is_choked = False
    remain = 0
    begun = b""

    def __init__(self, encoding: str = "UTF8") -> None:
        self.followed = {"client_encoding": encoding}
        self.heard: list[Notification] = []
        self.warnings: list[ErrorFields] = []

    def deliver(self, data: bytes) -> None:
        while data:
            end = 1 + int.from_bytes(data[1:5], "big")
            if data[0] == codes.NOTIFICATION_RESPONSE:
                self.heard.append(backend.parse_notification(data[5:end]))
            else:
                assert data[0] == codes.NOTICE_RESPONSE
                self.warnings.append(backend.parse_error(data[5:end]))
            data = data[end:]


class Hall:
    """A proxy without a door, one of its pools, and that pool's hub."""

    def __init__(self, proxy: Proxy, database: str, user: str) -> None:
        self.proxy = proxy
        entry = proxy.config.find_database(database)
        assert entry is not None
        self.pool = proxy.pools.find(entry, user)
        self.hub = proxy.pools.find_hub(self.pool)

    def begin(self, person: Person, name: bytes) -> asyncio.Future[ErrorFields | None]:
        answer: asyncio.Future[ErrorFields | None] = asyncio.get_running_loop().create_future()
        self.hub.listen(person, name, answer.set_result)
        return answer

    async def listen(self, person: Person, *names: bytes) -> None:
        answers = [self.begin(person, name) for name in names]
        assert await asyncio.wait_for(asyncio.gather(*answers), SECONDS) == [None] * len(names)

    async def until(self, condition: Callable[[], object], what: str) -> None:
        end = asyncio.get_running_loop().time() + SECONDS
        while not condition():
            self.hub.check()
            assert asyncio.get_running_loop().time() < end, f"{what}; the log:\n{self.proxy.log.text}"
            await asyncio.sleep(0.01)


@asynccontextmanager
async def open_hall(upstream: Any, folder: Any, *, database: str = "", user: str = "app", settings: str = "") -> Any:
    place = f"host={upstream.host} port={upstream.port}"
    text = f"[databases]\npostgres = {place} {database}\n[proxy]\nlisten_addr =\nunix_socket_dir =\n{settings}\n"
    (folder / "proxy.ini").write_text(text)
    users = Users({name: (Plain(Secret(word)),) for name, word in upstream.secrets.items()})
    log = FakeLog()
    proxy = Proxy(read(str(folder / "proxy.ini")), users, log)  # type: ignore[arg-type]
    await proxy.start([socket.create_server(("127.0.0.1", 0))])
    try:
        yield Hall(proxy, "postgres", user)
    finally:
        proxy.leave(Leaving.IMMEDIATE)
        await proxy.wait_gone()
        assert "stumbled" not in log.text, log.text


def play(story: Any) -> None:
    asyncio.run(asyncio.wait_for(story, 60))


def say(admin: Any, channel: str, payload: str = "") -> None:
    admin.execute("select pg_notify(%s, %s)", (channel, payload))


def test_what_is_said_is_heard_by_those_who_listen(upstream, admin, tmp_path):
    async def story():
        async with open_hall(upstream, tmp_path, database="pool_size=1") as hall:
            anna, bert, cora = Person(), Person(), Person()
            await hall.listen(anna, b"news", b"Mixed Case")
            await hall.listen(bert, b"news")
            await hall.listen(cora, b"other")
            assert len(admin.execute(OURS).fetchall()) == 1
            say(admin, "news", "x" * 7999)
            say(admin, "Mixed Case", "ça va")
            say(admin, "mixed case", "nobody")
            await hall.until(lambda: len(anna.heard) == 2 and bert.heard, "not heard")
            pid = admin.info.backend_pid
            assert anna.heard == [
                Notification(pid, b"news", b"x" * 7999),
                Notification(pid, b"Mixed Case", "ça va".encode()),
            ]
            assert bert.heard == anna.heard[:1]
            assert cora.heard == []
            assert hall.pool.size == 0

    play(story())


def test_ten_thousand_channels(upstream, admin, tmp_path):
    async def story():
        async with open_hall(upstream, tmp_path) as hall:
            person, other = Person(), Person()
            names = [b"channel %d" % number for number in range(10_000)]
            await hall.listen(person, *names)
            await hall.listen(other, *names[:5000])
            for number in (0, 4999, 9999):
                say(admin, f"channel {number}")
            await hall.until(lambda: len(person.heard) == 3 and len(other.heard) == 2, "not heard")
            hall.hub.forget(person)
            await hall.until(lambda: len(hall.hub.books.channels) == 5000, "UNLISTEN")
            say(admin, "channel 9998")
            say(admin, "channel 1")
            await hall.until(lambda: len(other.heard) == 3, "not heard")
            assert len(person.heard) == 3
            hall.hub.forget(other)
            await hall.until(lambda: hall.hub.ear.server is None, "given back")
            assert not hall.hub.books.channels

    play(story())


@pytest.mark.parametrize("way", ["terminated", "killed", "restart"])
def test_it_hears_again_after_the_connection_was_lost(upstream, admin, tmp_path, way):
    async def story():
        async with open_hall(upstream, tmp_path, settings="server_login_retry = 0.5") as hall:
            person = Person()
            await hall.listen(person, b"news", b"more")
            ((pid,),) = admin.execute(OURS).fetchall()
            if way == "terminated":
                admin.execute("select pg_terminate_backend(%s)", (pid,))
            elif way == "killed":
                await asyncio.to_thread(upstream.kill, pid)
            else:
                await asyncio.to_thread(upstream.restart)
            await hall.until(lambda: len(person.warnings) and len(hall.hub.channels_of(person)) == 2, "warned")
            await hall.until(lambda: person.warnings[-1].message == "notifications may have been missed", "heard again")
            with upstream.connect() as again:  # a crash may take the next connection along, too
                await hall.until(lambda: say(again, "more", "again") or person.heard, "not heard")
            assert {(each.channel, each.payload) for each in person.heard} == {(b"more", b"again")}
            late = Person()
            await hall.listen(late, b"news")
            assert late.warnings == []

    play(story())


def test_while_nothing_can_be_opened_a_listen_is_refused_in_words(upstream, tmp_path):
    async def story():
        async with open_hall(upstream, tmp_path, user="nobody knows") as hall:
            error = await asyncio.wait_for(hall.begin(Person(), b"news"), SECONDS)
            assert error is not None
            assert error.severity == "ERROR"
            assert error.sqlstate in ("28P01", "28000", "08006")
            assert error.message
            again = await asyncio.wait_for(hall.begin(Person(), b"news"), SECONDS)
            assert again is not None

    play(story())


def test_no_place_is_left_under_a_limit(upstream, tmp_path):
    async def story():
        async with open_hall(upstream, tmp_path, database="max_db_connections=1") as hall:
            error = await asyncio.wait_for(hall.begin(Person(), b"news"), SECONDS)
            assert error is not None
            assert error.sqlstate == "53300"

    play(story())


def test_postgresqls_own_limit_is_told_in_its_words(upstream, tmp_path):
    async def story():
        full = [upstream.connect("four", "postgres") for _ in range(4)]
        try:
            async with open_hall(upstream, tmp_path, user="four") as hall:
                error = await asyncio.wait_for(hall.begin(Person(), b"news"), SECONDS)
                assert error is not None
                assert error.sqlstate == "53300"
                assert 'too many connections for role "four"' in error.message
        finally:
            for each in full:
                each.close()

    play(story())


def test_pause_and_reconnect_and_the_end(upstream, admin, tmp_path):
    async def story():
        async with open_hall(upstream, tmp_path) as hall:
            person = Person()
            await hall.listen(person, b"news")
            concerned = hall.proxy.pools.pause("postgres")
            await asyncio.wait_for(asyncio.gather(*(pool.wait_quiet() for pool in concerned)), SECONDS)
            await hall.until(lambda: not admin.execute(OURS).fetchall(), "closed")
            hall.proxy.pools.resume("postgres")
            await hall.until(lambda: len(person.warnings) == 1, "open again")
            ((before,),) = admin.execute(OURS).fetchall()
            hall.proxy.pools.retire("postgres", Closing.RECONNECT)
            await hall.until(lambda: len(person.warnings) == 2, "replaced")
            ((after,),) = admin.execute(OURS).fetchall()
            assert before != after
            say(admin, "news")
            await hall.until(lambda: person.heard, "not heard")
        for _ in range(500):
            if not admin.execute(OURS).fetchall():
                break
            await asyncio.sleep(0.01)
        assert not admin.execute(OURS).fetchall()

    play(story())


def test_a_timeout_of_postgresqls_does_not_end_it(upstream, admin, tmp_path):
    async def story():
        admin.execute("alter role sleeper set idle_session_timeout = 300")
        admin.execute("alter role sleeper set statement_timeout = 5000")
        try:
            async with open_hall(upstream, tmp_path, user="sleeper") as hall:
                person = Person()
                await hall.listen(person, b"news")
                await asyncio.sleep(0.8)
                say(admin, "news")
                await hall.until(lambda: person.heard, "not heard")
                assert person.warnings == []
        finally:
            for name in ("idle_session_timeout", "statement_timeout"):
                admin.execute(f"alter role sleeper reset {name}")

    play(story())


def test_a_database_of_another_encoding(upstream, admin, tmp_path):
    admin.execute("drop database if exists western")
    admin.execute("create database western encoding 'LATIN1' locale 'C' template template0")

    async def story():
        async with open_hall(upstream, tmp_path, database="dbname=western") as hall:
            plain, western = Person(), Person("LATIN1")
            await hall.listen(plain, "naïve".encode(), b"plain")
            await hall.listen(western, "naïve".encode("latin-1"))
            refused = [hall.begin(plain, name) for name in (b"one", "3 €".encode(), b"two", b"three")]
            answers = await asyncio.wait_for(asyncio.gather(*refused), SECONDS)
            assert [answer and answer.sqlstate for answer in answers] == [None, "22P05", None, None]
            with upstream.connect(dbname="western") as inside:
                say(inside, "naïve", "café")
                say(inside, "two", "after all")
            await hall.until(lambda: len(plain.heard) == 2 and western.heard, "not heard")
            assert plain.heard[0].payload == "café".encode()
            assert (western.heard[0].channel, western.heard[0].payload) == (
                "naïve".encode("latin-1"),
                "café".encode("latin-1"),
            )

    try:
        play(story())
    finally:
        admin.execute("drop database western with (force)")


def test_names_that_want_to_be_statements(upstream, admin, tmp_path):
    names = ['"', "a;b", "'; select pg_sleep(9) --", "\\", "*", "a\nb", " ", "ünï", "🐘", "x" * 63]

    async def story():
        async with open_hall(upstream, tmp_path) as hall:
            person = Person()
            await hall.listen(person, *(name.encode() for name in names))
            for name in names:
                say(admin, name, "p")
            await hall.until(lambda: len(person.heard) == len(names), "not heard")
            assert [each.channel.decode() for each in person.heard] == names

    play(story())


def test_encodings_mean_the_same_here_and_there(admin):
    admin.execute(
        "create or replace function pg_temp.said(code int, encoding text) returns bytea language plpgsql as"
        " $$ begin return convert_to(chr(code), encoding::name); exception when others then return null; end $$"
    )
    known = {row[0] for row in admin.execute("select pg_encoding_to_char(i) from generate_series(0, 41) i").fetchall()}
    compared = 0
    for encoding in sorted(known - {""}):
        codec = CODECS.get("".join(filter(str.isalnum, encoding.lower())))
        if codec is None or codec in DOUBTFUL:
            continue
        compared += 1
        rows = admin.execute("select i, pg_temp.said(i, %s) from generate_series(128, 9900) i", (encoding,)).fetchall()
        for code, theirs in rows:
            ours = chr(code).encode()
            assert _or_none(from_utf8, ours, encoding) == theirs, f"{encoding}: U+{code:04x}"
            assert theirs is None or to_utf8(theirs, encoding) == ours
    assert compared >= 27


def _or_none(translate: Callable[[bytes, str], bytes], text: bytes, encoding: str) -> bytes | None:
    try:
        return translate(text, encoding)
    except ValueError:
        return None
