"""
What is measured, one row a measure: the whole list.

Theory. What a measure is stands in measure.py, how each is done in loads.py, logins.py, bulk.py, counts.py and
encrypted.py. A measure that is added is a function there and a row here.

The run as it is without options shall be over in a quarter of an hour, on four targets and in three rounds: so there
are no rows that say what another says already, and some are taken only when they are named.
"""

from collections.abc import Sequence

from tests.bench.bulk import EQUAL, MIXED, WIDE, copy_in, copy_out, select
from tests.bench.counts import memory, syscalls
from tests.bench.encrypted import add_tls, add_tls_and_scram, encrypted_copy_out, encrypted_pgbench
from tests.bench.loads import at_rate, closed, mixed, own, prepared, swept
from tests.bench.logins import connects, logins, scram_connects, scram_logins, scram_storm, storm
from tests.bench.measure import POOLERS, POOLERS_WITHOUT_LINES, WITHOUT_LINES, Measure, Tier

FULL, ASKED = Tier.FULL, Tier.ASKED
EXTENDED = ("-S", "-M", "extended")
PREPARED = ("-S", "-M", "prepared")
READS = (1, 4, 16, 64, 256)  # clients; the plots are drawn from these measures
OFTEN = (1, 64)  # those that a quick run takes too
BARE = POOLERS_WITHOUT_LINES


def _reads(clients: int) -> Measure:
    tier = Tier.QUICK if clients in OFTEN else FULL
    return Measure(f"simple-{clients}", f"pgbench -S, clients: {clients}", closed(clients, "-S"), tier)


MEASURES: Sequence[Measure] = (
    *map(_reads, READS),
    Measure("extended-1", "pgbench -S -M extended, 1 client", closed(1, *EXTENDED), ASKED),
    Measure("extended-64", "pgbench -S -M extended, 64 clients", closed(64, *EXTENDED), FULL),
    Measure("extended-256", "pgbench -S -M extended, 256 clients", closed(256, *EXTENDED), ASKED),
    Measure("prepared-1", "pgbench -S -M prepared, 1 client", prepared(closed(1, *PREPARED)), ASKED),
    Measure("prepared-64", "pgbench -S -M prepared, 64 clients", prepared(closed(64, *PREPARED))),
    Measure("prepared-256", "pgbench -S -M prepared, 256 clients", prepared(closed(256, *PREPARED)), FULL),
    Measure("load-64", "one SELECT by key, 64 clients of our own load maker", own(64), ASKED),
    Measure("rate-4000", "pgbench -S -R 4000: open loop, 64 clients", at_rate(64, 4000, "-S"), FULL),
    Measure("rate-8000", "pgbench -S -R 8000: open loop, 64 clients", at_rate(64, 8000, "-S")),
    Measure("mixed-64", "pgbench, four -S to one TPC-B-like transaction, 64 clients", swept(mixed(64))),
    Measure("tpcb-16", "pgbench's TPC-B-like script, 16 clients", swept(closed(16))),
    Measure(
        "connect-8", "pgbench -S -C: a connection for each question, 8 clients", connects(8), targets=WITHOUT_LINES
    ),
    Measure("connect-scram-8", "the same with SCRAM-SHA-256", scram_connects(8), targets=BARE),
    Measure("logins", "log in by trust and out, 16 clients", logins(16), targets=WITHOUT_LINES),
    Measure("logins-scram", "log in by SCRAM-SHA-256 and out, 16 clients", scram_logins(16), targets=BARE),
    Measure("storm", "2,000 clients log in at once, by trust", storm(2000), targets=BARE),
    Measure("storm-scram", "2,000 clients log in at once, by SCRAM-SHA-256", scram_storm(2000), targets=BARE),
    Measure("copy-out-small", "COPY out, small rows of equal length", copy_out(EQUAL), targets=WITHOUT_LINES),
    Measure("copy-out-mixed", "COPY out, rows of 1 to 40 bytes", copy_out(MIXED), targets=WITHOUT_LINES),
    Measure("copy-out-wide", "COPY out, rows of 1 kB", copy_out(WIDE), targets=WITHOUT_LINES),
    Measure("copy-in-small", "COPY in, small rows, a message each", copy_in, targets=WITHOUT_LINES),
    Measure("select-small", "SELECT, small rows of equal length", select(EQUAL), FULL),
    Measure("select-mixed", "SELECT, rows of 1 to 40 bytes", select(MIXED), FULL),
    Measure("select-wide", "SELECT, rows of 1 kB", select(WIDE), FULL),
    Measure(
        "tls-connect-8",
        "pgbench -S -C over TLS 1.3 with SCRAM-SHA-256, 8 clients; P-256 certificate",
        encrypted_pgbench(8, "login_cpu_us", add_tls_and_scram, "-S", "-C"),
        targets=BARE,
    ),
    Measure(
        "tls-simple-64",
        "pgbench -S over TLS 1.3, 64 clients",
        encrypted_pgbench(64, "cpu_us", add_tls, "-S"),
        targets=BARE,
    ),
    Measure("tls-copy-out-wide", "COPY out over TLS 1.3, rows of 1 kB", encrypted_copy_out, targets=BARE),
    Measure("syscalls-64", "strace -c, pgbench -S, 64 clients", syscalls(64, "-S"), targets=POOLERS, is_once=True),
    Measure(
        "syscalls-prepared-64",
        "strace -c, pgbench -S -M prepared, 64 clients",
        prepared(syscalls(64, *PREPARED)),
        targets=POOLERS,
        is_once=True,
    ),
    Measure(
        "memory-5000", "memory of 5,000 clients, idle and then all asking", memory(5000), FULL, POOLERS, is_once=True
    ),
    Measure(
        "memory-10000",
        "memory of 10,000 clients, idle and then all asking",
        memory(10_000),
        targets=POOLERS,
        is_once=True,
    ),
)
