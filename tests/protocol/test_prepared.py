"""Names in messages: found wherever they are cut, replaced, and nothing else with them; and what names stand for."""

import contextlib
import gc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import prepared
from protocol.backend import NO_DATA_MESSAGE, build_error, build_parameter_description, build_row_description
from protocol.errors import ProtocolError
from protocol.frontend import (
    PORTAL,
    STATEMENT,
    Bind,
    build_bind,
    build_close,
    build_describe,
    build_parse,
    build_query,
    parse_bind,
    parse_parse,
)
from protocol.prepared import (
    CLOSE_NEVER,
    CLOSE_UNNAMED,
    MAX_NAME,
    NEVER,
    PARSE_EMPTY,
    Context,
    Names,
    Statement,
    Statements,
    digest_description,
    find_bind_names,
    find_meanings,
    find_parse_name,
    find_target_name,
    is_at_home,
    is_of_its_time,
    is_ours,
    mark,
    rename_bind,
    rename_parse,
    rename_start,
    rename_target,
    replace_name,
)

NOW = Context(1)
BODY = b"select 1\0\0\0"
NAMES = st.binary(max_size=20).map(lambda name: name.replace(b"\0", b"x"))


# Statements.


def test_a_statement_says_itself_as_any_client_would():
    one = Statement(b"PGSHUTTLE_7", BODY)
    assert one.build_parse() == build_parse(b"PGSHUTTLE_7", b"select 1")
    assert one.build_describe() == build_describe(STATEMENT, b"PGSHUTTLE_7")
    assert one.build_close() == build_close(STATEMENT, b"PGSHUTTLE_7")
    assert one.text == b"select 1"
    assert "PGSHUTTLE_7" in repr(one)


def test_one_made_by_prepare_is_made_by_prepare_elsewhere():
    one = Statement(b"PGSHUTTLE_7", b"(int) as select $1", is_sql=True)
    assert one.build_prepare() == build_query('PREPARE "PGSHUTTLE_7" (int) as select $1')


def test_the_messages_that_are_always_the_same():
    assert build_parse(b"", b"") == PARSE_EMPTY
    assert build_close(STATEMENT, b"") == CLOSE_UNNAMED
    assert build_close(STATEMENT, NEVER) == CLOSE_NEVER


def test_the_same_body_in_the_same_context_is_the_same_statement():
    all_of_them = Statements()
    one = all_of_them.find(BODY, NOW)
    assert all_of_them.find(bytes(bytearray(BODY)), NOW) is one
    others = [
        all_of_them.find(b"select 2\0\0\0", NOW),
        all_of_them.find(BODY, Context(2)),
        all_of_them.find(BODY, Context(1, (("search_path", "a"),))),
        all_of_them.find(BODY, Context(1, (("role", "boss"),))),
        all_of_them.make(BODY),
    ]
    assert len({one, *others}) == len({each.name for each in [one, *others]}) == 6
    assert NEVER not in {each.name for each in [one, *others]}


def test_what_nobody_has_any_more_is_forgotten():
    all_of_them = Statements()
    one = all_of_them.find(BODY, NOW)
    assert len(all_of_them) == 1
    del one
    gc.collect()
    assert len(all_of_them) == 0


# What names stand for.


def test_names_come_and_go():
    names, one, two = Names(), Statement(b"P1", BODY), Statement(b"P2", BODY)
    assert names.put(b"a", one) is None
    assert names.put(b"a", two) is one
    assert names.get(b"a") is two
    assert list(names) == [b"a"]
    assert names.name_of(b"P2") == b"a"
    assert names.put(b"a", None) is two
    assert names.get(b"a") is None
    assert len(names) == 0


def test_of_long_names_as_much_counts_as_in_postgresql():
    names, one = Names(), Statement(b"P1", BODY)
    names.put(b"x" * 10_000, one)
    assert names.get(b"x" * 63) is one
    assert names.get(b"x" * 62) is None


def test_the_oldest_name_goes_when_there_are_too_many(monkeypatch):
    monkeypatch.setattr(prepared, "MAX_NAMES", 3)
    names = Names()
    for number in range(5):
        names.put(b"%d" % number, Statement(b"P", BODY))
    assert list(names) == [b"2", b"3", b"4"]


def test_the_oldest_go_when_their_texts_are_too_long_but_never_the_newest(monkeypatch):
    monkeypatch.setattr(prepared, "MAX_BYTES", 100)
    names = Names()
    for number in range(5):
        names.put(b"%d" % number, Statement(b"P", b"x" * 40))
    assert list(names) == [b"3", b"4"]
    names.put(b"long", Statement(b"P", b"x" * 1000))
    assert list(names) == [b"long"]
    names.put(b"short", Statement(b"P", b"x" * 10))
    assert list(names) == [b"short"]


