"""Who somebody elsewhere may be here: names, expressions, and what \\1 stands for."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.auth.fields import BadLine, Line, split_fields
from proxy.auth.ident import gather, is_allowed, parse_entry


def entry(text):
    return parse_entry(Line("ident.conf", 1, tuple(tuple(words) for words in split_fields(text))))


def allowed(text, system, user, name="m"):
    return is_allowed(gather(entry(line) for line in text.splitlines()), name, system, user)


@pytest.mark.parametrize(
    ("text", "system", "user", "is_so"),
    [
        ("m bryanh bryanh", "bryanh", "bryanh", True),
        ("m bryanh guest", "bryanh", "bryanh", False),
        ("m bryanh guest\nm bryanh bryanh", "bryanh", "bryanh", True),
        ("m bryanh guest", "ann", "guest", False),
        ("other bryanh bryanh", "bryanh", "bryanh", False),
        ("m root all", "root", "anybody", True),
        ('m root "all"', "root", "anybody", False),
        ('m root "all"', "root", "all", True),
        (r"m /^(.*)@example\.com$ \1", "anna@example.com", "anna", True),
        (r"m /^(.*)@example\.com$ \1", "anna@example.com", "bob", False),
        (r"m /^(.*)@example\.com$ \1", "anna@exampleXcom", "anna", False),
        (r"m /^(.*)@example\.com$ app_\1_x", "anna@example.com", "app_anna_x", True),
        (r"m /^(.*)@example\.com$ \1", "all@example.com", "anna", False),  # somebody called all is not everybody
        (r"m /^(.*)@example\.com$ \1", "/.*@example.com", "anna", False),  # nor is what he calls himself an expression
        (r"m /^(.*)@example\.com$ \1", "+x@example.com", "+x", True),
        (r"m /^(a)?(b)$ \1", "b", "", False),  # the group took no part
        (r"m /^(.*)$ \1\1", "ab", "ab\\1", True),  # the first only, as in PostgreSQL
        (r"m bob \1", "bob", "\\1", True),  # no expression, no meaning
        ("m /^app app", "applause", "app", True),
        ("m bob /^app_", "bob", "app_1", True),
        ("m bob /^app_", "bob", "xapp_1", False),
        ("m /^b /^app_", "bob", "app_1", True),
        ('m "two words" "one, two"', "two words", "one, two", True),
    ],
)
def test_a_line_allows(text, system, user, is_so):
    assert allowed(text, system, user) is is_so


def test_without_a_map_the_names_are_the_same():
    assert is_allowed({}, "", "anna", "anna")
    assert not is_allowed({}, "", "anna", "Anna")
    assert not is_allowed({}, "nowhere", "anna", "anna")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("m bob", "there must be three"),
        ("m bob anna x", "there must be three"),
        ("m bob,bill anna", "a list cannot stand here"),
        ('"" bob anna', "the map has no name"),
        ("m bob +admins", "+admins: the pooler does not know"),
        ("m /( anna", "has a ( that is never closed"),
        ("m bob /(", "has a ( that is never closed"),
        (r"m /^bob$ \1", "asks for what the first ( ) holds"),
    ],
)
def test_what_cannot_be_kept_is_a_mistake(text, sentence):
    with pytest.raises(BadLine) as caught:
        entry(text)
    assert sentence in str(caught.value)


NAMES = st.text(alphabet="ab@.1\\+/", min_size=1, max_size=6)


@given(st.text(alphabet='ab/()*\\1 +",@', max_size=24), NAMES, NAMES)
def test_any_line_is_an_entry_or_a_mistake(text, system, user):
    with contextlib.suppress(BadLine):
        assert entry(text).allows(system, user) in (True, False)
