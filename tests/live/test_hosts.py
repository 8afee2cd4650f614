"""Several hosts, and hosts with names: relays at several loopback addresses, all of them in front of one PostgreSQL."""

import os
import socket
import tempfile
import time
from contextlib import ExitStack, contextmanager

import psycopg
import pytest

from tests.live.names import Names
from tests.live.relay import Relay
from tests.live.stand import Stand, wait_until
from tests.live.wire import cancel_request, error, query, rows, sqlstate
from tests.ports import find_free_port

pytestmark = pytest.mark.live

A, B = "127.0.0.2", "127.0.0.3"


class Hosts:
    """The addresses of one database: a relay is started or stopped at each. All have one port."""

    def __init__(self, upstream):
        self.upstream = upstream
        self.port = find_free_port()
        self._living = {}

    def start(self, *addresses):
        for address in addresses:
            relay = Relay((self.upstream.host, self.upstream.port), listening=self._listen(address))
            self._living[address] = relay.__enter__()

    def _listen(self, address):
        if ":" in address:
            return socket.create_server((address, self.port), family=socket.AF_INET6)
        if address[0] not in "/@":
            return socket.create_server((address, self.port))
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(f"{address}/.s.PGSQL.{self.port}".replace("@", "\0"))
        if address[0] == "/":
            os.chmod(f"{address}/.s.PGSQL.{self.port}", 0o777)
        listening.listen()
        return listening

    def stop(self, *addresses):
        for address in addresses:
            self._living.pop(address).__exit__()

    def stop_all(self):
        self.stop(*list(self._living))

    def count(self, address):
        """Connections that were opened to it."""
        return len(self._living[address].asked)

    def cancels(self, address):
        return self._living[address].cancels

    def entry(self, hosts=f"{A},{B}", more=""):
        return f"host={hosts} port={self.port} dbname=postgres {more}"


@pytest.fixture(name="hosts")
def _hosts(upstream):
    hosts = Hosts(upstream)
    yield hosts
    hosts.stop_all()


@pytest.fixture(name="names")
def _names():
    names = Names()
    yield names
    names.remove()


@contextmanager
def crowd(stand, count):
    """So many clients, each in a transaction: as many servers."""
    with ExitStack() as stack:
        lines = [stack.enter_context(stand.raw()) for _ in range(count)]
        for line in lines:
            line.ask("begin; select 1")
        yield lines


@contextmanager
def timed():
    start = time.monotonic()
    yield lambda: time.monotonic() - start


def test_servers_are_opened_at_all_hosts_in_turn(hosts, upstream):
    hosts.start(A, B)
    with Stand(upstream, databases={"postgres": hosts.entry()}) as stand, crowd(stand, 6):
        assert (hosts.count(A), hosts.count(B)) == (3, 3)


def test_a_host_may_be_anything_a_server_can_listen_on(hosts, upstream):
    with tempfile.TemporaryDirectory(prefix="pgshuttle-hosts-") as folder:
        os.chmod(folder, 0o755)
        abstract = f"@pgshuttle-{hosts.port}"
        addresses = (folder, A, "::1", abstract)
        hosts.start(*addresses)
        entry = {"postgres": hosts.entry(",".join(addresses))}
        with Stand(upstream, databases=entry) as stand, crowd(stand, 8):
            assert [hosts.count(address) for address in addresses] == [2, 2, 2, 2]
        hosts.stop(folder, A, "::1")
        with Stand(upstream, databases=entry) as stand, crowd(stand, 8):
            assert hosts.count(abstract) == 2 + 8
            assert f"WARNING host [::1]:{hosts.port} is down: " in stand.log
            assert f"WARNING host {folder}/.s.PGSQL.{hosts.port} is down: " in stand.log


def test_unbalanced_they_are_all_at_one_until_it_dies(hosts, upstream):
    hosts.start(A, B)
    with Stand(upstream, databases={"postgres": hosts.entry(more="load_balance_hosts=disable")}) as stand:
        with crowd(stand, 3):
            assert (hosts.count(A), hosts.count(B)) == (3, 0)
            hosts.stop(A)
        with crowd(stand, 3):
            assert hosts.count(B) == 3
            hosts.start(A)
            stand.wait_log(rf"new servers are at {B}:{hosts.port}, no longer at {A}:{hosts.port}")


def test_a_dead_host_is_no_news_to_those_who_log_in(hosts, upstream):
    hosts.start(B)
    with Stand(upstream, databases={"postgres": hosts.entry()}) as stand:
        for _ in range(3):
            with crowd(stand, 6):
                pass
            with stand.connect() as admin:
                admin.execute("select 1")
        assert stand.log.count(f"WARNING host {A}:{hosts.port} is down: connect failed: ") == 1
        assert f"postgres/app@{A}:{hosts.port} closing because: connect failed (age=0s)" in stand.log
        assert "login has been failing" not in stand.log
        hosts.start(A)
        time.sleep(1.1)
        with crowd(stand, 12):
            stand.wait_log(f"LOG host {A}:{hosts.port} is back, after")
            assert hosts.count(A) > 0


@pytest.mark.solitary
def test_a_host_that_says_nothing_costs_one_client_its_share_of_the_deadline_and_the_others_nothing(hosts, upstream):
    hosts.start(B)
    entry = {"postgres": hosts.entry()}
    full = socket.create_server((A, hosts.port), backlog=0)
    stand = Stand(upstream, {"server_connect_timeout": 3}, databases=entry)
    with full, socket.create_connection(full.getsockname()), stand:
        # Its queue is full: the kernel drops whoever comes now, as a firewall does.
        with timed() as took, crowd(stand, 1):
            assert 1 < took() < 2.5
            assert f"{A}:{hosts.port} closing because: connect timeout (age=" in stand.log
        with timed() as took, crowd(stand, 5):
            assert took() < 1


