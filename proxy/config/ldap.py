"""
What an operator says about a directory: PostgreSQL's options, in a line of the HBA file or in auth_ldap_options.

Theory. There are two ways. With ldapprefix and ldapsuffix the name of an entry is made of the user's name, and a bind
as that entry decides. With ldapbasedn the entry is searched for first, by an account that may do so, and then a bind
decides. The options of the two do not mix, and every mistake is a ValueError whose sentence names the option and never
its value, which may be a password.

The user's name is a stranger's: `entry_of` and `filter_for` escape what means something in a name or a filter of LDAP
(RFC 4514, RFC 4515), so that it stays one value, whatever it is. Nothing is forbidden in it therefore.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote

from protocol.passwords import Secret

OPTIONS: Final = (
    "ldapserver",
    "ldapport",
    "ldapscheme",
    "ldaptls",
    "ldapprefix",
    "ldapsuffix",
    "ldapbasedn",
    "ldapbinddn",
    "ldapbindpasswd",
    "ldapsearchattribute",
    "ldapsearchfilter",
    "ldapurl",
)
OF_SEARCH: Final = ("ldapbasedn", "ldapbinddn", "ldapbindpasswd", "ldapsearchattribute", "ldapsearchfilter", "ldapurl")
MAX_TEXT: Final = 4096  # characters of auth_ldap_options
MAX_SERVERS: Final = 10
USER: Final = "$username"

SCOPES: Final = {"base": 0, "one": 1, "sub": 2}  # as LDAP numbers them
_PORTS: Final = {"ldap": 389, "ldaps": 636}

_QUOTED = r'"(?:[^"]|"")*+"'
_OPTION = re.compile(rf'[\s,]*({_QUOTED}|[^\s=",]+)=({_QUOTED}|[^\s",]+)(?=[\s,]|$)')
_HIDDEN = re.compile(rf'("?ldapbindpasswd"?=)({_QUOTED}|".*|\S*)', re.DOTALL)
_URL = re.compile(r"(ldaps?)://([^/?#\s]*)(?:/([^?#]*)(?:\?([^?#]*)(?:\?([^?#]*)(?:\?([^?#]*))?)?)?)?")
_HOST = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])")
_ATTRIBUTE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.;-]{0,99}")


@dataclass(frozen=True, slots=True)
class LdapRules:
    """Where the directory is, and how a user is found in it."""

    servers: str  # URLs with blanks between, first to last, as libldap takes them
    starttls: bool
    prefix: str
    suffix: str
    base: str | None  # None: nothing is searched for
    bind_dn: str
    bind_password: Secret
    attribute: str
    filter: str
    scope: int

    def entry_of(self, user: str) -> str:
        """The entry's name, made of the user's."""
        return f"{self.prefix}{escape_name(user)}{self.suffix}"

    def filter_for(self, user: str) -> str:
        """What finds the user's entry, and no other."""
        value = escape_value(user)
        return self.filter.replace(USER, value) if self.filter else f"({self.attribute}={value})"


def escape_name(text: str) -> str:
    """A value inside a distinguished name (RFC 4514 section 2.4)."""
    escaped = re.sub(r'([\\,+"<>;=#])', r"\\\1", text).replace("\0", "\\00")
    return re.sub(r"\A | \Z", r"\\ ", escaped) if len(text) > 1 else escaped.replace(" ", "\\ ")


def escape_value(text: str) -> str:
    """A value inside a filter (RFC 4515 section 3)."""
    return re.sub(r"[\\*()\0]", lambda found: f"\\{ord(found[0]):02x}", text)


def hide_password(text: str) -> str:
    """auth_ldap_options for everybody to see."""
    return _HIDDEN.sub(r"\1***", text)


def parse_options(text: str) -> dict[str, str]:
    """auth_ldap_options: name=value, blanks or a comma between, a value with others in double quotes."""
    if len(text) > MAX_TEXT:
        raise ValueError(f"auth_ldap_options is longer than {MAX_TEXT} characters")
    options: dict[str, str] = {}
    pos, end = 0, len(text.rstrip())
    while pos < end:
        match = _OPTION.match(text, pos, end)
        if match is None:
            raise ValueError(
                f"auth_ldap_options: expected name=value behind character {pos}, quoted where it has blanks"
            )
        name, value = map(_unquote, match.groups())
        if name not in OPTIONS:
            raise ValueError(f"auth_ldap_options: there is no option {name[:40]!r}; a value with a comma is quoted")
        options[name] = value
        pos = match.end()
    return options


def _unquote(text: str) -> str:
    return text[1:-1].replace('""', '"') if text.startswith('"') else text


