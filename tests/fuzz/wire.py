"""The protocol's own bytes: where messages begin and end, the untyped packets, the messages of both sides, debts."""

import contextlib
from collections.abc import Callable
from typing import Any

from protocol import backend, frontend
from protocol.encodings import CODECS, from_utf8, to_utf8
from protocol.errors import ProtocolError, Refused
from protocol.framing import scan
from protocol.inspection import Fact, Question, parse_inspection
from protocol.ledger import DULL, DULL_REQUESTS, QUERY, REQUESTS, Ledger
from protocol.prepared import (
    digest_description,
    find_bind_names,
    find_parse_name,
    find_target_name,
    rename_bind,
    rename_start,
    replace_name,
    replace_position,
)
from protocol.replication import parse_replication
from protocol.startup import negotiate, parse_options, parse_startup
from protocol.trial import parse_trial
from tests.fuzz.registry import cut, target, text_of
from tests.play import asked, said

MAX = 0x3FFFFFFF

FRONTEND: tuple[tuple[Callable[[bytes], Any], Callable[[Any], bytes] | None], ...] = (
    (frontend.parse_query, frontend.build_query),
    (frontend.parse_function_call, frontend.build_function_call),
    (frontend.parse_parse, lambda parse: frontend.build_parse(parse.name, parse.query, parse.type_oids)),
    (frontend.parse_bind, frontend.build_bind),
    (frontend.parse_close, lambda it: frontend.build_close(it.kind, it.name)),
    (frontend.parse_describe, lambda it: frontend.build_describe(it.kind, it.name)),
    (frontend.parse_execute, lambda it: frontend.build_execute(it.portal, it.max_rows)),
    (frontend.parse_copy_fail, frontend.build_copy_fail),
    (frontend.parse_password, frontend.build_password),
    (frontend.parse_sasl_initial, None),  # its name is read as ASCII, whatever it was
)
BACKEND: tuple[tuple[Callable[[bytes], Any], Callable[[Any], bytes] | None], ...] = (
    (backend.parse_error, None),
    (backend.parse_authentication, lambda it: backend.build_authentication(*it)),
    (backend.parse_sasl_mechanisms, None),
    (backend.parse_negotiate, None),
    (backend.parse_parameter_status, lambda it: backend.build_parameter_status(*it)),
    (backend.parse_backend_key, backend.build_backend_key),
    (backend.parse_ready, backend.build_ready),
    (backend.parse_row_description, None),  # a column's table is not built
    (backend.parse_data_row, backend.build_data_row),
    (backend.parse_command_complete, backend.build_command_complete),
    (backend.parse_parameter_description, backend.build_parameter_description),
    (backend.parse_function_result, backend.build_function_result),
    (backend.parse_copy_response, lambda it: backend.build_copy_response(ord("G"), it)),
    (backend.parse_notification, backend.build_notification),
)


def parse_one_of(pairs: tuple[tuple[Callable[[bytes], Any], Callable[[Any], bytes] | None], ...], data: bytes) -> None:
    """The first byte chooses the message; what can be parsed and built again must be the same bytes."""
    parse, build = pairs[data[0] % len(pairs)] if data else pairs[0]
    value = parse(data[1:])
    if build is not None:
        assert build(value)[5:] == data[1:]


def scan_all(data: bytes) -> None:
    """`scan` finds what one who reads header by header finds, and never goes back."""
    pos = 0
    while pos < len(data):
        kind, start, end = scan(data, pos, DULL[QUERY], MAX)
        assert start == walk(data, pos)
        if not kind:
            return
        assert end > start >= pos
        pos = end


def walk(data: bytes, pos: int) -> int:
    while pos + 4 < len(data) and DULL[QUERY][data[pos]]:
        pos += 1 + int.from_bytes(data[pos + 1 : pos + 5], "big")
    return pos


