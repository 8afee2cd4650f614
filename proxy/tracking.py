"""
Every statement measured (track_statements): what is looked at in what a client sends, so that its answer is noted.

Theory. Where statements are tracked a client's messages go the general way (client.py), past looks that are wrapped
here: each Query, Parse, Bind and Sync is noted, and what is sent at once has a `Trace` in the ledger in the place of
its client. What lines.py has seen already has its `Probe`.

A Bind says only a name, so it is remembered what text a client has parsed under which (`Spoken`), the last MAX_NAMES of
them. A statement counts when it is bound: once, however many of its rows are fetched when.

Not measured are: what is answered here (a deferred BEGIN and its end), an EXECUTE or DEALLOCATE sent as a simple query
where its name is another on the server, and whoever waits for the description of a statement the first time.
"""

from collections.abc import Callable
from typing import Any, Final

from protocol import codes
from protocol.framing import HEADER_SIZE
from protocol.prepared import find_bind_names, find_parse_name
from proxy.probes import Trace
from proxy.requests import MORE, PASS, Look
from proxy.shapes import Shape

MAX_NAMES: Final = 500  # statements of one client
MAX_IN_UNIT: Final = 100  # different shapes in one


class Spoken:
    """What one client has said."""

    __slots__ = ("names", "unit")

    def __init__(self) -> None:
        self.names: dict[bytes, Shape] = {}  # its statements
        self.unit: dict[Shape, int] = {}  # what it has bound since its last Sync

    def name(self, name: bytes, shape: Shape) -> None:
        self.names.pop(name, None)
        if len(self.names) >= MAX_NAMES:
            del self.names[next(iter(self.names))]
        self.names[name] = shape

    def bind(self, shape: Shape) -> None:
        if shape in self.unit or len(self.unit) < MAX_IN_UNIT:
            self.unit[shape] = self.unit.get(shape, 0) + 1

    def take_unit(self) -> dict[Shape, int]:
        unit, self.unit = self.unit, {}
        return unit


def track(looks: tuple[Look | None, ...]) -> tuple[Look | None, ...]:
    """The same looks, and what is sent is noted."""
    return tuple(_watch(look, _NOTES[kind]) if kind in _NOTES else look for kind, look in enumerate(looks))


def _watch(look: Look | None, note: Callable[[Any, bytes, int, int], None]) -> Look:
    def look_and_note(client: Any, data: bytes, pos: int, end: int, parsed: bool) -> int:
        verdict = PASS if look is None else look(client, data, pos, end, parsed)
        if verdict < MORE:
            note(client, data, pos, end)
        return verdict

    return look_and_note


def find_shape(client: Any, text: bytes) -> Shape:
    found: Shape = client.pool.lines.book.find_any(text, client.followed.get("client_encoding", ""))
    return found


def spoken_of(client: Any) -> Spoken:
    book = client.pool.lines.book
    spoken: Spoken | None = book.spoken.get(client)
    if spoken is None:
        spoken = book.spoken[client] = Spoken()
    return spoken


def trace_of(client: Any, data: bytes) -> Trace | None:
    """That of what is sent now. None: it has a probe already, or goes together with what has none."""
    probe = client.probe
    if client.held:
        if not isinstance(probe, Trace):
            if probe is None or probe.data is not client.held:
                return None
            client.probe = Trace(client, data, {probe.shape: 1})
    elif probe is None or probe.data is not data:
        client.probe = Trace(client, data)
    return client.probe if isinstance(client.probe, Trace) else None


def _note_query(client: Any, data: bytes, pos: int, end: int) -> None:
    trace = trace_of(client, data)
    if trace is not None:
        text = data[pos + HEADER_SIZE : end - 1]
        trace.due.append({find_shape(client, text): 1})


def _note_parse(client: Any, data: bytes, pos: int, end: int) -> None:
    stop = find_parse_name(data, pos, end)
    if stop is not None:
        last = data.find(0, stop + 1, end)
        text = data[stop + 1 : last if last >= 0 else len(data)]
        spoken_of(client).name(data[pos + HEADER_SIZE : stop], find_shape(client, text))


def _note_bind(client: Any, data: bytes, pos: int, end: int) -> None:
    names = find_bind_names(data, pos, end)
    if names is None:
        return
    name, spoken = data[names[0] : names[1]], spoken_of(client)
    shape = spoken.names.get(name) or _find_statement(client, name)
    if shape is not None:
        spoken.bind(shape)


def _find_statement(client: Any, name: bytes) -> Shape | None:
    """Of a name that was given before anybody noted it."""
    statement = client.statements.get(name) if client.statements is not None and name else None
    return None if statement is None else find_shape(client, statement.text)


def _note_sync(client: Any, data: bytes, pos: int, end: int) -> None:
    trace = trace_of(client, data)
    unit = spoken_of(client).take_unit()
    if trace is not None:
        trace.due.append(unit)


_NOTES: Final = {
    codes.QUERY: _note_query,
    codes.PARSE: _note_parse,
    codes.BIND: _note_bind,
    codes.SYNC: _note_sync,
}
"""By the kind of message."""
