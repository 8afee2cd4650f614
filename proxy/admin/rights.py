"""
Who may do what on the console: one table of all commands.

Theory. A command that is not in this table does not exist: `check_right` stands in front of every other room of the
console and refuses what it does not find, so a command added without a thought about its right cannot be given by
anybody. (PgBouncer's KILL_CLIENT lacked its check for years, CVE-2026-6667.) A test reads the table and tries every
command as everybody.

Whoever is in `admin_users` may do everything, whoever is in `stats_users` may look; with auth_type any, under which
names are not checked, everybody may look, but to change something needs a name of `admin_users`, as in PgBouncer.
Whoever comes over the Unix socket from the account that the proxy runs as and calls himself `pgbouncer` or `pgshuttle`
may do everything too (auth/owner.py). The role is asked for anew with each command: a user taken out of `admin_users`
by a reload loses it at once, not at the next login.
"""

import enum
from types import MappingProxyType
from typing import Final

from protocol import sqlstate
from protocol.errors import Refused
from proxy.admin.grammar import Command, invalid
from proxy.config.kinds import AuthType
from proxy.config.settings import Settings


class Right(enum.IntEnum):
    """What a user has, or a command needs."""

    NOTHING = 0  # not even a login
    LOOK = 1  # stats_users
    ADMIN = 2  # admin_users


NOTHING, LOOK, ADMIN = Right

RIGHTS: Final = MappingProxyType(
    {
        "SHOW HELP": LOOK,
        "SHOW CONFIG": LOOK,
        "SHOW DATABASES": LOOK,
        "SHOW POOLS": LOOK,
        "SHOW CLIENTS": LOOK,
        "SHOW SERVERS": LOOK,
        "SHOW USERS": LOOK,
        "SHOW VERSION": LOOK,
        "SHOW PEERS": LOOK,
        "SHOW PEER_POOLS": LOOK,
        "SHOW FDS": ADMIN,
        "SHOW SOCKETS": LOOK,
        "SHOW ACTIVE_SOCKETS": LOOK,
        "SHOW LISTS": LOOK,
        "SHOW MEM": LOOK,
        "SHOW STATE": LOOK,
        "SHOW DNS_HOSTS": LOOK,
        "SHOW DNS_ZONES": LOOK,
        "SHOW STATS": LOOK,
        "SHOW STATS_TOTALS": LOOK,
        "SHOW STATS_AVERAGES": LOOK,
        "SHOW TOTALS": LOOK,
        "SHOW LISTENERS": LOOK,
        "SHOW PINS": LOOK,
        "SHOW HOLDERS": LOOK,
        "SHOW LINES": LOOK,
        "SHOW STATEMENTS": LOOK,
        "SHOW AUDIT": LOOK,
        "SHOW HBA": ADMIN,
        "SHOW LOGINS": LOOK,
        "SET": ADMIN,
        "RESET": ADMIN,
        "RELOAD": ADMIN,
        "RELOAD CHECK": ADMIN,
        "PAUSE": ADMIN,
        "RESUME": ADMIN,
        "DISABLE": ADMIN,
        "ENABLE": ADMIN,
        "RECONNECT": ADMIN,
        "WAIT_CLOSE": ADMIN,
        "KILL": ADMIN,
        "KILL_CLIENT": ADMIN,
        "SUSPEND": ADMIN,
        "SHUTDOWN": ADMIN,
    }
)


def find_right(settings: Settings, user: str, *, is_owner: bool = False) -> Right:
    """What `user`, who has shown who he is, may do. `is_owner`: by the account the proxy itself runs as."""
    if is_owner or user in settings.admin_users:
        return ADMIN
    return LOOK if user in settings.stats_users or settings.auth_type is AuthType.ANY else NOTHING


def check_login(right: Right) -> None:
    """Refused (42501) for somebody who has no business on the console."""
    if right is NOTHING:
        raise Refused(
            sqlstate.INSUFFICIENT_PRIVILEGE,
            "not allowed",
            hint="The console is for users named in admin_users or stats_users.",
        )


def check_right(right: Right, command: Command) -> str:
    """The command's name in the table. Refused: there is no such command, or whoever has `right` may not give it."""
    name = name_of(command)
    if name not in RIGHTS:
        raise invalid(command.text)
    if right < RIGHTS[name]:
        raise Refused(sqlstate.INSUFFICIENT_PRIVILEGE, "admin access needed")
    return name


def name_of(command: Command) -> str:
    """The row a command is in, if there is one: what is shown is part of it."""
    is_check = command.verb == "RELOAD" and command.word.upper() == "CHECK"
    return f"{command.verb} {command.word.upper()}" if command.verb == "SHOW" or is_check else command.verb
