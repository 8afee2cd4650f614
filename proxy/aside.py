"""
Long work of Python beside the event loop: reading a file of 5,000 databases, comparing it with the last one.

Theory. A thread does not keep the event loop from running, but the interpreter's lock changes hands only every five
milliseconds, and a query needs it several times: half a second of parsing would delay each query by ten or twenty. So
as long as such work runs the lock changes hands ten times as often. The price is a few switches more, and only then.
The collector of cycles rests meanwhile: many new objects make it look at all old ones, which stops everybody for as
long as that takes. Not for ever, though: a disk may not answer, and that shall not cost the memory of all others.

What runs aside may look at what never changes (a `Config`, `Users`), and at nothing that the event loop lives by.
"""

import asyncio
import gc
import sys
from collections.abc import Callable
from typing import Final, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

USUAL: Final = 0.005  # seconds; the interpreter's own
SLICE: Final = 0.0005
LONGEST = 10.0  # seconds without the collector


async def aside(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What `work` returns or raises, when a thread has done it."""
    sys.setswitchinterval(SLICE)
    gc.disable()
    patience = asyncio.get_running_loop().call_later(LONGEST, gc.enable)
    try:
        return await asyncio.to_thread(work, *args, **kwargs)
    finally:
        patience.cancel()
        gc.enable()
        sys.setswitchinterval(USUAL)
