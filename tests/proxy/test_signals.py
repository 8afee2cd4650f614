"""Each signal reaches the method that is meant; what those do is tried in test_main.py, and live."""

import asyncio
import os
import signal

import pytest

from proxy.signals import install_signals
from proxy.states import Leaving


class Proxy:
    def __init__(self):
        self.heard = []

    def on_hangup(self):
        self.heard.append("reload")

    def on_pause(self):
        self.heard.append("pause")

    def on_resume(self):
        self.heard.append("resume")

    def on_leave(self, number, how):
        self.heard.append((number, how))


@pytest.mark.parametrize(
    ("number", "meant"),
    [
        (signal.SIGHUP, "reload"),
        (signal.SIGUSR1, "pause"),
        (signal.SIGUSR2, "resume"),
        (signal.SIGTERM, (signal.SIGTERM, Leaving.WAIT_FOR_CLIENTS)),
        (signal.SIGINT, (signal.SIGINT, Leaving.WAIT_FOR_SERVERS)),
        (signal.SIGQUIT, (signal.SIGQUIT, Leaving.IMMEDIATE)),
    ],
)
def test_a_signal_does_what_is_meant(number, meant):
    async def main():
        proxy = Proxy()
        install_signals(proxy)
        os.kill(os.getpid(), number)
        while not proxy.heard:
            await asyncio.sleep(0.001)
        return proxy.heard

    assert asyncio.run(asyncio.wait_for(main(), 5)) == [meant]
