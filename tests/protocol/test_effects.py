"""What a text may do to its session: whole texts, the prefilter that must never be wrong, and what is remembered."""

import random
import string
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import acts, effects
from protocol.effects import PLAIN, Act, Reader, Reading, What, is_deferrable
from protocol.statements import Kind
from tests.protocol.act_table import CALLS, PINS, ROWS, SCHEMA, SESSION, describe

READER = Reader(PINS)
COMMENTS = (
    b"/* a ; ' */%s",
    b'-- b ; "\n%s',
    b"%s/* /* c */ set x = 1; */",
    b"%s-- listen d",
    b"  /**/\n-- e\r\n%s /**/",
)
CLEAR = [text for text, _ in ROWS]


def read_carefully(text, standard=True):
    """As `read`, but without the prefilter and the memo."""
    reader = Reader(PINS)
    return reader.read(b" " + text, standard)


@pytest.mark.parametrize(("text", "acts"), ROWS)
def test_the_acts_of_each_statement(text, acts):
    for around in (b"%s", b"%s;", b" ;\n;%s ; -- x\n ;", *COMMENTS):
        reading = READER.read(around % text)
        assert reading.is_clear
        assert describe(reading.acts) == acts
        assert (reading is PLAIN) == (not acts)


@pytest.mark.parametrize(("text", "acts"), ROWS)
def test_the_span_of_an_act_is_a_token_of_the_original_text(text, acts):
    for around in (b"%s", *COMMENTS, b"select 1; /* ; */ %s"):
        whole = around % text
        for act in READER.read(whole).acts:
            token = whole[act.start : act.end]
            assert b"/*" not in token
            assert token == token.strip()
            assert token or text == b"listen" or act.what in (What.UNCLEAR, What.RESET)


@pytest.mark.parametrize(("text", "acts"), SESSION)
def test_what_may_have_to_be_replaced_is_the_key_word_or_the_name(text, acts):
    for act in READER.read(b"/* \xc3\xa4 */ select 1; /* ; */" + text).acts:
        whole = b"/* \xc3\xa4 */ select 1; /* ; */" + text
        token = whole[act.start : act.end]
        if act.what in (What.LISTEN, What.UNLISTEN):
            assert token.lower() == act.what.name.lower().encode()
        elif act.what in (What.PREPARE, What.EXECUTE, What.DEALLOCATE) and act.name:
            assert token.lower() == act.name or token.strip(b'"').replace(b'""', b'"') == act.name


def test_replacing_a_name_leaves_all_else_where_it_was():
    text = b"/* a */ execute /* b */ \"P\" /* c */ ('x;y') ; /* d */ listen /* e */ ch -- f"
    execute, listen = READER.read(text).acts
    assert text[execute.start : execute.end] == b'"P"'
    assert text[listen.start : listen.end] == b"listen"


@given(st.lists(st.sampled_from([row for row in ROWS if "UNCLEAR" not in row[1]]), min_size=2, max_size=6))
def test_a_text_is_the_sum_of_its_statements(rows):
    reading = READER.read(b"\n; ".join(text for text, _ in rows))
    assert describe(reading.acts) == ", ".join(acts for _, acts in rows if acts)
    if reading.acts:
        assert len(reading.sentences) == len(rows)


def test_a_sentence_is_its_statement_without_the_semicolon():
    text = b"/* a */ begin ; select 1 -- ;\n;set x = 1"
    sentences = READER.read(text).sentences
    assert [text[sentence.start : sentence.end] for sentence in sentences] == [
        b"begin ",
        b"select 1 -- ;\n",
        b"set x = 1",
    ]
    assert [sentence.kind for sentence in sentences] == [Kind.BEGIN, Kind.READ, Kind.SET]
    assert [len(sentence.acts) for sentence in sentences] == [1, 0, 1]


def test_the_summary_of_a_reading():
    reading = READER.read(b"set a = 1; reset b; select 1; listen c")
    assert [act.what for act in reading.acts] == [What.SETTING, What.RESET, What.LISTEN]
    assert reading.whats == {What.SETTING, What.RESET, What.LISTEN}
    assert reading.parameters == {b"a", b"b"}
    assert reading.has(What.LISTEN)
    assert reading.has(What.DDL, What.RESET)
    assert not reading.has(What.DDL, What.TEMP)
    assert reading.is_lasting
    assert READER.read(b"reset all").parameters == {b""}


def test_transactions_do_not_last():
    assert not READER.read(b"begin; savepoint a; release a; commit").is_lasting
    assert not PLAIN.is_lasting
    assert READER.read(b"begin; ddl").is_lasting


# Texts that are not clear.

UNCLEAR = [
    b"select 'a; set x = 1",
    b'set "a = 1',
    b"set a = $$b",
    b"set a = 1 /* b",
    b"set a = (1",
    b"set a = 1)",
    b"set a = \\",
    b"listen a; create function f() begin atomic select 1; end; set x = 1",
    b"create or replace procedure f() language sql begin atomic update t set a = 1; end",
]


