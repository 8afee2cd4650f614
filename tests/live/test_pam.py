"""Logging in by PAM: real service files under /etc/pam.d, removed afterwards, and a module that hangs."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.extras import give_up
from tests.live.stand import Stand, find_slowest
from tests.live.upstream import PASSWORD
from tests.live.wire import error, sqlstate

FOLDER = Path("/etc/pam.d")

if os.geteuid() != 0 or not FOLDER.is_dir():
    give_up("only root can write a service file under /etc/pam.d")

pytestmark = pytest.mark.live

HOME = {
    "home": f"dbname=postgres user=app password='{PASSWORD.replace(chr(39), chr(39) * 2)}'",
    "own": "dbname=postgres",
}
CHECK = """\
#!/bin/sh
# A program that PAM asks: the password comes on the standard input, and ends with a zero byte.
read -r password
[ "$PAM_USER" = slow ] && sleep 30
[ "$PAM_USER@$PAM_RHOST/$PAM_TYPE" = "anna@127.0.0.1/auth" ] && [ "$password" = swordfish ]
"""

Service = Callable[[str], str]


@pytest.fixture(name="service")
def _service() -> Iterator[Service]:
    """Writes a service file, and gives its name."""
    written: list[Path] = []

    def write(text: str) -> str:
        path = FOLDER / f"pgshuttle-test-{os.getpid()}-{len(written)}"
        path.write_text(text)
        written.append(path)
        return path.name

    yield write
    for path in written:
        path.unlink()


@pytest.fixture(name="program")
def _program(tmp_path_factory: Any) -> Iterator[str]:
    """The path of the program that knows anna's password; everybody may run it."""
    path = Path("/tmp") / f"pgshuttle-test-pam-{os.getpid()}"
    path.write_text(CHECK)
    path.chmod(0o755)
    yield str(path)
    path.unlink()


def a_stand(upstream: Any, name: str, **settings: object) -> Stand:
    said = {"auth_type": "pam", "auth_file": "", "pam_service": name, "auth_failure_delay": 0} | settings
    return Stand(upstream, said, databases=HOME)


def log_in(stand: Stand, user: str, password: str, seconds: float = 15.0) -> str:
    """The SQLSTATE of the refusal, or nothing."""
    with stand.call(seconds) as line:
        return sqlstate(line.login(user, "home", password))


@pytest.mark.solitary
def test_a_program_that_pam_asks_decides(upstream, service, program):
    name = service(f"auth required pam_exec.so quiet expose_authtok {program}\naccount required pam_permit.so\n")
    with a_stand(upstream, name) as stand:
        with stand.connect("anna", "home", password="swordfish") as connection:
            assert connection.execute("select current_user").fetchone() == ("app",)
        for user, password in (("anna", "very secret"), ("anna", ""), ("bert", "swordfish"), ("Anna", "swordfish")):
            started = time.monotonic()
            with stand.call() as line:
                refusal = error(line.login(user, "home", password))
            assert (refusal["C"], refusal["M"]) == ("28P01", f'password authentication failed for user "{user}"')
            assert time.monotonic() - started < 1.5  # without PAM's own delay
        stand.wait_log("login failed: db=home user=bert")
        assert "swordfish" not in stand.log
        assert "very secret" not in stand.log


def test_the_account_must_be_in_order_too(upstream, service):
    with a_stand(upstream, service("auth required pam_permit.so\naccount required pam_permit.so\n")) as stand:
        assert log_in(stand, "anna", "anything") == ""
        stand.settings["pam_service"] = service("auth required pam_permit.so\naccount required pam_deny.so\n")
        stand.reload()
        assert log_in(stand, "anna", "anything") == "28P01"
        stand.settings["pam_service"] = service("auth required pam_deny.so\naccount required pam_permit.so\n")
        stand.reload()
        assert log_in(stand, "anna", "anything") == "28P01"


def test_a_service_that_is_not_there_or_broken_lets_nobody_in(upstream, service):
    with a_stand(upstream, "pgshuttle-test-nowhere") as stand:
        assert log_in(stand, "anna", "anything") in ("28000", "28P01")  # as /etc/pam.d/other decides
        stand.settings["pam_service"] = service("auth required pam_of_nowhere.so\naccount required pam_permit.so\n")
        stand.reload()
        assert log_in(stand, "anna", "anything") == "28000"
        stand.settings["pam_service"] = "../pam.d/x"
        assert "reload failed" in stand.reload()


def test_a_module_that_hangs_holds_up_few_and_no_query(upstream, service, program):
    name = service(f"auth required pam_exec.so quiet expose_authtok {program}\naccount required pam_permit.so\n")
    with a_stand(upstream, name) as stand, stand.call(60.0) as inside:
        inside.login("anna", "home", "swordfish")
        said: list[str] = []

        def call() -> None:
            said.append(log_in(stand, "slow", "x", seconds=60.0))

        callers = [threading.Thread(target=call) for _ in range(7)]  # one less than there are threads
        for caller in callers:
            caller.start()
        assert find_slowest(inside, seconds=2.0) < 2.0  # the module hangs for 30 s
        assert log_in(stand, "anna", "swordfish") == ""
        for caller in callers:
            caller.join(60)
        assert said == ["28000"] * 7
        stand.wait_log("no answer within 20 s")


def test_the_users_own_password_opens_his_servers(upstream, service, admin):
    """As in PgBouncer: where PostgreSQL knows the same users by the same passwords, no password is written anywhere."""
    admin.execute("drop role if exists anna")
    admin.execute("create role anna login password 'swordfish'")
    try:
        name = service("auth required pam_permit.so\naccount required pam_permit.so\n")
        with a_stand(upstream, name) as stand, stand.call() as line:
            line.login("anna", "own", "swordfish")
            assert line.value("select current_user") == "anna"
    finally:
        admin.execute("drop role anna")
