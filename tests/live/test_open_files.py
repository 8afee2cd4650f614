"""Running out of file descriptors: said beforehand, survived when it happens, and no processor burnt meanwhile."""

import resource
import time

import pytest

from tests.live.stand import Stand, wait_until
from tests.live.wire import rows, startup

pytestmark = pytest.mark.live

FEW = 60


def lower():
    resource.setrlimit(resource.RLIMIT_NOFILE, (FEW, FEW))


def lower_the_soft_limit():
    resource.setrlimit(resource.RLIMIT_NOFILE, (FEW, 4096))


def test_too_low_a_limit_is_said_at_the_start_with_its_numbers(upstream):
    with Stand(upstream, {"max_client_conn": 5000}, limits=lower) as stand:
        line = stand.wait_log("open files are limited")
        assert str(FEW) in line
        assert "5000" in line


def test_the_soft_limit_is_raised_to_the_hard_one(upstream):
    with Stand(upstream, {"max_client_conn": 500}, limits=lower_the_soft_limit) as stand:
        lines = [stand.raw() for _ in range(FEW + 20)]
        assert rows(lines[-1].ask("select 1")) == [("1",)]
        for line in lines:
            line.close()
        assert "open files are limited" not in stand.log


@pytest.mark.solitary
def test_without_descriptors_accepting_pauses_and_does_not_spin(upstream):
    settings = {"client_login_timeout": 30, "tcp_defer_accept": 0}
    with Stand(upstream, settings, limits=lower) as stand:
        with stand.raw() as inside:
            inside.ask("select 1")
            callers = [stand.call() for _ in range(FEW + 30)]
            stand.wait_log("accepting on .* pauses")
            cpu, start = stand.cpu, time.monotonic()
            while time.monotonic() - start < 1.5:
                assert rows(inside.ask("select 'inside'")) == [("inside",)]
                time.sleep(0.1)
            assert stand.cpu - cpu < 0.4
            assert stand.log.count("pauses for") < 30
            *others, last = callers
            for line in others:
                line.close()
            last.send(startup("app", "postgres"))
            assert last.read_until()[-1].kind == "Z"
            assert rows(last.ask("select 'recovered'")) == [("recovered",)]
            last.close()
        wait_until(lambda: _can_talk(stand), "all is well again")


def _can_talk(stand):
    with stand.raw() as line:
        return rows(line.ask("select 1")) == [("1",)]