def test_all_may_be_taken_and_put_back_where_nothing_else_is():
    names, one, two = Names(), Statement(b"P1", BODY), Statement(b"P2", BODY)
    names.put(b"a", one)
    names.put(b"b", one)
    before = names.take_all()
    assert len(names) == 0
    names.put(b"a", two)
    names.put_back(before)
    assert (names.get(b"a"), names.get(b"b")) == (two, one)


def test_names_that_stand_for_something_else_by_now_are_known_for_a_while():
    names = Names()
    for number in range(prepared.MAX_LOST + 5):
        names.put(b"n%d" % number, Statement(b"P%d" % number, BODY))
        names.put(b"n%d" % number, None)
    assert names.name_of(b"P4") is None
    assert names.name_of(b"P5") == b"n5"


def test_what_is_in_doubt_is_settled_by_who_brought_it_there():
    names, one, two = Names(), object(), object()
    names.pending[b"a"] = two
    names.settle(b"a", one)
    assert names.pending == {b"a": two}
    names.settle(b"a", two)
    names.settle(None, two)
    assert not names.pending


def test_a_name_that_looks_like_ours_is_marked():
    assert is_ours(NEVER)
    assert mark(b"PGSHUTTLE_1") == b"PGSHUTTLE_1?"
    assert mark(b"pgshuttle_1") == b"pgshuttle_1"


# Finding names.


def whole_and_cut(message):
    """(what has arrived, does it hold everything?) of a message that stands behind another."""
    for end in range(8, 4 + len(message)):
        yield b"xxx" + message[: end - 3], False
    yield b"xxx" + message + b"tail", True


@given(NAMES)
def test_the_name_in_a_parse_is_found_once_it_is_there(name):
    message = build_parse(name, b"select 1")
    for data, _ in whole_and_cut(message):
        stop = find_parse_name(data, 3, 3 + len(message))
        assert stop is None or data[8:stop] == name
        assert (stop is None) == (len(data) < 3 + 5 + len(name) + 1)


@given(NAMES, NAMES)
def test_the_name_in_a_bind_is_found_once_it_is_there(portal, name):
    message = build_bind(Bind(portal, name, values=(b"value",)))
    for data, _ in whole_and_cut(message):
        span = find_bind_names(data, 3, 3 + len(message))
        assert span is None or data[span[0] : span[1]] == name
        assert (span is None) == (len(data) < 3 + 5 + len(portal) + 1 + len(name) + 1)


@given(NAMES)
def test_the_name_in_a_describe_is_found_once_it_is_there(name):
    message = build_describe(STATEMENT, name)
    for data, _ in whole_and_cut(message):
        stop = find_target_name(data, 3, 3 + len(message))
        assert stop is None or data[9:stop] == name


@pytest.mark.parametrize("find", [find_parse_name, find_bind_names, find_target_name])
def test_a_name_without_an_end_is_malformed(find):
    with pytest.raises(ProtocolError):
        find(b"P\0\0\0\x08SabcX", 0, 9)
    with pytest.raises(ProtocolError):
        find(b"P\0\xff\0\0S" + b"a" * (MAX_NAME + 2), 0, 0xFF0001)
    assert find(b"P\0\xff\0\0S" + b"a" * 100, 0, 0xFF0001) is None


# Writing names.


@given(NAMES, NAMES)
def test_a_renamed_parse_is_the_same_under_another_name(name, other):
    message = build_parse(name, b"select 1", [23])
    stop = find_parse_name(message, 0, len(message))
    assert rename_parse(other, message[stop + 1 :]) == build_parse(other, b"select 1", [23])
    assert rename_start(message, 0, len(message), stop, other) + message[stop:] == build_parse(other, b"select 1", [23])
    assert parse_parse(rename_parse(other, message[stop + 1 :])[5:]).name == other


@given(NAMES, NAMES, NAMES)
def test_a_renamed_bind_is_the_same_of_another_statement(portal, name, other):
    message = b"before" + build_bind(Bind(portal, name, (1,), (b"value", None), (0, 1)))
    span = find_bind_names(message, 6, len(message))
    renamed = rename_bind(message, 6, len(message), span, other) + message[span[1] :]
    assert parse_bind(renamed[5:]) == Bind(portal, other, (1,), (b"value", None), (0, 1))
    assert int.from_bytes(renamed[1:5], "big") == len(renamed) - 1


@pytest.mark.parametrize(("kind", "what", "build"), [(STATEMENT, b"D", build_describe), (PORTAL, b"C", build_close)])
def test_a_target_is_written(kind, what, build):
    assert rename_target(kind, b"a", what=what) == build(kind, b"a")


