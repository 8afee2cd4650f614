"""Whose word counts."""

from dataclasses import replace

import pytest

from proxy.config.entries import Database, User
from proxy.config.ini import Config
from proxy.config.kinds import PoolMode
from proxy.config.limits import Limits, resolve
from proxy.config.settings import SETTINGS, Settings, assign


def limits(settings: Settings | None = None, database: Database | None = None, user: User | None = None) -> Limits:
    config = Config(
        path="a.ini",
        section="proxy",
        settings=settings or Settings(),
        databases={database.name: database} if database else {},
        users={user.name: user} if user else {},
    )
    return resolve(config, "shop", "ann")


def test_without_a_word_the_settings_hold() -> None:
    settings = Settings()
    found = limits(settings)
    for name in Limits.__slots__:
        expected = settings.default_pool_size if name == "pool_size" else getattr(settings, name)
        assert getattr(found, name) == expected


def test_every_limit_is_a_setting() -> None:
    assert set(Limits.__slots__) - {"pool_size"} <= set(SETTINGS)


def test_the_users_word_beats_the_databases_and_that_beats_the_settings() -> None:
    database = Database(
        name="shop", pool_size=5, reserve_pool_size=2, pool_mode=PoolMode.SESSION, query_wait_timeout=1.0
    )
    user = User(name="ann", pool_size=3, reserve_pool_size=1, pool_mode=PoolMode.STATEMENT, query_wait_timeout=2.0)
    found = limits(database=database)
    assert (found.pool_size, found.reserve_pool_size, found.pool_mode, found.query_wait_timeout) == (
        *(5, 2),
        PoolMode.SESSION,
        1.0,
    )
    found = limits(database=database, user=user)
    assert (found.pool_size, found.reserve_pool_size, found.pool_mode, found.query_wait_timeout) == (
        *(3, 1),
        PoolMode.STATEMENT,
        2.0,
    )


def test_a_written_zero_takes_a_limit_away() -> None:
    settings = Settings(default_pool_size=20, query_timeout=5.0, query_wait_timeout=9.0)
    database = Database(name="shop", pool_size=0, query_wait_timeout=0.0)
    found = limits(settings, database, User(name="ann", query_timeout=0.0))
    assert found.pool_size is None
    assert found.query_wait_timeout is None
    assert found.query_timeout is None


def test_a_written_zero_never_lets_in_more_connections_than_pgbouncer_would() -> None:
    settings = Settings(
        max_db_connections=7, max_user_connections=6, max_db_client_connections=5, max_user_client_connections=4
    )
    database = Database(name="shop", max_db_connections=0, max_db_client_connections=0, server_lifetime=0.0)
    found = limits(settings, database, User(name="ann", max_user_connections=0, max_user_client_connections=0))
    assert (found.max_db_connections, found.max_user_connections) == (7, 6)
    assert (found.max_db_client_connections, found.max_user_client_connections) == (5, 4)
    assert found.server_lifetime == settings.server_lifetime


def test_zero_stays_zero_where_it_is_a_number() -> None:
    found = limits(Settings(reserve_pool_size=5, server_lifetime=0.0), Database(name="shop", reserve_pool_size=0))
    assert (found.reserve_pool_size, found.server_lifetime) == (0, 0.0)


def test_one_users_timeout_is_nobody_elses() -> None:
    settings = Settings(query_timeout=None)
    assert limits(settings, user=User(name="ann", query_timeout=1.0)).query_timeout == 1.0
    assert limits(settings, user=User(name="bob", query_timeout=1.0)).query_timeout is None


def test_the_minimum_never_exceeds_the_size() -> None:
    assert limits(Settings(min_pool_size=30)).min_pool_size == 20
    assert limits(Settings(min_pool_size=30), Database(name="shop", pool_size=0)).min_pool_size == 30


def test_the_fallbacks_limits_hold_for_the_names_it_serves() -> None:
    assert limits(database=Database(name="*", pool_size=2)).pool_size == 2


@pytest.mark.parametrize("name", ["pipeline_depth", "pipeline_servers", "pipeline_max_ms", "pipeline_max_bytes"])
def test_what_lines_may_is_said_for_all_for_a_database_and_for_a_user(name: str) -> None:
    assert getattr(limits(assign(Settings(), name, "7")), name) == 7
    database = replace(Database(name="shop"), **{name: 8})
    assert getattr(limits(database=database), name) == 8
    assert getattr(limits(database=database, user=replace(User(name="ann"), **{name: 0})), name) == 0


def test_how_many_share_a_transaction_may_be_said_of_each_database_and_user() -> None:
    settings, database, user = Settings(), Database(name="shop", pipeline_group=8), User(name="ann", pipeline_group=1)
    assert limits(settings).pipeline_group == 32
    assert limits(settings, database).pipeline_group == 8
    assert limits(settings, database, user).pipeline_group == 1
    assert limits(settings, None, user).pipeline_group == 1
