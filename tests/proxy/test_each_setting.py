"""
Each setting, changed by a reload: those that are LIVE are in force at once, those that need a restart are named.

A row per LIVE setting that is acted on: another value, and where that can be seen. Where the pool's limits carry it
the pool is one that was there before; elsewhere something is done that turns out differently. A setting that is added
to the table and not here fails the first test.
"""

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from types import SimpleNamespace
from typing import Any

import pytest

from protocol import sqlstate
from protocol.backend import build_parameter_status
from protocol.errors import Refused
from protocol.passwords import Plain, Secret
from proxy import busy_poll
from proxy.admin.control import CONTROLS
from proxy.admin.grammar import parse_command
from proxy.admin.rights import find_right
from proxy.auth.lookup import Found, find_question
from proxy.auth.users import Users
from proxy.balancer import is_balancer
from proxy.config.ini import read
from proxy.config.limits import Limits
from proxy.config.outside import read_oauth, read_pam
from proxy.config.settings import LIVE, RESTART, SETTINGS
from proxy.janitor import Janitor
from proxy.listener import tune_all
from proxy.log import Address, Destination
from proxy.login import read_wishes
from proxy.main import Proxy
from proxy.peers import number_in
from proxy.pool import Pool
from proxy.reloading import destination_of
from proxy.resolver import Name
from tests.fakes import FakeClock, FakeLog, FakeLoop
from tests.play import asked
from tests.proxy.auth.wire import alone, play, wired
from tests.proxy.test_login import HELLO, meet
from tests.whole import a_client

# Tests of the end, of SUSPEND, of TLS (test_tls.py), and of the rules for auth_type = hba (test_gate.py)
ELSEWHERE = {
    "shutdown_timeout",
    "suspend_timeout",
    "auth_hba_file",
    "auth_ident_file",
    *(name for name in SETTINGS if "_tls" in name),
}

Look = Callable[[Proxy], Any]


class Directed(FakeLog):
    """A log that remembers where it was told to go."""

    destination: Destination

    def direct(self, destination: Destination) -> None:
        self.destination = destination


class Bench:
    """A proxy and its file, which says little."""

    def __init__(self, folder: Any) -> None:
        self.folder = folder
        self.file = folder / "proxy.ini"
        (folder / "users.txt").write_text('"anna" "secret"\n')
        (folder / "others.txt").write_text('"bert" "secret"\n')
        self.said = {
            "auth_file": str(folder / "users.txt"),
            "auth_type": "trust",
            "auth_user": "guard",
            "listen_addr": "",
            "unix_socket_dir": "",
            "syslog": "1",
        }
        self.write()
        users = Users({"anna": (Plain(Secret("secret")),)})
        log, config = Directed(), read(str(self.file))
        log.direct(destination_of(config.settings, is_quiet=False))
        self.proxy = Proxy(config, users, log, FakeClock())
        self.door = socket.create_server(("127.0.0.1", 0))
        tune_all(self.door, self.proxy.settings)
        self.proxy.listeners.append(SimpleNamespace(socket=self.door))  # type: ignore[arg-type]
        self.pool = self.find_pool()
        self.pool.welcome = {"application_name": "", "TimeZone": "UTC"}

    def write(self, **more: str) -> None:
        self.said |= more
        lines = "\n".join(f"{name} = {value}" for name, value in self.said.items())
        self.file.write_text(
            f"[databases]\nshop = host=127.0.0.1 port=1\n* = host=127.0.0.1 port=1\n[proxy]\n{lines}\n"
        )

    def find_pool(self) -> Pool:
        entry = self.proxy.config.find_database("shop")
        assert entry is not None
        return self.proxy.pools.find(entry, "anna")

    def reload(self, **more: str) -> None:
        self.write(**more)
        assert asyncio.run(self.proxy.reload()) == []


@pytest.fixture(autouse=True)
def _processors(monkeypatch: pytest.MonkeyPatch) -> None:
    """There are enough, wherever this runs."""
    monkeypatch.setattr(busy_poll, "find_hindrance", lambda: "")


@pytest.fixture(name="bench")
def _bench(tmp_path: Any) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    with bench.door:
        yield bench


# Where it can be seen.


def limit(name: str) -> Look:
    return lambda proxy: getattr(next(iter(proxy.pools)).limits, name)


def at_the_door(level: int, option: int) -> Look:
    """Of a listening socket, which those who are accepted inherit."""
    return lambda proxy: proxy.listeners[0].socket.getsockopt(level, option)


