"""
The auth_file is followed: whoever is written into it can log in a moment later, without a RELOAD.

Theory. Once a second the file is looked at, and read when it is another one than that in force (by place, size, rights
and time of change, as PgBouncer does). It must have been the same at the last look too: a file that is being written is
half a file, and half of the users would be locked out. Looking and reading are done in a thread: a file may lie on a
disk that does not answer.

A file with mistakes, or none, changes nothing; the log says so once, and again when there is another one. What a RELOAD
reads counts as looked at; only one of the two is at work at a time.
"""

import asyncio
from typing import Any, Final

from proxy.aside import aside
from proxy.auth.users import BadUserFile, Users, read_users
from proxy.config.files import identify

EVERY: Final = 1.0  # seconds


class UserFile:
    """One per proxy."""

    def __init__(self, proxy: Any) -> None:
        self._proxy = proxy
        self._last: tuple[int, ...] | None = None  # what it was at the last look
        self._refused: tuple[int, ...] | None = None  # what has been complained about

    async def run(self) -> None:
        await self._proxy.tasks.repeat(EVERY, self.look, "following the auth_file")

    async def look(self) -> None:
        """Read the file if it is another one, and was so a moment ago."""
        path = self._proxy.settings.auth_file
        if not path:
            return
        found = await asyncio.to_thread(identify, path)
        is_settled, self._last = found == self._last, found
        if is_settled and found not in (self._proxy.users.seen, self._refused):
            async with self._proxy.reloader.lock:
                if path == self._proxy.settings.auth_file:
                    await self._read(path, found)

    async def _read(self, path: str, found: tuple[int, ...]) -> None:
        try:
            users = await aside(read_users, path)
        except BadUserFile as bad:
            self._refused = found
            for mistake in bad.mistakes:
                self._proxy.log.error(mistake)
            self._proxy.log.error("the auth_file is not usable, the users stay as they were")
            return
        self._refused = None
        await self._proxy.keeper.warm(users.secrets.items())
        self._swap(path, users)

    def _swap(self, path: str, users: Users) -> None:
        before, self._proxy.users = self._proxy.users, users
        self._proxy.find_warm()
        self._proxy.log.log(f"{path} has changed: {_describe(before, users)}")


def _describe(old: Users, new: Users) -> str:
    """How many users came, went, and have other secrets."""
    added = len(new.secrets.keys() - old.secrets.keys())
    removed = len(old.secrets.keys() - new.secrets.keys())
    changed = sum(user in old.secrets and old.secrets[user] != stored for user, stored in new.secrets.items())
    count = f"{len(new)} user" if len(new) == 1 else f"{len(new)} users"
    return f"{count}, {added} added, {removed} removed, {changed} with another secret"
