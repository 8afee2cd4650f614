"""
What a value in the file may look like: text to value, and back.

Theory. A kind is a pair: `parse` makes a value of what the operator wrote, `format` makes the text that
SHOW CONFIG prints, and `parse(format(value)) == value` for every kind. `parse` raises ValueError with half
a sentence ("is negative") that reads well after the name and the text of the setting; it never repeats the
text itself, which may be a secret.

PgBouncer writes 0 where it means "off". That confusion ends here: the kinds whose name ends in `_OR_OFF`
give None for 0 and print None as 0, all others keep zero as zero. Numbers of the main section go through what C's
strtol does with base 0, so `0777` is octal and `0x10` is sixteen; those of entries through what its atoi does, so `010`
is ten. Times are float seconds and print as C's %g does. A list prints as it was written.
"""

import enum
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from protocol.passwords import BadSecret, Secret, parse_stored
from proxy.config.ldap import hide_password
from proxy.log import FACILITIES, Format

T = TypeVar("T")
E = TypeVar("E", bound=enum.StrEnum)

INT_MAX: Final = 2147483647
SECONDS_MAX: Final = 1e10  # three centuries: longer is a typing error
PASSWORD_MAX: Final = 65530  # bytes; PgBouncer's limit

_NUMBER = re.compile(r"\s*([+-]?)(?:0[xX]([0-9a-fA-F]+)|0([0-7]*)|([1-9][0-9]*))")
_DECIMAL = re.compile(r"\s*[+-]?(?:[0-9]++\.?+[0-9]*+|\.[0-9]++)(?:[eE][+-]?[0-9]{1,3})?")
_PLAIN = re.compile(r"[+-]?[0-9]+")
_SEPARATORS = re.compile(r"[,\s]+")
_TRUTH: Final = {"yes": True, "on": True, "true": True, "no": False, "off": False, "false": False}


class PoolMode(enum.StrEnum):
    """When a server goes back to its pool: as the client leaves, at the end of a transaction, of a statement."""

    SESSION = "session"
    TRANSACTION = "transaction"
    STATEMENT = "statement"


class AuthType(enum.StrEnum):
    """How a client proves who it is."""

    ANY = "any"
    TRUST = "trust"
    PLAIN = "plain"
    MD5 = "md5"
    SCRAM = "scram-sha-256"
    CERT = "cert"
    HBA = "hba"
    LDAP = "ldap"
    PAM = "pam"
    OAUTH = "oauth"


class SslMode(enum.StrEnum):
    """How much TLS is wanted, in libpq's words."""

    DISABLE = "disable"
    ALLOW = "allow"
    PREFER = "prefer"
    REQUIRE = "require"
    VERIFY_CA = "verify-ca"
    VERIFY_FULL = "verify-full"


WEAK_MODES: Final = frozenset({SslMode.DISABLE, SslMode.ALLOW, SslMode.PREFER})  # go on without TLS


class TlsNegotiation(enum.StrEnum):
    """How TLS begins, in libpq's words (sslnegotiation)."""

    POSTGRES = "postgres"
    DIRECT = "direct"


class SessionState(enum.StrEnum):
    """What happens to what a client changes in its session, where servers are shared."""

    TRACK = "track"  # what can be replayed is replayed on other servers, what cannot ties the client to its server
    RESET = "reset"  # a changed server is reset before anybody else has it; nothing is replayed
    LEAK = "leak"  # nobody looks: PgBouncer's way
    AUDIT = "audit"  # session mode, and a report of what would be replayed or tied


def is_private(mode: PoolMode, state: SessionState) -> bool:
    """Has a client its server for as long as it is here? Then nobody shares it."""
    return mode is PoolMode.SESSION or state is SessionState.AUDIT


class ListenMode(enum.StrEnum):
    """How clients that share servers LISTEN."""

    SHARED = "shared"  # one more connection listens for all of them
    PIN = "pin"  # a client that listens keeps its server


