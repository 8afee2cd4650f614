"""Where clients arrive: real sockets on this machine, and what happens when there are no descriptors left."""

import asyncio
import errno
import grp
import os
import pwd
import socket

import pytest

from proxy import listener as listener_module
from proxy.config.settings import Settings
from proxy.listener import Listener, open_sockets, tune_all
from proxy.notify import InheritedSocket
from tests.fakes import FakeClock, FakeLog, FakeLoop


class Loop(FakeLoop):
    def __init__(self):
        super().__init__(FakeClock())
        self.readers = {}

    def add_reader(self, fd, callback, *args):
        self.readers[fd] = callback

    def remove_reader(self, fd):
        return self.readers.pop(fd, None) is not None


class Socket:
    """A listening socket that answers with what it is given."""

    def __init__(self, *answers):
        self.answers = list(answers)

    family, type, proto = socket.AF_UNIX, socket.SOCK_STREAM, 0

    def setblocking(self, flag):
        pass

    def fileno(self):
        return 77

    def getsockname(self):
        return ("127.0.0.1", 6432)

    def _accept(self):
        answer = self.answers.pop(0) if self.answers else BlockingIOError()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self):
        pass


def caller():
    """A descriptor, as accept(2) gives it."""
    one, other = socket.socketpair()
    other.close()
    return one.detach()


def listen(*answers):
    loop, arrived, log = Loop(), [], FakeLog()

    def arrive(connected, address):
        with connected:
            arrived.append(address)

    with loop.running():
        listener = Listener(Socket(*answers), arrive, log)
    return loop, listener, arrived, log


def test_everyone_who_waits_is_taken_in_one_turn():
    loop, _, arrived, _ = listen((caller(), ("1.2.3.4", 5)), (caller(), ("1.2.3.4", 6)), (caller(), ""))
    loop.readers[77]()
    assert arrived == [("1.2.3.4", 5), ("1.2.3.4", 6), ("unix", 0)]


def test_an_ipv4_caller_on_a_socket_of_both_has_the_address_that_he_has_everywhere():
    """Else all of them would be one /64: the guesses of one would delay everybody."""
    loop, _, arrived, _ = listen(
        (caller(), ("::ffff:1.2.3.4", 5, 0, 0)), (caller(), ("::1", 6, 0, 0)), (caller(), ("fe80::1%lo", 7, 0, 1))
    )
    loop.readers[77]()
    assert arrived == [("1.2.3.4", 5), ("::1", 6), ("fe80::1%lo", 7)]


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EIO])
def test_running_out_of_descriptors_pauses_accepting_and_does_not_spin(number):
    loop, _, arrived, log = listen(OSError(number, "no more"), (caller(), ("1.2.3.4", 5)))
    loop.readers[77]()
    assert 77 not in loop.readers
    assert len([line for line in log.lines if line.startswith("WARNING")]) == 1
    loop.clock.advance(0.6)
    loop.turn()
    loop.readers[77]()
    assert arrived == [("1.2.3.4", 5)]


def test_a_caller_who_gave_up_is_no_reason_to_pause():
    loop, _, _, log = listen(ConnectionAbortedError())
    loop.readers[77]()
    assert 77 in loop.readers
    assert not log.lines


def test_closing_during_a_pause_ends_the_pause():
    loop, listener, _, _ = listen(OSError(errno.EMFILE, "no more"))
    loop.readers[77]()
    listener.close()
    loop.clock.advance(1.0)
    loop.turn()
    assert not loop.readers


def a_settings(folder, **more):
    return Settings(unix_socket_dir=str(folder), **{"listen_addr": (), **more})


def test_a_socket_left_over_from_a_crash_is_replaced(tmp_path):
    path = tmp_path / ".s.PGSQL.6432"
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(path))
    stale.close()
    assert path.exists()
    (listening,) = open_sockets(a_settings(tmp_path))
    caller = socket.socket(socket.AF_UNIX)
    caller.connect(str(path))
    caller.close()
    listening.close()


def test_a_socket_that_somebody_listens_on_is_left_alone(tmp_path):
    (first,) = open_sockets(a_settings(tmp_path))
    with pytest.raises(OSError, match="somebody listens there already"):
        open_sockets(a_settings(tmp_path))
    caller = socket.socket(socket.AF_UNIX)
    caller.connect(str(tmp_path / ".s.PGSQL.6432"))
    caller.close()
    first.close()


