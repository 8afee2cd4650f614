"""
From settings to contexts: what we show, whom we believe, and which TLS we speak, to clients and to servers.

Theory. A context (`ssl.SSLContext`) is built whole or not at all, from files that are read in this moment; a reload
builds new ones and swaps them with everything else, so new files under old names are taken, and a bad set changes
nothing. Nobody who is connected notices: a connection keeps the context it began with. The keys that session tickets
are sealed with belong to a context too, so a session that was begun before a reload is not resumed after it: whoever
shows a certificate is looked at again, by the rules that hold now.

All mistakes of both sides are told at once (BadTls), each with its setting and its file. What is in a file is never
repeated, since one of them is a private key.

The words are PgBouncer's: protocols (`secure`, `all`, lists, `!` takes away), ciphers (`default` and its kin mean what
Python and OpenSSL think best), curves by OpenSSL's names. Two things Python's ssl cannot do are said and not pretended:
before Python 3.15 it cannot choose among the ciphers of TLS 1.3, so a list that leaves one of the usual three out is a
mistake; and it makes no parameters for the old DHE key exchange, so only ECDHE is offered, whatever dheparams says.
"""

import re
import ssl
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final

from protocol.certificates import find_end_point
from proxy.config.files import read_bytes
from proxy.config.ini import Config
from proxy.config.kinds import WEAK_MODES, AuthType, SslMode, TlsNegotiation
from proxy.config.lines import Line, Reader, make_printable
from proxy.config.settings import MAIN_SECTIONS, Settings
from proxy.handshake import ALPN, Connection

_VERSIONS: Final = {
    "tlsv1.0": ssl.TLSVersion.TLSv1,
    "tlsv1.1": ssl.TLSVersion.TLSv1_1,
    "tlsv1.2": ssl.TLSVersion.TLSv1_2,
    "tlsv1.3": ssl.TLSVersion.TLSv1_3,
}
_ALL: Final = frozenset(_VERSIONS.values())
_SECURE: Final = frozenset({ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3})
_PROTOCOLS: Final = {
    **{word: frozenset({version}) for word, version in _VERSIONS.items()},
    **dict.fromkeys(("tlsv1", "all", "legacy"), _ALL),
    **dict.fromkeys(("default", "secure"), _SECURE),
}
_REFUSALS: Final = {  # for versions between the least and the greatest
    ssl.TLSVersion.TLSv1_1: ssl.Options.OP_NO_TLSv1_1,
    ssl.TLSVersion.TLSv1_2: ssl.Options.OP_NO_TLSv1_2,
}
_CIPHERS: Final = {
    **dict.fromkeys(("", "default", "secure", "normal", "fast"), ""),  # as Python has set them
    **dict.fromkeys(("compat", "legacy"), "HIGH:!aNULL"),
    **dict.fromkeys(("all", "insecure"), "ALL:!aNULL:!eNULL"),
}
_USUAL_SUITES: Final = frozenset({"TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256", "TLS_AES_128_GCM_SHA256"})
_SUITES: Final = _USUAL_SUITES | {"TLS_AES_128_CCM_SHA256", "TLS_AES_128_CCM_8_SHA256"}
_DHE_PARAMS: Final = frozenset({"", "none", "auto", "legacy"})
_VERIFYING: Final = frozenset({SslMode.VERIFY_CA, SslMode.VERIFY_FULL})
_SEPARATOR: Final = re.compile(r"[,:]")
MAX_FILE: Final = 4 << 20  # bytes of a certificate, a key, or of all the CAs there are
_CERTIFICATE: Final = b"-----BEGIN CERTIFICATE-----"
_FIRST: Final = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
_KEY: Final = re.compile(rb"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----")


_WITH_TLS: Final = frozenset({*MAIN_SECTIONS, "databases"})
_TOO_WEAK: Final = "direct needs server_tls_sslmode = require, verify-ca or verify-full"


