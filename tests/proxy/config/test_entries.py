"""Connection strings, and the entries made of them."""

import contextlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.passwords import Secret
from proxy.config.entries import (
    DATABASE_KEYS,
    BadEntry,
    Database,
    Peer,
    User,
    find_useless,
    hosts_of,
    parse_database,
    parse_pairs,
    parse_peer,
    parse_user,
    unacted_keys,
)
from proxy.config.kinds import LoadBalance, PoolMode


def test_pairs_are_split_at_blanks_and_quotes_hold_them_together() -> None:
    assert list(parse_pairs(r" host=a  port = 1 password='it''s a \ secret' user='' x=b'c ")) == [
        ("host", "a"),
        ("port", "1"),
        ("password", r"it's a \ secret"),
        ("user", ""),
        ("x", "b'c"),
    ]
    assert list(parse_pairs("")) == list(parse_pairs("   ")) == []
    assert list(parse_pairs("host=a password=")) == [("host", "a"), ("password", "")]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("host", "expected key=value at character 1"),
        ("host=a =b", "expected key=value at character 7"),
        ("host=a hush", "expected key=value at character 7"),
        ("password='hush", "the quote that opens the value of password is never closed"),
        ("password='hush'' port=1", "never closed"),
        ("password='hush'port=1", "a blank is missing behind the quoted value of password"),
        ("password= port=1", "password has no value"),
    ],
)
def test_a_broken_string_says_where_and_shows_no_value(text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as caught:
        list(parse_pairs(text))
    assert "hush" not in str(caught.value)


@given(st.dictionaries(st.from_regex(r"[a-z_]+", fullmatch=True), st.text(st.characters(exclude_characters="\0"))))
def test_any_values_survive_quoting(values: dict[str, str]) -> None:
    text = " ".join(f"{key}='{value.replace(chr(39), chr(39) * 2)}'" for key, value in values.items())
    assert dict(parse_pairs(text)) == values


@given(st.text())
def test_any_text_is_an_entry_or_a_bad_entry(text: str) -> None:
    with contextlib.suppress(BadEntry):
        parse_database("x", text)


def test_an_empty_entry_inherits_everything_and_is_named_as_it_is() -> None:
    database = parse_database("shop", "")
    assert database == Database(name="shop")
    assert (database.server_dbname, database.hosts, database.port, database.pool_size) == ("shop", (), 5432, None)


def test_all_keys_of_a_database_are_understood() -> None:
    database = parse_database(
        "shop",
        "dbname=shop2 host=a,b port=5433 user=u password=p auth_user=au auth_query='select 1' auth_dbname=ad "
        "pool_size=0 min_pool_size=2 reserve_pool=3 connect_query='set x=1' pool_mode=SESSION "
        "load_balance_hosts=disable max_db_connections=4 max_db_client_connections=5 server_lifetime=60 "
        "query_wait_timeout=0.5 client_encoding=UTF8 datestyle=ISO timezone=GMT application_name=app",
    )
    assert database == Database(
        name="shop",
        dbname="shop2",
        hosts=("a", "b"),
        port=5433,
        user="u",
        password=Secret("p"),
        auth_user="au",
        auth_query="select 1",
        auth_dbname="ad",
        pool_size=0,
        min_pool_size=2,
        reserve_pool_size=3,
        connect_query="set x=1",
        pool_mode=PoolMode.SESSION,
        load_balance_hosts=LoadBalance.DISABLE,
        max_db_connections=4,
        max_db_client_connections=5,
        server_lifetime=60.0,
        query_wait_timeout=0.5,
        client_encoding="UTF8",
        datestyle="ISO",
        timezone="GMT",
        application_name="app",
    )
    assert parse_database("shop", "reserve_pool_size=3").reserve_pool_size == 3


def test_numbers_are_decimal_whatever_zeros_stand_in_front_and_minus_one_says_nothing() -> None:
    entry = parse_database("shop", "port=010 pool_size=007 min_pool_size=-1 max_db_connections=-1")
    assert (entry.port, entry.pool_size, entry.min_pool_size, entry.max_db_connections) == (10, 7, None, None)
    assert parse_user("ann", "pool_size=-1 max_user_connections=08") == User(name="ann", max_user_connections=8)
    for text in ("pool_size=0x10", "pool_size=5x", "pool_size=-2", "port=-1"):
        with pytest.raises(BadEntry):
            parse_database("shop", text)


def test_all_mistakes_of_an_entry_are_said_at_once_without_values() -> None:
    with pytest.raises(BadEntry) as caught:
        parse_database("pgbouncer", "hots=hush port=0 pool_size=hush pool_mode=hush password='hush")
    assert caught.value.sentences == (
        "the database name 'pgbouncer' is reserved for the console",
        "unknown key 'hots', did you mean host?",
        "port is outside 1 to 65535",
        "pool_size is not a decimal number",
        "pool_mode is none of session, transaction, statement",
        "the quote that opens the value of password is never closed",
    )


@pytest.mark.parametrize("name", ["pgbouncer", "pgshuttle", "", "x" * 64, "é" * 32])
def test_reserved_empty_and_long_names_are_refused(name: str) -> None:
    with pytest.raises(BadEntry, match="name"):
        parse_database(name, "")


def test_a_password_does_not_show() -> None:
    assert "hush" not in repr(parse_database("x", "password=hush"))


def test_a_password_that_is_a_damaged_verifier_is_refused_as_in_auth_file() -> None:
    with pytest.raises(BadEntry, match=r"^password is damaged: the SCRAM verifier is not of the form ") as caught:
        parse_database("x", "password=SCRAM-SHA-256$hush")
    assert "hush" not in str(caught.value)


def test_a_password_that_no_server_takes_is_told() -> None:
    verifier = "SCRAM-SHA-256$4096:c2FsdA==$" + ":".join([43 * "A" + "="] * 2)
    (sentence,) = find_useless(parse_database("x", f"user=ann password={verifier}"))
    assert sentence.startswith("password is a SCRAM verifier, which no server takes")
    for text in ("", "password=hush", "password=md5" + 32 * "0"):
        assert not list(find_useless(parse_database("x", text)))


def test_a_user_has_limits_of_its_own() -> None:
    assert parse_user(
        "ann",
        "pool_size=1 reserve_pool_size=2 pool_mode=statement max_user_connections=3 max_user_client_connections=4 "
        "query_timeout=5 query_wait_timeout=6 idle_transaction_timeout=7 transaction_timeout=8 client_idle_timeout=9",
    ) == User(
        name="ann",
        pool_size=1,
        reserve_pool_size=2,
        pool_mode=PoolMode.STATEMENT,
        max_user_connections=3,
        max_user_client_connections=4,
        query_timeout=5.0,
        query_wait_timeout=6.0,
        idle_transaction_timeout=7.0,
        transaction_timeout=8.0,
        client_idle_timeout=9.0,
    )
    with pytest.raises(BadEntry, match="unknown key 'host'"):
        parse_user("ann", "host=a")


def test_a_peer_has_a_number_and_a_host() -> None:
    assert parse_peer("3", "host=a") == Peer(number=3, host="a", port=6432)
    for name, text in (("0", "host=a"), ("16384", "host=a"), ("x", "host=a"), ("1", "port=1")):
        with pytest.raises(BadEntry):
            parse_peer(name, text)


def test_keys_without_effect_and_old_names_are_told() -> None:
    keys = {**DATABASE_KEYS, "auth_user": replace(DATABASE_KEYS["auth_user"], reason="nobody reads it")}
    warnings = list(unacted_keys(keys, "host=a auth_user=b reserve_pool=1"))
    assert warnings == [
        "auth_user is accepted but has no effect: nobody reads it",
        "reserve_pool is the old name of reserve_pool_size",
    ]


def test_without_a_host_servers_are_on_a_unix_socket() -> None:
    assert hosts_of(Database(name="x", hosts=("a",)), "/tmp") == ("a",)
    assert hosts_of(Database(name="x"), "/run/pg") == ("/run/pg",)
    assert hosts_of(Database(name="x"), "") == ("/var/run/postgresql", "/tmp")
