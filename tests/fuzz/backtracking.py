"""
What a regular expression costs: the steps of a backtracking matcher, counted, on texts made to make it go back.

Theory. Python's `re` runs in one call into C, where nothing can be counted; so its parsed form is run here by a
small matcher that goes the same ways in the same order (greedy, lazy, possessive, atomic) and counts each test of a
character.
`find_worst` pumps whatever can be repeated: the shortest text that leads to a repetition, its body many times, and an
end that fits nowhere. An expression that is linear costs four times as much for four times the text, a quadratic one
sixteen times. One that is searched for is tried from every place, as `re` does.
"""

import re
import sys
from collections.abc import Callable, Iterator
from re import _constants as ops  # type: ignore[attr-defined]  # no other door to the parsed form
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

Then = Callable[[int], int | None]
Step = Callable[[int, Then], int | None]

CATEGORIES: dict[Any, str] = {
    ops.CATEGORY_DIGIT: r"\d", ops.CATEGORY_NOT_DIGIT: r"\D", ops.CATEGORY_SPACE: r"\s",
    ops.CATEGORY_NOT_SPACE: r"\S", ops.CATEGORY_WORD: r"\w", ops.CATEGORY_NOT_WORD: r"\W",
}  # fmt: skip
REPEATS = (ops.MAX_REPEAT, ops.MIN_REPEAT, ops.POSSESSIVE_REPEAT)
ENDS = ("", "\0", "!")
ENOUGH = 10_000  # steps


class Endless(Exception):
    """More steps than anything linear would take."""


def parse(pattern: re.Pattern[Any]) -> Any:
    return parser.parse(pattern.pattern, pattern.flags)


class Matcher:
    """One expression; `steps` counts on."""

    def __init__(self, pattern: re.Pattern[Any]) -> None:
        self._fold = bool(pattern.flags & re.IGNORECASE)
        self._spans: dict[int, tuple[int, int]] = {}
        self._run = self._sequence(parse(pattern))
        self.text = ""
        self.steps = 0

    def match(self, pos: int, *, whole: bool = False) -> int | None:
        """Where the match at `pos` ends."""
        return self._run(pos, lambda end: end if end == len(self.text) or not whole else None)

    def scan(self) -> None:
        """All matches, each searched behind the last."""
        pos = 0
        while pos <= len(self.text):
            end = self.match(pos)
            pos = end if end is not None and end > pos else pos + 1

    def _sequence(self, items: Any) -> Step:
        run: Step = lambda pos, then: then(pos)  # noqa: E731
        for op, argument in reversed(list(items)):
            run = self._chain(self._make(op, argument), run)
        return run

    @staticmethod
    def _chain(first: Step, rest: Step) -> Step:
        return lambda pos, then: first(pos, lambda end: rest(end, then))

    def _make(self, op: Any, argument: Any) -> Step:
        if op in (ops.LITERAL, ops.NOT_LITERAL, ops.ANY, ops.IN):
            return self._character(op, argument)
        makers: dict[Any, Callable[[Any], Step]] = {
            ops.AT: self._at, ops.BRANCH: self._branch, ops.SUBPATTERN: self._group, ops.MAX_REPEAT: self._greedy,
            ops.MIN_REPEAT: self._lazy, ops.POSSESSIVE_REPEAT: self._possessive, ops.ATOMIC_GROUP: self._atomic,
            ops.ASSERT: lambda it: self._look(it, wanted=True), ops.ASSERT_NOT: lambda it: self._look(it, wanted=False),
            ops.GROUPREF: self._reference,
        }  # fmt: skip
        return makers[op](argument)

    def _character(self, op: Any, argument: Any) -> Step:
        fits = character_of(op, argument, self._fold)

        def step(pos: int, then: Then) -> int | None:
            self.steps += 1
            if self.steps > ENOUGH:
                raise Endless
            return then(pos + 1) if pos < len(self.text) and fits(self.text[pos]) else None

        return step

    def _at(self, what: Any) -> Step:
        ends = (ops.AT_END, ops.AT_END_STRING)

        def step(pos: int, then: Then) -> int | None:
            self.steps += 1
            if what in (ops.AT_BOUNDARY, ops.AT_NON_BOUNDARY):
                sides = [self.text[at : at + 1] for at in (pos - 1, pos) if at >= 0]
                is_there = len({bool(re.match(r"\w", side)) for side in sides}) > 1 or len(sides) == 1
                fits = is_there == (what is ops.AT_BOUNDARY)
            else:
                fits = pos == len(self.text) if what in ends else pos == 0
            return then(pos) if fits else None

        return step

    def _branch(self, argument: Any) -> Step:
        ways = [self._sequence(items) for items in argument[1]]
        return lambda pos, then: next((end for way in ways if (end := way(pos, then)) is not None), None)

    def _group(self, argument: Any) -> Step:
        number, add, _, items = argument
        before, self._fold = self._fold, self._fold or bool(add & re.IGNORECASE)
        inner, self._fold = self._sequence(items), before

        def step(pos: int, then: Then) -> int | None:
            def close(end: int) -> int | None:
                was, self._spans[number] = self._spans.get(number, (0, 0)), (pos, end)
                found = then(end)
                if found is None:
                    self._spans[number] = was
                return found

            return inner(pos, close)

        return step

    def _greedy(self, argument: Any) -> Step:
        least, most, items = argument
        inner = self._sequence(items)

        def again(count: int, pos: int, then: Then) -> int | None:
            if count < most:
                found = inner(pos, lambda end: again(count + 1, end, then) if end > pos or count < least else None)
                if found is not None:
                    return found
            return then(pos) if count >= least else None

        return lambda pos, then: again(0, pos, then)

    def _lazy(self, argument: Any) -> Step:
        least, most, items = argument
        inner = self._sequence(items)

        def again(count: int, pos: int, then: Then) -> int | None:
            found = then(pos) if count >= least else None
            if found is None and count < most:
                found = inner(pos, lambda end: again(count + 1, end, then) if end > pos else None)
            return found

        return lambda pos, then: again(0, pos, then)

    def _possessive(self, argument: Any) -> Step:
        least, most, items = argument
        inner = self._sequence(items)

        def step(pos: int, then: Then) -> int | None:
            count = 0
            while count < most:
                end = inner(pos, lambda end: end)
                if end is None or (end == pos and count >= least):
                    break
                pos, count = end, count + 1
            return then(pos) if count >= least else None

        return step

    def _atomic(self, items: Any) -> Step:
        inner = self._sequence(items)

        def step(pos: int, then: Then) -> int | None:
            end = inner(pos, lambda end: end)
            return None if end is None else then(end)

        return step

    def _look(self, argument: Any, *, wanted: bool) -> Step:
        direction, items = argument
        inner, width = self._sequence(items), items.getwidth()[0] if direction < 0 else 0

        def step(pos: int, then: Then) -> int | None:
            found = inner(pos - width, lambda end: end) if pos >= width else None
            return then(pos) if (found is not None) == wanted else None

        return step

    def _reference(self, number: int) -> Step:
        def step(pos: int, then: Then) -> int | None:
            start, end = self._spans.get(number, (0, 0))
            for at in range(start, end):
                self.steps += 1
                if self.text[pos + at - start : pos + at - start + 1] != self.text[at]:
                    return None
            return then(pos + end - start)

        return step