def accepted(level: int, option: int) -> Look:
    """Of a socket that has been accepted."""

    def look(proxy: Proxy) -> int:
        with socket.socket() as one:
            proxy.tune_socket(one)
            return one.getsockopt(level, option)

    return look


def log(name: str) -> Look:
    """Of where the log goes."""
    return lambda proxy: getattr(proxy.log.destination, name)  # type: ignore[attr-defined]


def tokens(name: str) -> Look:
    """The rule by which a token would be judged now, where the file's are right."""
    right = {"issuer": "https://a.example.com", "jwks": "/a.json", "audience": ("a",), "scope": ("a",)}

    def look(proxy: Proxy) -> Any:
        unsaid = {f"oauth_{key}": value for key, value in right.items() if not getattr(proxy.settings, f"oauth_{key}")}
        return getattr(read_oauth(replace(proxy.settings, **unsaid)), name)

    return look


def kept(error: str) -> Look:
    """How long the answer about a host is good for."""

    def look(proxy: Proxy) -> float:
        name = Name("db")
        name.error = error
        return proxy.resolver._ttl(name)

    return look


def heard(said: bytes = HELLO, *, pick: Callable[[bytes], Any] = bytes) -> Look:
    """Of what a visitor hears who says that."""

    def look(proxy: Proxy) -> Any:
        async def main() -> bytes:
            inbox = alone(said)
            meeting = asyncio.ensure_future(meet(proxy, inbox, warm=False))
            await asyncio.wait([meeting], timeout=0.05)
            inbox.eof_received()
            await meeting
            return wired(inbox).written

        return pick(play(main()))

    return look


def has(text: bytes) -> Callable[[bytes], bool]:
    return lambda said: text in said


def logged(text: str, act: Look) -> Look:
    def look(proxy: Proxy) -> bool:
        proxy.log.lines.clear()  # type: ignore[attr-defined]
        act(proxy)
        return any(text in line for line in proxy.log.lines)  # type: ignore[attr-defined]

    return look


def right_of(user: str) -> Look:
    return lambda proxy: find_right(proxy.settings, user)


@contextmanager
def in_loop(proxy: Proxy) -> Iterator[Any]:
    loop = FakeLoop(proxy.clock)  # type: ignore[abstract, arg-type]
    with loop.running():
        yield a_client(proxy)
        loop.turn()


def sends_much(proxy: Proxy) -> bool:
    with in_loop(proxy) as client:
        client.transport.peer_sends(asked("Q:" + "x" * 3000))
        return b"08P01" in bytes(client.transport.arrived)


def leaves(proxy: Proxy) -> None:
    with in_loop(proxy) as client:
        client.transport.peer_sends(asked("X"))


def is_refused(proxy: Proxy) -> None:
    with in_loop(proxy) as client:
        client.transport.peer_sends(b"z\0\0\0\4")


def pools_after(seconds: float, database: str = "shop") -> Look:
    """Is a pool still there that nobody has used for so long?"""

    def look(proxy: Proxy) -> bool:
        entry = proxy.config.find_database(database)
        assert entry is not None
        pool = proxy.pools.find(entry, "carl")
        pool.welcome = {}
        proxy.pools.forget_unused()
        proxy.clock.advance(seconds)  # type: ignore[attr-defined]
        proxy.pools.forget_unused()
        return pool in list(proxy.pools)

    return look


def stats_lines(proxy: Proxy) -> int:
    """How many averages are taken in a minute."""
    proxy.log.lines.clear()  # type: ignore[attr-defined]
    janitor = Janitor(proxy)
    for _ in range(60):
        proxy.clock.advance(1.0)  # type: ignore[attr-defined]
        janitor.sweep()
    return sum("stats:" in line for line in proxy.log.lines)  # type: ignore[attr-defined]


def wishes(proxy: Proxy) -> Any:
    startup = type("Startup", (), {"parameters": {"user": "anna", "database": "shop", "geqo": "off"}})()
    return read_wishes(startup, proxy)


def read_from(proxy: Proxy) -> str:
    """The file that the next reload reads: one that is wrong says its name."""
    return asyncio.run(proxy.reload())[:1] and proxy.settings.conffile


def asks(proxy: Proxy) -> Any:
    """What is asked of PostgreSQL for users that no file names."""
    return find_question(proxy, "shop")


def remembers(proxy: Proxy) -> bool:
    """Does an answer count that is five seconds old?"""
    question = asks(proxy)
    proxy.lookups.note((question, "bert"), Found((Plain(Secret("secret")),), proxy.clock.now() - 5))
    return proxy.lookups.recall((question, "bert")) is not None