def enter_and_settle(data: bytes) -> None:
    """The first half is what clients ask, the second what the server says: an answer never makes more debts."""
    ledger, requests, answers = Ledger(), *cut(data, 2)
    known = bytes(REQUESTS)
    for at, request in enumerate(requests[:2000]):
        ledger.expect((REQUESTS[known[request % len(known)]],), at % 3)
    for kind in answers:
        before = len(ledger)
        ledger.settle(kind)
        assert len(ledger) <= before
        assert ledger.is_owing or not len(ledger)


def find_names(data: bytes) -> None:
    """One message, perhaps cut: the names in it, and the message with another name."""
    kind, pos, end = scan(data, 0, DULL_REQUESTS, MAX)
    if not kind or pos + 6 > len(data):
        return
    if span := find_bind_names(data, pos, end):
        assert rename_bind(data, pos, end, span, data[slice(*span)])[1:] == data[pos + 1 : span[1]]
    if stop := find_parse_name(data, pos, end):
        rename_start(data, pos, end, stop, b"PGSHUTTLE_1")
    find_target_name(data, pos, end)


def describe(data: bytes) -> None:
    """An error in other words, and what a statement was described as."""
    with contextlib.suppress(ProtocolError):
        digest_description(b"t", b"T\0\0\0\0" + data)
    assert replace_name(data, b"PGSHUTTLE_1", b"PGSHUTTLE_1")[5:] == data
    replace_position(data, 7)


def inspect(data: bytes) -> None:
    encoding, rest = (list(CODECS)[data[0] % len(CODECS)], data[1:]) if data else ("utf8", data)
    parse_inspection(Question(("a", "role"), (Fact.TEMP,), lists=True), rest, encoding)


def translate(data: bytes) -> None:
    encoding, rest = (list(CODECS)[data[0] % len(CODECS)], data[1:]) if data else ("utf8", data)
    from_utf8(to_utf8(rest, encoding), encoding)


def parse_first_packet(data: bytes) -> None:
    request = parse_startup(data)
    if hasattr(request, "parameters"):
        negotiate(request)
        parse_replication(request.parameters.get("replication"))


HELLO = b"\0\3\0\2user\0joe\0database\0shop\0options\0-c a=b\0_pq_.x\0\0\0"


target("framing", scan_all, ProtocolError, seeds=(said("D D D D D D D D C Z:I"), asked("P B E S d:xxx c")))
target(
    "startup",
    parse_first_packet,
    ProtocolError,
    Refused,
    seeds=(HELLO, b"\x04\xd2\x16\x2f", b"\x04\xd2\x16\x2e12345678"),
)
target("startup options", lambda data: parse_options(text_of(data)), Refused, seeds=(rb"-c a=b --c-d=e\ f -cg=h",))
target(
    "frontend",
    lambda data: parse_one_of(FRONTEND, data),
    *(ProtocolError, UnicodeError),
    seeds=tuple(bytes([at]) + asked(word)[5:] for at, word in enumerate("Q F P B C D E f".split())),
)
target(
    "backend",
    lambda data: parse_one_of(BACKEND, data),
    ProtocolError,
    seeds=tuple(
        bytes([at]) + said(word)[5:]
        for at, word in ((0, "ERROR:x"), (4, "S:a=b"), (6, "Z:T"), (7, "T"), (8, "D:x"), (9, "C"), (12, "G"), (13, "A"))
    ),
)
target("ledger", enter_and_settle, ProtocolError, seeds=(b"\1\2\3\0\x31\x32CZ", b"\0\0\0DDCZ"), each=2_000)
target("statement names", find_names, ProtocolError, seeds=(asked("P:name"), asked("B:name"), asked("ASK:name")))
target("descriptions", describe, ProtocolError, seeds=(said("T")[5:], said("MISSING:PGSHUTTLE_1")[5:]))
target("inspection", inspect, ProtocolError, seeds=(b"\0" + said("T D:x C Z:I"),))
target("trial", lambda data: parse_trial({"role": "a"}, data, "utf8"), ProtocolError, seeds=(said("D:x"),))
target("encodings", translate, ValueError, seeds=(b"\0\xc3\xbc",))
