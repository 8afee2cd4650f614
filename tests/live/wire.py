"""
A client made of bytes: for what no driver would ever send.

Theory. Written by hand and not with `protocol/`: a test that spoke through the code it tests could not notice when both
are wrong. Builders are functions from values to bytes; `Raw` is a blocking socket that sends them and reads whole
messages; `kinds`, `rows` and `error` say what came in a form one can compare.

Source: PostgreSQL docs, "Message Formats" and "SASL Authentication".
"""

import base64
import hashlib
import hmac
import os
import socket
from collections.abc import Sequence
from struct import pack, unpack_from
from typing import Any, NamedTuple

PROTOCOL = 3 << 16
SSL_REQUEST = pack("!II", 8, 80877103)
GSS_REQUEST = pack("!II", 8, 80877104)


class Gone(Exception):
    """The other side has hung up."""


class Message(NamedTuple):
    """One message of the server: its letter and its body."""

    kind: str
    body: bytes


# Building.


def message(kind: str, body: bytes = b"") -> bytes:
    return kind.encode() + pack("!I", 4 + len(body)) + body


def startup(user: str, database: str = "", *, protocol: int = PROTOCOL, **parameters: str) -> bytes:
    said = {"user": user} | ({"database": database} if database else {}) | parameters
    body = b"".join(f"{name}\0{value}\0".encode() for name, value in said.items()) + b"\0"
    return pack("!II", 8 + len(body), protocol) + body


def cancel_request(key: bytes) -> bytes:
    return pack("!II", 8 + len(key), 80877102) + key


def query(text: str) -> bytes:
    return message("Q", text.encode() + b"\0")


def parse(text: str, name: str = "") -> bytes:
    return message("P", f"{name}\0{text}\0".encode() + b"\0\0")


def bind(*values: object, portal: str = "", statement: str = "") -> bytes:
    body = f"{portal}\0{statement}\0".encode() + pack("!HH", 0, len(values))
    for value in values:
        text = str(value).encode()
        body += pack("!I", len(text)) + text
    return message("B", body + pack("!H", 0))


def describe(kind: str = "P", name: str = "") -> bytes:
    return message("D", f"{kind}{name}\0".encode())


def execute(portal: str = "", max_rows: int = 0) -> bytes:
    return message("E", portal.encode() + b"\0" + pack("!I", max_rows))


def ask(text: str, *values: object, max_rows: int = 0) -> bytes:
    """Parse, Bind, Describe, Execute; no Sync."""
    return parse(text) + bind(*values) + describe() + execute(max_rows=max_rows)


def copy_data(data: bytes) -> bytes:
    return message("d", data)


SYNC = message("S")
FLUSH = message("H")
TERMINATE = message("X")
COPY_DONE = message("c")


# Understanding.


def kinds(messages: Sequence[Message]) -> str:
    """Their letters in order; notices and parameters, which may come at any time, are left out."""
    return "".join(each.kind for each in messages if each.kind not in "NS")


def rows(messages: Sequence[Message]) -> list[tuple[str | None, ...]]:
    return [_row(each.body) for each in messages if each.kind == "D"]


def _row(body: bytes) -> tuple[str | None, ...]:
    (count,) = unpack_from("!H", body)
    pos, values = 2, list[str | None]()
    for _ in range(count):
        (length,) = unpack_from("!i", body, pos)
        pos += 4
        values.append(None if length < 0 else body[pos : pos + length].decode())
        pos += max(length, 0)
    return tuple(values)


def fields(body: bytes) -> dict[str, str]:
    """Of an error or a notice, by letter: S severity, C SQLSTATE, M message, D detail, H hint."""
    return {part[:1].decode(): part[1:].decode() for part in body.split(b"\0") if part}


def error(messages: Sequence[Message]) -> dict[str, str]:
    """The fields of the first error; {} when there is none."""
    return next((fields(each.body) for each in messages if each.kind == "E"), {})


def sqlstate(messages: Sequence[Message]) -> str:
    return error(messages).get("C", "")


def parameters(messages: Sequence[Message]) -> dict[str, str]:
    pairs = [each.body.split(b"\0") for each in messages if each.kind == "S"]
    return {pair[0].decode(): pair[1].decode() for pair in pairs}


# Talking.


