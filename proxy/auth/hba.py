"""
A line of pg_hba.conf to a rule, or to the sentence that says why it is none.

Theory. The records, words, methods and options are PostgreSQL 18's (docs: "The pg_hba.conf File"), as far as a pooler
can keep what they promise; what it cannot keep is a mistake with the reason, never a rule that means less than it says.
A pooler knows no roles, so `samerole`, `samegroup` and `+group` cannot be answered. A host name would need the caller's
name server to say who he is, and a login to wait for it. GSSAPI, SSPI, ident over TCP, BSD and RADIUS are not spoken.

What a method is called, where it may stand and which options it takes is a row of `METHODS`. The methods that need
something installed are parsed like all others; whether they can be served is for the caller to say (`why_not_served`).
"""

import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from proxy.auth.fields import BadLine, Field, Line, Word
from proxy.auth.pattern import BadPattern, Pattern, parse_pattern
from proxy.auth.rules import (
    HOST,
    HOSTNOGSSENC,
    HOSTNOSSL,
    HOSTSSL,
    LOCAL,
    ClientCert,
    Method,
    Names,
    Network,
    Record,
    Rule,
    Where,
)
from proxy.config import ldap
from proxy.config.outside import OAUTH_OPTIONS

WhyNotServed = Callable[[Method], str]
"""Half a sentence when a method cannot be served here, "" when it can."""

_TCP: Final = frozenset({HOST, HOSTSSL, HOSTNOSSL, HOSTNOGSSENC})
_ANYWHERE: Final = _TCP | {LOCAL}


@dataclass(frozen=True, slots=True)
class Way:
    """Of a method: the records it may stand in, and its own options."""

    records: frozenset[Record] = _ANYWHERE
    options: frozenset[str] = frozenset()


METHODS: Final[Mapping[Method, Way]] = {
    Method.TRUST: Way(),
    Method.REJECT: Way(),
    Method.PASSWORD: Way(),
    Method.MD5: Way(),
    Method.SCRAM: Way(),
    Method.CERT: Way(frozenset({HOSTSSL}), frozenset({"map"})),
    Method.PEER: Way(frozenset({LOCAL}), frozenset({"map"})),
    Method.LDAP: Way(options=frozenset(ldap.OPTIONS)),
    Method.PAM: Way(options=frozenset({"pamservice", "pam_use_hostname"})),
    Method.OAUTH: Way(options=frozenset({*OAUTH_OPTIONS, "validator", "delegate_ident_mapping"})),
}

SECRET_OPTIONS: Final = frozenset({"ldapbindpasswd"})  # no sentence repeats them, and SHOW HBA shows them as ***
_OF_CERTIFICATES: Final = frozenset({"clientcert", "clientname"})  # with any method, where there is TLS
_OPTIONS: Final = _OF_CERTIFICATES.union(*(way.options for way in METHODS.values()))
_NOT_SPOKEN: Final = frozenset({"gss", "sspi", "ident", "bsd", "radius"})
_NO_ROLES: Final = (
    "the pooler does not know who is a member of which role: list the users, or use a /regular expression"
)


def parse_rule(line: Line, why_not_served: WhyNotServed) -> Rule:
    """BadLine: it cannot be kept as it is written."""
    fields = list(line.fields)
    record = _parse_record(_one(_next(fields, "the type of the record"), "the type of the record"))
    databases = _parse_databases(_next(fields, "the databases"))
    users = _parse_users(_next(fields, "the users"))
    address = None if record is LOCAL else _parse_address(fields)
    method = _parse_method(_one(_next(fields, "the method"), "the method"), record)
    if sentence := why_not_served(method):
        raise BadLine(f"the method {method} {sentence}")
    options = _parse_options(fields, method, record)
    return Rule(
        place=line.mistake(""),
        record=record,
        databases=databases,
        users=users,
        address=address,
        method=method,
        options=options,
        client_cert=_find_client_cert(options, method),
    )


def _next(fields: list[Field], what: str) -> Field:
    if not fields:
        raise BadLine(f"the line ends in front of {what}")
    return fields.pop(0)


def _one(words: Field, what: str) -> Word:
    if len(words) > 1:
        raise BadLine(f"{what} is one word, not a list")
    return words[0]


def _parse_record(word: Word) -> Record:
    if word.text == "hostgssenc":
        raise BadLine("hostgssenc: GSSAPI encryption is not spoken here, so this rule would be about nobody")
    try:
        return Record(word.text)
    except ValueError:
        known = ", ".join(Record)
        raise BadLine(f"{_show(word)} is no type of record: {known}") from None


def _parse_databases(words: Field) -> Names:
    for keyword in ("samerole", "samegroup"):
        if any(word.means(keyword) for word in words):
            raise BadLine(f"{keyword}: {_NO_ROLES}")
    return _parse_names(words, frozenset({"all", "sameuser", "replication"}))


def _parse_users(words: Field) -> Names:
    for word in words:
        if not word.is_quoted and word.text.startswith("+"):
            raise BadLine(f"{word.text[:80]}: {_NO_ROLES}")
    return _parse_names(words, frozenset({"all"}))


