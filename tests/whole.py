"""A whole proxy without a socket, for tests of what belongs to all of it."""

from proxy.auth.users import NOBODY
from proxy.client import Client
from proxy.config.ini import read
from proxy.main import Proxy
from tests.fakes import FakeClock, FakeLog, FakeLoop, FakeTransport

INI = "[databases]\nshop = host=127.0.0.1 port=1\n[proxy]\nlisten_addr =\nunix_socket_dir =\nauth_type = trust\n"


def a_proxy(path):
    return Proxy(read(str(path)), NOBODY, FakeLog(), FakeClock())


def a_pool(proxy):
    return proxy.pools.find(proxy.config.find_database("shop"), "anna")


def a_client(proxy):
    loop = FakeLoop(proxy.clock)
    client = Client(a_pool(proxy), "anna", proxy.cancels.mint_key(), {}, ("127.0.0.1", 1))
    proxy.client_arrived(client)
    FakeTransport(loop).start(client)
    return client