@pytest.mark.parametrize("text", UNCLEAR)
def test_a_text_that_cannot_be_split_is_one_unclear_act(text):
    act = Act(What.UNCLEAR, b"", 0, len(text))
    sentence = effects.Sentence(Kind.UNKNOWN, (act,), 0, len(text))
    reading = READER.read(text)
    assert (reading.sentences, reading.acts, reading.is_clear) == ((sentence,), (act,), False)
    assert reading.is_lasting


def test_an_unclear_statement_leaves_its_text_clear():
    reading = READER.read(b"call f(); set x = 1")
    assert describe(reading.acts) == "UNCLEAR, SETTING x"
    assert reading.is_clear


def test_too_many_statements_are_unclear(monkeypatch):
    monkeypatch.setattr(effects, "MAX_SENTENCES", 5)
    assert READER.read(b"set x = 1;" * 5).is_clear
    assert not READER.read(b"set x = 1;" * 6).is_clear


def test_backslashes_count_when_the_server_says_so():
    text = b"select 'a\\'; set x = 1; select 'b'"
    assert describe(READER.read(text, True).acts) == "SETTING x"
    text = b"select 'a\\'; set x = 1; select '"
    assert READER.read(text, False) is PLAIN
    assert not READER.read(text, True).is_clear


# The prefilter.

PLAINLY = [
    b"select 1",
    b"SELECT 1;",
    b"select\n1",
    b"select(1)",
    b"insert into t values (1, $2)",
    b"INSERT INTO config (advisory, a) VALUES ('dblink', 1)",
    b"update t set a = lower(b)",
    b"delete from t",
    b"values (1)",
    b"with a as (select 1) select * from a",
    b"show all",
    b"copy t from stdin",
    b"fetch all from c",
    b"merge using t",
    b"notify a",
    b"select set_config from t",  # no parenthesis, no call
    b"select 'open",  # PostgreSQL will refuse it; acts it has none
]
NOT_PLAINLY = [
    b"",
    b"select",
    b"selecting 1",
    b" select 1",
    b"/* a */ select 1",
    b"select 1; set x = 1",
    b"select 1;;",
    b"select 1 into temp t",
    b"with a as (insert into t values (1)) select 1",
    b"select Set_Config('a', 'b', true)",
    b"select pg_advisory_lock(1)",
    b'select U&"a"(1)',
    b'select u&"a"(1)',
    b"select DBLINK_connect('x')",
    b'select "Pin"()',
    b"select pin()",
    b"begin",
    b"explain select 1",
    b"set x = 1",
    b"sel\xffct 1",
]


@pytest.mark.parametrize("text", PLAINLY)
def test_plain_texts(text):
    assert READER.is_plain(text)
    assert READER.read(text) is PLAIN


@pytest.mark.parametrize("text", NOT_PLAINLY)
def test_texts_that_need_reading(text):
    assert not READER.is_plain(text)


@pytest.mark.parametrize(("text", "acts"), ROWS)
def test_no_act_of_the_table_is_plain(text, acts):
    if acts:
        assert not any(READER.is_plain(around % text) for around in (b"%s", b"%s;", *COMMENTS))


def test_without_pins_no_function_pins():
    text = b"select dblink_connect('x')"
    assert Reader().is_plain(text)
    assert Reader().read(text) is PLAIN
    assert not Reader([b'"a""b"']).is_plain(b'select "a""b"()')


PIECES = [*(text for text, _ in ROWS), *(text for text, _ in ROWS if b"(" in text), b"select ", b"insert into t ", b"("]
PIECES += [b";", b"'", b'"', b"$$", b"$a$", b"--", b"\n", b"/*", b"*/", b"(", b")", b"\\", b"E'", b'U&"', b" ", b","]
PIECES += [b"set_config", b"pg_advisory_lock", b"into", b"temp", b"execute", b"as", b"with", b"select", b"listen", b"="]
MIXED = st.lists(st.sampled_from(PIECES), max_size=12).map(b"".join)


@given(MIXED | MIXED.map(lambda text: b"select " + text) | st.binary(max_size=60), st.booleans())
def test_any_bytes_have_a_reading_and_plain_ones_no_acts(text, standard):
    assert READER.read(text, standard) == Reader(PINS).read(text, standard)
    reading = read_carefully(text, standard)
    assert reading.acts or reading is PLAIN
    if READER.is_plain(text):
        assert READER.read(text, standard) is PLAIN
        assert reading is PLAIN or not reading.is_clear  # then PostgreSQL refuses it
    if reading.is_clear:
        assert all(1 <= act.start <= act.end <= len(text) + 1 for act in reading.acts)


@given(MIXED, st.sampled_from(COMMENTS))
def test_comments_change_nothing(text, comment):
    reading = read_carefully(text)
    if reading.is_clear and text.count(b"--") == 0:
        assert describe(read_carefully(comment % text).acts) == describe(reading.acts)


def change_case(text, chance):
    """Words that are no quoted name or string's content may be written in any case."""
    return "".join(chance.choice((letter.lower(), letter.upper())) for letter in text.decode()).encode()


