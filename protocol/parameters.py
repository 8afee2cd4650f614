"""
Session parameters, and the message that turns one set of them into another.

Theory. PostgreSQL reports some parameters by itself (GUC_REPORT, docs: "Asynchronous Operations"): whenever
one changes, a ParameterStatus follows. Those can be followed without understanding a single statement. What else a
client has set in its session is found out by asking (`inspection`). Both stand in one set: a client has the set it
believes in, a server the set it is in; where they differ when the two meet, one message goes in front of the client's
first request (`difference`, `build_change`).

Sets are plain dicts, never changed in place: a changed set is a new dict (`with_value`). So clients that
agree share one object, and the usual check on the hot path is `is`. Keys are in lower case, but those that are
followed are spelled as PostgreSQL reports them.

One message is one implicit transaction, so it changes everything or nothing. Some parameters touch the message
itself: a timeout may strike it, a role may have no right to the rest. Those are left first, and taken again last
(`OUTER`). Everything we write is printable ASCII inside E'' quotes, other text in hexadecimal digits: then neither the
server's client_encoding nor its standard_conforming_strings can make a quote out of it.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from protocol.errors import ProtocolError

ParameterSet = Mapping[str, str]

FOLLOWED = ("client_encoding", "DateStyle", "TimeZone", "standard_conforming_strings", "application_name")
"""As PostgreSQL spells them in ParameterStatus; `track_extra_parameters` adds to these."""

LISTS = frozenset({
    "search_path", "temp_tablespaces", "local_preload_libraries", "session_preload_libraries",
    "shared_preload_libraries", "unix_socket_directories",
})  # fmt: skip
"""Parameters whose value is a list of quoted names (GUC_LIST_QUOTE): SET would take the whole for one name."""

IDENTITY = ("session_authorization", "role")
"""Who the session is, in the order in which it is said."""

UNSURE = "\0"
"""In a server's set: who that is may have changed since it was said there. No client wants it, so it is said again."""

PASSING = frozenset({
    "transaction_isolation", "transaction_read_only", "transaction_deferrable", "seed", "is_superuser",
})  # fmt: skip
"""Not of the session, though SET may name them: gone with their transaction, or not to be asked."""

TIMEOUTS = ("statement_timeout", "transaction_timeout")
"""They may strike a message of ours as well."""

UNSHARED = frozenset({"idle_session_timeout"})
"""Of a connection and not of what runs on it: on a server that waits for its next client, whoever that is, it would go
on and strike. Never left, nor replayed, where servers are shared."""

OUTER = (*TIMEOUTS, *IDENTITY)
"""In the order in which they are left, and taken: a timeout runs from the next statement on, a role knows its user."""

READ_ONCE = frozenset({
    "client_encoding", "datestyle", "timezone", "intervalstyle", "standard_conforming_strings", "backslash_quote",
    "array_nulls", "transform_null_equals", "xmloption", "lc_monetary", "timezone_abbreviations",
})  # fmt: skip
"""Parameters, in lower case, that decide what a text's literals are: when it is parsed, and never again."""
MEANINGS = READ_ONCE | {"search_path", "role", "session_authorization"}
"""And those that decide what its names stand for, which PostgreSQL looks at again when they have changed."""
ISOLATING = frozenset({"default_transaction_isolation", "default_transaction_deferrable"})
"""Where one of these has been set, a transaction of ours may have to wait for others, with the first SELECT in it."""

UNKNOWN = "\0ms"
"""In the set of a server: nobody knows which value it has there. No client wants this one, and it is a timeout that may
strike."""

CALM = "SET TRANSACTION ISOLATION LEVEL READ COMMITTED"

MAX_REPORTED = 500  # parameters of one server; PostgreSQL reports about 15
MAX_REPORTED_LENGTH = 262_144  # characters of all of them: each client that logs in is told them
MAX_VALUE_LENGTH = 1024  # bytes
MAX_NAME_LENGTH = 63  # bytes
MAX_SET = 100  # parameters of one session that are not followed

_PRINTABLE = re.compile(r"[ -~]*")
_OTHERS = re.compile(r"[^ -~]")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_$]*(?:\.[A-Za-z_][A-Za-z0-9_$]*)*")


class Change(NamedTuple):
    """What makes one set of another."""

    sets: Mapping[str, str]
    resets: tuple[str, ...]
    is_calm: bool = False  # to be made in a transaction that waits for nobody


NO_CHANGE = Change({}, ())