def make_rules(options: Mapping[str, str]) -> LdapRules:
    """ValueError: they do not make sense together, or one of them does not."""
    said = {name: value for name, value in options.items() if value and name in OPTIONS}
    _check_ways(said)
    said |= _parse_url(said["ldapurl"]) if "ldapurl" in said else {}
    if not said.get("ldapserver"):
        raise ValueError("ldapserver is missing: which directory is asked (it is not looked for in DNS)")
    if "ldapprefix" not in said and "ldapsuffix" not in said and not said.get("ldapbasedn"):
        raise ValueError("ldapbasedn, ldapprefix or ldapsuffix is missing: how a user is found in the directory")
    return LdapRules(
        servers=" ".join(_make_servers(said)),
        starttls=_is_one_of(said, "ldaptls", ("0", "1"), "0") == "1",
        prefix=said.get("ldapprefix", ""),
        suffix=said.get("ldapsuffix", ""),
        base=said.get("ldapbasedn"),
        bind_dn=said.get("ldapbinddn", ""),
        bind_password=Secret(said.get("ldapbindpasswd", "")),
        attribute=_check_attribute(said.get("ldapsearchattribute") or "uid"),
        filter=_check_filter(said.get("ldapsearchfilter", "")),
        scope=SCOPES[said.get("scope", "sub")],
    )


def _check_ways(said: Mapping[str, str]) -> None:
    searches = [name for name in OF_SEARCH if name in said]
    if searches and ("ldapprefix" in said or "ldapsuffix" in said):
        raise ValueError(f"{searches[0]} is for a search, which ldapprefix and ldapsuffix do without")
    if "ldapsearchattribute" in said and "ldapsearchfilter" in said:
        raise ValueError("ldapsearchattribute and ldapsearchfilter say the same: one of them is enough")
    beside = [name for name in ("ldapserver", "ldapport", "ldapscheme", "ldapbasedn") if name in said]
    if "ldapurl" in said and beside:
        raise ValueError(f"{beside[0]} is a part of ldapurl: say it once")
    if ("ldapbinddn" in said) != ("ldapbindpasswd" in said):
        raise ValueError("ldapbinddn and ldapbindpasswd belong together: without both the search is nobody's")
    if said.get("ldapscheme") == "ldaps" and said.get("ldaptls") == "1":
        raise ValueError("ldaptls is for the scheme ldap: with ldaps there is TLS from the start")


def _parse_url(url: str) -> dict[str, str]:
    """RFC 4516, as PostgreSQL takes it: ldap://host:port/base?attribute?scope?filter."""
    match = _URL.fullmatch(url)
    if match is None:
        raise ValueError("ldapurl is not of the form ldap://host:port/base?attribute?scope?filter")
    scheme, server, base, attribute, scope, search = (unquote(part or "") for part in match.groups())
    host, _, port = server.rpartition(":") if re.search(r":[0-9]+$", server) else (server, "", "")
    if scope not in ("", *SCOPES):
        raise ValueError("ldapurl has a scope other than base, one and sub")
    found = {"ldapscheme": scheme, "ldapserver": host, "ldapport": port, "ldapbasedn": base, "scope": scope or "base"}
    search = f"({search})" if search and not search.startswith("(") else search
    found |= {"ldapsearchfilter": search} if search else {"ldapsearchattribute": attribute.split(",")[0]}
    return {name: value for name, value in found.items() if value}


def _make_servers(said: Mapping[str, str]) -> Iterator[str]:
    scheme = _is_one_of(said, "ldapscheme", tuple(_PORTS), "ldap")
    port = said.get("ldapport", str(_PORTS[scheme]))
    if not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) < 65536:
        raise ValueError("ldapport is no port")
    hosts = said["ldapserver"].split()
    if len(hosts) > MAX_SERVERS:
        raise ValueError(f"ldapserver names more than {MAX_SERVERS}")
    for host in hosts:
        if not _HOST.fullmatch(host):
            raise ValueError("ldapserver is no list of names or addresses with blanks between; an IPv6 one is in [ ]")
        yield f"{scheme}://{host}:{port}"


def _is_one_of(said: Mapping[str, Any], name: str, words: tuple[str, ...], default: str) -> str:
    value: str = said.get(name, default)
    if value not in words:
        raise ValueError(f"{name} is none of {', '.join(words)}")
    return value


def _check_attribute(name: str) -> str:
    if not _ATTRIBUTE.fullmatch(name):
        raise ValueError("ldapsearchattribute is no name of an attribute")
    return name


def _check_filter(text: str) -> str:
    if text and (USER not in text or text.count("(") != text.count(")") or not text.startswith("(")):
        raise ValueError(f"ldapsearchfilter is no filter in parentheses that has {USER} in it")
    return text