class LoadBalance(enum.StrEnum):
    """Which of several hosts a new server goes to."""

    ROUND_ROBIN = "round-robin"
    DISABLE = "disable"


@dataclass(frozen=True, slots=True)
class Kind(Generic[T]):
    """One kind of value: `parse` raises ValueError with half a sentence, `format` gives SHOW CONFIG's text."""

    parse: Callable[[str], T]
    format: Callable[[T], str]


def parse_number(text: str) -> int:
    """An integer as strtol(text, 0) takes it: decimal, 0octal or 0xhex, with nothing behind it."""
    match = _NUMBER.fullmatch(text) if len(text) < 32 else None
    if match is None:
        raise ValueError("is not a whole number")
    sign, sixteens, eights, tens = match.groups()
    value = int(sixteens, 16) if sixteens else int(tens) if tens else int(eights or "0", 8)
    return -value if sign == "-" else value


def parse_plain(text: str) -> int:
    """A decimal integer, whatever zeros stand in front, with nothing behind it."""
    if len(text) >= 32 or not _PLAIN.fullmatch(text):
        raise ValueError("is not a decimal number")
    return int(text)


def whole(least: int = 0, most: int = INT_MAX, number: Callable[[str], int] = parse_number) -> Kind[int]:
    """A whole number from `least` to `most`, both included."""

    def parse(text: str) -> int:
        value = number(text)
        if not least <= value <= most:
            raise ValueError(f"is outside {least} to {most}")
        return value

    return Kind(parse, str)


def _parse_seconds(text: str) -> float:
    if len(text) > 64 or not _DECIMAL.fullmatch(text):
        raise ValueError("is not a time in seconds")
    value = float(text)
    if value < 0:
        raise ValueError("is negative: a time is 0 seconds or more")
    if value > SECONDS_MAX:
        raise ValueError(f"is more than {SECONDS_MAX:g} seconds")
    return abs(value)


def _parse_duration(text: str) -> float:
    value = _parse_seconds(text)
    if value == 0:
        raise ValueError("is no length of time: it must be more than 0 seconds")
    return value


def _format_seconds(value: float) -> str:
    return f"{value:g}"


def or_off(kind: Kind[T]) -> Kind[T | None]:
    """The same kind, but a written 0 is the value None, "off" or "no limit"."""
    return Kind(lambda text: kind.parse(text) or None, lambda value: "0" if value is None else kind.format(value))


def or_unsaid(kind: Kind[T]) -> Kind[T | None]:
    """The same kind where a value may be missing: None prints as nothing. A -1 says it, as PgBouncer keeps it."""

    def parse(text: str) -> T | None:
        return None if text == "-1" and kind is PLAIN_COUNT else kind.parse(text)

    return Kind(parse, lambda value: "" if value is None else kind.format(value))


def _parse_truth(text: str) -> bool:
    word = _TRUTH.get(text.lower())
    if word is not None:
        return word
    try:
        return parse_number(text) != 0
    except ValueError:
        raise ValueError("is neither 0 nor 1") from None


class Written(tuple[str, ...]):
    """The words of a list, with the `text` they were written as, for SHOW CONFIG."""

    text: str

    @classmethod
    def of(cls, words: Iterable[str], text: str) -> "Written":
        written = cls(words)
        written.text = text
        return written


def _format_list(words: tuple[str, ...]) -> str:
    return words.text if isinstance(words, Written) else ",".join(words)


def _parse_names(text: str) -> tuple[str, ...]:
    return Written.of((name for name in _SEPARATORS.split(text) if name), text)


def _parse_hosts(text: str) -> tuple[str, ...]:
    hosts = tuple(host.strip() for host in text.split(",")) if text.strip() else ()
    if not all(hosts):
        raise ValueError("has an empty name between two commas")
    return hosts


def _parse_addresses(text: str) -> tuple[str, ...]:
    return Written.of(_parse_hosts(text), text)


def _parse_mode(text: str) -> int:
    value = parse_number(text)
    if not 0 <= value <= 0o777:
        raise ValueError("is no file mode: write it in octal with a 0 in front, as 0770")
    return value


