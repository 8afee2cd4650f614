"""
SHOW LOGINS: who fails to log in, and how long his next attempt waits.

Theory. A row per address, and per user tried from it, that has failures which are not forgotten (auth/guesses.py);
`user` is empty in those of a whole address. `delay` is what the next attempt waits, in seconds, `waiting` how many wait
now, `forgotten_in` when all is forgotten if nothing more happens. Names come from strangers and are shown as they are,
bounded by what a startup packet takes. PgBouncer has no such table. How many there were in all, and how many
connections were closed before they had logged in, stands in SHOW LISTS.
"""

from collections.abc import Iterator
from typing import Any

from proxy.admin.rows import Table, Value
from proxy.auth.guesses import MEMORY


def show_logins(proxy: Any) -> Table:
    """Addresses first, then their users, each in the order of the last attempt."""
    shape = "address s, user s, failures i, delay s, waiting i, forgotten_in i"
    return Table(shape, _rows(proxy))


def _rows(proxy: Any) -> Iterator[tuple[Value, ...]]:
    now = proxy.clock.now()
    for address, user, record, delay in proxy.strangers.guesses.report():
        left = max(round(MEMORY - (now - record.failed_at)), 0)
        yield address, user, record.failures, f"{delay:g}", record.waiting, left


def list_logins(proxy: Any) -> list[tuple[str, int]]:
    """For SHOW LISTS: those who have not logged in yet, and what came of others so far."""
    strangers = proxy.strangers
    guesses = strangers.guesses
    return [
        ("half_open", len(strangers)),
        ("half_open_dropped", strangers.dropped),
        ("failed_logins", guesses.failed),
        ("delayed_logins", guesses.delayed),
        ("refused_logins", guesses.refused),
    ]
