"""Texts of SQL: their tokens, what kind of statement they are, what they may do, what they have in common."""

from protocol.doubts import Doubts, find_customs
from protocol.effects import Reader, is_deferrable
from protocol.fingerprints import fingerprint
from protocol.parameters import build_text, clean, is_name, is_sendable
from protocol.sketches import outline, sketch
from protocol.statements import classify
from protocol.tokens import BAD, OPENERS, fold_name, literal_value, tokens
from tests.fuzz.registry import target, text_of

READER = Reader([b"my_lock", b'"Lock"'])
SEEDS = (
    b"select a, 'b''c', E'\\'', $1, $x$ $ $x$ from \"t\" /* /* */ */ -- end\n where x in (1, 2.5e-3, 0x1F)",
    b"begin isolation level serializable; set local a.b to default; commit and chain",
    b"create temp table t as execute p (1); drop database if exists d; discard all",
    b"select set_config('a' , 'b', false), U&\"\\0041\"(1), pg_advisory_lock(1) into temp t",
    b"prepare p (int) as select $1; execute p(1); deallocate prepare p; listen c; unlisten *",
    b"declare c cursor with hold for select 1; create function f() begin atomic",
    b"explain (analyze) create table pg_temp.t (a int); do $$begin end$$; copy t from stdin",
)


def scan_tokens(data: bytes) -> None:
    """Tokens come in order and say what they say without an error."""
    for standard in (True, False):
        last = 0
        for match in tokens(data, standard_conforming_strings=standard):
            assert match.start() >= last
            last = match.end()
            assert match.lastindex is not None
            token = match[match.lastindex]
            fold_name(token)
            literal_value(token)
            if match.lastindex == BAD and token in OPENERS:
                break


def read_effects(data: bytes) -> None:
    for standard in (True, False):
        reading = READER.read(data, standard)
        assert not (READER.is_plain(data) and reading.acts)
        for act in reading.acts:
            assert 0 <= act.start <= act.end <= len(data)
        Doubts({}, data).add(reading, data)
    is_deferrable(data)


def say(data: bytes) -> None:
    """What is built of a text of anybody's can be read by nobody but as a text."""
    text = text_of(data)
    is_name(text)
    clean(text)
    if is_sendable(text):
        assert classify(b"select " + build_text(text).encode("ascii")).is_single


target("tokens", scan_tokens, seeds=SEEDS)
target("statements", lambda data: (classify(data), classify(data, standard_conforming_strings=False)), seeds=SEEDS)
target("effects", read_effects, seeds=SEEDS)
target("customs", find_customs, seeds=(b"a.b = c.d.e",))
target("fingerprints", fingerprint, seeds=SEEDS)
target("sketches", lambda data: (sketch(data), sketch(data, "SJIS"), outline(data)), seeds=SEEDS)
target("values", say, seeds=(b"it's \\ a value",))