def _parse_check(text: str) -> str | None:
    return "" if text == "<empty>" else text or None


def _format_check(value: str | None) -> str:
    return "<empty>" if value == "" else value or ""


def _parse_secret(text: str) -> Secret:
    if len(text.encode()) > PASSWORD_MAX:
        raise ValueError(f"is longer than {PASSWORD_MAX} bytes")
    return Secret(text)


def _parse_password(text: str) -> Secret:
    """What we log in to a server with, in one of the forms of auth_file."""
    secret = _parse_secret(text)
    try:
        parse_stored(text)
    except BadSecret as bad:
        raise ValueError(f"is damaged: {bad}") from None
    return secret


def one_of(words: type[E]) -> Kind[E]:
    """One word of the enumeration, in upper or lower case."""

    def parse(text: str) -> E:
        try:
            return words(text.lower())
        except ValueError:
            raise ValueError(f"is none of {', '.join(words)}") from None

    return Kind(parse, str)


def word_of(words: Iterable[str]) -> Kind[str]:
    """One of these words, in upper or lower case."""
    known = tuple(words)

    def parse(text: str) -> str:
        if text.lower() not in known:
            raise ValueError(f"is none of {', '.join(known)}")
        return text.lower()

    return Kind(parse, str)


def name_of(longest: int) -> Kind[str]:
    """A name of at most `longest` bytes; it may not be empty."""

    def parse(text: str) -> str:
        if not text:
            raise ValueError("is empty")
        if len(text.encode()) > longest:
            raise ValueError(f"is longer than {longest} bytes")
        return text

    return Kind(parse, str)


TEXT: Final = Kind(str, str)
COUNT: Final = whole()
COUNT_OR_OFF: Final = or_off(COUNT)
PORT: Final = whole(0, 65535)
PLAIN_COUNT: Final = whole(number=parse_plain)
SERVER_PORT: Final = whole(1, 65535, parse_plain)
PEER_ID: Final = or_off(whole(0, 16383))  # two bytes of the cancel key, of which two bits are taken
BUSY_POLL: Final = whole(0, 1_000)  # microseconds in which nothing else is done
ITERATIONS: Final = whole(1, 1_000_000)  # beyond that one login costs a second of CPU
PACKET_SIZE: Final = whole(1024)
SECONDS: Final = Kind(_parse_seconds, _format_seconds)
DURATION: Final = Kind(_parse_duration, _format_seconds)
SECONDS_OR_OFF: Final = or_off(SECONDS)
TRUTH: Final = Kind(_parse_truth, lambda value: str(int(value)))
NAMES: Final = Kind(_parse_names, _format_list)  # commas or blanks between, as PgBouncer looks for names
ADDRESSES: Final = Kind(_parse_addresses, _format_list)
HOSTS: Final = Kind(_parse_hosts, ",".join)
MODE: Final = Kind(_parse_mode, lambda value: f"0{value:03o}")
CHECK_QUERY: Final = Kind(_parse_check, _format_check)  # None: no check at all; "": an empty query
SECRET: Final = Kind(_parse_secret, str)  # prints as ***
PASSWORD: Final = Kind(_parse_password, str)  # the same
LDAP_OPTIONS: Final = Kind(_parse_secret, lambda value: hide_password(value.reveal()))  # a password may be among them
DATABASE_NAME: Final = name_of(63)  # NAMEDATALEN - 1
USER_NAME: Final = name_of(127)  # PgBouncer's limit
POOL_MODE: Final = one_of(PoolMode)
SESSION_STATE: Final = one_of(SessionState)
LISTEN_MODE: Final = one_of(ListenMode)
AUTH_TYPE: Final = one_of(AuthType)
SSL_MODE: Final = one_of(SslMode)
TLS_NEGOTIATION: Final = one_of(TlsNegotiation)
LOAD_BALANCE: Final = one_of(LoadBalance)
LOG_FORMAT: Final = one_of(Format)
FACILITY: Final = word_of(FACILITIES)
