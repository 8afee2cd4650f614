"""Where tokens begin and end: every quoting PostgreSQL has, and inputs made to be slow."""

import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.tokens import (
    BAD,
    LITERAL,
    MARK,
    NAME,
    NUMBER,
    OPERATOR,
    STANDARD,
    WORD,
    blank_comments,
    fold_name,
    literal_value,
    tokens,
)


def split(text, **settings):
    return [(match.lastindex, match[match.lastindex]) for match in tokens(text, **settings)]


def texts(text, **settings):
    return [token for _, token in split(text, **settings)]


def test_one_of_each_kind():
    assert split(b"a 'b' $1 1.5 \"c\" <= ; \\") == [
        (WORD, b"a"),
        (LITERAL, b"'b'"),
        (LITERAL, b"$1"),
        (NUMBER, b"1.5"),
        (NAME, b'"c"'),
        (OPERATOR, b"<="),
        (MARK, b";"),
        (BAD, b"\\"),
    ]


@pytest.mark.parametrize(
    "literal",
    [
        b"''",
        b"'it''s'",
        b"'a\\'",  # a backslash is just a backslash
        b"E'a\\'b'",
        b"e'\\\\'",
        b"E'a''b'",
        b"N'x'",
        b"B'01'",
        b"x'fF'",
        b"U&'d\\0061'",
        b"u&'\\'",
        b"'a'\n'b'",
        b"E'a' -- c\n  'b\\'c'",
        b"E'a'\r\n\t'\\''",
        b"$$a;b$$",
        b"$$$$",
        b"$a$ $b$ $$ $a$",
        b"$A$ $a$ $A$",
        b"$a$ $a $a$",
        b"$\xc3\xa9$x$\xc3\xa9$",
        b"$1",
        b"';'",
        b"'--'",
        b"'/*'",
    ],
)
def test_literals_are_one_token(literal):
    assert split(literal + b";") == [(LITERAL, literal), (MARK, b";")]


@pytest.mark.parametrize(
    "number", [b"0", b"12", b"1.5", b"1.", b".5", b"1e10", b"1.5E-3", b".5e+1", b"0x1F", b"0b10", b"0o17", b"1_000"]
)
def test_numbers_are_one_token(number):
    assert split(number + b";") == [(NUMBER, number), (MARK, b";")]


@pytest.mark.parametrize("name", [b'"a b"', b'"a""b"', b'"a;b"', b'U&"d\\0061"', b'""', b'"--"'])
def test_quoted_names_are_one_token(name):
    assert split(name + b";") == [(NAME, name), (MARK, b";")]


@pytest.mark.parametrize("word", [b"a", b"_a1", b"a$b$c", b"\xc3\xa4", b"e", b"u", b"SELECT"])
def test_words_are_one_token(word):
    assert split(word + b";") == [(WORD, word), (MARK, b";")]


def test_a_backslash_escapes_when_the_server_says_so():
    assert texts(b"'a\\'b' ;", standard_conforming_strings=False) == [b"'a\\'b'", b";"]
    assert texts(b"b'\\' ;", standard_conforming_strings=False) == [b"b'\\'", b";"]


def test_strings_on_one_line_are_two():
    assert texts(b"'a' 'b'") == [b"'a'", b"'b'"]
    assert texts(b"E'a' '\\'") == [b"E'a'", b"'\\'"]


@pytest.mark.parametrize(
    "comment",
    [
        b"-- a ; ' \" $$ /*\n",
        b"--\r",
        b"/* a ; ' */",
        b"/**/",
        b"/***/",
        b"/* /* */ */",
        b"/*/*/ */*/",
        b"/* -- */",
        b"/* ' */ /* \" */",
        b"/*\n*/",
    ],
)
def test_comments_are_left_out(comment):
    assert texts(b"a" + comment + b"b") == [b"a", b"b"]


def test_blanking_comments_moves_nothing():
    assert blank_comments(b"a/* b\n */c /**/ 'd /* e */' -- /* f", STANDARD) == b"a        c      'd /* e */' -- /* f"
    assert blank_comments(b"a /* /* b */ */ c /* d", STANDARD) == b"a               c /* d"


