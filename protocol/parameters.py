"""
Session parameters we follow, and the SET that turns one set into another.

Theory. PostgreSQL reports some parameters by itself (GUC_REPORT, docs: "Asynchronous Operations"): whenever
one changes, a ParameterStatus follows. Those can be followed without understanding a single statement. A
client has the set it believes in, a server the set it is in; where they differ when the two meet, one SET
goes in front of the client's first request.

Sets are plain dicts, never changed in place: a changed set is a new dict (`with_value`). So clients that
agree share one object, and the usual check on the hot path is `is`.

Values travel inside E'' quotes and must be printable ASCII: then neither the server's client_encoding nor its
standard_conforming_strings can make a quote out of anything we wrote. PostgreSQL itself turns other bytes
of an application_name into escapes; we do the same before storing it.
"""

import re
from collections.abc import Iterable, Mapping

ParameterSet = Mapping[str, str]

FOLLOWED = ("client_encoding", "DateStyle", "TimeZone", "standard_conforming_strings", "application_name")
"""As PostgreSQL spells them in ParameterStatus; `track_extra_parameters` adds to these."""

LISTS = frozenset({
    "search_path", "temp_tablespaces", "local_preload_libraries", "session_preload_libraries",
    "shared_preload_libraries", "unix_socket_directories",
})  # fmt: skip
"""Parameters that PostgreSQL reports as a list of quoted names (GUC_LIST_QUOTE)."""

MAX_VALUE_LENGTH = 1024

_PRINTABLE = re.compile(r"[ -~]*")
_OTHERS = re.compile(r"[^ -~]")


def spelling(names: Iterable[str] = FOLLOWED) -> dict[str, str]:
    """From a name in lower case to the way PostgreSQL spells it."""
    return {name.lower(): name for name in names}


def is_sendable(value: str) -> bool:
    """May `value` stand in the SET we build?"""
    return len(value) <= MAX_VALUE_LENGTH and _PRINTABLE.fullmatch(value) is not None


def clean(value: str) -> str:
    r"""`value` in printable ASCII, other bytes as \xNN, as PostgreSQL does with application_name; cut to 63 bytes."""
    raw = value.encode("utf-8", "surrogateescape").decode("latin-1")
    return _OTHERS.sub(lambda found: f"\\x{ord(found[0]):02x}", raw)[:63]


def with_value(parameters: ParameterSet, name: str, value: str) -> ParameterSet:
    """The same set but for one value; the very same object when nothing changes."""
    if parameters.get(name) == value:
        return parameters
    return {**parameters, name: value}


def difference(wanted: ParameterSet, actual: ParameterSet) -> dict[str, str]:
    """What must be set for `actual` to become `wanted`."""
    if wanted is actual or wanted == actual:
        return {}
    return {name: value for name, value in wanted.items() if actual.get(name) != value}


def build_set(changes: Mapping[str, str]) -> bytes:
    """One text of SET statements for a simple Query. The values must be `is_sendable`."""
    return ";".join(_build_one(name, _quoted(value)) for name, value in changes.items()).encode("ascii")


def _build_one(name: str, quoted: str) -> str:
    """A reported list must be read as a list again; SET would take the quoted whole for one name."""
    if name.lower() in LISTS:
        return f"SELECT pg_catalog.set_config('{name}',E'{quoted}',false)"
    return f"SET {name}=E'{quoted}'"


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace("'", "''")