def spelling(names: Iterable[str] = FOLLOWED) -> dict[str, str]:
    """From a name in lower case to the way PostgreSQL spells it."""
    return {name.lower(): name for name in names}


def is_sendable(value: str) -> bool:
    """May `value` stand in the message we build?"""
    if len(value) > MAX_VALUE_LENGTH or "\0" in value:
        return False
    try:
        return len(value.encode()) <= MAX_VALUE_LENGTH
    except UnicodeEncodeError:
        return False  # bytes of which nobody knows what they mean


def is_name(name: str) -> bool:
    """Is it one that PostgreSQL could have for a parameter, as far as we can say it?"""
    return len(name) <= MAX_NAME_LENGTH and _NAME.fullmatch(name) is not None


def clean(value: str) -> str:
    r"""`value` in printable ASCII, other bytes as \xNN, as PostgreSQL does with application_name; cut to 63 bytes."""
    raw = value.encode("utf-8", "surrogateescape").decode("latin-1")
    return _OTHERS.sub(lambda found: f"\\x{ord(found[0]):02x}", raw)[:63]


def note_reported(reported: dict[str, str], name: str, value: str) -> None:
    """A server reports a parameter. ProtocolError: it reports more than anybody needs to know."""
    reported[name] = value
    if len(reported) > MAX_REPORTED:
        raise ProtocolError(f"more than {MAX_REPORTED} parameters")
    if sum(map(len, reported)) + sum(map(len, reported.values())) > MAX_REPORTED_LENGTH:
        raise ProtocolError(f"parameters of more than {MAX_REPORTED_LENGTH} characters")


def with_value(parameters: ParameterSet, name: str, value: str) -> ParameterSet:
    """The same set but for one value; the very same object when nothing changes."""
    if parameters.get(name) == value:
        return parameters
    return {**parameters, name: value}


def is_in_the_way(name: str, value: str | None) -> bool:
    """Does it touch a message of ours? A timeout does if it is shorter than a second."""
    return value is not None and (name in IDENTITY or (name in TIMEOUTS and value.endswith("ms")))


def difference(wanted: ParameterSet, actual: ParameterSet, kept: Collection[str] = ()) -> Change:
    """What must happen for `actual` to become `wanted`. What `wanted` does not say of `kept` does not matter."""
    if wanted is actual or wanted == actual:
        return NO_CHANGE
    sets = {name: value for name, value in wanted.items() if actual.get(name) != value}
    resets = tuple(name for name in actual if name not in wanted and name not in kept)
    if not (sets or resets):
        return NO_CHANGE
    outer = tuple(name for name in OUTER if is_in_the_way(name, actual.get(name)))
    sets |= {name: wanted[name] for name in outer if name in wanted}
    is_calm = bool(sets) and not ISOLATING.isdisjoint(actual)
    return Change(sets, (*outer, *(name for name in resets if name not in outer)), is_calm)


def build_change(change: Change, *, is_local: bool = False) -> bytes:
    """One text for a simple Query. Names must be `is_name`, values `is_sendable`. `is_local`: for its transaction."""
    sets, resets, is_calm = change
    texts = [CALM] if is_calm else []
    texts += [_build_reset(name, is_local) for name in resets]
    texts += [_build_set(name, value, is_local) for name, value in sets.items() if name not in OUTER]
    texts += [_build_set(name, sets[name], is_local) for name in OUTER if name in sets]
    return ";".join(texts).encode("ascii")


def _build_reset(name: str, is_local: bool) -> str:
    quoted = ".".join(f'"{part}"' for part in name.split("."))
    return f"SET LOCAL {quoted} TO DEFAULT" if is_local else f"RESET {quoted}"


def _build_set(name: str, value: str, is_local: bool) -> str:
    if not is_local and name in FOLLOWED and _PRINTABLE.fullmatch(value):
        return f"SET {name}={build_text(value)}"
    return build_set_config(name, value, is_local=is_local)


def build_set_config(name: str, value: str, *, is_local: bool = False) -> str:
    """A SELECT that sets one, and tells its value in the server's own spelling."""
    return f"SELECT pg_catalog.set_config({build_text(name)},{build_text(value)},{str(is_local).lower()})"


def build_text(value: str) -> str:
    """An SQL expression for a text, whatever is in it."""
    if _PRINTABLE.fullmatch(value):
        return "E'" + value.replace("\\", "\\\\").replace("'", "''") + "'"
    return f"pg_catalog.convert_from(pg_catalog.decode('{value.encode().hex()}','hex'),'UTF8')"