def test_in_an_error_only_the_message_speaks_of_another_name():
    body = build_error("ERROR", "26000", 'no "P_1" here', detail="P_1", hint="P_1")[5:]
    assert replace_name(body, b"P_1", b"\xffmine") == b"".join(
        (
            b"E",
            (len(body) + 4 + 2).to_bytes(4, "big"),
            body.replace(b'no "P_1"', b'no "\xffmine"'),
        )
    )


# Comparing descriptions.


PARAMETERS = build_parameter_description([23])


def test_descriptions_are_equal_if_a_driver_could_not_tell_them_apart():
    columns = build_row_description([("a", 25, -1), ("b", 23, -1)])
    elsewhere = columns.replace(b"a\0\0\0\0\0\0\0", b"a\0\0\0\0\x07\0\1")  # of another table
    assert elsewhere != columns
    assert digest_description(PARAMETERS, columns) == digest_description(PARAMETERS, elsewhere)


@pytest.mark.parametrize(
    "columns",
    [[("a", 23, -1), ("b", 23, -1)], [("A", 25, -1), ("b", 23, -1)], [("a", 25, -1)], [("b", 23, -1), ("a", 25, -1)]],
)
def test_descriptions_differ_if_a_type_a_name_or_the_number_of_columns_does(columns):
    one = build_row_description([("a", 25, -1), ("b", 23, -1)])
    assert digest_description(PARAMETERS, one) != digest_description(PARAMETERS, build_row_description(columns))
    assert digest_description(PARAMETERS, one) != digest_description(b"", one)


def test_no_columns_are_a_description_too():
    assert digest_description(PARAMETERS, b"n\0\0\0\4") != digest_description(PARAMETERS, build_row_description([]))


@given(st.binary(max_size=60))
def test_whatever_a_server_says_is_a_description_or_malformed(body):
    with contextlib.suppress(ProtocolError):
        digest_description(b"", b"T" + (len(body) + 4).to_bytes(4, "big") + body)


def test_a_shared_statement_knows_its_context_and_is_found_without_being_made():
    statements, context = Statements(), Context(1, (("search_path", "depot"),))
    assert statements.get(b"select 1\0\0\0", context) is None
    statement = statements.find(b"select 1\0\0\0", context)
    assert statements.get(b"select 1\0\0\0", context) is statement
    assert statement.context == context
    assert statements.make(b"select 1\0\0\0").context is None


def test_what_a_text_means_hangs_on_some_parameters_however_they_are_spelled():
    assert find_meanings({"TimeZone": "UTC", "application_name": "x", "search_path": "a", "work_mem": "4MB"}) == (
        ("search_path", "a"), ("timezone", "UTC"),
    )  # fmt: skip
    assert find_meanings({"DateStyle": "ISO"}) == find_meanings({"datestyle": "ISO"})


def test_it_is_at_home_where_its_literals_are_read_the_same_wherever_its_names_are_looked_for():
    statement = Statements().find(BODY, Context(1, find_meanings({"TimeZone": "UTC", "search_path": "a"})))
    assert is_at_home(statement, {"TimeZone": "UTC", "search_path": "b"})
    assert not is_at_home(statement, {"TimeZone": "CET", "search_path": "a"})
    assert not is_at_home(statement, {})
    assert is_at_home(Statements().make(BODY), {"TimeZone": "CET"}), "it is one client's own"


@pytest.mark.parametrize(
    ("text", "is_so"),
    [
        (b"select 'now'::timestamptz", True), (b"select date ' Today '", True),
        (b"select 'tomorrow 08:00'::timestamp", True),
        (b"select $$yesterday$$::date", True), (b"select now()", False), (b"select 'x' where a < now ()", False),
        (b"select 'known'", False), (b"select a_today from t", False), (b"select today from t", False),
        (b"select 1", False),
    ],
)  # fmt: skip
def test_a_literal_may_stand_for_the_moment(text, is_so):
    assert is_of_its_time(text) is is_so


def test_it_is_parsed_again_with_the_types_it_was_described_with():
    statement = Statements().make(b"select $1\0\0\0")
    assert statement.build_parse().endswith(b"select $1\0\0\0")
    statement.description = digest_description(build_parameter_description([23, 25]), NO_DATA_MESSAGE)
    assert statement.build_parse() == build_parse(statement.name, b"select $1", [23, 25])


@pytest.mark.parametrize(
    "description", [b"", b"t", b"t\0\0\0\4", b"t\0\0\0\6\0\1", b"t\xff\xff\xff\xff\0\0", b"T\0\0\0\6\0\0"]
)
def test_a_description_that_makes_no_sense_changes_nothing(description):
    statement = Statements().make(b"select $1\0\0\0")
    statement.description = description
    assert statement.build_parse() == build_parse(statement.name, b"select $1")
