"""
A reload's journey: from the files on disk to the world we live in.

Theory. Everything is read, checked and reckoned first, off the event loop, and swapped in one breath, which is short
also where there are thousands of databases and pools. If anything is wrong the old world stays as it is, and the caller
gets every mistake with file and line. Two reloads at once are one after the other. `preview` stops before the swap. SET
on the console takes the same way with one value changed, and lasts until the next reload.
"""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from proxy.aside import aside
from proxy.auth.rulebook import OF_RULES, Rulebook
from proxy.auth.users import NOBODY, BadUserFile, Users, read_users
from proxy.busy_poll import set_limit
from proxy.config.ini import BadConfig, Config, mistake_at, read
from proxy.config.limits import Limits, resolve
from proxy.config.outside import find_missing
from proxy.config.reload import Changes, compare
from proxy.config.settings import Settings, assign
from proxy.listener import tune_all
from proxy.log import Destination, find_trouble
from proxy.server_tls import retire_all
from proxy.tls import BadTls, Contexts, build_contexts, read_contexts

MOST_WARNINGS: Final = 20  # in the log of one reload


class BadReload(Exception):
    """The files cannot be used; all `mistakes`, with file and line."""

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


@dataclass(frozen=True, slots=True)
class Plan:
    """What a reload will do, reckoned in advance: the limits of all pools there are, and the line for the log."""

    changes: Changes
    limits: Mapping[tuple[str, str], Limits]
    summary: str


@dataclass(frozen=True, slots=True)
class Found:
    """What the files that the settings name hold."""

    users: Users
    tls: Contexts
    rulebook: Rulebook


def make_plan(old: Config, new: Config, pools: Iterable[tuple[str, str]]) -> Plan:
    """`pools` are (database, user); those that are made meanwhile reckon for themselves."""
    changes = compare(old, new)
    limits = {key: resolve(changes.effective, *key) for key in pools}
    return Plan(changes, limits, changes.summary())


class Reloader:
    """One per proxy, whose `config`, `settings` and `users` nobody else replaces."""

    def __init__(self, proxy: Any) -> None:
        self._proxy = proxy
        self.lock = asyncio.Lock()
        self.refused: list[str] = []  # the mistakes for which the last reload has changed nothing
        self.unmet: list[str] = []  # what the last one could not change without a restart

    async def reload(self) -> list[str]:
        """Read the files again. Returns every mistake; then nothing has changed. Empty: the new world is in force."""
        self._proxy.log.reopen()  # whoever rotates logs says SIGHUP or RELOAD, and the file may be wrong
        async with self.lock:
            self._proxy.notifier.reloading()
            try:
                return await self._reload()
            finally:
                self._proxy.notifier.ready()

    async def _reload(self) -> list[str]:
        try:
            plan, found = await self._read()
        except BadReload as bad:
            return self._refuse(bad.mistakes)
        await self._proxy.keeper.warm(found.users.secrets.items())
        self._swap(plan, found)
        self.refused = []
        return []

    async def preview(self) -> tuple[Changes, Found]:
        """What `reload` would change now. BadReload: it would fail. Nothing is changed, and nothing logged."""
        async with self.lock:
            plan, found = await self._read()
            return plan.changes, found

    async def _read(self) -> tuple[Plan, Found]:
        """The files as they are on disk, compared with what is in force."""
        proxy = self._proxy
        try:
            config = await aside(read, proxy.settings.conffile or proxy.config.path)
            await aside(self._check_log, config)
            users = await aside(read_users_of, config)
            tls = await aside(read_contexts, config)
            rulebook = await aside(proxy.gate.read, config.settings)
        except BadConfig as bad:
            raise BadReload([str(mistake) for mistake in bad.mistakes]) from bad
        except BadUserFile as bad:
            raise BadReload(list(bad.mistakes)) from bad
        except BadTls as bad:
            raise BadReload(
                [*bad.mistakes, "TLS configuration could not be reloaded, keeping old configuration"]
            ) from bad
        plan = await aside(make_plan, proxy.config, config, proxy.pools.keys())
        return plan, Found(users, tls, rulebook)

    def _check_log(self, config: Config) -> None:
        """BadConfig: the log is to go where it cannot. (Where it goes already, it may lack a file for a while.)"""
        path = config.settings.logfile
        if path and path != self._proxy.settings.logfile and (trouble := find_trouble(path)):
            raise BadConfig((mistake_at(config, "logfile", f"{path} cannot be opened: {trouble}"),))

    def _refuse(self, mistakes: list[str]) -> list[str]:
        self.refused = mistakes
        for mistake in mistakes:
            self._proxy.log.error(mistake)
        self._proxy.log.error("reload failed, nothing has changed")
        self._proxy.notifier.status(f"reload refused: {mistakes[0]}")
        return mistakes

    def _swap(self, plan: Plan, found: Found) -> None:
        proxy, changes = self._proxy, plan.changes
        proxy.config = changes.effective
        proxy.forget_found()
        proxy.settings = settings = proxy.config.settings
        proxy.log.direct(destination_of(settings, is_quiet=proxy.log.is_quiet))
        proxy.log.level = proxy.find_level()
        is_other_tls = proxy.tls.servers_digest != found.tls.servers_digest
        proxy.users, proxy.tls = found.users, found.tls
        proxy.gate.replace(found.rulebook)
        proxy.outside.forget()
        proxy.lookups.forget()
        proxy.keeper.iterations = settings.scram_iterations
        proxy.cancels.timeout = settings.cancel_wait_timeout
        set_limit(proxy)
        for listener in proxy.listeners:
            tune_all(listener.socket, settings)
        proxy.pools.reconcile(changes, plan.limits)
        if is_other_tls:
            retire_all(proxy.pools)
            proxy.log.log("TLS towards servers has changed: those reached by TCP are replaced")
        proxy.find_warm()
        self._warn(changes)
        proxy.log.log(f"reloaded: {plan.summary}")

    def _warn(self, changes: Changes) -> None:
        log, warnings = self._proxy.log, changes.effective.warnings
        for warning in warnings[:MOST_WARNINGS]:
            log.warning(str(warning))
        if len(warnings) > MOST_WARNINGS:
            log.warning(f"and {len(warnings) - MOST_WARNINGS} warnings more: pgshuttle --check says them all")
        self.unmet = [f"{change}: needs a restart, the old value stays in force" for change in changes.restart]
        for sentence in self.unmet:
            log.warning(sentence)

    async def apply_setting(self, name: str, text: str) -> None:
        """SET on the console: one LIVE setting, until the next reload. ValueError says what is wrong with it."""
        proxy = self._proxy
        async with self.lock:
            settings = assign(proxy.settings, name, text)
            for sentence in find_missing(settings):
                raise ValueError(sentence)
            if name == "logfile" and (trouble := find_trouble(settings.logfile)):
                raise ValueError(f"cannot be opened: {trouble}")
            config = replace(proxy.config, settings=settings, warnings=())
            try:
                users = await aside(read_users_of, config) if name == "auth_file" else proxy.users
                tls = await aside(build_contexts, settings) if "_tls" in name or name == "auth_type" else proxy.tls
                rulebook = await aside(proxy.gate.read, settings) if name in OF_RULES else proxy.gate.rulebook
            except (BadConfig, BadUserFile, BadTls) as bad:
                raise ValueError(str(bad)) from bad
            await proxy.keeper.warm(users.secrets.items())
            plan = await aside(make_plan, proxy.config, config, proxy.pools.keys())
            self._swap(plan, Found(users, tls, rulebook))


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
