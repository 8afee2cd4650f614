"""Behind a balancer: the client's address is the one the header names, and nobody else may send one."""

import asyncio
import os
import socket

import pytest

from protocol.proxy_header import SIGNATURE, build_v2, parse_header
from proxy.balancer import is_balancer, name_client
from proxy.config.networks import NETWORKS
from proxy.janitor import Janitor
from proxy.log import Address
from tests.proxy.auth.wire import play
from tests.proxy.test_login import HELLO, PARAMETERS, a_proxy, find_pool, refusal, visit

CLIENT = ("192.0.2.7", 40000)
HEADER = build_v2(CLIENT, ("10.0.0.1", 6432))
LINE = b"PROXY TCP4 192.0.2.7 10.0.0.1 40000 6432\r\n"
LOCAL = SIGNATURE + b"\x20\x00\x00\x00"
NAMELESS = b"PROXY UNKNOWN\r\n"
BALANCER = Address("127.0.0.1", 33333)


async def talk(proxy, *said, balancer=BALANCER, until=b"Z\0\0\0\5I", seconds=2.0):
    """All that whoever connects from there hears: he says one piece after the other, each on its own."""
    loop = asyncio.get_running_loop()
    near, far = socket.socketpair()
    near.setblocking(False)
    proxy.arrive(far, balancer)
    heard = b""
    try:
        async with asyncio.timeout(seconds):
            for piece in said:
                await loop.sock_sendall(near, piece)
                await asyncio.sleep(0.002)
            while not heard.endswith(until) and (more := await loop.sock_recv(near, 65536)):
                heard += more
        return heard
    finally:
        near.close()
        for _ in range(5):
            await asyncio.sleep(0)


def meet(tmp_path, *said, listed="127.0.0.0/8", look=lambda proxy: None, **more):
    """What is heard, the address every client has, the log."""

    async def main():
        proxy = a_proxy(tmp_path, proxy_protocol_from=listed)
        find_pool(proxy).welcome = PARAMETERS
        seen = []
        arrived = proxy.client_arrived
        proxy.client_arrived = lambda client: (seen.append(client.address), arrived(client))
        heard = await talk(proxy, *said, **more)
        assert not proxy.doorsteps
        return heard, seen, proxy.log.text

    return play(main())


@pytest.mark.parametrize(
    "said",
    [
        (HEADER + HELLO,),
        (LINE + HELLO,),
        (HEADER, HELLO),
        tuple(bytes([byte]) for byte in HEADER + HELLO),
        tuple(bytes([byte]) for byte in LINE + HELLO),
    ],
    ids=["v2", "v1", "apart", "v2 byte by byte", "v1 byte by byte"],
)
def test_the_client_has_the_address_that_the_balancer_names(tmp_path, said):
    heard, (address,), log = meet(tmp_path, *said)
    assert heard.startswith(b"R\0\0\0\x08\0\0\0\0")
    assert address == CLIENT
    assert address.via == "127.0.0.1:33333"
    assert "shop/anna@192.0.2.7:40000 login attempt" in log
    assert "127.0.0.1" not in log


def test_what_stands_behind_the_header_is_the_clients_and_may_be_a_request_for_encryption(tmp_path):
    async def main():
        proxy = a_proxy(tmp_path, proxy_protocol_from="127.0.0.1")
        return await talk(proxy, HEADER + b"\0\0\0\x08\x04\xd2\x16\x2f", until=b"N")

    assert play(main()) == b"N"


def test_the_balancer_may_speak_for_itself(tmp_path):
    _, (address,), _ = meet(tmp_path, LOCAL + HELLO)
    assert (address, address.via) == (BALANCER, "")


def test_a_client_without_an_address_has_the_balancers_and_is_marked(tmp_path):
    _, (address,), _ = meet(tmp_path, NAMELESS + HELLO)
    assert (address, address.via) == (BALANCER, "127.0.0.1:33333")


def test_over_a_unix_socket_a_client_of_the_balancer_is_never_the_balancers_account(tmp_path):
    balancer = Address.of_unix(6432, 4711, os.geteuid() + 1)
    heard, seen, _ = meet(tmp_path, NAMELESS + HELLO, listed="unix", balancer=balancer, until=b"\0\0")
    assert refusal(heard) == ("08P01", "PROXY header: it names no address, and on a Unix socket it must")
    assert not seen
    assert name_client_of(LOCAL, balancer) is balancer
    assert name_client_of(HEADER, balancer) == CLIENT


