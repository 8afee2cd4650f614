"""What pgbench's logs and PgBouncer's version say, and a client's password: no program is started here."""

import contextlib
from pathlib import Path

import pytest

from protocol.passwords import ScramVerifier, parse_stored
from protocol.scram import ScramServer, WrongPassword
from tests.bench import loads
from tests.bench.cluster import Cluster
from tests.bench.figures import Figures
from tests.bench.loads import SWEEPING, check_prepared, swept
from tests.bench.measure import Bench, Unavailable
from tests.bench.pgbench import Outcome
from tests.bench.pgbench_log import Latencies, parse_log, read_logs, summarize
from tests.bench.processes import Failed
from tests.bench.scram import BARE_FIRST, NO_BINDING, PASSWORD, SASL, SASL_CONTINUE, build_answer, build_verifier
from tests.bench.targets import Target, parse_version
from tests.bench.wire import Address, with_options

CLOSED = "39 0 1 0 1795655009 487699\n63 5 14696 1 1795655009 487701\n"
OPEN_LOOP = "3 0 2500 0 1795655009 487699 1900\n"


def parsed(text: str) -> Latencies:
    found: Latencies = {}
    parse_log(text.splitlines(keepends=True), found)
    return found


def test_a_log_gives_the_time_of_each_transaction_by_its_script() -> None:
    assert parsed(CLOSED) == {0: [1], 1: [14696]}


def test_an_open_loop_counts_from_when_a_transaction_was_due() -> None:
    assert parsed(OPEN_LOOP) == {0: [2500]}  # of which it waited 1900 to be sent


@pytest.mark.parametrize("word", ["failed", "skipped"])
def test_a_transaction_that_did_not_come_to_pass_has_no_time(word: str) -> None:
    assert parsed(f"0 199 {word} 0 1795655009 487699\n") == {}


@pytest.mark.parametrize("line", ["0 199\n", "0 199 12 select 1795655009 487699\n", "\n"])
def test_a_line_that_is_none_of_pgbench_is_said(line: str) -> None:
    with pytest.raises(Failed, match="not understood"):
        parsed(line)


def test_the_logs_of_all_threads_are_read(tmp_path: Path) -> None:
    (tmp_path / "log.1234").write_text(CLOSED)
    (tmp_path / "log.1234.1").write_text(CLOSED)
    assert read_logs(tmp_path) == {0: [1, 1], 1: [14696, 14696]}


def test_percentiles_are_in_milliseconds_and_the_order_of_a_log_does_not_matter() -> None:
    times = [n * 1000 for n in range(1000, 0, -1)]
    assert summarize(times) == {"p50_ms": 500.0, "p99_ms": 990.0, "p999_ms": 999.0}


def test_an_empty_log_has_no_percentiles() -> None:
    with pytest.raises(Failed, match="empty"):
        summarize([])


def test_the_percentiles_of_a_run_are_those_of_all_its_scripts() -> None:
    assert Outcome(2, 100.0, 1.5, {0: [1000], 1: [9000]}).figures == {
        "tps": 100.0, "latency_ms": 1.5, "p50_ms": 1.0, "p99_ms": 9.0, "p999_ms": 9.0,
    }  # fmt: skip


def test_a_version_of_pgbouncer_is_found_among_its_words() -> None:
    assert parse_version("PgBouncer 1.18.0\nlibevent 2.1.12-stable\n") == (1, 18, 0)
    assert parse_version("PgBouncer 1.25rc1\n") == (1, 25)
    with pytest.raises(Failed, match="no version"):
        parse_version("bouncer?\n")


def test_a_pgbouncer_without_prepared_statements_is_not_asked_for_them() -> None:
    check_prepared((1, 21, 0))
    with pytest.raises(Unavailable, match=r"PgBouncer 1\.18\.0 knows no prepared statements .*\(from 1\.21 on\)"):
        check_prepared((1, 18, 0))


def test_the_tables_are_swept_before_the_load_and_in_postgresql_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []

    class Spy(contextlib.nullcontext["Spy"]):
        def __init__(self, address: Address) -> None:
            super().__init__(self)
            told.append(f"to {address.port}")

        def ask(self, text: str) -> None:
            told.append(text)

    def work(*_: object) -> Figures:
        told.append("work")
        return {"tps": 1.0}

    monkeypatch.setattr(loads, "Line", Spy)
    bench = Bench(Cluster(Path(), Address("127.0.0.1", 5432)), Path(), 1.0, 1.0)
    assert swept(work)(bench, Target("pgshuttle", Address("127.0.0.1", 6432))) == {"tps": 1.0}
    assert told == ["to 5432", *SWEEPING, "work"]


def test_libpq_gets_its_options_where_the_name_of_the_database_stands() -> None:
    address = with_options(Address("127.0.0.1", 1), password="of the bench")
    assert address.database == "dbname=bench password='of the bench'"


@pytest.mark.parametrize("iterations", [1, 4096])
def test_the_proof_of_a_client_is_one_for_the_verifier_in_the_user_list(iterations: int) -> None:
    verifier = parse_stored(build_verifier(PASSWORD, iterations))
    assert isinstance(verifier, ScramVerifier)
    server = ScramServer(verifier)
    server_first = server.first((NO_BINDING + BARE_FIRST).encode())
    assert server.final(build_answer(SASL_CONTINUE, server_first)[5:]).startswith(b"v=")


def test_and_is_none_for_another_password() -> None:
    verifier = parse_stored(build_verifier("of another bench", 1))
    assert isinstance(verifier, ScramVerifier)
    server = ScramServer(verifier)
    server_first = server.first((NO_BINDING + BARE_FIRST).encode())
    with pytest.raises(WrongPassword):
        server.final(build_answer(SASL_CONTINUE, server_first)[5:])


def test_a_client_names_the_mechanism_first() -> None:
    first = b"n,,n=,r=of+no+consequence"
    body = b"SCRAM-SHA-256\0\0\0\0" + bytes([len(first)]) + first
    assert build_answer(SASL, b"") == b"p\0\0\0" + bytes([4 + len(body)]) + body
