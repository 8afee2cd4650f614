"""CREATE, ALTER, DROP, INTO: what is temporary, what changes everybody's columns, what needs a database for itself."""

import pytest

from protocol.acts import Phrase, Source
from protocol.schema_acts import SCHEMA_READERS, read_into
from protocol.tokens import STANDARD
from tests.protocol.act_table import SCHEMA, describe


def phrase_of(text):
    return Phrase(Source(text, STANDARD), 0, len(text))


ROWS = [
    row
    for row in SCHEMA
    if row[0].split()[0].lower() in SCHEMA_READERS and b"into temp" not in row[0] and b"set_config(" not in row[0]
]


@pytest.mark.parametrize(("text", "acts"), ROWS)
def test_create_alter_drop(text, acts):
    phrase = phrase_of(text)
    assert describe(SCHEMA_READERS[phrase[0]](phrase, 0)) == acts


@pytest.mark.parametrize(
    ("text", "acts"),
    [
        (b"select 1 into t", "DDL"),
        (b"select 1 into temp t", "TEMP"),
        (b"select 1 INTO LOCAL TEMPORARY t", "TEMP"),
        (b"select 1 into pg_temp.t", "TEMP"),
        (b"insert into t select 1", ""),
        (b"insert -- x\n into t select 1 into u", "DDL"),
        (b"merge into t", ""),
        (b"select insertinto, into_t, 'into', \"into\" from t", ""),
    ],
)
def test_an_into_behind_insert_makes_no_table(text, acts):
    assert describe(read_into(phrase_of(text))) == acts


@pytest.mark.parametrize("temporary", [b"temp", b"temporary", b"local temp", b"global temporary", b"or replace temp"])
@pytest.mark.parametrize("kind", [b"table", b"view", b"sequence", b"recursive view"])
def test_each_way_to_say_temporary(temporary, kind):
    text = b"create " + temporary + b" " + kind + b" x"
    assert describe(SCHEMA_READERS[b"create"](phrase_of(text), 0)) == "TEMP"


@pytest.mark.parametrize("options", [b"analyze", b"analyze verbose", b"(analyze)", b"(costs off, format json)", b""])
def test_what_is_explained_counts(options):
    text = b"explain " + options + b" create table t as execute p"
    assert describe(SCHEMA_READERS[b"explain"](phrase_of(text), 0)) == "DDL, EXECUTE p"
