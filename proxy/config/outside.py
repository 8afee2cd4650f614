"""
The outside methods, which ask somebody else who a client is: what an operator says about them, and if it can work.

Theory. Each method has rules, a frozen object made of settings; a line of the HBA file may say some of them otherwise
for those it is about, under the setting's name without its prefix (`issuer=` for oauth_issuer). `read_*` makes the
rules or raises ValueError with a sentence, so that a mistake is met where it is written, at --check, start and RELOAD,
and not by the first client.

The libraries these methods need are extras. Nothing is imported here: it is only asked whether they are there.
"""

import ctypes
import importlib.util
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

from proxy.config.kinds import AuthType
from proxy.config.ldap import OPTIONS as LDAP_OPTIONS
from proxy.config.ldap import LdapRules, make_rules, parse_options
from proxy.config.settings import SETTINGS, Settings

LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
NO_OPTIONS: Final[Mapping[str, str]] = MappingProxyType({})
OAUTH_OPTIONS: Final = ("issuer", "jwks", "audience", "scope", "user_claim", "map", "allow_plain")

_SERVICE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")

OUTSIDE: Final[frozenset[str]] = frozenset({AuthType.OAUTH, AuthType.LDAP, AuthType.PAM})
LIBPAM: Final = "libpam.so.0"


@dataclass(frozen=True, slots=True)
class OauthRules:
    """Which tokens are believed, and whom they let in as."""

    issuer: str
    jwks: str  # a file, or a URL
    audience: tuple[str, ...]  # one of them is enough
    scope: tuple[str, ...]  # all of them are needed
    user_claim: str
    map: str  # of auth_ident_file: who may be whom; "": the claim is the user
    allow_plain: bool  # over a connection without TLS, and not from this machine


@dataclass(frozen=True, slots=True)
class PamRules:
    """Which file under /etc/pam.d says what PAM does."""

    service: str


Rules: TypeAlias = OauthRules | LdapRules | PamRules


def read_oauth(settings: Settings, options: Mapping[str, str] = NO_OPTIONS) -> OauthRules:
    """The rules of method oauth. ValueError: a sentence about what is missing or wrong."""
    said = {name: _find(settings, f"oauth_{name}", options.get(name)) for name in OAUTH_OPTIONS}
    if "issuer" in options and "jwks" not in options:
        raise ValueError("issuer= needs jwks= beside it: the keys of one issuer must not vouch for another")
    for name in ("issuer", "jwks", "audience", "scope"):
        if not said[name]:
            raise ValueError(f"oauth_{name} is missing: {_NEEDED[name]}")
    if not _is_safe(said["issuer"]):
        raise ValueError("oauth_issuer is no https:// address, and clients would not ask there for tokens")
    if "://" in said["jwks"] and not _is_safe(said["jwks"]):
        raise ValueError("oauth_jwks is neither a file nor https:// : keys that come another way may be anybody's")
    if options.get("delegate_ident_mapping", "0") != "0":
        raise ValueError("delegate_ident_mapping is not supported: name a map, or let the claim be the user")
    return OauthRules(**said)


def read_ldap(settings: Settings, options: Mapping[str, str] = NO_OPTIONS) -> LdapRules:
    """The rules of method ldap: a line's own options, else auth_ldap_options. ValueError: what is wrong with them."""
    own = {name: value for name, value in options.items() if name in LDAP_OPTIONS}
    return make_rules(own or parse_options(settings.auth_ldap_options.reveal()))


def read_pam(settings: Settings, options: Mapping[str, str] = NO_OPTIONS) -> PamRules:
    """The rules of method pam. ValueError: what is wrong with them."""
    service = options.get("pamservice") or settings.pam_service
    if not _SERVICE.fullmatch(service):
        raise ValueError("pam_service is no name of a file under /etc/pam.d")
    if options.get("pam_use_hostname", "0") != "0":
        raise ValueError("pam_use_hostname is not supported: PAM is told the address, for which nobody is asked")
    return PamRules(service)


def find_missing(settings: Settings) -> Iterator[str]:
    """Sentences about what `auth_type` needs and does not have."""
    if settings.auth_type not in OUTSIDE:
        return
    try:
        READERS[settings.auth_type](settings, NO_OPTIONS)
    except ValueError as error:
        yield f"auth_type is {settings.auth_type}: {error}"
    if sentence := why_not_served(settings.auth_type):
        yield f"auth_type = {settings.auth_type} {sentence}"


def why_not_served(method: str) -> str:
    """Half a sentence when the library that a method of this name needs is missing; "" when it is there."""
    names = [name.partition(".")[0] for name in MODULES.get(method, ())]
    modules = [name for name in names if importlib.util.find_spec(name) is None]
    if modules:
        return f'needs {", ".join(modules)} of Python: pip install "pgshuttle[{method}]"'
    if method == AuthType.PAM and not _has_libpam():
        return f"needs {LIBPAM} of the system (Debian's package libpam0g)"
    return ""


def check_options(settings: Settings, method: str, options: Mapping[str, str]) -> None:
    """ValueError: a line of the HBA file with these options cannot be kept."""
    if method in OUTSIDE:
        READERS[AuthType(method)](settings, options)


def _has_libpam() -> bool:
    try:
        ctypes.CDLL(LIBPAM)
    except OSError:
        return False
    return True


def _find(settings: Settings, name: str, option: str | None) -> Any:
    if option is None:
        return getattr(settings, name)
    try:
        return SETTINGS[name].kind.parse(option)
    except ValueError as error:
        raise ValueError(f"{name} {error}") from None


def _is_safe(address: str) -> bool:
    """https, or this very machine."""
    try:
        parts = urlsplit(address)
        return bool(parts.hostname) and (
            parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK)
        )
    except ValueError:
        return False


_NEEDED: Final = {
    "issuer": "whose tokens are believed, as their claim iss says it",
    "jwks": "where the issuer's public keys are, a file or an https:// address",
    "audience": "what tokens for us say in their claim aud; else a token made for another service would do here",
    "scope": "what a token must allow",
}
READERS: Final[Mapping[AuthType, Callable[[Settings, Mapping[str, str]], Rules]]] = {
    AuthType.OAUTH: read_oauth,
    AuthType.LDAP: read_ldap,
    AuthType.PAM: read_pam,
}
# With what they would load later by themselves, when we may no longer have the right to read it.
MODULES: Final[Mapping[str, tuple[str, ...]]] = {
    AuthType.OAUTH: ("jwt", "cryptography.hazmat.backends.openssl.backend", "aiohttp"),
    AuthType.LDAP: ("ldap",),
    AuthType.PAM: (),
}
