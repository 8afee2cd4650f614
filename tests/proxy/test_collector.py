"""The collector of cycles, in a process of its own: what it is told holds for all of one."""

import subprocess
import sys

FINDS_CYCLES = """
import gc, weakref
from proxy.collector import THRESHOLDS, YOUNG, settle_in

class Ring:
    def __init__(self):
        self.ring = self

here, old = Ring(), weakref.ref(Ring())
settle_in()
assert old() is None, "what was no use before is gone"
assert gc.isenabled() and gc.get_threshold() == THRESHOLDS
assert gc.get_freeze_count() > 1000 and not any(each is here for each in gc.get_objects()), "looked at no more"
lost = weakref.ref(Ring())
kept = [[] for _ in range(YOUNG + 1)]
assert lost() is None, "a new one is found"
"""

IN_A_MAIN = """
import asyncio, gc
from proxy import __main__ as main

class Proxy:
    def __getattr__(self, name):
        return None
    async def start(self, sockets, inheritance):
        assert not gc.get_freeze_count(), "not before all is there"
    async def wait_gone(self):
        assert gc.get_freeze_count(), "while clients are served"

main.install_signals = lambda proxy: None
asyncio.run(main._run(Proxy(), [], None))
"""


def run(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr


def test_it_finds_cycles_and_does_not_look_at_what_was_there_before() -> None:
    run(FINDS_CYCLES)


def test_it_settles_in_when_the_proxy_is_up() -> None:
    run(IN_A_MAIN)