@pytest.mark.parametrize(
    ("text", "acts"), [row for row in SESSION + SCHEMA + CALLS if not set(b"\"'$\xfc\xc3") & set(row[0])]
)
def test_the_case_of_words_does_not_matter(text, acts):
    chance = random.Random(text)
    assert describe(READER.read(change_case(text, chance)).acts) == acts


# What is remembered.


def test_short_texts_are_read_once(monkeypatch):
    reader = Reader()
    first = reader.read(b"begin; set x = 1")
    monkeypatch.setattr(effects, "split", None)
    assert reader.read(b"begin; set x = 1") is first
    with pytest.raises(TypeError):
        reader.read(b"begin; set x = 2")


def test_what_is_remembered_depends_on_the_meaning_of_backslashes():
    reader = Reader()
    text = b"set x = 'a\\'; listen '"
    assert not reader.read(text, True).is_clear
    assert describe(reader.read(text, False).acts) == "SETTING x"


def test_the_memory_has_an_end(monkeypatch):
    monkeypatch.setattr(effects, "MEMO_SIZE", 3)
    reader = Reader()
    for letter in string.ascii_letters:
        reader.read(f"listen {letter}".encode())
        assert len(reader._memos[True]) <= 3
    reader.read(b"listen a" + b" " * effects.MEMO_LENGTH)
    assert all(len(text) <= effects.MEMO_LENGTH for text in reader._memos[True])


# BEGIN.


@pytest.mark.parametrize(
    "text",
    [
        b"begin",
        b"BEGIN;",
        b" begin work ; ",
        b"BEGIN TRANSACTION",
        b"start transaction",
        b"begin read only",
        b"BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY, DEFERRABLE",
        b"begin isolation level repeatable read read only not deferrable",
        b"start  transaction\tisolation level read committed ,read only",
        b"begin isolation level read uncommitted",
    ],
)
def test_a_begin_that_may_wait(text):
    assert is_deferrable(text)
    reading = READER.read(text)
    assert reading.is_deferrable
    assert describe(reading.acts).startswith("BEGIN ")


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"beginning",
        b"begin workers",
        b"begin;;",
        b"begin; select 1",
        b"begin; begin",
        b"begin read",
        b"begin ,read only",
        b"begin read only,",
        b"begin read onlydeferrable",
        b"begin isolation level snapshot",
        b"begin isolation level serializable",  # a standby refuses these two
        b"begin read write",
        b"begin transaction work",
        b"begin -- x",
        b"/* x */ begin",
        b"start",
        b"start work",
        b"commit",
        b"rollback and chain",
    ],
)
def test_what_may_not_wait(text):
    assert not is_deferrable(text)
    assert not READER.read(text).is_deferrable


# What it costs.


def count_steps(monkeypatch, text):
    """How many tokens are looked at."""
    steps = 0
    spend = acts.Source.spend

    def counting(self):
        nonlocal steps
        steps += 1
        spend(self)

    monkeypatch.setattr(acts.Source, "spend", counting)
    Reader(PINS).read(text)
    return steps


def test_a_long_statement_is_not_looked_at_beyond_its_first_words(monkeypatch):
    assert count_steps(monkeypatch, b"set x = " + b"a, " * 1000 + b"b") < 10
    assert count_steps(monkeypatch, b"prepare p as select " + b"a, " * 1000 + b"b") < 10
    assert count_steps(monkeypatch, b"create table t (" + b"a int, " * 1000 + b"b)") < 10
    assert count_steps(monkeypatch, b"select set_config('a', 'b', true), " + b"a, " * 1000 + b"b") < 20
    assert count_steps(monkeypatch, b"select 1; select " + b"a, " * 1000 + b"b") < 10


@pytest.mark.parametrize(
    "trap", [b"set_config(", b"pg_advisory_lock(1),", b'U&"\\00fc"(', b"into a ", b"set x=1;", b"("]
)
def test_no_text_is_looked_at_for_long(monkeypatch, trap):
    text = b"with " + trap * (400_000 // len(trap)) + b' set_config ( into U&"'
    assert count_steps(monkeypatch, text) <= acts.MAX_TOKENS + 1


TRAPS = [b";", b"a;", b"(", b"()", b"(a ", b"/*", b"/**/", b"'", b"E'\\'", b"$a$", b"$a", b"-\n", b"e'a'\n", b'"']
TRAPS += [
    b"set_config",
    b"set_config(",
    b"set_config -",
    b'"a" ',
    b'U&"a" uescape ',
    b"into ",
    b"insert ",
    b"insert into ",
]
TRAPS += [b"set_config('a',", b"begin ", b" , read only"]


@pytest.mark.parametrize("trap", TRAPS)
@pytest.mark.parametrize("start", [b"select set_config(1) into temp ", b"begin ", b"create table t "])
def test_a_long_text_takes_no_longer_than_its_length(start, trap):
    text = start + trap * (400_000 // len(trap))
    began = time.process_time()
    Reader(PINS).read(text)
    assert time.process_time() - began < 2  # about 0.1 s; a trap would take minutes


def test_plain_is_a_reading_of_nothing():
    assert Reading() == PLAIN
    assert (PLAIN.acts, PLAIN.sentences, PLAIN.is_clear) == ((), (), True)
