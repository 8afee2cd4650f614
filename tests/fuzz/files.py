"""What an operator wrote: the configuration with all it includes, its entries and values, the user list, secrets."""

import contextlib
import os
import tempfile
from functools import cache
from pathlib import Path

from protocol.passwords import BadSecret, parse_stored
from proxy.auth.users import BadUserFile, parse_users
from proxy.config.entries import DATABASE_KEYS, BadEntry, parse_database, parse_pairs, parse_peer, parse_user
from proxy.config.ini import BadConfig, read
from proxy.config.limits import resolve
from proxy.config.settings import SETTINGS
from tests.fuzz.registry import cut, target, text_of

INI = b"""[databases]
shop = host=a,b port=5432 password='it''s' pool_size=3 connect_query='select 1'
* = auth_user=x
%include other.ini
[users]
joe = pool_mode=session max_user_connections=4
[peers]
1 = host=/tmp
[pgbouncer]
listen_port = 0x1f
pool_mode = transaction
server_lifetime = 1.5e3
"unknown" = ;
"""
VALUES = [setting.kind for setting in (*SETTINGS.values(), *DATABASE_KEYS.values())]


@cache
def folder() -> Path:
    """Everything is read in here; `%include` may name the file itself, and one that is there."""
    path = Path(tempfile.mkdtemp(prefix="fuzz-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
    (path / "other.ini").write_bytes(b"[databases]\nother = host=c\n")
    return path


def read_config(data: bytes) -> None:
    path, before = folder() / "it.ini", os.getcwd()
    path.write_bytes(data.replace(b"%include /", b"%include "))  # nothing outside
    os.chdir(folder())
    try:
        config = read("it.ini")
    finally:
        os.chdir(before)
    for database in config.databases.values():
        resolve(config, database.name, "joe")


def read_values(data: bytes) -> None:
    """What SHOW CONFIG prints of a value is one that prints the same: of a time six digits, as in PgBouncer."""
    kind, text = VALUES[data[0] % len(VALUES)] if data else VALUES[0], text_of(data[1:])
    value = kind.parse(text)
    if kind.format(value) != "***":
        assert kind.format(kind.parse(kind.format(value))) == kind.format(value)


def read_entries(data: bytes) -> None:
    name, text = map(text_of, cut(data, 2))
    for parse in (parse_database, parse_user, parse_peer):
        with contextlib.suppress(BadEntry):
            parse(name, text)


target("ini", read_config, BadConfig, seeds=(INI,), base=1_000_000, each=3_000)
target("entries", read_entries, seeds=(b"shop\0host=a port=1 password='a''b' x=y",), base=300_000, each=3_000)
target("pairs", lambda data: list(parse_pairs(text_of(data))), ValueError, seeds=(b"a=b c='d' e = ''",))
target("values of settings", read_values, ValueError, seeds=(b"\x091.5e3", b"\x10transaction", b"\x210x1f"))
target(
    "user list",
    lambda data: parse_users(text_of(data), "users.txt"),
    BadUserFile,
    seeds=(b'"a" "b" c\n; x\n"d""e" ""\n"f" "md5' + b"0" * 32 + b'"\n"g" "SCRAM-SHA-256$4096:c2FsdA==$a2V5:a2V5"',),
)
target(
    "secrets",
    lambda data: parse_stored(text_of(data)),
    BadSecret,
    seeds=(
        b"md5" + b"0" * 32,
        b"SCRAM-SHA-256$4096:c2FsdA==$" + 2 * (b"QUFB" * 10 + b"QUE=:"),
    ),
)
