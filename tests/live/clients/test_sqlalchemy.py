"""SQLAlchemy 2 over four drivers: its pool with pre-ping and reset, its ORM, streams, savepoints, reflection."""

import asyncio

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship, selectinload

from tests.live.clients.fleet import CLIENTS, gather, together

pytestmark = pytest.mark.live

BLOCKING = ["psycopg", "psycopg2", "pg8000"]
ASYNC = ["asyncpg", "psycopg_async"]


class Base(DeclarativeBase):
    """The tables of these tests."""


class Ship(Base):
    __tablename__ = "ship"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    crew: Mapped[list["Sailor"]] = relationship(back_populates="ship", cascade="all, delete-orphan")


class Sailor(Base):
    __tablename__ = "sailor"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(50), index=True)
    rank: Mapped[int] = mapped_column(sa.CheckConstraint("rank >= 0"))
    ship_id: Mapped[int] = mapped_column(sa.ForeignKey("ship.id"))
    ship: Mapped[Ship] = relationship(back_populates="crew")


def options(**more):
    return {"pool_size": CLIENTS, "max_overflow": 0, "pool_pre_ping": True, "pool_timeout": 20} | more


@pytest.fixture(params=BLOCKING)
def engine(fleet, request):
    arguments = {"prepare_threshold": 0} if request.param == "psycopg" else {}
    engine = sa.create_engine(f"postgresql+{request.param}://{fleet.uri}", **options(connect_args=arguments))
    Base.metadata.drop_all(engine)
    Base.metadata.create_all(engine)
    yield engine
    engine.dispose()


def run_async(fleet, driver, work, **more):
    """`work(engine, number)` twenty times at once, on one engine."""

    async def talk():
        arguments = {"prepare_threshold": 0} if driver == "psycopg_async" else {}
        engine = create_async_engine(f"postgresql+{driver}://{fleet.uri}", **options(connect_args=arguments, **more))
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.drop_all)
            await connection.run_sync(Base.metadata.create_all)
        try:
            await asyncio.gather(*(work(engine, number) for number in range(CLIENTS)))
        finally:
            await engine.dispose()

    asyncio.run(talk())


def enlist(number):
    return Ship(name=f"ship {number}", crew=[Sailor(name=f"{number}:{n}", rank=n) for n in range(10)])


def test_the_orm_in_twenty_threads(engine):
    def one(number):
        with Session(engine) as session:
            session.add(enlist(number))
            session.commit()
            for _ in range(3):
                ship = session.scalars(sa.select(Ship).where(Ship.name == f"ship {number}")).one()
                assert sorted(sailor.rank for sailor in ship.crew) == list(range(10))
                session.commit()
            ship.crew[0].name = f"captain {number}"
            session.commit()
            with pytest.raises(DBAPIError, match="rank_check"), session.begin_nested():
                session.add(Sailor(name="nobody", rank=-1, ship=ship))
            session.rollback()
            names = session.scalars(sa.select(Sailor.name).where(Sailor.ship_id == ship.id)).all()
            assert sum(name == f"captain {number}" for name in names) == 1
            assert len(names) == 10

    together(one)


def test_savepoints_isolation_and_autocommit(engine):
    def one(number):
        with engine.connect() as connection:
            connection.execute(sa.text("set local myapp.tenant = 'x'"))
            with connection.begin_nested() as savepoint:
                connection.execute(sa.text("create temp table gone (n int)"))
                savepoint.rollback()
            assert connection.scalar(sa.text("select to_regclass('gone') is null"))
            connection.commit()
        strict = engine.execution_options(isolation_level="SERIALIZABLE")
        with strict.connect() as connection:
            assert connection.scalar(sa.text("show transaction_isolation")) == "serializable"
            assert connection.scalar(sa.select(sa.literal(number))) == number
        with engine.connect() as connection:
            assert connection.scalar(sa.text("show transaction_isolation")) == "read committed"
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(sa.insert(Ship), [{"name": f"auto {number}"}])
            query = sa.select(sa.func.count()).where(Ship.name == f"auto {number}")
            assert connection.scalar(query) == 1

    together(one)


def test_streams_come_in_parts(engine):
    def one(number):
        with engine.connect() as connection:
            query = sa.text("select :n * 1000 + g from generate_series(1, 500) g").bindparams(n=number)
            result = connection.execution_options(yield_per=60).execute(query)
            assert [row[0] for row in result] == [number * 1000 + g for g in range(1, 501)]

    together(one)


