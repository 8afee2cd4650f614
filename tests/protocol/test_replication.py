"""The startup parameter `replication`: every way of writing it that PostgreSQL takes, and none that it does not."""

import pytest

from protocol.errors import Refused
from protocol.replication import Replication, parse_replication

YES = ["true", "tru", "t", "TRUE", "True", "on", "ON", "yes", "ye", "Y", "1"]
NO = ["false", "f", "fal", "FALSE", "off", "of", "no", "N", "0"]
NOT_A_VALUE = ["", " ", "o", "2", "10", "01", "truee", "yess", "Database", "database ", "logical", "physical", "\u00e9"]


@pytest.mark.parametrize("text", YES)
def test_a_true_boolean_asks_for_the_wal(text):
    assert parse_replication(text) is Replication.PHYSICAL


@pytest.mark.parametrize("text", [None, *NO])
def test_a_false_one_and_none_at_all_ask_for_an_ordinary_session(text):
    assert parse_replication(text) is Replication.NONE


def test_the_word_database_asks_for_the_changes_of_one():
    assert parse_replication("database") is Replication.LOGICAL


@pytest.mark.parametrize("text", NOT_A_VALUE)
def test_anything_else_is_refused_in_postgresqls_words(text):
    with pytest.raises(Refused, match='invalid value for parameter "replication"') as no:
        parse_replication(text)
    assert no.value.sqlstate == "22023"
    assert "database" in no.value.hint


def test_what_is_not_printable_is_not_repeated_as_it_is():
    with pytest.raises(Refused) as no:
        parse_replication("\x1b[31m\u00e9")
    assert no.value.sentence.isascii()
    assert "\x1b" not in no.value.sentence


def test_only_real_replication_is_true_and_each_has_its_words():
    assert [bool(each) for each in Replication] == [False, True, True]
    assert [each.asked for each in Replication] == ["no", "database", "yes"]
