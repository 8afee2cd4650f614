"""
A reload's journey: from the files on disk to the world we live in.

Theory. Everything is read and checked first, off the event loop, and swapped in one breath. If anything is wrong the
old world stays as it is, and the caller gets every mistake with file and line. Two reloads at once are one after the
other. `preview` stops before the swap. SET on the console takes the same way with one value changed, and lasts until
the next reload.
"""

import asyncio
from dataclasses import replace
from typing import Any

from proxy.auth.users import NOBODY, BadUserFile, Users, read_users
from proxy.config.ini import BadConfig, Config, read, why_unsafe
from proxy.config.reload import Changes, compare
from proxy.config.settings import Settings, assign
from proxy.listener import tune_all
from proxy.log import Destination


class BadReload(Exception):
    """The files cannot be used; all `mistakes`, with file and line."""

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


class Reloader:
    """One per proxy, whose `config`, `settings` and `users` nobody else replaces."""

    def __init__(self, proxy: Any) -> None:
        self._proxy = proxy
        self._lock = asyncio.Lock()

    async def reload(self) -> list[str]:
        """Read the files again. Returns every mistake; then nothing has changed. None: the new world is in force."""
        async with self._lock:
            self._proxy.notifier.reloading()
            try:
                return await self._reload()
            finally:
                self._proxy.notifier.ready()

    async def _reload(self) -> list[str]:
        try:
            changes, users = await self._read()
        except BadReload as bad:
            return self._refuse(bad.mistakes)
        await self._proxy.keeper.warm(users.secrets.items())
        self._swap(changes, users)
        self._proxy.log.reopen()  # whoever rotates logs may say RELOAD instead of SIGHUP
        return []

    async def preview(self) -> tuple[Changes, Users]:
        """What `reload` would change now. BadReload: it would fail. Nothing is changed, and nothing logged."""
        async with self._lock:
            return await self._read()

    async def _read(self) -> tuple[Changes, Users]:
        """The files as they are on disk, compared with what is in force."""
        proxy = self._proxy
        try:
            config = await asyncio.to_thread(read, proxy.settings.conffile or proxy.config.path)
            users = await asyncio.to_thread(read_users_of, config)
        except BadConfig as bad:
            raise BadReload([str(mistake) for mistake in bad.mistakes]) from bad
        except BadUserFile as bad:
            raise BadReload(list(bad.mistakes)) from bad
        return compare(proxy.config, config), users

    def _refuse(self, mistakes: list[str]) -> list[str]:
        for mistake in mistakes:
            self._proxy.log.error(mistake)
        self._proxy.log.error("reload failed, nothing has changed")
        return mistakes

    def _swap(self, changes: Changes, users: Users) -> None:
        proxy = self._proxy
        proxy.config = changes.effective
        proxy.forget_found()
        proxy.settings = settings = proxy.config.settings
        proxy.log.direct(destination_of(settings, is_quiet=proxy.log.is_quiet))
        proxy.log.level = proxy.find_level()
        proxy.users = users
        proxy.keeper.iterations = settings.scram_iterations
        proxy.cancels.timeout = settings.cancel_wait_timeout
        for listener in proxy.listeners:
            tune_all(listener.socket, settings)
        proxy.pools.reconcile(changes)
        proxy.find_warm()
        for warning in proxy.config.warnings:
            proxy.log.warning(str(warning))
        for change in changes.restart:
            proxy.log.warning(f"{change}: needs a restart, the old value stays in force")
        proxy.log.log(f"reloaded: {changes.summary()}")

    async def apply_setting(self, name: str, text: str) -> None:
        """SET on the console: one LIVE setting, until the next reload. ValueError says what is wrong with it."""
        proxy = self._proxy
        async with self._lock:
            settings = assign(proxy.settings, name, text)
            if sentence := why_unsafe(name, getattr(settings, name)):
                raise ValueError(sentence)
            config = replace(proxy.config, settings=settings, warnings=())
            try:
                users = await asyncio.to_thread(read_users_of, config) if name == "auth_file" else proxy.users
            except BadUserFile as bad:
                raise ValueError(str(bad)) from bad
            await proxy.keeper.warm(users.secrets.items())
            self._swap(compare(proxy.config, config), users)


def destination_of(settings: Settings, *, is_quiet: bool) -> Destination:
    """Where the settings want the log; `is_quiet`: the command line wants nothing on stderr."""
    return Destination(
        settings.logfile or None,
        is_quiet=is_quiet,
        format=settings.log_format,
        facility=settings.syslog_facility if settings.syslog else None,
        ident=settings.syslog_ident,
    )


def read_users_of(config: Config) -> Users:
    """The users of the configured auth_file; nobody when none is named. BadUserFile."""
    return read_users(config.settings.auth_file) if config.settings.auth_file else NOBODY
