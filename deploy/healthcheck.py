"""
Is the proxy there? `python healthcheck.py [HOST] [PORT]` ends with 0 for yes and 1 for no.

Theory. That a port is open proves little: the kernel accepts connections for a process that hangs. So we ask what every
PostgreSQL server and pooler answers before any login, an SSLRequest (docs: SSL Session Encryption), and want its one
byte, S or N. It costs the proxy no server and no password. Needs nothing but Python, so that it runs in the image.

A HEALTHCHECK has no arguments that are easily changed, so a container says it in its environment: the port in
PGSHUTTLE_LISTEN_PORT (not PGSHUTTLE_PORT, which Kubernetes sets to an address where a service is called pgshuttle), and
PGSHUTTLE_PROXY_PROTOCOL=1 where `proxy_protocol_from` covers our own address: then each connection must begin with a
PROXY header, and ours says LOCAL, that we speak for nobody but ourselves.
"""

import os
import socket
import struct
import sys
from collections.abc import Mapping

HOST, PORT, SECONDS = "127.0.0.1", 6432, 3.0
SSL_REQUEST = struct.pack("!II", 8, 80877103)  # its length, then 1234 and 5679 in the place of a version
# Of version 2: the signature, version and LOCAL, no addresses, nothing after it.
LOCAL_HEADER = b"\r\n\r\n\0\r\nQUIT\n" + struct.pack("!BBH", 0x20, 0, 0)


def is_answering(host: str = HOST, port: int = PORT, seconds: float = SECONDS, *, header: bytes = b"") -> bool:
    """Whether somebody on `host`:`port` answers an SSLRequest, after the `header`, within `seconds`."""
    try:
        with socket.create_connection((host, port), seconds) as line:
            line.settimeout(seconds)
            line.sendall(header + SSL_REQUEST)
            return line.recv(1) in {b"S", b"N"}
    except OSError:
        return False


def main(arguments: list[str], environ: Mapping[str, str] = os.environ) -> int:
    host = arguments[0] if arguments else HOST
    port = arguments[1] if len(arguments) > 1 else environ.get("PGSHUTTLE_LISTEN_PORT") or str(PORT)
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        print(f"healthcheck: {port!r} is no port (PGSHUTTLE_LISTEN_PORT)", file=sys.stderr)
        return 1
    header = LOCAL_HEADER if environ.get("PGSHUTTLE_PROXY_PROTOCOL") == "1" else b""
    return 0 if is_answering(host, int(port), header=header) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
