"""
Whose rows: a SHOW narrowed to one database.

Theory. SHOW CLIENTS and its kin may be followed by the name of a database, and then show its rows alone; the console is
one of them. A name that nobody has is an error, never an empty answer, which would look as if all were well: known are
the entries of the file, and what `*` serves once somebody has asked for it, as SHOW DATABASES lists them.
"""

from typing import Any

from protocol import sqlstate
from protocol.errors import Refused
from proxy.config.entries import CONSOLES, FALLBACK


def list_databases(proxy: Any) -> list[str]:
    """Those with an entry of their own, then those served by `*` that somebody has asked for, paused or disabled."""
    config, pools = proxy.config, proxy.pools
    named = [name for name in config.databases if name != FALLBACK]
    return [*named, *sorted({*pools.databases(), *pools.paused, *proxy.disabled} - config.databases.keys())]


def check_known(proxy: Any, database: str) -> None:
    """Refused (3D000): there is no such database, and nobody has asked for it."""
    if database in CONSOLES or database in proxy.config.databases or database in list_databases(proxy):
        return
    raise Refused(
        sqlstate.INVALID_CATALOG,
        f"no such database: {database}",
        hint="SHOW DATABASES lists them.",
    )


def pools_of(proxy: Any, database: str) -> list[Any]:
    """The pools of it, of all if it is ""."""
    return [pool for pool in proxy.pools if not database or pool.database == database]


def tunnels_of(proxy: Any, database: str) -> list[Any]:
    return [tunnel for tunnel in proxy.pools.tunnels if not database or tunnel.pool.database == database]


def consoles_of(proxy: Any, database: str) -> list[Any]:
    """The operators at the console, if its rows are wanted."""
    return list(proxy.consoles) if is_console_meant(database) else []


def is_console_meant(database: str) -> bool:
    return not database or database in CONSOLES
