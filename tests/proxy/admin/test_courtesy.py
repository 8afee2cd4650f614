"""What drivers say to every database."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import Refused
from proxy import VERSION
from proxy.admin.courtesy import PARAMETERS, Courtesy, find_courtesy
from proxy.admin.rights import RIGHTS
from proxy.config.settings import SETTINGS


class Anybody:
    user = "ann"
    database = "pgbouncer"
    key = b"\0\0\0\7rest"


def answer(text: str) -> Courtesy | None:
    return find_courtesy(text, Anybody())


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        ("BEGIN", "BEGIN"),
        ("begin isolation level serializable, read only, deferrable", "BEGIN"),
        ("START TRANSACTION READ ONLY", "START TRANSACTION"),
        ("COMMIT", "COMMIT"),
        ("end transaction", "COMMIT"),
        ("ROLLBACK", "ROLLBACK"),
        ("abort", "ROLLBACK"),
        ('SAVEPOINT "_pg3_1"', "SAVEPOINT"),
        ("RELEASE SAVEPOINT a", "RELEASE"),
        ("ROLLBACK TO SAVEPOINT a", "ROLLBACK"),
        ("RESET ALL", "RESET"),
        ("DISCARD ALL", "DISCARD ALL"),
        ("CLOSE ALL", "CLOSE CURSOR ALL"),
        ("UNLISTEN *", "UNLISTEN"),
        ("DEALLOCATE ALL", "DEALLOCATE ALL"),
    ],
)
def test_what_begins_and_ends_is_accepted_and_means_nothing(text: str, tag: str) -> None:
    assert answer(text) == Courtesy(tag)


@pytest.mark.parametrize(
    "text",
    [
        "SET extra_float_digits = 3",
        "set session datestyle to ISO, MDY",
        "SET application_name = 'PostgreSQL JDBC Driver'",
        "SET client_encoding TO 'UTF8'",
        "SET TIME ZONE 'UTC'",
        "SET NAMES 'utf8'",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
        "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
    ],
)
def test_a_parameter_of_a_session_is_set_for_nothing(text: str) -> None:
    assert answer(text) == Courtesy("SET", notice="SET ignored")


@pytest.mark.parametrize(
    ("text", "shape", "row"),
    [
        ("SHOW DateStyle", "datestyle s", ("ISO",)),
        ("SHOW TRANSACTION ISOLATION LEVEL", "transaction_isolation s", ("read committed",)),
        ("SHOW TIME ZONE", "timezone s", ("GMT",)),
        ("SELECT 1", "?column? i", (1,)),
        ("select -7 as n, 'it''s' \"my text\"", "n i, my_text s", (-7, "it's")),
        ("select version()", "version s", (VERSION,)),
        ("SELECT pg_catalog.version() AS v", "v s", (VERSION,)),
        ("SELECT pg_is_in_recovery()", "pg_is_in_recovery B", (False,)),
        ("select current_user, current_database(), pg_backend_pid()",
         "current_user s, current_database s, pg_backend_pid i", ("ann", "pgbouncer", 7)),
        ("SELECT current_setting('server_version_num')::int", "current_setting i", (12502,)),
        ("SELECT current_setting('no_such_thing', true)", "current_setting s", (None,)),
        ("SELECT current_setting('server_version_num')::int/100", "current_setting i", (125,)),
        ("SELECT set_config('bytea_output','hex',false) FROM pg_settings WHERE name = 'bytea_output'",
         "set_config s", ("hex",)),
        ("SELECT 1::text", "?column? s", ("1",)),
        ("SELECT set_config('bytea_output','hex',false)", "set_config s", ("hex",)),
    ],
)  # fmt: skip
def test_what_is_asked_of_every_database_has_an_answer(text: str, shape: str, row: tuple[object, ...]) -> None:
    found = answer(text)
    assert found is not None
    assert (found.shape, found.row) == (shape, row)
    assert found.tag == ("SHOW" if text.startswith("SHOW") else "SELECT 1")


def test_an_unknown_parameter_is_refused_as_postgresql_does() -> None:
    with pytest.raises(Refused, match='unrecognized configuration parameter "no_such_thing"') as refusal:
        answer("SELECT current_setting('no_such_thing')")
    assert refusal.value.sqlstate == "42704"


@pytest.mark.parametrize(
    "text",
    ["SHOW POOLS", "SELECT pools", "SELECT version", "SELECT 1 FROM t", "SELECT 1,", "SELECT", "SELECT nobody()",
     "SET verbose = 1", "BEGIN; COMMIT", "SELECT set_config('nobody', 'x', false)", "COMMIT PREPARED 'x'"],
)  # fmt: skip
def test_everything_else_is_none_of_it(text: str) -> None:
    assert answer(text) is None


def test_no_parameter_has_the_name_of_a_setting_or_of_something_shown() -> None:
    assert not set(PARAMETERS) & set(SETTINGS)
    assert not {f"SHOW {name.upper()}" for name in PARAMETERS} & set(RIGHTS)


@pytest.mark.parametrize("piece", ["1,", "'", "''", "a", " ", "SELECT ", "::", "(", "x(", '"', "BEGIN "])
def test_a_hostile_text_costs_no_time(piece: str) -> None:
    for start in ("SELECT ", "SET a = ", "BEGIN ", "SELECT x('", "SHOW "):
        assert answer((start + piece * 16_384)[:16_384] + "!") is None or start == "SET a = "


@given(st.lists(st.sampled_from(["SELECT", "SET ", "SHOW ", "1", "'", ",", " ", "version", "()", "::", "a", "="])))
def test_any_text_is_answered_or_not(pieces: list[str]) -> None:
    with contextlib.suppress(Refused):
        found = answer("".join(pieces))
        assert found is None or len(found.row) == (found.shape.count(",") + 1 if found.shape else 0)
