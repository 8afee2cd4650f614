"""The tokens of a statement: read when asked for, folded as PostgreSQL folds them, within a budget."""

import pytest

from protocol import acts
from protocol.acts import Act, Phrase, Source, What, compile_seek
from protocol.statements import Unclear
from protocol.tokens import STANDARD


def phrase_of(text, start=0):
    return Phrase(Source(text, STANDARD), start, len(text))


def test_words_are_lower_and_quoted_names_stay_as_they_are():
    phrase = phrase_of(b"SET \"Set\" 'Set' -- x\n = 1")
    assert [phrase[at] for at in range(6)] == [b"set", b'"Set"', b"'Set'", b"=", b"1", b""]


def test_tokens_are_read_only_when_asked_for(monkeypatch):
    monkeypatch.setattr(acts, "MAX_TOKENS", 3)
    phrase = phrase_of(b"a b c d e")
    assert phrase[2] == b"c"
    assert phrase[0] == b"a"
    with pytest.raises(Unclear):
        phrase[3]


def test_all_phrases_of_a_text_share_its_budget(monkeypatch):
    monkeypatch.setattr(acts, "MAX_TOKENS", 3)
    source = Source(b"a b", STANDARD)
    assert Phrase(source, 0, 3)[1] == b"b"
    assert Phrase(source, 0, 3)[0] == b"a"
    with pytest.raises(Unclear):
        Phrase(source, 0, 3)[0]


def test_only_names_have_a_name_and_only_literals_a_value():
    phrase = phrase_of(b"A \"A\" 'A' $1 1")
    assert [phrase.name(at) for at in range(6)] == [b"a", b"A", b"", b"", b"", b""]
    assert [phrase.literal(at) for at in range(6)] == [None, None, b"A", None, None, None]


def test_a_name_with_an_escape_of_its_own_cannot_be_told():
    assert phrase_of(b"U&\"a!0041\" uescape '!'").name(0) == b""
    assert phrase_of(b'U&"a\\0041"').name(0) == b"aA"


def test_an_act_has_the_span_of_its_token():
    phrase = phrase_of(b"listen  Ch")
    assert phrase.act(What.LISTEN, 0, b"ch") == Act(What.LISTEN, b"ch", 0, 6)
    assert phrase.named(What.PREPARE, 1) == Act(What.PREPARE, b"ch", 8, 10)
    assert phrase.named(What.PREPARE, 2) == Act(What.UNCLEAR, b"", 10, 10)


def test_the_closing_parenthesis_is_that_of_the_same_depth():
    phrase = phrase_of(b"f (a (b) ')' ) c (d")
    assert phrase[phrase.closing(1)] == b"c"
    assert phrase[phrase.closing(9)] == b""


def test_says_and_mentions():
    phrase = phrase_of(b"x Y z 'Temp'", 2)
    assert phrase.says(0, b"y", b"z")
    assert not phrase.says(1, b"y")
    assert not phrase.says(2, b"'Temp'", b"z")
    assert phrase.mentions(b"temp")
    assert not phrase.mentions(b"x")


def test_a_seek_stops_at_words_and_quoted_names_only():
    seek = compile_seek(STANDARD, rb'(?i:hit)\b|"hit"')
    text = b"'hit' $$hit$$ -- hit\n whit (hits); $1 1.5 \"a hit\" HIT hit"
    match = seek(text, 0, len(text))
    assert match is not None
    assert (match["target"], match.end()) == (b"HIT", len(text) - 4)
    assert seek(text, 0, len(text) - 8) is None
    assert seek(b'a "hit"', 0, 7)["target"] == b'"hit"'
