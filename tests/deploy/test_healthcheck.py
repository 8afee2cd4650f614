"""Whether somebody is there who speaks PostgreSQL."""

import contextlib
import socket
import threading

import pytest

from deploy.healthcheck import LOCAL_HEADER, SSL_REQUEST, is_answering, main
from protocol.proxy_header import ProxyHeader, count_missing, parse_header


@contextlib.contextmanager
def answering(answer):
    """A server for one connection; `answer` None means it only accepts. Gives its port and what it heard."""
    heard = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(5)

        def serve():
            with contextlib.suppress(OSError):
                line, _ = listening.accept()
                with line:
                    heard.append(line.recv(100))
                    if answer is None:
                        line.recv(1)  # deaf until the other side gives up
                    else:
                        line.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listening.getsockname()[1], heard
        thread.join()


@pytest.mark.parametrize(("answer", "verdict"), [(b"N", True), (b"S", True), (b"H", False), (b"", False)])
def test_only_an_answer_to_an_ssl_request_is_life(answer, verdict):
    with answering(answer) as (port, heard):
        assert is_answering(port=port) is verdict
    assert heard == [SSL_REQUEST]


def test_a_process_that_hangs_is_not_alive():
    with answering(None) as (port, _):
        assert not is_answering(port=port, seconds=0.05)


def test_a_closed_port_is_not_alive_and_the_exit_status_says_so():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
        assert main(["127.0.0.1", str(taken.getsockname()[1])], {}) == 1


def test_the_exit_status_of_life_is_zero():
    with answering(b"N") as (port, _):
        assert main(["127.0.0.1", str(port)], {}) == 0


def test_a_container_says_the_port_in_its_environment_and_an_argument_is_stronger():
    with answering(b"N") as (port, _):
        assert main([], {"PGSHUTTLE_LISTEN_PORT": str(port)}) == 0
    with answering(b"N") as (port, _):
        assert main(["127.0.0.1", str(port)], {"PGSHUTTLE_LISTEN_PORT": "1"}) == 0


@pytest.mark.parametrize("port", ["tcp://10.0.0.7:6432", "0", "65536", "²"])
def test_what_is_no_port_is_said(port, capsys):
    assert main([], {"PGSHUTTLE_LISTEN_PORT": port}) == 1
    assert f"{port!r} is no port" in capsys.readouterr().err


def test_where_we_are_taken_for_a_balancer_we_speak_for_ourselves():
    with answering(b"N") as (port, heard):
        assert main([], {"PGSHUTTLE_LISTEN_PORT": str(port), "PGSHUTTLE_PROXY_PROTOCOL": "1"}) == 0
    (said,) = heard
    assert said == LOCAL_HEADER + SSL_REQUEST
    assert count_missing(LOCAL_HEADER) == 0
    assert parse_header(LOCAL_HEADER) == ProxyHeader(is_local=True)


def test_without_being_told_so_no_header_is_sent():
    with answering(b"N") as (port, heard):
        assert main([], {"PGSHUTTLE_LISTEN_PORT": str(port), "PGSHUTTLE_PROXY_PROTOCOL": "0"}) == 0
    assert heard == [SSL_REQUEST]