class BadTls(Exception):
    """No context can be built; all `mistakes`, each with its setting."""

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


class Context(ssl.SSLContext):
    """With what OpenSSL does not tell again: `end_point` is what SCRAM can be bound to, of the certificate we show."""

    end_point: bytes | None = None


@dataclass(frozen=True, slots=True)
class Contexts:
    """What new connections are encrypted with. None: not at all. `servers_digest` is of what makes `for_servers`."""

    for_clients: Context | None = None
    for_servers: Context | None = None
    servers_digest: bytes = field(default=b"", compare=False)


def read_contexts(config: Config) -> Contexts:
    """Both, from the files as they are now. BadTls: each mistake with the place of its setting."""
    mistakes = list(_find_weak(config))
    try:
        built = build_contexts(config.settings)
    except BadTls as bad:
        mistakes = bad.mistakes + mistakes
    if mistakes:
        places = {line.key: line for line in Reader().lines(config.path) if line.section in _WITH_TLS}
        raise BadTls([_place(places, config.path, mistake) for mistake in mistakes])
    return built


def _find_weak(config: Config) -> Iterator[str]:
    """Where servers are to be reached by direct TLS though TLS need not be: who begins with it cannot do without."""
    if config.settings.server_tls_sslmode in WEAK_MODES:
        if config.settings.server_tls_negotiation is TlsNegotiation.DIRECT:
            yield f"server_tls_negotiation: {_TOO_WEAK}"
        for name, database in config.databases.items():
            if database.server_tls_negotiation is TlsNegotiation.DIRECT:
                yield f"{name}: server_tls_negotiation: {_TOO_WEAK}"


def _place(places: Mapping[str, Line], path: str, mistake: str) -> str:
    line = places.get(mistake.split(":", 1)[0])
    return make_printable(f"{path}: {mistake}") if line is None else str(line.mistake(mistake))


def build_contexts(settings: Settings) -> Contexts:
    """The same of settings that may stand in no file. BadTls."""
    clients, servers = _Side(settings, "client"), _Side(settings, "server")
    if settings.auth_type is AuthType.CERT and settings.client_tls_sslmode is not SslMode.VERIFY_FULL:
        clients.complain("tls_sslmode", "auth_type = cert needs verify-full")
    built = Contexts(clients.build(_set_up_for_clients), servers.build(_set_up_for_servers), servers.digest.digest())
    if mistakes := clients.mistakes + servers.mistakes:
        raise BadTls(mistakes)
    return built


class _Side:
    """The settings of one side, and what is wrong with them."""

    def __init__(self, settings: Settings, prefix: str) -> None:
        self.settings = settings
        self.prefix = prefix
        self.mistakes: list[str] = []
        self.digest = sha256()  # of all that is looked at

    def get(self, name: str) -> Any:
        value = getattr(self.settings, f"{self.prefix}_{name}")
        self.digest.update(f"{name}={value}\0".encode(errors="surrogateescape"))
        return value

    def name_file(self, name: str) -> str:
        """Setting and file, for the front of a sentence."""
        return f"{self.prefix}_{name}: {self.get(name)}"

    def complain(self, name: str, sentence: str) -> None:
        self.mistakes.append(f"{self.prefix}_{name}: {sentence}")

    def build(self, set_up: Callable[["_Side"], Context]) -> Context | None:
        if self.get("tls_sslmode") is SslMode.DISABLE:
            return None
        context = set_up(self)
        context.sslobject_class = Connection
        context.set_alpn_protocols([ALPN])
        context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
        _set_protocols(context, self)
        _set_ciphers(context, self)
        _set_suites(context, self)
        return context