def test_reflection_and_a_new_column_for_all(engine):
    with engine.begin() as connection:
        connection.execute(sa.text("drop table if exists reflected"))
        connection.execute(sa.text("create table reflected (a int)"))
        connection.execute(sa.text("insert into reflected values (1)"))

    def columns(_):
        with engine.connect() as connection:
            row = connection.execute(sa.text("select * from reflected")).mappings().one()
            return dict(row), [column["name"] for column in sa.inspect(connection).get_columns("reflected")]

    assert together(columns) == [({"a": 1}, ["a"])] * CLIENTS
    with engine.begin() as connection:
        connection.execute(sa.text("alter table reflected add column b int default 2"))
    engine.dispose()  # new connections, as of a process that starts after a migration
    assert together(columns) == [({"a": 1, "b": 2}, ["a", "b"])] * CLIENTS


def test_settings_made_at_connect_are_there_in_each_transaction(fleet):
    """The usual way: a listener that says SET for each new connection of the pool."""
    engine = sa.create_engine(f"postgresql+psycopg://{fleet.uri}", **options())

    @sa.event.listens_for(engine, "connect")
    def _(connection, _record):
        with connection.cursor() as cursor:
            cursor.execute("set statement_timeout = '77s'")
            cursor.execute("select set_config('myapp.pid', %s, false)", [str(id(connection))])
        connection.commit()

    def one(_):
        for _ in range(5):
            with engine.connect() as connection:
                driver = connection.connection.driver_connection
                assert connection.scalar(sa.text("show statement_timeout")) == "77s"
                assert connection.scalar(sa.text("show myapp.pid")) == str(id(driver))

    together(one)
    engine.dispose()


@pytest.mark.parametrize("driver", ASYNC)
def test_the_orm_in_twenty_tasks(fleet, driver):
    async def one(engine, number):
        async with AsyncSession(engine, expire_on_commit=False) as session:
            session.add(enlist(number))
            await session.commit()
            query = sa.select(Ship).options(selectinload(Ship.crew)).where(Ship.name == f"ship {number}")
            for _ in range(3):
                ship = (await session.scalars(query)).one()
                assert sorted(sailor.rank for sailor in ship.crew) == list(range(10))
                await session.commit()
            with pytest.raises(IntegrityError):
                async with session.begin_nested():
                    session.add(Sailor(name="nobody", rank=-1, ship_id=ship.id))
            found = await session.stream_scalars(sa.select(Sailor.name).where(Sailor.ship_id == ship.id))
            assert {name async for name in found} == {f"{number}:{n}" for n in range(10)}

    run_async(fleet, driver, one)


@pytest.mark.parametrize("driver", ASYNC)
def test_errors_in_twenty_tasks_are_each_their_own(fleet, driver):
    async def one(engine, number):
        async with engine.connect() as connection:
            for turn in range(3):
                with pytest.raises(DBAPIError, match=f"nowhere_{number}_{turn}"):
                    await connection.execute(sa.text(f"select * from nowhere_{number}_{turn}"))
                await connection.rollback()
                assert await connection.scalar(sa.text("select cast(:n as int)"), {"n": number}) == number

    run_async(fleet, driver, one)


def test_asyncpgs_statements_after_a_migration(fleet):
    async def talk():
        engine = create_async_engine(f"postgresql+asyncpg://{fleet.uri}", **options())
        text = sa.text("select * from moved")

        async def ask():
            async with engine.connect() as connection:
                return dict((await connection.execute(text)).mappings().one())

        async with engine.begin() as connection:
            await connection.execute(sa.text("create table moved as select 1 as a"))
        assert await asyncio.gather(*(ask() for _ in range(CLIENTS))) == [{"a": 1}] * CLIENTS
        async with engine.begin() as connection:
            await connection.execute(sa.text("alter table moved add column b text default 'x'"))
        await engine.dispose()
        found = await asyncio.gather(*(ask() for _ in range(CLIENTS)))
        await engine.dispose()
        return found

    assert asyncio.run(talk()) == [{"a": 1, "b": "x"}] * CLIENTS


def test_engines_with_options_of_their_own(fleet):
    async def one(number):
        arguments = {"server_settings": {"search_path": f"s{number}", "myapp.tenant": f"{number}", "jit": "off"}}
        engine = create_async_engine(f"postgresql+asyncpg://{fleet.uri}", connect_args=arguments, pool_size=1)
        for _ in range(3):
            async with engine.connect() as connection:
                assert await connection.scalar(sa.text("show search_path")) == f"s{number}"
                assert await connection.scalar(sa.text("show myapp.tenant")) == f"{number}"
        await engine.dispose()

    gather(one)
