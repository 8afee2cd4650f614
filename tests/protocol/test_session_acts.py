"""SET, LISTEN, PREPARE and their kin: every word that can be a name is one, where PostgreSQL takes it for one."""

import pytest

from protocol.acts import Phrase, Source
from protocol.session_acts import SESSION_READERS
from protocol.tokens import STANDARD, blank_comments
from tests.protocol.act_table import NAMED, PARAMETERS, TRANSACTIONS, describe

WORDS = [b"session", b"local", b"time", b"names", b"schema", b"role", b"xml", b"transaction", b"constraints", b"zone"]


CALLS = (b"set_config(", b"pg_advisory_lock(")  # read elsewhere
ROWS = [
    row
    for row in PARAMETERS + NAMED + TRANSACTIONS
    if row[0].split()[0].lower() in SESSION_READERS  # not EXPLAIN and the like
    and b"prepared" not in row[0].lower()
    and not row[0].startswith(b"PREPARE TRANSACTION")
    and not any(call in row[0] for call in CALLS)
]


def read(text):
    phrase = Phrase(Source(blank_comments(text, STANDARD), STANDARD), 0, len(text))
    return describe(SESSION_READERS[phrase[0]](phrase, 0))


@pytest.mark.parametrize(("text", "acts"), ROWS)
def test_the_statements_of_a_session(text, acts):
    assert read(text) == acts


def test_few_rows_are_left_to_others():
    assert len(ROWS) > 120


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("assigned", [b" = 1", b" to 1", b".x = 1", b" from current", b" to default"])
def test_a_key_word_that_is_assigned_to_is_a_parameter(word, assigned):
    what = "RESET" if b"default" in assigned else "SETTING"
    name = word.decode() + (".x" if b".x" in assigned else "")
    for scope in (b"set ", b"set session "):
        assert read(scope + word + assigned) == f"{what} {name}"
    local = f"LOCAL_RESET {name}" if what == "RESET" else f"LOCAL {name}" if name == "role" else ""
    assert read(b"set local " + word + assigned) == local


@pytest.mark.parametrize("word", [b"set", b"reset", b"prepare", b"execute", b"deallocate", b"close", b"declare"])
def test_a_statement_that_ends_too_early_does_no_harm(word):
    assert read(word) in ("SETTING", "RESET", "UNCLEAR", "")
