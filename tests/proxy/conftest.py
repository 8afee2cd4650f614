"""What tests over a real pair of sockets have in common: both event loops, and somebody who signs certificates."""

import asyncio

import pytest
import uvloop

from tests.certificates import Authority

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(params=LOOPS, name="run")
def _run(request):
    def run(conversation):
        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            return runner.run(asyncio.wait_for(conversation, 10))

    return run


@pytest.fixture(scope="module", name="authority")
def _authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("certificates"))