def character_of(op: Any, argument: Any, fold: bool) -> Callable[[str], bool]:
    if op is ops.ANY:
        return lambda char: True
    items = argument if op is ops.IN else [(op, argument)]
    wanted = items[0][0] not in (ops.NEGATE, ops.NOT_LITERAL)

    def fits(char: str) -> bool:
        both = {ord(char.lower()[0]), ord(char.upper()[0])} if fold else {ord(char)}
        return any(_is_one(kind, what, char, both) for kind, what in items) == wanted

    return fits


def _is_one(kind: Any, what: Any, char: str, codes: set[int]) -> bool:
    if kind in (ops.LITERAL, ops.NOT_LITERAL):
        return what in codes
    if kind is ops.RANGE:
        return any(what[0] <= code <= what[1] for code in codes)
    return kind is ops.CATEGORY and re.match(CATEGORIES[what], char) is not None


# Texts that make it go back.


def examples(items: Any) -> list[str]:
    """Short texts that these match, as good as one can tell from afar: one for each way through a branch."""
    found = [""]
    for op, argument in items:
        found = [before + each for each in _examples(op, argument) for before in found][:6]
    return found


def _examples(op: Any, argument: Any) -> list[str]:
    if op in (ops.LITERAL, ops.NOT_LITERAL, ops.ANY, ops.IN):
        fits = character_of(op, argument, fold=False)
        return [next((char for char in "a 1'\".$-/*\n(=,_~\u00e9" if fits(char)), "")]
    if op is ops.BRANCH:
        return [each for items in argument[1] for each in examples(items)[:2]]
    if op is ops.SUBPATTERN:
        return examples(argument[3])
    if op in REPEATS:
        return [each * argument[0] for each in examples(argument[2])]
    return examples(argument) if op is ops.ATOMIC_GROUP else [""]


def pumps(items: Any, before: tuple[str, ...] = ("",)) -> Iterator[tuple[str, str]]:
    """(what leads to a repetition, what is repeated there), of all repetitions."""
    lead = before
    for op, argument in items:
        if op in REPEATS and argument[1] > 8:
            for body in filter(None, examples(argument[2])):
                yield from ((start, body) for start in lead)
                yield "", lead[-1] + body  # the way there as well: it may be tried from each of these
        for inner in _inner(op, argument):
            yield from pumps(inner, lead)
        lead = tuple(dict.fromkeys(start + each for start in lead for each in _examples(op, argument)[:3]))[:3]


def _inner(op: Any, argument: Any) -> list[Any]:
    if op is ops.BRANCH:
        return list(argument[1])
    if op in (ops.SUBPATTERN, *REPEATS):
        return [argument[-1]]
    if op in (ops.ASSERT, ops.ASSERT_NOT):
        return [argument[1]]
    return [argument] if op is ops.ATOMIC_GROUP else []


def find_worst(pattern: re.Pattern[Any], way: str, size: int = 8) -> tuple[float, str]:
    """By how much it grows on a text four times as long, at worst, and a text that shows it."""
    worst, shown, matcher = 0.0, "", Matcher(pattern)
    sys.setrecursionlimit(50_000)
    for lead, body in dict.fromkeys(pumps(parse(pattern))):
        for end in ENDS:
            short, long = (count(matcher, way, lead + body * times + end) for times in (size, 4 * size))
            if long > 8 * size and long / short > worst:
                worst, shown = long / short, lead + body * size + end
    return worst, shown


def count(matcher: Matcher, way: str, text: str) -> int:
    matcher.text, matcher.steps = text, 0
    try:
        if way in ("match", "fullmatch"):
            matcher.match(0, whole=way == "fullmatch")
        else:
            matcher.scan()
    except Endless:
        return 100 * ENOUGH
    return max(matcher.steps, 1)
