"""
The rules of who may come from where to what, and how he is asked who he is; and which of them is about a caller.

Theory. A `Rule` is one line of pg_hba.conf, a `Caller` what is known of somebody before he is asked anything. The first
rule that is about him counts, whatever comes of it; no rule is a no. All of it is a matter of comparing: nothing is
waited for, and a name costs one look into a set, or one walk of a pattern that is bounded (pattern.py).

As in PostgreSQL an IPv4 rule is about IPv4 callers only and an IPv6 rule about IPv6 callers; a socket that systemd
opened for both tells IPv4 addresses as ::ffff:10.0.0.7, which are taken for what they are. `replication` is about
physical replication, which no other word is about, not even `all`; logical replication is a database's.
"""

import enum
import ipaddress
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from proxy.auth.pattern import Pattern
from proxy.config.lines import Mistake
from proxy.log import UNIX

MAX_BROAD: Final = 100  # rules about everybody that others are compared with

IP = ipaddress.IPv4Address | ipaddress.IPv6Address


class Record(enum.StrEnum):
    """What a rule is about: a Unix socket, or TCP with or without TLS."""

    LOCAL = "local"
    HOST = "host"
    HOSTSSL = "hostssl"
    HOSTNOSSL = "hostnossl"
    HOSTNOGSSENC = "hostnogssenc"  # as host: GSSAPI encryption is not spoken here


LOCAL, HOST, HOSTSSL, HOSTNOSSL, HOSTNOGSSENC = Record


class Method(enum.StrEnum):
    """How whoever a rule is about is asked who he is."""

    TRUST = "trust"
    REJECT = "reject"
    PASSWORD = "password"  # noqa: S105 - in clear text, and that is its name
    MD5 = "md5"  # or SCRAM, where the stored secret is for it
    SCRAM = "scram-sha-256"
    CERT = "cert"
    PEER = "peer"
    LDAP = "ldap"
    PAM = "pam"
    OAUTH = "oauth"


class ClientCert(enum.StrEnum):
    """What a client's certificate must be, beside what the method asks for."""

    UNASKED = ""
    VERIFY_CA = "verify-ca"  # signed by client_tls_ca_file
    VERIFY_FULL = "verify-full"  # and for the user he says he is


class Where(enum.StrEnum):
    """Addresses that are said by a word."""

    ALL = "all"
    SAMEHOST = "samehost"  # one of this machine's own
    SAMENET = "samenet"  # in a network this machine is in


@dataclass(frozen=True, slots=True)
class Network:
    """Addresses that are equal to `address` in the bits of `mask`."""

    address: IP
    mask: IP

    def holds(self, ip: IP) -> bool:
        bits = int(self.mask)
        return ip.version == self.address.version and int(ip) & bits == int(self.address) & bits


@dataclass(frozen=True, slots=True)
class Names:
    """Databases or users, as a rule lists them. `words` are for SHOW HBA."""

    words: tuple[str, ...]
    exact: frozenset[str] = frozenset()
    patterns: tuple[Pattern, ...] = ()
    has_all: bool = False
    has_sameuser: bool = False
    has_replication: bool = False

    def hold(self, name: str, user: str) -> bool:
        return (
            self.has_all
            or name in self.exact
            or (self.has_sameuser and name == user)
            or any(pattern.search(name) for pattern in self.patterns)
        )


@dataclass(frozen=True, slots=True)
class Rule:
    """One line. `options` may hold a secret (ldapbindpasswd), so they are in no repr."""

    place: Mistake = field(compare=False)  # file and line; it says nothing
    record: Record
    databases: Names
    users: Names
    address: Network | Where | None  # None: LOCAL
    method: Method
    options: Mapping[str, str] = field(default_factory=dict, repr=False)
    client_cert: ClientCert = ClientCert.UNASKED

    def __str__(self) -> str:
        return f"{self.place.file}:{self.place.line}"


@dataclass(frozen=True, slots=True)
class Caller:
    """What is known of somebody who has said who he is. `host` is UNIX or an address."""

    user: str
    database: str
    host: str
    has_tls: bool = False
    is_physical: bool = False  # he wants physical replication

    @property
    def is_local(self) -> bool:
        return self.host == UNIX


FindNetworks = Callable[[], Iterable[Network]]
"""The networks this machine is in, each with its own address there."""

_ABOUT_TLS: Final = {HOSTSSL: True, HOSTNOSSL: False}


def find_rule(rules: Iterable[Rule], caller: Caller, find_networks: FindNetworks) -> Rule | None:
    """The first rule that is about the caller; somebody from nowhere has none."""
    try:
        ip = None if caller.is_local else parse_ip(caller.host)
    except ValueError:
        return None
    return next((rule for rule in rules if _is_about(rule, caller, ip, find_networks)), None)


def _is_about(rule: Rule, caller: Caller, ip: IP | None, find_networks: FindNetworks) -> bool:
    if (rule.record is LOCAL) is not caller.is_local:
        return False
    if _ABOUT_TLS.get(rule.record, caller.has_tls) is not caller.has_tls:
        return False
    if caller.is_physical:
        is_there = rule.databases.has_replication
    else:
        is_there = rule.databases.hold(caller.database, caller.user)
    return is_there and rule.users.hold(caller.user, caller.user) and _is_from(rule.address, ip, find_networks)


def _is_from(address: Network | Where | None, ip: IP | None, find_networks: FindNetworks) -> bool:
    if ip is None or address is Where.ALL:
        return True
    if isinstance(address, Network):
        return address.holds(ip)
    networks = find_networks()
    if address is Where.SAMEHOST:
        return any(ip == each.address for each in networks)
    return any(each.holds(ip) for each in networks)


def parse_ip(text: str) -> IP:
    """ValueError: it is no address. An IPv4 address in IPv6 clothes is an IPv4 address."""
    ip = ipaddress.ip_address(text)
    return ip.ipv4_mapped or ip if isinstance(ip, ipaddress.IPv6Address) else ip


def covers(earlier: Rule, later: Rule) -> bool:
    """Whoever `later` is about, so is `earlier`: said only where it is plain."""
    records = {earlier.record, later.record}
    return (
        (len(records) == 1 or (earlier.record in (HOST, HOSTNOGSSENC) and LOCAL not in records))
        and earlier.users.has_all
        and earlier.databases.has_all
        and not later.databases.has_replication
        and (earlier.address in (None, Where.ALL) or earlier.address == later.address)
    )


def find_unreached(rules: Iterable[Rule]) -> Iterator[tuple[Rule, Rule]]:
    """Rules that are about nobody, since an earlier one is about everybody they could be about: (rule, earlier)."""
    broad: list[Rule] = []  # of each kind and address the first that is about everybody
    for rule in rules:
        earlier = next((each for each in broad if covers(each, rule)), None)
        if earlier is not None:
            yield rule, earlier
        elif rule.users.has_all and rule.databases.has_all and len(broad) < MAX_BROAD:
            broad.append(rule)
