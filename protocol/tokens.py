"""
Where the tokens of an SQL text begin and end, as PostgreSQL's own scanner sees them.

Theory. A pooler must never take a quoted `;` for the end of a statement, nor a commented BEGIN for a
transaction. That needs the whole lexical grammar (docs: "Lexical Structure"; it is small): strings in six
spellings, of which `E'...'` escapes by backslash and so does `'...'` when standard_conforming_strings is
off; strings continued over a line break; quoted names; dollar quotes; line comments; nested block comments.

Nesting is no matter for regular expressions, so block comments are blanked out first, by counting, which moves no
other byte; the rest is a `Grammar` of expressions that only run forwards: alternatives begin with different bytes and
every repetition is possessive, so no input makes them try a byte more than twice. What no expression wants is BAD: an
open quote, an open comment, a byte SQL has no use for. PostgreSQL refuses such a text as a whole.

Bytes from 128 up belong to names, as in PostgreSQL. In the client encodings whose second bytes may be
ASCII (SJIS, BIG5, GBK, UHC, GB18030, JOHAB) a backslash may be half a character: do not ask for those.
"""

import re
from collections.abc import Iterator
from typing import Final

# Kinds of tokens: the numbers are the groups of `Grammar.token`.
WORD: Final = 1  # an unquoted name or key word
LITERAL: Final = 2  # a string in any spelling, or a parameter such as $1
_TAG = 3  # inside a LITERAL in dollar quotes
NUMBER: Final = 4
NAME: Final = 5  # a quoted name
OPERATOR: Final = 6
MARK: Final = 7  # one of ; , . ( ) [ ] : :: :=
BAD: Final = 8  # one byte that fits nowhere; if it is one of OPENERS, what follows has no meaning

MAX_COMMENTS: Final = 20_000  # block comments taken out of one text: 30 ms
NAME_LENGTH: Final = 63  # bytes; PostgreSQL cuts longer names (NAMEDATALEN - 1)

OPENERS: Final = (b"'", b'"', b"$", b"/")

# The grammar in pieces. Only DOLLARS has a group, its tag: one per expression.
SPACE: Final = rb"[ \t\n\r\f\v]"
NAME_BYTE: Final = rb"[A-Za-z0-9_$\x80-\xff]"
LINE_COMMENT: Final = rb"--[^\n\r]*+"
GAP: Final = rb"(?:" + SPACE + rb"++|" + LINE_COMMENT + rb")*+"
ANY_WORD: Final = rb"(?![eEnNbBxX]'|[uU]&['\"])[A-Za-z_\x80-\xff]" + NAME_BYTE + rb"*+"
QUOTED_NAME: Final = rb"""(?:[uU]&)?+"[^"]*+(?:""[^"]*+)*+\""""
DOLLARS: Final = (
    rb"(?P<tag>\$(?:[A-Za-z_\x80-\xff][A-Za-z0-9_\x80-\xff]*+)?+\$)[^$]*+(?:(?!(?P=tag))\$[^$]*+)*+(?P=tag)"
)
_DIGITS = rb"[0-9][0-9_]*+"
_EXPONENT = rb"(?:[eE][-+]?+[0-9]++)?+"
_NUMBER = b"|".join(
    (rb"0[xXoObB][0-9a-fA-F_]++", _DIGITS + rb"(?:\.[0-9_]*+)?+" + _EXPONENT, rb"\." + _DIGITS + _EXPONENT)
)
_OPERATOR = rb"(?:[*<>=~!@#%^&|`?]|/(?!\*)|-(?=[*<>=~!@#%^&|`?]))++|-(?!-)|\+"

# A string goes on when a line break, and nothing else but white space and line comments, lies before the next quote.
_CONTINUED = rb"(?:[ \t\f\v]++|--[^\n\r]*+)*+[\n\r](?:[ \t\n\r\f\v]++|--[^\n\r]*+[\n\r])*+'"
_PLAIN = rb"[^']*+(?:''[^']*+)*+'"
_ESCAPED = rb"[^'\\]*+(?:(?:''|\\.)[^'\\]*+)*+'"


def _build_string(opening: bytes, inside: bytes) -> bytes:
    return opening + inside + b"(?:" + _CONTINUED + inside + b")*+"


