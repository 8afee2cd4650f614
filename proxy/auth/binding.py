"""
What SCRAM can be bound to on a connection: the certificate of whoever is the TLS server on it.

Theory. Towards PostgreSQL that is the certificate the server has shown in the handshake. Towards a client it is our
own, and of that OpenSSL tells nothing afterwards; but a connection keeps the context it began with, and that context
knows (`tls.Context.end_point`). So after a reload those who began with the old certificate are bound to that one.
"""

from typing import Any

from protocol.certificates import find_end_point


def find_peers_end_point(transport: Any) -> bytes | None:
    """Of a server we are connected to. None: no TLS, or a certificate that nothing can be bound to."""
    encrypted = transport.get_extra_info("ssl_object")
    certificate = None if encrypted is None else encrypted.getpeercert(binary_form=True)
    return None if certificate is None else find_end_point(certificate)


def find_own_end_point(transport: Any) -> bytes | None:
    """Of a client that is connected to us. None: no TLS, or our certificate is of that kind."""
    context = transport.get_extra_info("sslcontext")
    end_point: bytes | None = getattr(context, "end_point", None)
    return end_point
