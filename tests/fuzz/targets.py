"""All targets: importing a room's file registers what is in it."""

from tests.fuzz import console, files, logins, sql, streams, wire
from tests.fuzz.registry import TARGETS

__all__ = ["TARGETS", "console", "files", "logins", "sql", "streams", "wire"]