class Grammar:
    """The expressions for one setting of standard_conforming_strings. There are two, made once."""

    def __init__(self, *, standard_conforming_strings: bool) -> None:
        unmarked = _PLAIN if standard_conforming_strings else _ESCAPED
        self.string = b"|".join(
            (
                _build_string(rb"[nN]?+'", unmarked),
                _build_string(rb"[eE]'", _ESCAPED),
                _build_string(rb"(?:[bBxX]|[uU]&)'", _PLAIN),
            )
        )
        # Any run of bytes up to the opening of a block comment or to a BAD.
        anything = (ANY_WORD, rb"[();]++", *self.dull())
        self.no_comment = re.compile(b"(?:" + b"|".join(anything) + b")*+", re.DOTALL)
        # One token, or white space, which is no group.
        self.token = re.compile(self._build_token(), re.DOTALL)

    def dull(self) -> tuple[bytes, ...]:
        """Everything but words, parentheses and semicolons, which may tell something. DOLLARS come last."""
        plain = rb"[ \t\n\r\f\v,.:\[\]*<>=~!@#%^&|`?+0-9]++"
        return (plain, LINE_COMMENT, rb"-(?!-)", rb"/(?!\*)", rb"\$[0-9]++", QUOTED_NAME, self.string, DOLLARS)

    def _build_token(self) -> bytes:
        literal = b"|".join((self.string, DOLLARS, rb"\$[0-9]++"))
        groups = (ANY_WORD, literal, _NUMBER, QUOTED_NAME, _OPERATOR, rb"[;,.()\[\]]|:[:=]?+", b".")
        return SPACE + b"++|" + LINE_COMMENT + b"".join(b"|(" + group + b")" for group in groups)


STANDARD: Final = Grammar(standard_conforming_strings=True)
BACKSLASHED: Final = Grammar(standard_conforming_strings=False)
_COMMENT_EDGE = re.compile(rb"/\*|\*/")
_UNICODE = re.compile(rb"\\(?:([0-9a-fA-F]{4})|\+([0-9a-fA-F]{6})|(\\))")
_SIMPLE_STRING = re.compile(rb"[eEnN]?+'((?:[^'\\]|'')*+)'", re.DOTALL)
_DOLLAR_STRING = re.compile(rb"(\$[^$]*+\$)(.*)\1", re.DOTALL)


def tokens(text: bytes, *, standard_conforming_strings: bool = True) -> Iterator[re.Match[bytes]]:
    """
    The tokens in order, without white space and comments: `match.lastindex` is the kind, `match[kind]` the token.

    A BAD that is one of OPENERS should be the last one asked for. About 0.3 us a token.
    """
    grammar = STANDARD if standard_conforming_strings else BACKSLASHED
    for match in grammar.token.finditer(blank_comments(text, grammar)):
        if match.lastindex is not None:
            yield match


def blank_comments(text: bytes, grammar: Grammar) -> bytes:
    """
    The text with blanks where block comments were: every other byte stays in its place.

    From a comment that is never closed on, or one too many, it stays as it is.
    """
    if b"/*" not in text:
        return text
    kept: list[bytes] = []
    position = 0
    while len(kept) < 2 * MAX_COMMENTS and (match := grammar.no_comment.match(text, position)):
        end = _find_comment_end(text, match.end())
        if end is None:
            break
        kept += [match[0], b" " * (end - match.end())]
        position = end
    return b"".join(kept) + text[position:]


def _find_comment_end(text: bytes, position: int) -> int | None:
    """Behind the comment that opens at `position`, with all comments nested in it; None when there is none."""
    if text[position : position + 2] != b"/*":
        return None
    depth = 0
    for edge in _COMMENT_EDGE.finditer(text, position):
        depth += 1 if edge[0] == b"/*" else -1
        if depth == 0:
            return edge.end()
    return None


# What a token says.


def fold_name(token: bytes) -> bytes:
    """
    The name that a WORD or a NAME stands for, as PostgreSQL keeps it.

    b"" is no name there; here it means that the name cannot be told: U& with something else than ASCII in it.
    """
    if token[:1] == b'"':
        return _clip(token[1:-1].replace(b'""', b'"'))
    if token[1:2] == b"&":
        return _clip(_decode(token[3:-1].replace(b'""', b'"')))
    return _clip(token.lower())


def _decode(name: bytes) -> bytes:
    """Without its \\0041 and \\+000041, if they are ASCII: what others are in bytes is up to the server's encoding."""
    codes = [int(match[1] or match[2] or b"5C", 16) for match in _UNICODE.finditer(name)]
    if not all(0 < code < 0x80 for code in codes) or b"\\" in _UNICODE.sub(b"", name):
        return b""
    return _UNICODE.sub(lambda match: bytes((int(match[1] or match[2] or b"5C", 16),)), name)


def _clip(name: bytes) -> bytes:
    """Cut to NAME_LENGTH, not within a character of UTF-8."""
    if len(name) <= NAME_LENGTH:
        return name
    end = next((at for at in range(NAME_LENGTH, NAME_LENGTH - 4, -1) if not 0x80 <= name[at] < 0xC0), NAME_LENGTH)
    return name[:end]


def literal_value(token: bytes) -> bytes | None:
    """What a LITERAL says, when that is plain to see: in one piece, and no backslash, which may mean itself or not."""
    if match := _SIMPLE_STRING.fullmatch(token):
        return match[1].replace(b"''", b"'")
    match = _DOLLAR_STRING.fullmatch(token)
    return match[2] if match else None