def test_the_rights_of_the_unix_socket_are_those_asked_for(tmp_path):
    (listening,) = open_sockets(a_settings(tmp_path, unix_socket_mode=0o700))
    assert os.stat(tmp_path / ".s.PGSQL.6432").st_mode & 0o777 == 0o700
    listening.close()


def test_when_one_address_cannot_be_had_none_is_kept(tmp_path):
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    taken.listen()
    port = taken.getsockname()[1]
    with pytest.raises(OSError, match=rf"cannot listen on 127.0.0.1:{port}"):
        open_sockets(a_settings("", listen_addr=("127.0.0.1",), listen_port=port))
    taken.close()


def a_free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def without_ipv6(monkeypatch, number):
    """A machine, or a container, that has none: some say so when a socket is made, others when it is bound."""

    class Socket(socket.socket):
        def __init__(self, family=-1, *rest, **more):
            if family == socket.AF_INET6 and number == errno.EAFNOSUPPORT:
                raise OSError(number, os.strerror(number))
            super().__init__(family, *rest, **more)

        def bind(self, address):
            if self.family == socket.AF_INET6:
                raise OSError(number, os.strerror(number))
            super().bind(address)

    real = socket.getaddrinfo

    def getaddrinfo(host, port, **more):
        hosts = ["::1", "127.0.0.1", "127.0.0.1"] if host == "localhost" else [host]
        return [row for each in hosts for row in real(each, port, **more)]

    monkeypatch.setattr(socket, "socket", Socket)
    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


@pytest.mark.parametrize("number", [errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT])
def test_an_address_that_cannot_be_had_is_warned_of_while_there_is_another(number, monkeypatch):
    """Debian's file says `listen_addr = localhost`, and /etc/hosts that this is ::1 too, and 127.0.0.1 twice."""
    without_ipv6(monkeypatch, number)
    port, said = a_free_port(), []
    (listening,) = open_sockets(a_settings("", listen_addr=("localhost",), listen_port=port), warn=said.append)
    assert listening.getsockname() == ("127.0.0.1", port)
    listening.close()
    assert said == [f"cannot listen on [::1]:{port}: {os.strerror(number)}"]


@pytest.mark.parametrize("number", [errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT])
def test_every_address_means_those_that_the_machine_has(number, monkeypatch):
    without_ipv6(monkeypatch, number)
    port, said = a_free_port(), []
    (listening,) = open_sockets(a_settings("", listen_addr=("*",), listen_port=port), warn=said.append)
    assert listening.getsockname() == ("0.0.0.0", port)
    listening.close()
    assert not said


def test_a_name_that_stands_for_no_address_is_said(monkeypatch):
    def getaddrinfo(host, *_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    port, said, real = a_free_port(), [], socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, *a, **k: (real if host[0] == "1" else getaddrinfo)(host, *a, **k)
    )
    (listening,) = open_sockets(a_settings("", listen_addr=("db.bad", "127.0.0.1"), listen_port=port), warn=said.append)
    listening.close()
    assert said == [f"cannot listen on db.bad:{port}: Name or service not known"]
    with pytest.raises(OSError, match=f"^cannot listen on db.bad:{port}: Name or service not known$"):
        open_sockets(a_settings("", listen_addr=("db.bad",), listen_port=port), warn=said.append)


def test_without_any_of_its_addresses_it_does_not_start(tmp_path, monkeypatch):
    """Nobody would find it there, though its Unix socket could be had."""
    without_ipv6(monkeypatch, errno.EADDRNOTAVAIL)
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    taken.listen()
    port = taken.getsockname()[1]
    first = rf"cannot listen on \[::1\]:{port}: {os.strerror(errno.EADDRNOTAVAIL)}"
    second = rf"cannot listen on 127.0.0.1:{port}: Address already in use \(-R takes over from a pgshuttle\)"
    with pytest.raises(OSError, match=f"^{first}; {second}$"):
        open_sockets(a_settings(tmp_path, listen_addr=("localhost",), listen_port=port))
    taken.close()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("folder", ["/nowhere/at/all", "/" + 200 * "x"])
def test_a_folder_that_cannot_be_used_is_warned_of_while_there_is_an_address(folder):
    said = []
    settings = a_settings(folder, listen_addr=("127.0.0.1",), listen_port=a_free_port())
    (listening,) = open_sockets(settings, warn=said.append)
    listening.close()
    (words,) = said
    assert words.startswith(f"cannot listen on unix:{folder}/.s.PGSQL.{settings.listen_port}: ")
    assert words.endswith(("No such file or directory", "AF_UNIX path too long"))


