"""pgshuttle: a PostgreSQL connection pooler on asyncio and uvloop."""

__version__ = "0.1.0"

COMPATIBLE = "1.25.2"
"""The release of PgBouncer whose outward surface ours follows; what its tools are told."""

VERSION = f"PgBouncer {COMPATIBLE} (pgshuttle {__version__})"
"""Tools look for "PgBouncer" and a number behind it, and choose columns by it; people read the words in brackets."""