@pytest.mark.parametrize(
    ("token", "name"),
    [
        (b"Abc", b"abc"),
        (b"\xc3\x84B", b"\xc3\x84b"),  # only ASCII has a lower case
        (b'"Abc"', b"Abc"),
        (b'"a""b"', b'a"b'),
        (b'u&"a\\0042\\+000043\\\\d"', b"aBC\\d"),
        (b'U&"a""b"', b'a"b'),
        (b'U&"a\\00e4"', b""),  # how many bytes that is depends on the server's encoding
        (b'U&"a\\0000"', b""),
        (b'U&"a\\x"', b""),
        (b'U&"a\\"', b""),
        (b'""', b""),
        (b"a" * 64, b"a" * 63),
        (b'"' + b"A" * 63 + b'"', b"A" * 63),
        (b"a" * 62 + b"\xc3\xa4", b"a" * 62),  # not within a letter
        (b"a" * 60 + b"\xf0\x9f\x90\x98", b"a" * 60),
        (b"a" * 61 + b"\xc3\xa4b", b"a" * 61 + b"\xc3\xa4"),
        (b"\xa4" * 70, b"\xa4" * 63),  # no UTF-8
    ],
)
def test_names_are_folded_as_postgresql_does_it(token, name):
    assert fold_name(token) == name


@pytest.mark.parametrize(
    ("token", "value"),
    [
        (b"'a'", b"a"),
        (b"''", b""),
        (b"'it''s'", b"it's"),
        (b"E'a'", b"a"),
        (b"n'a'", b"a"),
        (b"$$a$b$$", b"a$b"),
        (b"$x$\n$$\n$x$", b"\n$$\n"),
        (b"'a\\b'", None),
        (b"E'\\x61'", None),
        (b"U&'a'", None),
        (b"x'61'", None),
        (b"'a'\n'b'", None),
        (b"$1", None),
    ],
)
def test_a_literal_has_a_value_when_that_is_plain_to_see(token, value):
    assert literal_value(token) == value


def test_comments_are_seen_inside_operators():
    assert texts(b"1+--2\n3") == [b"1", b"+", b"3"]
    assert texts(b"1*/*2*/3") == [b"1", b"*", b"3"]
    assert texts(b"1-/*2*/3") == [b"1", b"-", b"3"]


def test_operators_hold_together_but_signs_stand_alone():
    assert texts(b"a->>b") == [b"a", b"->>", b"b"]
    assert texts(b"a<->b") == [b"a", b"<->", b"b"]
    assert texts(b"a=-1") == [b"a", b"=", b"-", b"1"]
    assert texts(b"a::int[1:2]") == [b"a", b"::", b"int", b"[", b"1", b":", b"2", b"]"]


@pytest.mark.parametrize("text", [b"'a", b"E'a\\'", b'"a', b"$$a", b"$a$ $b$", b"/* a", b"/* /* */", b"'a''"])
def test_what_is_never_closed_is_bad(text):
    kinds = [kind for kind, _ in split(b"a " + text)]
    assert kinds[0] == WORD
    assert BAD in kinds


@given(
    st.lists(st.sampled_from([b"'", b'"', b"$", b"a", b"E", b"\\", b"\n", b" ", b"-", b"/", b"*", b";", b"1", b"$a$"]))
)
def test_no_byte_is_lost_or_seen_twice(pieces):
    text = b"".join(pieces)
    matches = list(tokens(text))
    assert all(first.end() <= second.start() for first, second in pairwise(matches))
    if b"/*" not in text and b"--" not in text:
        assert b"".join(text.split()) == b"".join(b"".join(match[0].split()) for match in matches)


TRAPS = [
    b"'",
    b"''",
    b"E'\\'",
    b"$",
    b"$a",
    b"$a$",
    b"/*",
    b"/**/",
    b"*/",
    b"-\n",
    b"e'a'\n",
    b"'a'\n--x\n",
    b'"',
    b"u&'",
    b"1e+",
]


@pytest.mark.parametrize("trap", TRAPS)
def test_a_long_text_takes_no_longer_than_its_length(trap):
    text = b"x E'' " + trap * (200_000 // len(trap))
    began = time.process_time()
    for _ in tokens(text):
        pass
    assert time.process_time() - began < 1.5  # about 0.1 s; a trap would take minutes
