"""What strangers and operators say about who somebody is: rules, maps, headers of balancers, certificates, tokens."""

import json
import os
import tempfile
from functools import cache
from pathlib import Path

from protocol import backend
from protocol.authquery import BadQuery, BadRow, hide_secrets, parse_secret
from protocol.certificates import find_end_point
from protocol.errors import ProtocolError
from protocol.oauth import parse_client_first
from protocol.proxy_header import build_v2, count_missing, parse_header
from proxy.auth.fields import BadLine, Line, Reader
from proxy.auth.guesses import neighbourhood
from proxy.auth.hba import parse_rule
from proxy.auth.ident import gather, is_allowed, parse_entry
from proxy.auth.interfaces import LOOPBACK, parse_addresses
from proxy.auth.parcel import unpack_proof
from proxy.auth.pattern import BadPattern, parse_pattern
from proxy.auth.rules import Caller, find_rule, find_unreached
from proxy.config.ldap import make_rules, parse_options
from proxy.config.networks import NETWORKS
from tests.fuzz.registry import cut, target, text_of
from tests.play import said

HBA = b"""local all all peer map=x
hostssl shop,"a b" /^j.*$ 10.0.0.0/8 cert clientname=DN # words
host all joe 10.0.0.0 255.0.0.0 ldap ldapserver=x ldapbindpasswd=y ldapprefix=cn=
host replication @f ::1/128 reject
include_if_exists f
host all all \\
samenet scram-sha-256
"""
CERTIFICATE = bytes.fromhex("301f3000301b06092a864886f70d01010a300ea00c300a06082a864886f70d0205030100")
COLUMNS = backend.build_row_description([("name", 25, -1), ("secret", 25, -1)])


@cache
def folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="fuzz-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None))


def lines_of(data: bytes) -> list[Line]:
    path = folder() / "rules"
    path.write_bytes(data.replace(b"/dev", b"/dew"))
    return list(Reader().lines(str(path)))


def judge_callers(data: bytes) -> None:
    rules = []
    for line in lines_of(data):
        try:
            rules.append(parse_rule(line, lambda *_: ""))
        except BadLine:
            continue
    list(find_unreached(rules))
    for host in ("unix", "10.0.0.1", "::1", "::ffff:10.0.0.1"):
        find_rule(rules, Caller("joe", "shop", host), lambda: LOOPBACK)


def map_names(data: bytes) -> None:
    entries = []
    for line in lines_of(data):
        try:
            entries.append(parse_entry(line))
        except BadLine:
            continue
    maps = gather(entries)
    for name in maps:
        is_allowed(maps, name, "joe@x", "joe")


def match_name(data: bytes) -> None:
    pattern, name = map(text_of, cut(data, 2))
    parse_pattern(pattern).search(name[:63])


def read_balancer(data: bytes) -> None:
    """Bytes are asked for until the header is whole, and not one of them twice."""
    header, rest = b"", data
    while missing := count_missing(header):
        if len(rest) < missing:
            return
        header, rest = header + rest[:missing], rest[missing:]
    source = parse_header(header).source
    if source is not None:
        neighbourhood(source)
        NETWORKS.parse("10.0.0.0/8, ::/0").covers(source[0])


def ask_directory(data: bytes) -> None:
    """A name, whatever is in it, stays one value of the filter, or of the entry's name."""
    options, user = map(text_of, cut(data, 2))
    rules = make_rules(parse_options(options))
    assert rules.filter_for(user).count("(") == rules.filter_for("joe").count("(")
    if rules.base is None:
        rules.entry_of(user)


target("hba", judge_callers, seeds=(HBA,), base=2_000_000, each=5_000)
target("ident", map_names, seeds=(b'x /^(.*)@x$ \\1\nx "a b" all\ny b /^j',), base=2_000_000, each=5_000)
target(
    "pattern", match_name, BadPattern, seeds=(b"^(a|b)*[[:alpha:]x-z]{2,3}?\\d$\0abab1",), base=100_000, each=100_000
)
target("interfaces", lambda data: list(parse_addresses(data)), seeds=(b"\x2c\0\0\0\x14" + bytes(39),))
target(
    "proxy header",
    read_balancer,
    ProtocolError,
    seeds=(
        build_v2(("10.0.0.1", 5), ("10.0.0.2", 6)),
        b"PROXY TCP6 ::1 ::2 5 6\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x13" + bytes(12) + b"\x03\0\4sum!",
    ),
)
target("networks", lambda data: NETWORKS.parse(text_of(data)), ValueError, seeds=(b"10.0.0.0/8, unix, all, ::1",))
target("certificate", find_end_point, seeds=(CERTIFICATE,))
target(
    "auth_query",
    lambda data: parse_secret(data, "joe"),
    *(BadQuery, BadRow),
    seeds=(COLUMNS + backend.build_data_row(["joe", "secret"]) + said("C Z:I"), COLUMNS + said("C Z:I")),
)
target("hidden secrets", lambda data: hide_secrets(text_of(data)), seeds=(b"SCRAM-SHA-256$1:a$b:c md5" + b"0" * 32,))
target(
    "proof on its way",
    lambda data: unpack_proof(json.loads(data)),
    *(KeyError, TypeError, ValueError),
    seeds=(b'{"stored":["plain","x"],"keys":null,"source":["a","b","c"]}',),
)
target("bearer", parse_client_first, ProtocolError, seeds=(b"n,,\1auth=Bearer abc.def.g\1\1", b"n,,\1auth=\1\1"))
target(
    "ldap",
    ask_directory,
    ValueError,
    seeds=(
        b'ldapserver=a ldapbasedn="dc=x,dc=y" ldapsearchfilter="(uid=$username)"\0joe',
        b'ldapserver=a ldapprefix=cn= ldapsuffix=",dc=x"\0 joe ',
    ),
)
