"""What the pool asks of others is what they have: the real ones, and those that the tests put in their place."""

import pytest

from proxy.client import Client
from proxy.contracts import PooledClient, PooledServer, World
from proxy.errand import Errand
from proxy.main import Proxy
from proxy.server import Server
from tests.fakes import FakeWorld
from tests.play import Play


def asked_of(contract):
    """The names a contract speaks of."""
    return {name for name in (*contract.__annotations__, *vars(contract)) if not name.startswith("_")}


@pytest.mark.parametrize(("contract", "made"), [(PooledServer, "server"), (PooledClient, "client"), (World, "world")])
def test_the_parts_of_a_play_keep_their_contracts(contract, made):
    part = getattr(Play(), made)
    assert [name for name in asked_of(contract) if not hasattr(part, name)] == []


@pytest.mark.parametrize(
    ("contract", "kind"), [(PooledServer, Server), (PooledClient, Client), (PooledClient, Errand), (World, Proxy)]
)
def test_methods_are_there_in_every_kind(contract, kind):
    methods = {name for name in asked_of(contract) if callable(getattr(contract, name, None))}
    assert methods
    assert [name for name in methods if not callable(getattr(kind, name, None))] == []


def test_the_fake_world_can_do_what_the_real_one_can():
    methods = {name for name in asked_of(World) if callable(getattr(World, name, None))}
    assert [name for name in methods if not callable(getattr(FakeWorld, name, None))] == []