def _parse_names(words: Field, keywords: frozenset[str]) -> Names:
    """A word among `keywords` means something here; all others are names."""
    meant = {word.text for word in words if not word.is_quoted} & keywords
    names = [word for word in words if word.is_quoted or word.text not in keywords]
    return Names(
        words=tuple(word.text for word in words),
        exact=frozenset(word.text for word in names if not word.text.startswith("/")),
        patterns=tuple(parse_regex(word) for word in names if word.text.startswith("/")),
        has_all="all" in meant,
        has_sameuser="sameuser" in meant,
        has_replication="replication" in meant,
    )


def parse_regex(word: Word) -> Pattern:
    """The expression behind the slash; also in quotes, which it needs for a comma or a blank. BadLine."""
    try:
        pattern = parse_pattern(word.text[1:])
    except BadPattern as bad:
        raise BadLine(f"the regular expression {_show(word)} {bad}") from None
    if not pattern.text:
        raise BadLine("no regular expression follows the /")
    return pattern


def _parse_address(fields: list[Field]) -> Network | Where:
    word = _one(_next(fields, "the address"), "the address")
    for where in Where:
        if word.means(where):
            return where
    text, slash, bits = word.text.partition("/")
    try:
        ip = ipaddress.ip_address(text)
    except ValueError:
        raise BadLine(_why_no_address(word)) from None
    if not slash:
        return Network(ip, _parse_mask(_one(_next(fields, "the mask of the address"), "the mask"), ip.version))
    if not (bits.isascii() and bits.isdigit()) or len(bits) > 3 or int(bits) > ip.max_prefixlen:
        raise BadLine(f"{_show(word)}: behind the / stand 0 to {ip.max_prefixlen} bits")
    return Network(ip, ipaddress.ip_network((ip, int(bits)), strict=False).netmask)


def _why_no_address(word: Word) -> str:
    if word.text and not set(word.text) <= set("0123456789./"):
        return (
            f"{_show(word)} is no address, and host names are not looked up: a login would wait for the caller's own"
            " name server and believe it; write the addresses as 10.0.0.0/8"
        )
    return f"{_show(word)} is no address: write it as 10.0.0.7/32, 10.0.0.0/8 or 2001:db8::/32, or all"


def _parse_mask(word: Word, version: int) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        mask = ipaddress.ip_address(word.text)
    except ValueError:
        raise BadLine(f"{_show(word)} is no mask: write it as 255.255.255.0, or the address as 10.0.0.0/24") from None
    if mask.version != version:
        raise BadLine(f"the address is of IPv{version} and its mask {_show(word)} is not")
    return mask


def _parse_method(word: Word, record: Record) -> Method:
    if word.text == "ident" and record is LOCAL:
        return Method.PEER  # as PostgreSQL takes it
    if word.text in _NOT_SPOKEN:
        raise BadLine(f"the method {word.text} is not spoken here")
    try:
        method = Method(word.text)
    except ValueError:
        raise BadLine(f"{_show(word)} is no method: {', '.join(Method)}") from None
    if record not in METHODS[method].records:
        raise BadLine(f"the method {method} is for {', '.join(sorted(METHODS[method].records))} records only")
    return method


def _parse_options(fields: list[Field], method: Method, record: Record) -> dict[str, str]:
    words = [word.text for words in fields for word in words]
    is_public = not any(_holds_secret(text) for text in words)  # else a word may be a piece of the secret
    options: dict[str, str] = {}
    for number, text in enumerate(words, 1):
        name, equals, value = text.partition("=")
        what = f"the option {name[:80]!r}" if is_public else f"option {number}"
        if not equals:
            raise BadLine(f"{what} is not written as name=value")
        if name in options:
            raise BadLine(f"the option {name} stands twice")
        if name not in _OPTIONS:
            raise BadLine(f"{what} is none that is known")
        _check_option(name, method, record)
        options[name] = value
    return options


def _check_option(name: str, method: Method, record: Record) -> None:
    if name in _OF_CERTIFICATES:
        if record is not HOSTSSL:
            raise BadLine(f"the option {name} is for hostssl records only")
        return
    owners = [each for each, way in METHODS.items() if name in way.options]
    if method not in owners:
        raise BadLine(f"the option {name} is for the methods {', '.join(owners)}, not for {method}")


def _find_client_cert(options: Mapping[str, str], method: Method) -> ClientCert:
    said = options.get("clientcert")
    if said is not None and said not in ("verify-ca", "verify-full"):
        raise BadLine("clientcert is verify-ca or verify-full")
    if options.get("clientname", "CN") not in ("CN", "DN"):
        raise BadLine("clientname is CN or DN: the common name, or all of the subject")
    if "map" in options and not options["map"]:
        raise BadLine("map= names no map")
    if method is not Method.CERT:
        return ClientCert(said or "")
    if said == "verify-ca":
        raise BadLine("clientcert is verify-full where the method is cert")
    return ClientCert.VERIFY_FULL


def _show(word: Word) -> str:
    return "something that holds a secret" if _holds_secret(word.text) else repr(word.text[:80])


def _holds_secret(text: str) -> bool:
    return any(name in text for name in SECRET_OPTIONS)