class Raw:
    """A socket to 127.0.0.1:`port`. Nothing takes longer than `seconds`."""

    def __init__(self, port: int, seconds: float = 15.0) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), seconds)
        self.key = b""
        self._unread = b""

    def __enter__(self) -> "Raw":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up without a word."""
        self.socket.close()

    def leave(self) -> None:
        """As one should."""
        self.send(TERMINATE)
        self.close()

    def send(self, *parts: bytes) -> None:
        self.socket.sendall(b"".join(parts))

    def read(self) -> Message:
        head = self._take(5)
        (length,) = unpack_from("!I", head, 1)
        return Message(chr(head[0]), self._take(length - 4))

    def read_until(self, last: str = "Z") -> list[Message]:
        """Up to the first message of one of the kinds `last`."""
        found = [self.read()]
        while found[-1].kind not in last:
            found.append(self.read())
        return found

    def read_to_end(self) -> list[Message]:
        """Until the other side hangs up."""
        found = []
        try:
            while True:
                found.append(self.read())
        except Gone:
            return found

    def read_byte(self) -> bytes:
        return self._take(1)

    def _take(self, count: int) -> bytes:
        while len(self._unread) < count:
            try:
                more = self.socket.recv(1 << 18)
            except ConnectionResetError:
                raise Gone from None
            if not more:
                raise Gone
            self._unread += more
        taken, self._unread = self._unread[:count], self._unread[count:]
        return taken

    def ask(self, text: str) -> list[Message]:
        """A simple query and its whole answer."""
        self.send(query(text))
        return self.read_until()

    def value(self, text: str) -> str | None:
        """The one value a simple query returns."""
        answer = self.ask(text)
        assert not error(answer), error(answer)
        return rows(answer)[0][0]

    def login(self, user: str, database: str = "", password: str = "", **parameters: str) -> list[Message]:
        """All messages up to ReadyForQuery, or up to the end of the connection when we are not let in."""
        self.send(startup(user, database, **parameters))
        found = []
        try:
            while not found or found[-1].kind != "Z":
                found.append(self.read())
                if found[-1].kind == "R":
                    self._prove(found[-1].body, user, password, found)
                elif found[-1].kind == "K":
                    self.key = found[-1].body
        except Gone:
            return found
        return found

    def _prove(self, request: bytes, user: str, password: str, found: list[Message]) -> None:
        (code,) = unpack_from("!I", request)
        if code == 3:
            self.send(message("p", password.encode() + b"\0"))
        elif code == 5:
            inner = hashlib.md5(password.encode() + user.encode()).hexdigest()
            outer = hashlib.md5(inner.encode() + request[4:8]).hexdigest()
            self.send(message("p", b"md5" + outer.encode() + b"\0"))
        elif code == 10:
            found += self._scram(password)

    def _scram(self, password: str) -> list[Message]:
        """SCRAM-SHA-256 (RFC 5802) up to and including the server's last word."""
        nonce = base64.b64encode(os.urandom(18)).decode()
        first_bare = f"n=,r={nonce}"
        first = f"n,,{first_bare}".encode()
        self.send(message("p", b"SCRAM-SHA-256\0" + pack("!I", len(first)) + first))
        found = [self.read()]
        if found[0].kind != "R":
            return found
        server_first = found[0].body[4:].decode()
        said = dict(part.split("=", 1) for part in server_first.split(","))
        salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(said["s"]), int(said["i"]))
        last_bare = f"c=biws,r={said['r']}"
        text = f"{first_bare},{server_first},{last_bare}"
        client_key = _hmac(salted, "Client Key")
        proof = _xor(client_key, _hmac(hashlib.sha256(client_key).digest(), text))
        self.send(message("p", f"{last_bare},p={base64.b64encode(proof).decode()}".encode()))
        found.append(self.read())
        if found[-1].kind == "R":
            signature = base64.b64encode(_hmac(_hmac(salted, "Server Key"), text)).decode()
            assert found[-1].body[4:].decode() == f"v={signature}", "the server does not know our password"
        return found


def scram_secret(password: str, *, iterations: int = 4096) -> str:
    """As in pg_authid: SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey."""
    salt = os.urandom(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, iterations)
    stored = hashlib.sha256(_hmac(salted, "Client Key")).digest()
    parts: list[Any] = [base64.b64encode(each).decode() for each in (salt, stored, _hmac(salted, "Server Key"))]
    return f"SCRAM-SHA-256${iterations}:{parts[0]}${parts[1]}:{parts[2]}"


def md5_secret(user: str, password: str) -> str:
    return "md5" + hashlib.md5(f"{password}{user}".encode()).hexdigest()


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode(), "sha256")


def _xor(one: bytes, two: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(one, two, strict=True))
