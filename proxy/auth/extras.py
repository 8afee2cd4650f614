"""
Libraries that are not always there: each is an extra of the package, and is loaded where it is used.

Theory. At run time we need uvloop and nothing else. What an outside method needs is named in proxy/config/outside.py,
which has said at --check and at start if it is missing; here it is loaded, by name, so that whoever does not use the
method does not have it. What the file at start needs is loaded before the rights of root are given up, which reading it
may take. What a RELOAD needs is loaded when the first client comes to it, aside: it takes a tenth of a second or two,
all of it Python's own work, and queries go on meanwhile.
"""

import importlib
import sys
from collections.abc import Iterable
from typing import Any

from proxy.aside import aside


def load(names: Iterable[str]) -> None:
    """Load these libraries now. ImportError."""
    for name in names:
        importlib.import_module(name)


async def wait_loaded(names: Iterable[str]) -> None:
    """Until all these libraries are loaded, or at once when they are. ImportError."""
    for name in names:
        if name not in sys.modules:
            await aside(importlib.import_module, name)


def library(name: str) -> Any:
    """The library of that name, which is loaded by now; else loading it would stop everybody."""
    return importlib.import_module(name)