@pytest.mark.parametrize("folder", ["", "/nowhere/at/all"])
def test_with_nothing_to_listen_on_it_does_not_start(folder):
    with pytest.raises(OSError, match="nowhere to listen on"):
        open_sockets(a_settings(folder))


def test_closing_takes_the_path_of_the_unix_socket_along(tmp_path):
    async def main():
        (listening,) = open_sockets(a_settings(tmp_path))
        Listener(listening, lambda *_: None, FakeLog()).close()

    asyncio.run(main())
    assert not list(tmp_path.iterdir())


# Options of sockets, read back from the kernel.


def a_pair(**said):
    """A listener's socket and a connected one, tuned."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen()
    caller = socket.create_connection(listening.getsockname())
    connected, _ = listening.accept()
    listener_module.tune(connected, Settings(**said))
    caller.close()
    listening.close()
    return connected


@pytest.mark.parametrize(
    ("said", "level", "name", "expected"),
    [
        ({}, socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
        ({"tcp_keepalive": False}, socket.SOL_SOCKET, "SO_KEEPALIVE", 0),
        ({"tcp_keepcnt": 3}, socket.IPPROTO_TCP, "TCP_KEEPCNT", 3),
        ({"tcp_keepidle": 77}, socket.IPPROTO_TCP, "TCP_KEEPIDLE", 77),
        ({"tcp_keepintvl": 11}, socket.IPPROTO_TCP, "TCP_KEEPINTVL", 11),
        ({"tcp_user_timeout": 12_345}, socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", 12_345),
        ({"tcp_socket_buffer": 16_384}, socket.SOL_SOCKET, "SO_SNDBUF", 32_768),  # Linux doubles it
        ({"tcp_socket_buffer": 16_384}, socket.SOL_SOCKET, "SO_RCVBUF", 32_768),
    ],
)
def test_every_option_is_there_when_the_kernel_is_asked(said, level, name, expected):
    with a_pair(**said) as connected:
        assert connected.getsockopt(level, getattr(socket, name)) == expected


def test_what_is_not_said_is_left_to_the_system():
    with a_pair() as tuned, socket.socket() as plain:
        for name in ("TCP_KEEPCNT", "TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_USER_TIMEOUT"):
            option = getattr(socket, name)
            assert tuned.getsockopt(socket.IPPROTO_TCP, option) == plain.getsockopt(socket.IPPROTO_TCP, option)


def test_the_kernel_may_keep_a_silent_caller_and_a_reload_may_change_that():
    async def main():
        (listening,) = open_sockets(a_settings("", listen_addr=("127.0.0.1",), listen_port=0))
        kept = []
        for is_on in (True, False, True):
            tune_all(listening, Settings(tcp_defer_accept=is_on))
            kept.append(listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT) > 0)
        listening.close()
        return kept

    assert asyncio.run(main()) == [True, False, True]


def test_two_processes_may_share_a_port_with_so_reuseport():
    (first,) = open_sockets(a_settings("", listen_addr=("127.0.0.1",), listen_port=0, so_reuseport=True))
    port = first.getsockname()[1]
    (second,) = open_sockets(a_settings("", listen_addr=("127.0.0.1",), listen_port=port, so_reuseport=True))
    assert second.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT) == 1
    second.close()
    with pytest.raises(OSError, match="cannot listen on"):
        open_sockets(a_settings("", listen_addr=("127.0.0.1",), listen_port=port))
    first.close()


# Unix sockets.


def test_an_abstract_socket_is_found_where_libpq_looks_for_it():
    name = f"@pgshuttle-test-{os.getpid()}"
    (listening,) = open_sockets(a_settings(name))
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(f"\0{name[1:]}/.s.PGSQL.6432")
    listening.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file to any group")
def test_the_socket_belongs_to_the_group_asked_for(tmp_path):
    group = grp.getgrall()[-1]
    (listening,) = open_sockets(a_settings(tmp_path, unix_socket_group=group.gr_name))
    assert os.stat(tmp_path / ".s.PGSQL.6432").st_gid == group.gr_gid
    listening.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes somebody else")
def test_the_socket_is_his_whom_root_will_become(tmp_path):
    """Else a mode of 0700 would shut out the very account the proxy runs as."""
    nobody, group = pwd.getpwnam("nobody"), grp.getgrall()[-1]
    for asked, gid in (("", nobody.pw_gid), (group.gr_name, group.gr_gid)):
        (listening,) = open_sockets(a_settings(tmp_path, unix_socket_group=asked), "nobody")
        about = os.stat(tmp_path / ".s.PGSQL.6432")
        assert (about.st_uid, about.st_gid) == (nobody.pw_uid, gid)
        listening.close()


def test_a_group_that_is_not_there_is_said(tmp_path):
    with pytest.raises(OSError, match="no such group: nobody-at-all"):
        open_sockets(a_settings(tmp_path, unix_socket_group="nobody-at-all"))


def test_a_caller_on_a_unix_socket_is_known_by_its_process_and_our_port(tmp_path):
    async def main():
        (listening,) = open_sockets(a_settings(tmp_path))
        arrived = asyncio.get_running_loop().create_future()

        def arrive(connected, address):
            connected.close()
            arrived.set_result(address)

        listener = Listener(listening, arrive, FakeLog(), 6432)
        with socket.socket(socket.AF_UNIX) as caller:
            caller.connect(str(tmp_path / ".s.PGSQL.6432"))
            address = await asyncio.wait_for(arrived, 5)
        listener.close()
        return str(address)

    assert asyncio.run(main()) == f"unix({os.getpid()}):6432"


def test_a_listener_names_itself_as_pgbouncer_does(tmp_path):
    async def main():
        settings = a_settings(tmp_path, listen_addr=("127.0.0.1", "::1"), listen_port=0)
        listeners = [Listener(each, lambda *_: None, FakeLog()) for each in open_sockets(settings)]
        names = [str(listener) for listener in listeners]
        ports = [listener.socket.getsockname()[1] for listener in listeners[:2]]
        for listener in listeners:
            listener.close()
        return names, ports

    names, ports = asyncio.run(main())
    assert names == [f"127.0.0.1:{ports[0]}", f"[::1]:{ports[1]}", f"unix:{tmp_path}/.s.PGSQL.0"]


def test_the_path_of_a_socket_that_systemd_made_stays(tmp_path):
    async def main():
        path = str(tmp_path / "socket")
        theirs = socket.socket(socket.AF_UNIX)
        theirs.bind(path)
        theirs.listen()
        Listener(InheritedSocket(fileno=theirs.detach()), lambda *_: None, FakeLog()).close()
        return os.path.exists(path)

    assert asyncio.run(main())


KEEPALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT),
)


def accepted_options(listening):
    with socket.create_connection(listening.getsockname(), 5) as caller:
        caller.sendall(b"!")  # with tcp_defer_accept the kernel waits for a first word
        connected, _ = listening.accept()
        with connected:
            return [connected.getsockopt(*option) for option in KEEPALIVE]


def test_whoever_is_accepted_inherits_keepalive_and_a_reload_changes_it_for_those_who_come_later():
    asked = Settings(tcp_keepcnt=3, tcp_keepidle=44, tcp_keepintvl=5, tcp_user_timeout=6000)
    with socket.socket() as fresh, socket.create_server(("127.0.0.1", 0)) as listening:
        usual = [fresh.getsockopt(*option) for option in KEEPALIVE]
        tune_all(listening, asked)
        assert accepted_options(listening) == [1, 3, 44, 5, 6000]
        tune_all(listening, Settings(tcp_keepalive=False))
        assert accepted_options(listening) == usual


def test_a_unix_socket_has_nothing_to_tune():
    with socket.socket(socket.AF_UNIX) as listening:
        tune_all(listening, Settings())


def test_who_rests_accepts_nobody_until_it_goes_on():
    loop, listener, arrived, _ = listen((caller(), ("1.2.3.4", 5)))
    listener.rest()
    listener.rest()
    assert not loop.readers
    listener.go_on()
    loop.readers[77]()
    assert arrived == [("1.2.3.4", 5)]
    listener.go_on()


def test_who_rests_after_the_descriptors_ran_out_stays_at_rest():
    loop, listener, _, _ = listen(OSError(errno.EMFILE, "Too many open files"))
    loop.readers[77]()
    listener.rest()
    loop.clock.advance(60)
    loop.turn()
    assert not loop.readers
    listener.go_on()
    assert loop.readers


def test_the_path_of_a_socket_that_another_process_accepts_on_stays(tmp_path):
    async def main():
        (listening,) = open_sockets(a_settings(tmp_path))
        listener = Listener(listening, lambda *_: None, FakeLog())
        listener.rest()
        listener.close()

    asyncio.run(main())
    assert [path.name for path in tmp_path.iterdir()] == [".s.PGSQL.6432"]
