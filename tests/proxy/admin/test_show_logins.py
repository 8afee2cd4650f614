"""SHOW LOGINS, and what SHOW LISTS says of those who are not in yet."""

import pytest

from protocol import sqlstate
from protocol.errors import Refused
from proxy.config.settings import assign
from tests.proxy.admin.desk import at_desk
from tests.proxy.auth.wire import alone


async def fail(proxy, user, times):
    for _ in range(times):
        with pytest.raises(Refused):
            async with proxy.strangers.guesses.attempt(("10.0.0.7", 1), user, alone()):
                raise Refused(sqlstate.INVALID_PASSWORD, "no")


def test_who_has_failed_is_listed_with_what_awaits_him(tmp_path):
    async def story(proxy, operator):
        proxy.settings = assign(assign(proxy.settings, "auth_failure_delay", "0.01"), "auth_type", "scram-sha-256")
        assert (await operator.ask("SHOW LOGINS")).rows == []
        await fail(proxy, "anna", 5)
        await fail(proxy, "bert", 1)
        proxy.clock.advance(7)
        assert (await operator.ask("SHOW LOGINS")).rows == [
            ("10.0.0.7", "", "4", "0", "0", "593"),
            ("10.0.0.7", "anna", "5", "0.01", "0", "593"),
            ("10.0.0.7", "bert", "1", "0", "0", "593"),
        ]
        lists = dict((await operator.ask("SHOW LISTS")).rows)
        assert (lists["failed_logins"], lists["delayed_logins"], lists["refused_logins"]) == ("6", "1", "0")
        assert (lists["half_open"], lists["half_open_dropped"]) == ("0", "0")

    at_desk(tmp_path, story)
