"""Regular expressions for names: what they match, what is refused, and that no name and no pattern costs more."""

import contextlib
import dataclasses
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.auth.pattern import MAX_PATTERN, MAX_PROGRAM, BadPattern, parse_pattern

OPEN = object()


@pytest.mark.parametrize(
    ("pattern", "name", "first"),
    [
        ("anna", "hannah", OPEN),
        ("^anna$", "anna", OPEN),
        ("^anna$", "hannah", None),
        ("^anna$", "anna\n", None),  # Python's $ would let it in
        (r"\Aanna\Z", "anna", OPEN),
        ("^(.*)@example\\.com$", "anna@example.com", "anna"),
        ("^(.*)@example\\.com$", "anna@example.community", None),
        ("^(.*)@example\\.com$", "anna@exampleXcom", None),
        ("^app_[0-9]{2,3}$", "app_12", OPEN),
        ("^app_[0-9]{2,3}$", "app_1234", None),
        ("^a{0}$", "", OPEN),
        ("^a{2,}$", "aaaa", OPEN),
        ("^(a|b)+$", "abba", "a"),
        ("^(?:a|b)+(c)?$", "abba", OPEN),
        ("^(a+?)(a*)$", "aaa", "a"),
        ("^(a+)(a*)$", "aaa", "aaa"),
        ("^[[:alpha:]][[:alnum:]_]*$", "x_9", OPEN),
        ("^[[:alpha:]]$", "é", None),
        ("^[^a-c]$", "d", OPEN),
        ("^[^a-c]$", "b", None),
        ("^[]a]+$", "a]", OPEN),
        ("^[a-]+$", "-a", OPEN),
        (r"^[\d.]+$", "1.2", OPEN),
        (r"^\w+\s\W$", "ab_1 -", OPEN),
        (r"^\D$", "7", None),
        (r"^a\.b\*$", "a.b*", OPEN),
        ("^a{b$", "a{b", OPEN),
        ("^.$", "\n", OPEN),
        ("^(|x)y$", "y", ""),
        ("x|", "", OPEN),
        ("^$", "", OPEN),
        ("^()*$", "", OPEN),
        ("^(a*)*$", "aaa", OPEN),
    ],
)
def test_a_pattern_meets_a_name(pattern, name, first):
    found = parse_pattern(pattern).search(name)
    if first is None:
        assert found is None
    else:
        assert found is not None
        assert first is OPEN or found.first == first


@pytest.mark.parametrize(
    ("pattern", "sentence"),
    [
        ("(a", "has a ( that is never closed"),
        ("a)", "has a ) that nothing opens"),
        ("[a", "ends too early"),
        ("a\\", "ends too early"),
        ("*a", "nothing in front of it"),
        ("a**", "repeats a repetition"),
        ("a{2}{3}", "repeats a repetition"),
        ("^*", "repeats what has no length"),
        ("a{3,2}", "repeats something from 3 to 2 times"),
        ("a{256}", "repeats something from 256"),
        ("a{1,x}", "has a { } that is no"),
        ("a{1", "has a { } that is no"),
        (r"(a)\1", "back reference"),
        (r"\yfoo", r"has \y, which is not taken here"),
        (r"\bfoo", r"has \b, which is not taken here"),
        ("(?=a)", "has a (? that is not"),
        ("(?i)a", "has a (? that is not"),
        ("***=a", "begins with"),
        ("[[=a=]]", "has [. or [="),
        ("[[:nonsense:]]", "knows no such class"),
        ("[b-a]", "ends before it begins"),
        (r"[\D]", r"has \D in"),
        ("(" * 60 + ")" * 60, "nests more than"),
        ("a" * (MAX_PATTERN + 1), "is longer than"),
        ("(a{255}){255}", "is too large"),
        ("((((a{99}){99}){99}){99}){99}", "is too large"),
    ],
)
def test_what_is_not_taken_is_refused_with_the_reason(pattern, sentence):
    with pytest.raises(BadPattern, match=re.escape(sentence)):
        parse_pattern(pattern)


class Counting(list):  # type: ignore[type-arg]
    """A program that counts how often it is looked into."""

    count = 0

    def __getitem__(self, place):
        Counting.count += 1
        return super().__getitem__(place)


@pytest.mark.parametrize(
    "pattern",
    [
        "(a|a)*b",
        "(a*)*b",
        "a*a*a*a*a*a*a*b",
        "(a?){40}a{40}b",
        "((a+)+)+$b",
        "(.*)(.*)(.*)(.*)x",
        "^(([a-z])+.)+[A-Z]$",
    ],
)
@pytest.mark.parametrize("length", [63, 630])
def test_no_name_costs_more_than_the_instructions_for_each_of_its_characters(pattern, length):
    parsed = parse_pattern(pattern)
    counted = dataclasses.replace(parsed, program=Counting(parsed.program))
    Counting.count = 0
    counted.search("a" * length)
    assert Counting.count <= 2 * len(parsed.program) * (length + 1)
    assert len(parsed.program) <= MAX_PROGRAM


ATOMS = st.sampled_from(["a", "b", ".", "[ab]", "[^a]", r"\w", r"\d"])
EXPRESSIONS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map(lambda two: f"(?:{two[0]}|{two[1]})"),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{2}", "{1,2}", "*?"])).map(
            lambda two: f"(?:{two[0]}){two[1]}"
        ),
    ),
    max_leaves=6,
)


@settings(max_examples=400, deadline=None)
@given(EXPRESSIONS, st.text(alphabet="ab1\n", max_size=7), st.booleans())
def test_a_pattern_means_what_it_means_to_python(expression, name, is_anchored):
    theirs = re.compile(f"\\A(?:{expression})\\Z" if is_anchored else expression, re.DOTALL | re.ASCII)
    ours = parse_pattern(f"^(?:{expression})$" if is_anchored else expression)
    assert (ours.search(name) is not None) == (theirs.search(name) is not None)


@settings(max_examples=200, deadline=None)
@given(EXPRESSIONS, EXPRESSIONS, st.text(alphabet="ab1", max_size=6))
def test_the_first_group_holds_what_it_holds_to_python(left, right, name):
    theirs = re.compile(f"({left}){right}", re.DOTALL | re.ASCII).search(name)
    found = parse_pattern(f"({left}){right}").search(name)
    assert (found.first if found else None) == (theirs[1] if theirs else None)


@settings(max_examples=300)
@given(st.text(alphabet="ab()[]{}*+?|^$\\.-,:01=", max_size=30))
def test_any_text_is_a_pattern_or_refused(text):
    with contextlib.suppress(BadPattern):
        pattern = parse_pattern(text)
        assert len(pattern.program) <= MAX_PROGRAM
        pattern.search("ab01")