def _set_up_for_clients(side: _Side) -> Context:
    """A client's certificate is asked for only where there is a CA to look at it with."""
    context = Context(ssl.PROTOCOL_TLS_SERVER)
    context.num_tickets = 1  # OpenSSL's two are for browsers, which connect several times at once
    if not side.get("tls_cert_file") or not side.get("tls_key_file"):
        side.complain("tls_sslmode", f"{side.get('tls_sslmode')} needs client_tls_cert_file and client_tls_key_file")
    else:
        _load_own(context, side)
    if _load_authorities(context, side):
        context.verify_mode = ssl.CERT_REQUIRED if side.get("tls_sslmode") in _VERIFYING else ssl.CERT_OPTIONAL
    elif side.get("tls_sslmode") in _VERIFYING:
        side.complain(
            "tls_sslmode", f"{side.get('tls_sslmode')} needs client_tls_ca_file: nobody's certificate can be checked"
        )
    _set_curve(context, side)
    if side.get("tls_dheparams").lower() not in _DHE_PARAMS:
        side.complain("tls_dheparams", "is none of none, auto, legacy")
    return context


def _set_up_for_servers(side: _Side) -> Context:
    """Without server_tls_ca_file the system's own authorities are believed."""
    mode = side.get("tls_sslmode")
    context = Context(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = mode is SslMode.VERIFY_FULL
    context.verify_mode = ssl.CERT_REQUIRED if mode in _VERIFYING else ssl.CERT_NONE
    if not _load_authorities(context, side) and mode in _VERIFYING:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    if side.get("tls_cert_file") and side.get("tls_key_file"):
        _load_own(context, side)
    elif side.get("tls_cert_file") or side.get("tls_key_file"):
        side.complain(
            "tls_cert_file", "server_tls_cert_file and server_tls_key_file go together: one of them is missing"
        )
    return context


class _Encrypted(Exception):
    """The private key is sealed with a password, and nobody is there to type it."""


def _refuse_password() -> str:
    raise _Encrypted


def _load_own(context: Context, side: _Side) -> None:
    """Certificate and key. OpenSSL does not say which of the two files it dislikes, so both are looked at first."""
    certificate, key = _read(side, "tls_cert_file"), _read(side, "tls_key_file")
    if certificate is None or key is None:
        return
    if _CERTIFICATE not in certificate:
        side.mistakes.append(f"{side.name_file('tls_cert_file')}: holds no certificate in PEM format")
    elif not _KEY.search(key):
        side.mistakes.append(f"{side.name_file('tls_key_file')}: holds no private key in PEM format")
    else:
        _load_pair(context, side)
        context.end_point = _find_end_point(certificate)


def _find_end_point(certificates: bytes) -> bytes | None:
    """Of the first of them, which is the one that is shown."""
    match = _FIRST.search(certificates)
    try:
        return find_end_point(ssl.PEM_cert_to_DER_cert(match[0].decode("ascii"))) if match else None
    except ValueError:
        return None


def _load_pair(context: ssl.SSLContext, side: _Side) -> None:
    try:
        context.load_cert_chain(side.get("tls_cert_file"), side.get("tls_key_file"), _refuse_password)
    except _Encrypted:
        sentence = "is sealed with a password, and nobody is there to type it: store it without one"
        side.mistakes.append(f"{side.name_file('tls_key_file')}: {sentence}")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            side.mistakes.append(f"{side.name_file('tls_key_file')}: is not the key of {side.get('tls_cert_file')}")
        else:
            files = f"{side.name_file('tls_cert_file')} with {side.get('tls_key_file')}"
            side.mistakes.append(f"{files}: cannot be used: {_reason_of(error)}")
    except OSError as error:
        side.mistakes.append(f"{side.name_file('tls_cert_file')}: {error.strerror}")


def _load_authorities(context: ssl.SSLContext, side: _Side) -> bool:
    """Is a file of them named?"""
    if not side.get("tls_ca_file"):
        return False
    if _read(side, "tls_ca_file") is not None:
        try:
            context.load_verify_locations(side.get("tls_ca_file"))
        except ssl.SSLError as error:
            side.mistakes.append(f"{side.name_file('tls_ca_file')}: holds no usable certificates: {_reason_of(error)}")
        except OSError as error:
            side.mistakes.append(f"{side.name_file('tls_ca_file')}: {error.strerror}")
    return True


def _read(side: _Side, name: str) -> bytes | None:
    """None: it cannot be read, which has been said."""
    try:
        data = read_bytes(side.get(name), MAX_FILE)
    except ValueError as error:
        side.mistakes.append(f"{side.name_file(name)}: {error}")
        return None
    side.digest.update(data)
    return data


def _reason_of(error: ssl.SSLError) -> str:
    """OpenSSL's own word for it, in small letters."""
    return (error.reason or "of an unknown kind").lower().replace("_", " ")


def parse_protocols(text: str) -> frozenset[ssl.TLSVersion]:
    """The versions that a list of words names. ValueError with half a sentence."""
    chosen: frozenset[ssl.TLSVersion] = frozenset()
    for each in _SEPARATOR.split(text):
        word = each.strip().lower()
        versions = _PROTOCOLS.get(word.removeprefix("!"))
        if versions is None:
            raise ValueError(f"has a word that is none of {', '.join(_PROTOCOLS)}")
        if word.startswith("!"):
            chosen = (chosen or _ALL) - versions
        else:
            chosen |= versions
    if not chosen:
        raise ValueError("leaves no version")
    return chosen


def _set_protocols(context: ssl.SSLContext, side: _Side) -> None:
    try:
        chosen = parse_protocols(side.get("tls_protocols") or "secure")
    except ValueError as error:
        side.complain("tls_protocols", str(error))
        return
    with warnings.catch_warnings():  # Python warns of versions that whoever wrote the file wants
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version, context.maximum_version = min(chosen), max(chosen)
        for version, option in _REFUSALS.items():
            if version not in chosen:
                context.options |= option


def _set_ciphers(context: ssl.SSLContext, side: _Side) -> None:
    text = side.get("tls_ciphers")
    wanted = _CIPHERS.get(text.lower(), text)
    try:
        if wanted:
            context.set_ciphers(wanted)
    except ssl.SSLError:
        side.complain("tls_ciphers", "OpenSSL knows none of these ciphers")


def _set_suites(context: ssl.SSLContext, side: _Side) -> None:
    """The ciphers of TLS 1.3."""
    wanted = [word for word in _SEPARATOR.split(side.get("tls13_ciphers").replace(" ", "")) if word]
    if unknown := [word for word in wanted if word not in _SUITES]:
        side.complain("tls13_ciphers", f"{unknown[0][:64]!r} is none of {', '.join(sorted(_SUITES))}")
    elif wanted and hasattr(context, "set_ciphersuites"):
        context.set_ciphersuites(":".join(wanted))
    elif wanted and not set(wanted) >= _USUAL_SUITES:
        usual = ", ".join(sorted(_USUAL_SUITES))
        sentence = f"before Python 3.15 TLS 1.3 is spoken with each of {usual}: name all three, or leave it empty"
        side.complain("tls13_ciphers", sentence)


def _set_curve(context: ssl.SSLContext, side: _Side) -> None:
    """`auto` leaves the choice to OpenSSL, as does `none`, which in PgBouncer names none either."""
    curve = side.get("tls_ecdhcurve")
    if curve.lower() in ("", "auto", "none"):
        return
    try:
        context.set_ecdh_curve(curve)
    except ValueError:
        side.complain("tls_ecdhcurve", "OpenSSL knows no such curve: prime256v1, secp384r1 and X25519 are usual")


def is_encrypted(transport: Any) -> bool:
    """Is TLS spoken on it?"""
    return transport.get_extra_info("ssl_object") is not None


def describe(transport: Any) -> str:
    """Version and cipher, as PgBouncer writes them; empty without TLS."""
    connection = transport.get_extra_info("ssl_object") if transport is not None else None
    return "" if connection is None else f"{connection.version()}/{connection.cipher()[0]}"