def name_client_of(header, balancer):
    return name_client(parse_header(header), balancer)


def test_the_account_we_run_as_is_no_balancer(tmp_path):
    proxy = a_proxy(tmp_path, proxy_protocol_from="unix")
    assert not is_balancer(proxy, Address.of_unix(6432, 4711, os.geteuid()))
    assert is_balancer(proxy, Address.of_unix(6432, 4711, os.geteuid() + 1))
    assert is_balancer(proxy, Address.of_unix(6432, 4711)), "whose account is not known may be anybody"
    assert not is_balancer(proxy, BALANCER)


def test_a_balancer_that_says_nothing_of_its_clients_is_told_what_is_missing(tmp_path):
    heard, seen, log = meet(tmp_path, HELLO, until=b"\0\0")
    state, words = refusal(heard)
    assert (state, words) == (
        "08P01",
        "PROXY header: missing, and it must come first from whoever is in proxy_protocol_from",
    )
    assert not seen
    assert f"pooler error: {words}" in log


@pytest.mark.parametrize("header", [HEADER, LINE, LOCAL], ids=["v2", "v1", "local"])
@pytest.mark.parametrize("listed", ["", "10.0.0.0/8, unix"])
def test_a_header_from_anybody_else_is_refused(tmp_path, header, listed):
    heard, seen, _ = meet(tmp_path, header + HELLO, listed=listed, until=b"\0\0")
    assert refusal(heard) == ("08P01", "a PROXY header from somebody who is not in proxy_protocol_from")
    assert not seen


def test_and_so_is_a_second_header(tmp_path):
    heard, seen, _ = meet(tmp_path, HEADER + HEADER + HELLO, until=b"\0\0")
    assert refusal(heard)[1] == "a PROXY header from somebody who is not in proxy_protocol_from"
    assert not seen


def test_a_bad_header_is_refused_under_the_balancers_address(tmp_path):
    heard, seen, log = meet(tmp_path, HEADER[:12] + b"\x22" + HEADER[13:] + HELLO, until=b"\0\0")
    assert "version and command 0x22" in refusal(heard)[1]
    assert not seen
    assert "(nodb)/(nouser)@127.0.0.1:33333 closing because: PROXY header" in log


def test_a_balancer_that_says_nothing_may_not_stay(tmp_path):
    async def main():
        proxy = a_proxy(tmp_path, proxy_protocol_from="127.0.0.1", client_login_timeout=10)
        janitor = Janitor(proxy)
        talking = asyncio.ensure_future(talk(proxy, HEADER[:9], until=b"\0\0"))
        await asyncio.sleep(0.01)
        janitor.sweep()
        assert len(proxy.doorsteps) == 1
        proxy.clock.advance(11)
        janitor.sweep()
        assert not proxy.doorsteps
        return await talking

    assert "has not come in time" in refusal(play(main()))[1]


def test_a_balancer_that_hangs_up_leaves_nothing_behind(tmp_path):
    async def main():
        proxy = a_proxy(tmp_path, proxy_protocol_from="127.0.0.1")
        near, far = socket.socketpair()
        proxy.arrive(far, BALANCER)
        near.sendall(HEADER[:9])
        await asyncio.sleep(0.01)
        assert len(proxy.doorsteps) == 1
        near.close()
        await asyncio.sleep(0.01)
        assert not proxy.doorsteps
        assert not len(proxy.tasks)
        assert far.fileno() < 0
        return proxy.log.text

    assert play(main()) == ""


def test_a_reload_changes_who_is_believed(tmp_path):
    proxy = a_proxy(tmp_path)
    assert not is_balancer(proxy, BALANCER)
    asyncio.run(proxy.reloader.apply_setting("proxy_protocol_from", "127.0.0.1"))
    assert is_balancer(proxy, BALANCER)
    asyncio.run(proxy.reloader.apply_setting("proxy_protocol_from", ""))
    assert "a PROXY header from somebody" in refusal(visit(proxy, HEADER + HELLO))[1]
    assert NETWORKS.format(proxy.settings.proxy_protocol_from) == ""