TCP = socket.IPPROTO_TCP
LIMITS = {
    "pool_mode": "session", "default_pool_size": "3", "min_pool_size": "2", "reserve_pool_size": "4",
    "reserve_pool_timeout": "7", "max_db_connections": "9", "max_user_connections": "8",
    "max_db_client_connections": "5", "max_user_client_connections": "6", "server_round_robin": "1",
    "client_idle_timeout": "11", "idle_transaction_timeout": "12", "transaction_timeout": "13", "query_timeout": "14",
    "query_wait_timeout": "15", "query_wait_notify": "16", "max_prepared_statements": "17", "session_state": "leak",
    "listen_mode": "pin", "pin_functions": "grab", "deferred_begin": "0", "server_connect_timeout": "18",
    "server_login_retry": "19", "server_lifetime": "20", "server_idle_timeout": "21", "server_check_delay": "22",
    "server_check_query": "select 1", "server_reset_query": "reset all", "server_reset_query_always": "1",
    "server_fast_close": "1", "pipeline_depth": "16", "pipeline_servers": "3", "pipeline_max_ms": "6",
    "pipeline_max_bytes": "7000", "pipeline_stall_ms": "90", "pipeline_group": "7", "pipeline_group_min": "3",
    "pipeline_functions": "f", "track_statements": "1",
}  # fmt: skip
NAMES = {"default_pool_size": "pool_size"}

ROWS: dict[str, tuple[str, Look]] = {
    **{name: (text, limit(NAMES.get(name, name))) for name, text in LIMITS.items()},
    "tcp_keepalive": ("0", at_the_door(socket.SOL_SOCKET, socket.SO_KEEPALIVE)),
    "tcp_keepcnt": ("3", at_the_door(TCP, socket.TCP_KEEPCNT)),
    "tcp_keepidle": ("44", at_the_door(TCP, socket.TCP_KEEPIDLE)),
    "tcp_keepintvl": ("5", at_the_door(TCP, socket.TCP_KEEPINTVL)),
    "tcp_user_timeout": ("6000", at_the_door(TCP, socket.TCP_USER_TIMEOUT)),
    "tcp_defer_accept": ("0", at_the_door(TCP, socket.TCP_DEFER_ACCEPT)),
    "tcp_socket_buffer": ("20000", accepted(socket.SOL_SOCKET, socket.SO_RCVBUF)),
    "logfile": ("{folder}/log", log("path")),
    "log_format": ("json", log("format")),
    "syslog": ("0", log("facility")),
    "syslog_facility": ("local3", log("facility")),
    "syslog_ident": ("till", log("ident")),
    "peer_id": ("7", lambda proxy: {number_in(proxy.cancels.mint_key()) for _ in range(3)} == {7}),
    "dns_max_ttl": ("2", kept("")),
    "dns_nxdomain_ttl": ("3", kept("gone")),
    "proxy_protocol_from": ("127.0.0.1", lambda proxy: is_balancer(proxy, Address("127.0.0.1", 1))),
    "auth_failure_delay": ("0.5", lambda proxy: proxy.strangers.guesses.longest),
    "max_half_open": ("7", lambda proxy: proxy.strangers.limit),
    "auth_type": ("md5", heard(pick=lambda said: said[:9])),
    "auth_file": ("{folder}/others.txt", lambda proxy: sorted(proxy.users.secrets)),
    "auth_user": ("warden", asks),
    "auth_dbname": ("elsewhere", asks),
    "auth_query": ("SELECT secret FROM secrets WHERE name=$1", asks),
    "auth_query_ttl": ("2", remembers),
    "scram_iterations": ("5000", lambda proxy: proxy.keeper.iterations),
    "auth_ldap_options": ("ldapserver=b ldapprefix=x", lambda proxy: proxy.settings.auth_ldap_options.reveal()),
    "pam_service": ("b", lambda proxy: read_pam(proxy.settings).service),
    "oauth_issuer": ("https://b.example.com", tokens("issuer")),
    "oauth_jwks": ("/b.json", tokens("jwks")),
    "oauth_audience": ("b c", tokens("audience")),
    "oauth_scope": ("b c", tokens("scope")),
    "oauth_user_claim": ("email", tokens("user_claim")),
    "oauth_map": ("b", tokens("map")),
    "oauth_allow_plain": ("1", tokens("allow_plain")),
    "login_notify_message": ("be quick", heard(pick=has(b"be quick"))),
    "application_name_add_host": (
        "1",
        heard(pick=has(build_parameter_status("application_name", "app - 10.0.0.7:51234"))),
    ),
    "admin_users": ("ann", right_of("ann")),
    "stats_users": ("bob", right_of("bob")),
    "max_client_conn": ("0", heard(pick=has(b"no more connections allowed"))),
    "pool_idle_timeout": ("5", pools_after(6)),
    "autodb_idle_timeout": ("5", pools_after(6, "only the star knows it")),
    "client_login_timeout": ("0.01", heard(HELLO[:9], pick=has(b"client_login_timeout"))),
    "cancel_wait_timeout": ("3", lambda proxy: proxy.cancels.timeout),
    "busy_poll_us": ("150", lambda proxy: proxy.outbox.busy_poll.limit),
    "ignore_startup_parameters": ("geqo", wishes),
    "max_packet_size": ("2048", sends_much),
    "log_connections": ("0", logged("login attempt", heard())),
    "log_disconnections": ("0", logged("closing because", leaves)),
    "log_pooler_errors": ("0", logged("pooler error", is_refused)),
    "log_stats": ("0", logged("stats:", lambda proxy: proxy.log_stats())),
    "stats_period": ("10", stats_lines),
    "verbose": ("1", lambda proxy: proxy.log.level),
    "conffile": ("{folder}/missing.ini", read_from),
}

