"""
Is the proxy there? `python healthcheck.py [HOST] [PORT]` ends with 0 for yes and 1 for no.

Theory. That a port is open proves little: the kernel accepts connections for a process that hangs. So we ask what every
PostgreSQL server and pooler answers before any login, an SSLRequest (docs: SSL Session Encryption), and want its one
byte, S or N. It costs the proxy no server and no password. Needs nothing but Python, so that it runs in the image.
"""

import socket
import struct
import sys

HOST, PORT, SECONDS = "127.0.0.1", 6432, 3.0
SSL_REQUEST = struct.pack("!II", 8, 80877103)  # its length, then 1234 and 5679 in the place of a version


def is_answering(host: str = HOST, port: int = PORT, seconds: float = SECONDS) -> bool:
    """Whether somebody on `host`:`port` answers an SSLRequest within `seconds`."""
    try:
        with socket.create_connection((host, port), seconds) as line:
            line.settimeout(seconds)
            line.sendall(SSL_REQUEST)
            return line.recv(1) in {b"S", b"N"}
    except OSError:
        return False


def main(arguments: list[str]) -> int:
    host = arguments[0] if arguments else HOST
    port = int(arguments[1]) if len(arguments) > 1 else PORT
    return 0 if is_answering(host, port) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
