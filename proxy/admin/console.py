"""Placeholder, being written."""

from typing import Any

from protocol import sqlstate
from protocol.errors import Refused


async def converse(inbox: Any, proxy: Any, visitor: Any, address: tuple[str, int]) -> None:
    raise Refused(sqlstate.FEATURE_NOT_SUPPORTED, "the console is not there yet")