LIVE_ROWS = {name for name, row in SETTINGS.items() if row.reload is LIVE and row.acted} - ELSEWHERE
RESTART_ROWS = {
    "listen_addr": "127.0.0.1", "listen_port": "7000", "listen_backlog": "7", "so_reuseport": "1",
    "unix_socket_dir": "/var/tmp", "unix_socket_mode": "0700", "unix_socket_group": "staff",
    "track_extra_parameters": "search_path", "disable_pqexec": "1", "user": "nobody", "pidfile": "/nowhere/pid",
    "job_name": "other", "batch_scheduling": "0", "io_uring": "0",
    "service_name": "other", "pkt_buf": "8192", "resolv_conf": "/nowhere/resolv.conf",
}  # fmt: skip


def test_every_setting_has_a_row_here() -> None:
    assert set(ROWS) == LIVE_ROWS
    assert set(RESTART_ROWS) == {name for name, row in SETTINGS.items() if row.reload is RESTART}
    assert set(LIMITS) <= {*(field.name for field in fields(Limits)), *NAMES}


@pytest.mark.parametrize("name", sorted(ROWS))
def test_a_live_setting_is_in_force_after_a_reload_and_goes_back_when_it_is_taken_out(name: str, bench: Bench) -> None:
    text, look = ROWS[name]
    before = look(bench.proxy)
    was = bench.said.get(name)
    bench.reload(**{name: text.format(folder=bench.folder)})
    assert f"{name} " in bench.proxy.log.lines[-1]  # type: ignore[attr-defined]
    after = look(bench.proxy)
    assert after != before, f"{name} = {text} changes nothing"
    if name != "conffile":  # that leads away
        bench.said.pop(name)
        bench.reload(**({name: was} if was is not None else {}))
        assert look(bench.proxy) == before


@pytest.mark.parametrize("name", sorted(RESTART_ROWS))
def test_a_setting_that_needs_a_restart_keeps_its_value_and_is_named_in_a_warning(name: str, bench: Bench) -> None:
    before = getattr(bench.proxy.settings, name)
    bench.reload(**{name: RESTART_ROWS[name]})
    assert getattr(bench.proxy.settings, name) == before
    warnings = [line for line in bench.proxy.log.lines if line.startswith("WARNING") and f"{name} " in line]  # type: ignore[attr-defined]
    assert any("needs a restart, the old value stays in force" in line for line in warnings)


@pytest.mark.parametrize("name", sorted(RESTART_ROWS))
def test_and_set_refuses_it(name: str, bench: Bench) -> None:
    command = parse_command(f"SET {name} = '{RESTART_ROWS[name]}'")
    with pytest.raises(Refused) as caught:
        asyncio.run(_obey(command))
    assert (caught.value.sqlstate, caught.value.sentence) == (sqlstate.CANT_CHANGE_RUNTIME_PARAM, "SET failed")
    assert name in caught.value.detail


async def _obey(command: Any) -> None:
    await CONTROLS["SET"](None, command)  # type: ignore[arg-type]


def test_set_brings_a_live_setting_into_force_until_the_next_reload(bench: Bench) -> None:
    asyncio.run(bench.proxy.reloader.apply_setting("default_pool_size", "3"))
    assert bench.pool.limits.pool_size == 3
    bench.reload()
    assert bench.pool.limits.pool_size == 20
