"""What SCRAM is bound to: both sides of a handshake come to the same, and without TLS there is nothing."""

import asyncio
import contextlib
import ssl
from types import SimpleNamespace
from typing import Any

import pytest

from protocol.certificates import find_end_point
from proxy.auth.binding import find_own_end_point, find_peers_end_point
from proxy.tls import build_contexts
from tests.certificates import Authority, Pair
from tests.proxy.auth.wire import Wire
from tests.proxy.test_tls import settings_of


@pytest.mark.parametrize("kind", ["EC", "ED25519"])
def test_both_sides_are_bound_to_the_certificate_that_was_shown(tmp_path: Any, kind: str) -> None:
    """That of the authority itself, as its signature is of its own kind."""
    authority = Authority(tmp_path, kind=kind)
    pair = Pair(authority.cert, authority.key)
    files = {"client_tls_cert_file": str(pair.cert), "client_tls_key_file": str(pair.key)}
    contexts = build_contexts(settings_of(client_tls_sslmode="require", server_tls_sslmode="require", **files))
    assert contexts.for_clients is not None
    assert contexts.for_servers is not None
    expected = find_end_point(ssl.PEM_cert_to_DER_cert(pair.cert.read_text()))
    assert (expected is None) is (kind == "ED25519")

    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    near = contexts.for_servers.wrap_bio(back, there)
    far = contexts.for_clients.wrap_bio(there, back, server_side=True)
    for each in (near, far, near, far):
        with contextlib.suppress(ssl.SSLWantReadError):
            each.do_handshake()
    assert find_peers_end_point(with_extra(ssl_object=near)) == expected
    assert find_own_end_point(with_extra(sslcontext=contexts.for_clients)) == expected


def with_extra(**extra: Any) -> asyncio.Transport:
    return SimpleNamespace(get_extra_info=extra.get)  # type: ignore[return-value]


def test_without_tls_there_is_nothing_to_be_bound_to() -> None:
    assert find_peers_end_point(Wire()) is None
    assert find_own_end_point(Wire()) is None


def test_the_first_certificate_of_a_chain_is_the_one_that_is_shown(tmp_path: Any) -> None:
    authority = Authority(tmp_path)
    pair = authority.issue("pooler")
    chain = tmp_path / "chain.crt"
    chain.write_text("some words in front\n" + pair.cert.read_text() + authority.cert.read_text())
    settings = settings_of(
        client_tls_sslmode="require", client_tls_cert_file=str(chain), client_tls_key_file=str(pair.key)
    )
    context = build_contexts(settings).for_clients
    assert context is not None
    assert context.end_point == find_end_point(ssl.PEM_cert_to_DER_cert(pair.cert.read_text()))
