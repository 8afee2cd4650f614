"""All targets: importing a room's file registers what is in it."""

from tests.fuzz import callers, console, files, logins, sql, streams, wire
from tests.fuzz.registry import TARGETS

__all__ = ["TARGETS", "callers", "console", "files", "logins", "sql", "streams", "wire"]