def test_a_host_that_dies_takes_its_own_transactions_and_nobody_else(hosts, upstream):
    hosts.start(A, B)
    stand = Stand(upstream, databases={"postgres": hosts.entry()})
    with stand, crowd(stand, 4) as lines, stand.raw() as idle:
        hosts.stop(A)
        answers = [line.ask("commit; select 'on'") if at % 2 else line.read_to_end() for at, line in enumerate(lines)]
        assert [sqlstate(answer) for answer in answers[::2]] == ["08006"] * 2
        assert [rows(answer) for answer in answers[1::2]] == [[("on",)]] * 2
        for _ in range(10):
            assert rows(idle.ask("select 'fine'")) == [("fine",)]


def test_when_every_host_is_dead_the_client_hears_of_each(hosts, upstream):
    with Stand(upstream, databases={"postgres": hosts.entry(f"{A},{B},nowhere.invalid")}) as stand:
        with stand.call() as line:
            words = error(line.login("app", "postgres"))
        assert words["C"] == "08006"
        assert words["M"].startswith("connect failed on every host: ")
        for host in (f"{A}:{hosts.port}: connect failed: ", f"{B}:{hosts.port}: connect failed: "):
            assert host in words["M"]
        assert "nowhere.invalid:" in words["M"]
        assert "server DNS lookup failed: nowhere.invalid: " in words["M"]


def test_a_wrong_password_is_not_tried_elsewhere(hosts, upstream):
    hosts.start(A, B)
    entry = hosts.entry(more="user=app password=wrong")
    with Stand(upstream, databases={"postgres": entry}) as stand, stand.call() as line:
        assert sqlstate(line.login("app", "postgres")) == "28P01"
        assert (hosts.count(A), hosts.count(B)) == (1, 0)


def test_a_cancel_request_goes_to_the_host_where_the_query_runs(hosts, upstream):
    hosts.start(A, B)
    with Stand(upstream, databases={"postgres": hosts.entry()}) as stand, crowd(stand, 2) as lines:
        for line, address, other in ((lines[1], B, A), (lines[0], A, B)):
            before = hosts.cancels(other)
            line.send(query("select pg_sleep(30)"))
            time.sleep(0.1)
            with stand.call() as caller:
                caller.send(cancel_request(line.key))
                caller.read_to_end()
            assert sqlstate(line.read_until()) == "57014"
            assert hosts.cancels(address) == 1
            assert hosts.cancels(other) == before


# Names.


def test_a_name_with_several_addresses_is_several_hosts(hosts, names, upstream):
    hosts.start(B)
    names.say(db=f"{A} {B}")
    with Stand(upstream, databases={"postgres": hosts.entry("db")}, program=names.program) as stand, crowd(stand, 4):
        assert hosts.count(B) == 4
        assert f"WARNING host db:{hosts.port} ({A}) is down: connect failed: " in stand.log
        assert f"postgres/app@{B}:{hosts.port} new connection to server" in stand.log


def test_when_a_name_moves_everybody_follows_and_no_transaction_is_broken(hosts, names, upstream):
    hosts.start(A, B)
    names.say(db=A)
    settings = {"dns_max_ttl": 1}
    stand = Stand(upstream, settings, databases={"postgres": hosts.entry("db")}, program=names.program)
    with stand, crowd(stand, 4) as lines, stand.raw() as idle:
        for line in lines[:2]:
            line.ask("commit")
        names.say(db=B)
        stand.wait_log(f"DNS: db = {B}, no longer {A}")
        wait_until(lambda: stand.log.count("closing because: obsolete connection") == 2, "the idle ones have left")
        assert rows(lines[2].ask("select 'still here'")) == [("still here",)]
        lines[2].ask("commit")
        wait_until(lambda: stand.log.count("closing because: obsolete connection") == 3, "it has left too")
        assert hosts.count(B) == 0
        assert rows(idle.ask("select 'moved'")) == [("moved",)]
        assert hosts.count(B) == 1
        lines[3].ask("commit")
        assert hosts.count(A) == 4


def test_a_name_server_that_fails_moves_nobody(hosts, names, upstream):
    hosts.start(A)
    names.say(db=A)
    settings = {"dns_max_ttl": 0.5, "dns_nxdomain_ttl": 0.5, "server_lifetime": 0}
    stand = Stand(upstream, settings, databases={"postgres": hosts.entry("db")}, program=names.program)
    with stand, stand.raw() as line:
        line.ask("select 1")
        names.fail()
        for number in range(20):
            assert rows(line.ask(f"select {number}")) == [(str(number),)]
            time.sleep(0.1)
        assert stand.log.count("WARNING DNS lookup failed: db: Temporary failure in name resolution") == 1
        assert f"still used: {A}" in stand.log
        names.say(db=A)
        time.sleep(1)
        line.ask("select 1")
        stand.wait_log("DNS lookup works again: db")


def test_a_name_that_does_not_exist_is_told_and_found_when_it_does(hosts, names, upstream):
    hosts.start(A)
    settings = {"dns_nxdomain_ttl": 0.2, "server_login_retry": 0.2}
    with Stand(upstream, settings, databases={"postgres": hosts.entry("db")}, program=names.program) as stand:
        with pytest.raises(psycopg.OperationalError, match="server DNS lookup failed: db: Name or service not known"):
            stand.connect()
        names.say(db=A)
        time.sleep(0.5)
        with stand.connect() as connection:
            assert connection.execute("select 1").fetchone() == (1,)
