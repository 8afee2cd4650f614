"""No regular expression of ours goes back and forth: each is run on texts made for it, and its steps are counted."""

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from protocol.tokens import BACKSLASHED, STANDARD, Grammar
from tests.fuzz.backtracking import Matcher, find_worst

ROOT = Path(__file__).parent.parent.parent
SOURCES = sorted(path for top in ("protocol", "proxy") for path in (ROOT / top).rglob("*.py") if path.name[0] != "_")
WORDS = {path: path.read_text() for path in SOURCES}
WAYS = ("match", "fullmatch", "search", "finditer", "findall", "sub", "split")
LINEAR = 6.0  # times for four times the text: 4 is linear, 16 quadratic


def patterns_in(value: object) -> Iterator[tuple[re.Pattern, str]]:
    """Expressions in a module's constant, with the one way they are used where that is known."""
    if isinstance(value, re.Pattern):
        yield value, ""
    elif isinstance(getattr(value, "__self__", None), re.Pattern):
        yield value.__self__, value.__name__
    elif isinstance(value, dict):
        yield from (each for item in value.values() for each in patterns_in(item))
    elif isinstance(value, list | tuple):
        yield from (each for item in value for each in patterns_in(item))


def all_patterns() -> Iterator[tuple[str, re.Pattern, str]]:
    """(name, expression, way it is used) of everything in our sources."""
    for path, words in WORDS.items():
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for name, value in vars(importlib.import_module(module)).items():
            for at, (pattern, way) in enumerate(patterns_in(value)):
                ways = [way] if way else ways_of(name, words) or ["fullmatch"]
                yield from ((f"{module}.{name}[{at}] {way}", pattern, way) for way in ways)
        yield from ((f"{module}: {text!r}", re.compile(text), way) for text, way in calls_in(words))
    for grammar in (STANDARD, BACKSLASHED):
        yield f"{name_of(grammar)}.no_comment", grammar.no_comment, "match"
        yield f"{name_of(grammar)}.token", grammar.token, "match"  # nobody goes on behind an opening that has no end


def name_of(grammar: Grammar) -> str:
    return "STANDARD" if grammar is STANDARD else "BACKSLASHED"


def ways_of(name: str, words: str) -> list[str]:
    return sorted(set(re.findall(rf"\b{name}\.({'|'.join(WAYS)})\(", words)))


def calls_in(words: str) -> Iterator[tuple[str | bytes, str]]:
    """re.sub("...", ...) and its kin."""
    for node in ast.walk(ast.parse(words)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in WAYS:
            is_re = isinstance(node.func.value, ast.Name) and node.func.value.id == "re"
            if is_re and isinstance(node.args[0], ast.Constant):
                yield node.args[0].value, node.func.attr


ALL = {name: (pattern, way) for name, pattern, way in all_patterns()}


@pytest.mark.parametrize("name", ALL)
def test_four_times_the_text_is_four_times_the_work(name):
    worst, text = find_worst(*ALL[name])
    assert worst < LINEAR, f"{name}: {worst:.1f} times on texts like {text!r}"


@pytest.mark.parametrize(
    ("text", "way"),
    [(r"(?:a+)+b", "match"), (r"\d+\.?\d*", "fullmatch"), (r"[a-z]+\.", "search"), (r"'.*?'x", "finditer")],
)
def test_what_is_not_linear_is_found(text, way):
    assert find_worst(re.compile(text), way)[0] > LINEAR


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (r"(a|ab)(c|bcd)(d*)", "abcd"),
        (r"(?:a|b)*+c", "ababc"),
        (r"(?>a+)b|a+", "aaa"),
        (r"(?P<q>['\"]).*?(?P=q)", "'a\"b'c'"),
        (r"(?i:SELECT)\b\s++(?!from)\w+", "select  x1"),
        (r"(?<=a)b", "ab"),
        (r"[^a-c\d]{2,3}$", "xyz"),
    ],
)
def test_the_counting_matcher_finds_what_re_finds(pattern, text):
    for pos in range(len(text) + 1):
        matcher, found = Matcher(re.compile(pattern)), re.compile(pattern).match(text, pos)
        matcher.text = text
        assert matcher.match(pos) == (found.end() if found else None)
