"""
Which signal means what.

Theory. As in PgBouncer since 1.23: those that end us differ in whom they wait for, and a second one of them waits for
nobody; the others do what a command on the console does. What they do is done in the event loop, between two of its
turns, and not where the signal happens to arrive; so it is as safe as if somebody had typed it.
"""

import asyncio
import signal
from collections.abc import Callable
from typing import Any

from proxy.states import Leaving


def install_signals(proxy: Any) -> None:
    """HUP reload, TERM wait for clients, INT wait for servers, QUIT at once, USR1 pause, USR2 resume."""
    loop = asyncio.get_running_loop()
    handlers: dict[signal.Signals, Callable[[], None]] = {
        signal.SIGHUP: proxy.on_hangup,
        signal.SIGTERM: lambda: proxy.on_leave(signal.SIGTERM, Leaving.WAIT_FOR_CLIENTS),
        signal.SIGINT: lambda: proxy.on_leave(signal.SIGINT, Leaving.WAIT_FOR_SERVERS),
        signal.SIGQUIT: lambda: proxy.on_leave(signal.SIGQUIT, Leaving.IMMEDIATE),
        signal.SIGUSR1: proxy.on_pause,
        signal.SIGUSR2: proxy.on_resume,
    }
    for number, handler in handlers.items():
        loop.add_signal_handler(number, handler)
