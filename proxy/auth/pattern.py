"""
Regular expressions for names, in time that does not depend on who asks.

Theory. The names are strangers' and the patterns an operator's, and a login must be bounded in work whatever both say.
Python's `re` goes back and tries again: `(a|a)*b` costs it 2^63 steps for a name of 63 letters. So an expression
becomes a small program whose threads step over the name together, one character at a time, and no two threads stand at
the same instruction: at most (instructions) x (characters + 1) steps, for every pattern and name. The number of
instructions is bounded when the file is read.

The language is the part of PostgreSQL's advanced regular expressions (docs: "POSIX Regular Expressions") that means the
same everywhere: characters, `.`, `[...]` with ranges and classes, `^ $ \\A \\Z`, `\\d \\s \\w` and their opposites,
`* + ? {m,n}` and their non-greedy forms, `|`, `( )`, `(?: )`. `$` is the end of the name, never a place in front of a
newline; letters are told from others in ASCII only, as PostgreSQL does there. What would need going back (back
references, lookaround) and what is spelled otherwise elsewhere (`\\m`, `\\y`, `[[=a=]]`, `(?i)`, `***`) is refused when
the file is read. One difference is left: where alternatives overlap, as in `(a|ab)(.*)`, `( )` holds the first that
leads to a match and not the longest.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

MAX_PATTERN: Final = 1_000  # characters
MAX_PROGRAM: Final = 1_000  # instructions
MAX_REPEAT: Final = 255  # PostgreSQL's limit
MAX_NESTING: Final = 50

CHARS, SPLIT, JUMP, SAVE, BEGIN, END, MATCH = range(7)


class BadPattern(ValueError):
    """No expression that we take; half a sentence."""


@dataclass(frozen=True, slots=True)
class Chars:
    """A set of characters."""

    ranges: tuple[tuple[str, str], ...] = ()
    is_negated: bool = False

    def holds(self, char: str) -> bool:
        return any(low <= char <= high for low, high in self.ranges) is not self.is_negated


_DIGIT: Final = (("0", "9"),)
_WORD: Final = (*_DIGIT, ("A", "Z"), ("_", "_"), ("a", "z"))
_SPACE: Final = (("\t", "\r"), (" ", " "))
_SHORT: Final = {"d": _DIGIT, "w": _WORD, "s": _SPACE}
_CLASSES: Final = {
    "alnum": (*_DIGIT, ("A", "Z"), ("a", "z")),
    "alpha": (("A", "Z"), ("a", "z")),
    "blank": (("\t", "\t"), (" ", " ")),
    "cntrl": (("\0", "\x1f"), ("\x7f", "\x7f")),
    "digit": _DIGIT,
    "graph": (("!", "~"),),
    "lower": (("a", "z"),),
    "print": ((" ", "~"),),
    "punct": (("!", "/"), (":", "@"), ("[", "`"), ("{", "~")),
    "space": _SPACE,
    "upper": (("A", "Z"),),
    "word": _WORD,
    "xdigit": (*_DIGIT, ("A", "F"), ("a", "f")),
}

Step = tuple[int, object, int]  # what to do, with what; for SPLIT both are places in the program, the better one first
Program = Sequence[Step]


@dataclass(frozen=True, slots=True)
class Found:
    """The name matches. `first` is what the first ( ) held, None when it held nothing."""

    first: str | None


@dataclass(frozen=True, slots=True)
class Pattern:
    """One expression, ready to be used."""

    text: str
    program: Program = field(repr=False, compare=False)
    has_group: bool = field(default=False, compare=False)

    def search(self, name: str) -> Found | None:
        """Is there a match anywhere in `name`? The first one counts."""
        best: tuple[int, int] | None = None
        is_anchored = self.program[0][0] == BEGIN  # then it begins nowhere else
        threads: list[tuple[int, int, int]] = []  # place in the program, where the first ( ) began and ended
        for pos in range(len(name) + 1):
            standing: dict[int, tuple[int, int]] = {}
            for place, begun, ended in threads:
                self._follow(standing, place, begun, ended, pos, len(name))
            if best is None and (pos == 0 or not is_anchored):
                self._follow(standing, 0, -1, -1, pos, len(name))
            threads = []
            for place, (begun, ended) in standing.items():
                what, chars, _ = self.program[place]
                if what == MATCH:
                    best = begun, ended
                    break  # those behind are worth less
                if what == CHARS and pos < len(name) and chars.holds(name[pos]):  # type: ignore[attr-defined]
                    threads.append((place + 1, begun, ended))
            if best is not None and not threads:
                break
        return None if best is None else Found(name[best[0] : best[1]] if best[1] >= 0 else None)

    def _follow(
        self, standing: dict[int, tuple[int, int]], start: int, begun: int, ended: int, at: int, end: int
    ) -> None:
        """All places that are reached from `start` without a character, the best first; none twice."""
        todo = [(start, begun, ended)]
        while todo:
            place, begun, ended = todo.pop()
            if place in standing:
                continue
            standing[place] = begun, ended
            what, operand, other = self.program[place]
            if what == JUMP:
                todo.append((other, begun, ended))
            elif what == SPLIT:
                todo += [(other, begun, ended), (operand, begun, ended)]  # type: ignore[list-item]
            elif what == SAVE:
                todo.append((place + 1, at, -1) if operand == 0 else (place + 1, begun, at))
            elif (what == BEGIN and at == 0) or (what == END and at == end):
                todo.append((place + 1, begun, ended))


def parse_pattern(text: str) -> Pattern:
    """BadPattern: it is not one, or one that is not taken here."""
    if len(text) > MAX_PATTERN:
        raise BadPattern(f"is longer than {MAX_PATTERN} characters")
    if text.startswith("***"):
        raise BadPattern("begins with ***, which is not taken here")
    compiler = _Compiler(text)
    program = compiler.compile()
    return Pattern(text, program, compiler.groups > 0)


class _Compiler:
    """From left to right; what is compiled so far moves when something must stand in front of it."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._pos = 0
        self._depth = 0
        self.groups = 0

    def compile(self) -> list[Step]:
        program = self._alternatives()
        if self._pos < len(self._text):
            raise BadPattern("has a ) that nothing opens")
        return [*program, (MATCH, None, 0)]

    def _peek(self) -> str:
        return self._text[self._pos : self._pos + 1]

    def _take(self) -> str:
        char = self._peek()
        if not char:
            raise BadPattern("ends too early")
        self._pos += 1
        return char

    def _skip(self, word: str) -> bool:
        is_there = self._text.startswith(word, self._pos)
        self._pos += len(word) if is_there else 0
        return is_there

    # Programs are relative: each begins at 0, and `_shift` moves one behind others.

    def _alternatives(self) -> list[Step]:
        branches = [self._branch()]
        while self._skip("|"):
            branches.append(self._branch())
        *others, last = branches
        end = sum(len(each) + 2 for each in others) + len(last)
        program: list[Step] = []
        for each in others:
            at = len(program)
            program += [(SPLIT, at + 1, at + len(each) + 2), *_shift(each, at + 1), (JUMP, None, end)]
            self._check(program)
        return self._check([*program, *_shift(last, len(program))])

    def _branch(self) -> list[Step]:
        program: list[Step] = []
        while self._peek() not in ("", "|", ")"):
            program += _shift(self._piece(), len(program))
            self._check(program)
        return program

    def _piece(self) -> list[Step]:
        atom, may_repeat = self._atom()
        bounds = self._repetition()
        if bounds is None:
            return atom
        if not may_repeat:
            raise BadPattern("repeats what has no length")
        if self._repetition() is not None:
            raise BadPattern("repeats a repetition: put it into (?: )")
        return self._repeat(atom, *bounds)

    def _repetition(self) -> tuple[int, int | None, bool] | None:
        """(least, most, is greedy), or None where there is none."""
        char = self._peek()
        if char in ("*", "+", "?") and char:
            self._pos += 1
            least, most = {"*": (0, None), "+": (1, None), "?": (0, 1)}[char]
        elif char == "{" and self._text[self._pos + 1 : self._pos + 2].isdecimal():
            least, most = self._bounds()
        else:
            return None
        return least, most, not self._skip("?")

    def _bounds(self) -> tuple[int, int | None]:
        end = self._text.find("}", self._pos)
        low, comma, high = self._text[self._pos + 1 : max(end, 0)].partition(",")
        if end < 0 or not all(each.isascii() and each.isdigit() and len(each) < 4 for each in (low, high or "0")):
            raise BadPattern("has a { } that is no {m}, {m,} or {m,n}")
        self._pos = end + 1
        least, most = int(low), int(high) if high else None if comma else int(low)
        if least > MAX_REPEAT or (most is not None and not least <= most <= MAX_REPEAT):
            raise BadPattern(f"repeats something from {low} to {high or low} times: 0 to {MAX_REPEAT} are possible")
        return least, most

    def _repeat(self, atom: list[Step], least: int, most: int | None, is_greedy: bool) -> list[Step]:
        program: list[Step] = []
        for _ in range(least):
            program += _shift(atom, len(program))
            self._check(program)
        if most is None:
            at = len(program)
            after = at + len(atom) + 2
            split = (SPLIT, at + 1, after) if is_greedy else (SPLIT, after, at + 1)
            return self._check([*program, split, *_shift(atom, at + 1), (JUMP, None, at)])
        end = len(program) + (most - least) * (len(atom) + 1)
        for _ in range(most - least):
            at = len(program)
            split = (SPLIT, at + 1, end) if is_greedy else (SPLIT, end, at + 1)
            program += [split, *_shift(atom, at + 1)]
            self._check(program)
        return program

    def _atom(self) -> tuple[list[Step], bool]:
        """(program, whether it may be repeated)"""
        char = self._take()
        if char == "(":
            return self._group(), True
        if char == "^":
            return [(BEGIN, None, 0)], False
        if char == "$":
            return [(END, None, 0)], False
        if char in "*+?" or (char == "{" and self._peek().isdecimal()):
            raise BadPattern(f"has a {char} with nothing in front of it")
        if char == "[":
            return [(CHARS, self._bracket(), 0)], True
        if char == ".":
            return [(CHARS, Chars(is_negated=True), 0)], True
        if char == "\\":
            return self._escape()
        return [(CHARS, Chars(((char, char),)), 0)], True

    def _group(self) -> list[Step]:
        self._depth += 1
        if self._depth > MAX_NESTING:
            raise BadPattern(f"nests more than {MAX_NESTING} ( )")
        is_first = False
        if not self._skip("?:"):
            if self._peek() == "?":
                raise BadPattern("has a (? that is not (?:, which is not taken here")
            self.groups += 1
            is_first = self.groups == 1
        inner = self._alternatives()
        if not self._skip(")"):
            raise BadPattern("has a ( that is never closed")
        self._depth -= 1
        return self._check([(SAVE, 0, 0), *_shift(inner, 1), (SAVE, 1, 0)]) if is_first else inner

    def _escape(self) -> tuple[list[Step], bool]:
        char = self._take()
        if char in "AZ":
            return [(BEGIN if char == "A" else END, None, 0)], False
        if char.lower() in _SHORT:
            return [(CHARS, Chars(_SHORT[char.lower()], is_negated=char.isupper()), 0)], True
        if char in "0123456789":
            raise BadPattern(f"has a back reference, \\{char}, which is not taken here")
        if char.isalnum():
            raise BadPattern(f"has \\{char}, which is not taken here")
        return [(CHARS, Chars(((char, char),)), 0)], True

    def _bracket(self) -> Chars:
        is_negated = self._skip("^")
        ranges: list[tuple[str, str]] = []
        is_first = True
        while is_first or self._peek() != "]":
            is_first = False
            ranges += self._member()
        self._pos += 1
        return Chars(tuple(ranges), is_negated)

    def _member(self) -> Sequence[tuple[str, str]]:
        if self._skip("[:"):
            name, closed, _ = self._text[self._pos :].partition(":]")
            if not closed or name not in _CLASSES:
                raise BadPattern(f"has [:{name[:10]} and knows no such class")
            self._pos += len(name) + 2
            return _CLASSES[name]
        low = self._bound()
        if isinstance(low, tuple):
            return low
        if self._peek() != "-" or self._text.startswith("-]", self._pos):
            return [(low, low)]
        self._pos += 1
        high = self._bound()
        if isinstance(high, tuple) or high < low:
            raise BadPattern("has a range in [ ] that ends before it begins")
        return [(low, high)]

    def _bound(self) -> str | tuple[tuple[str, str], ...]:
        """A character, or the set that \\d, \\s and \\w stand for."""
        if self._text.startswith(("[.", "[="), self._pos):
            raise BadPattern("has [. or [= in [ ], which is not taken here")
        char = self._take()
        if char != "\\":
            return char
        char = self._take()
        if char in _SHORT:
            return _SHORT[char]
        if char.isalnum():
            raise BadPattern(f"has \\{char} in [ ], which is not taken here")
        return char

    def _check(self, program: list[Step]) -> list[Step]:
        if len(program) >= MAX_PROGRAM:
            raise BadPattern(f"is too large: it becomes more than {MAX_PROGRAM} steps")
        return program


def _shift(program: Sequence[Step], by: int) -> list[Step]:
    return [
        (what, operand + by if what == SPLIT else operand, other + by if what in (SPLIT, JUMP) else other)  # type: ignore[operator]
        for what, operand, other in program
    ]
