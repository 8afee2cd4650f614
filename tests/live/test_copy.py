"""COPY both ways, as text and binary; COPY that fails, is given up, or is interrupted by nonsense."""

import psycopg
import pytest

from tests.live.stand import Stand
from tests.live.wire import (
    COPY_DONE,
    SYNC,
    bind,
    copy_data,
    error,
    execute,
    kinds,
    message,
    parse,
    query,
    rows,
    sqlstate,
)

pytestmark = pytest.mark.live

ROWS = 20_000


@pytest.fixture(scope="module", name="stand")
def _stand(upstream):
    databases = {"postgres": "pool_size=1", "session": "dbname=postgres pool_mode=session"}
    with Stand(upstream, databases=databases) as stand:
        yield stand


@pytest.fixture(name="table", params=["postgres", "session"])
def _table(stand, request):
    """A connection, and an empty table `cargo`."""
    with stand.connect(dbname=request.param) as connection:
        connection.execute("drop table if exists cargo")
        connection.execute("create table cargo (n int, word text)")
        yield connection


@pytest.mark.parametrize("form", ["text", "binary"])
def test_rows_go_in_and_come_out_again(table, form):
    expected = [(n, f"word {n} \\ \t \n é") for n in range(ROWS)]
    with table.cursor() as cursor:
        with cursor.copy(f"copy cargo from stdin (format {form})") as copy:
            copy.set_types(["int4", "text"])
            for row in expected:
                copy.write_row(row)
        with cursor.copy(f"copy (select * from cargo order by n) to stdout (format {form})") as copy:
            copy.set_types(["int4", "text"])
            assert list(copy.rows()) == expected
    assert table.execute("select count(*) from cargo").fetchone() == (ROWS,)


def test_a_copy_that_the_server_refuses_halfway(table):
    def load():
        with table.cursor() as cursor, cursor.copy("copy cargo from stdin") as copy:
            for n in range(ROWS):
                copy.write(f"{n}\tword\n" if n != 500 else "not a number\tword\n")

    with pytest.raises(psycopg.errors.InvalidTextRepresentation):
        load()
    assert table.execute("select count(*) from cargo").fetchone() == (0,)


def test_a_copy_that_the_client_gives_up(table):
    def load():
        with table.cursor() as cursor, cursor.copy("copy cargo from stdin") as copy:
            copy.write("1\tone\n")
            raise InterruptedError

    with pytest.raises(InterruptedError):
        load()
    assert table.execute("select count(*) from cargo").fetchone() == (0,)


def test_copy_by_the_extended_protocol_with_its_sync_sent_ahead(stand, table):
    """The server swallows a Sync while it reads COPY data; whoever sent it waits for the one behind CopyDone."""
    with stand.raw() as line:
        line.send(parse("copy cargo from stdin"), bind(), execute(), SYNC)
        assert kinds(line.read_until("G")) == "12G"
        line.send(copy_data(b"1\tone\n"), copy_data(b"2\ttwo\n"), COPY_DONE, SYNC)
        assert kinds(line.read_until()) == "CZ"
        assert rows(line.ask("select count(*) from cargo")) == [("2",)]


def test_a_whole_copy_in_one_packet(stand, table):
    with stand.raw() as line:
        line.send(query("copy cargo from stdin"), copy_data(b"1\tone\n"), COPY_DONE, query("select 'next'"))
        assert kinds(line.read_until()) == "GCZ"
        assert rows(line.read_until()) == [("next",)]
        line.send(query("copy nothing_there from stdin"), copy_data(b"1\tone\n"), COPY_DONE, query("select 'next'"))
        assert sqlstate(line.read_until()) == "42P01"
        assert rows(line.read_until()) == [("next",)]


def test_copy_data_one_megabyte_at_a_time(stand, table):
    with stand.raw() as line:
        line.ask("truncate cargo")
        line.send(query("copy cargo from stdin"))
        line.read_until("G")
        for n in range(20):
            line.send(copy_data(f"{n}\t{'x' * 1_000_000}\n".encode()))
        line.send(COPY_DONE)
        assert kinds(line.read_until()) == "CZ"
        assert rows(line.ask("select count(*), sum(length(word)) from cargo")) == [("20", "20000000")]


def test_copy_fail(stand, table):
    with stand.raw() as line:
        line.send(query("copy cargo from stdin"))
        line.read_until("G")
        line.send(copy_data(b"1\tone\n"), message("f", b"changed my mind\0"))
        answer = line.read_until()
        assert kinds(answer) == "EZ"
        assert sqlstate(answer) == "57014"
        assert "changed my mind" in error(answer)["M"]


def test_a_query_in_the_middle_of_copy_data_is_a_violation_for_that_client_alone(stand, table):
    table.close()
    with stand.raw() as line, stand.raw() as other:
        line.send(query("copy cargo from stdin"))
        line.read_until("G")
        other.send(query("select 'fine'"))
        line.send(copy_data(b"1\tone\n"), query("select 1"))
        words = error(line.read_to_end())
        assert (words["S"], words["C"]) == ("FATAL", "08P01")
        assert rows(other.read_until()) == [("fine",)]
        assert rows(other.ask("select count(*) from cargo")) == [("0",)]
