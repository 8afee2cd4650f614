"""
A real libpq 18 that logs in by OAuth: psycopg's own library, with tokens handed in by PQsetAuthDataHook.

Theory. libpq asks the application for a token when a server wants one, after it has asked the server where tokens are
had. That question to the application is a hook of C, which no driver of Python offers; ctypes does. The library is the
very one psycopg uses, so while the hook is set psycopg logs in by it too.

Source: PostgreSQL 18 docs, "OAuth Support" (libpq).
"""

import ctypes
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg  # noqa: F401 - the library is in memory from here on

BEARER_TOKEN = 1  # PQAUTHDATA_OAUTH_BEARER_TOKEN


class Request(ctypes.Structure):
    """PGoauthBearerRequest."""

    _fields_ = (
        ("openid_configuration", ctypes.c_char_p),
        ("scope", ctypes.c_char_p),
        ("start", ctypes.c_void_p),
        ("cleanup", ctypes.c_void_p),
        ("token", ctypes.c_char_p),
        ("user", ctypes.c_void_p),
    )


_HOOK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(Request))


def find() -> Any:
    """The library that psycopg has loaded; None when it is too old or knows no OAuth."""
    paths = re.findall(r"(/\S*libpq-?\S*\.so\S*)", Path("/proc/self/maps").read_text())
    for path in dict.fromkeys(paths):
        library = ctypes.CDLL(path)
        if "psycopg" in path and "psycopg2" not in path and hasattr(library, "PQsetAuthDataHook"):
            return library
    return None


@contextmanager
def tokens(give: Callable[[str, str], str]) -> Iterator[None]:
    """Within, libpq gets its tokens from `give`, which hears where they are had and which scope is wanted."""
    library = find()

    def hook(kind: int, connection: int, request: Any) -> int:
        if kind != BEARER_TOKEN:
            return 0
        asked = request.contents
        asked.token = give((asked.openid_configuration or b"").decode(), (asked.scope or b"").decode()).encode()
        return 1

    held = _HOOK(hook)
    library.PQsetAuthDataHook(held)
    try:
        yield
    finally:
        library.PQsetAuthDataHook(None)
