"""A reload is all or nothing: one that is refused leaves everything as it was, and says why."""

import asyncio
import json

import pytest

from proxy.config.settings import Settings
from proxy.log import Destination, Log
from proxy.places import Endpoint
from proxy.reloading import MOST_WARNINGS, destination_of
from proxy.states import LINKED, Closing
from tests.certificates import Authority
from tests.whole import INI, a_client, a_pool, a_proxy


@pytest.fixture(name="path")
def _path(tmp_path):
    file = tmp_path / "proxy.ini"
    file.write_text(INI)
    return file


def test_a_reload_that_is_refused_changes_nothing_and_says_why(path):
    async def main():
        proxy = a_proxy(path)
        config, users, pool = proxy.config, proxy.users, a_pool(proxy)
        path.write_text(INI + "default_pool_size = many\nno_such_thing = 1\n")
        mistakes = await proxy.reload()
        assert len(mistakes) == 2
        assert all(f"{path}:" in mistake for mistake in mistakes)
        assert (proxy.config, proxy.users) == (config, users)
        assert pool.limits.pool_size == 20
        assert "nothing has changed" in proxy.log.text

    asyncio.run(main())


def test_a_missing_file_of_users_refuses_a_reload_as_well(path):
    async def main():
        proxy = a_proxy(path)
        path.write_text(INI + "auth_file = /nowhere/users.txt\ndefault_pool_size = 5\n")
        assert await proxy.reload()
        assert proxy.settings.default_pool_size == 20

    asyncio.run(main())


def test_a_reload_takes_effect_as_a_whole(path):
    async def main():
        proxy = a_proxy(path)
        pool, client = a_pool(proxy), a_client(proxy)
        path.write_text(INI + "default_pool_size = 5\nlisten_port = 7000\n")
        assert await proxy.reload() == []
        assert pool.limits.pool_size == 5
        assert proxy.settings.listen_port == 6432
        assert "needs a restart" in proxy.log.text
        assert client in pool.clients

    asyncio.run(main())


def test_a_reload_without_the_database_lets_its_clients_go(path):
    async def main():
        proxy = a_proxy(path)
        client = a_client(proxy)
        path.write_text(INI.replace("shop", "other"))
        assert await proxy.reload() == []
        assert proxy.client_count == 0
        assert Closing.DATABASE_GONE.value in proxy.log.text
        assert client.transport.is_closing()

    asyncio.run(main())


def test_a_reload_takes_the_log_to_where_the_file_says(path, tmp_path):
    async def main():
        proxy = a_proxy(path)
        proxy.log = Log(None, quiet=True)
        log = tmp_path / "log"
        path.write_text(INI + f"logfile = {log}\nlog_format = json\nverbose = 1\n")
        assert await proxy.reload() == []
        proxy.log.debug("told")
        proxy.log.close()
        return [json.loads(line)["text"] for line in log.read_text().splitlines()]

    texts = asyncio.run(main())
    assert texts[0].startswith("reloaded: ")
    assert texts[-1] == "told"


def test_the_settings_of_syslog_are_those_of_the_file():
    settings = Settings(logfile="", syslog=True, syslog_facility="local3", syslog_ident="shop")
    destination = destination_of(settings, is_quiet=True)
    assert destination == Destination(None, is_quiet=True, facility="local3", ident="shop")
    assert not destination.has_stderr
    assert destination_of(Settings(logfile="x"), is_quiet=False).facility is None


def test_of_many_warnings_the_log_says_some_and_how_many_more(path):
    async def main():
        proxy = a_proxy(path)
        names = "".join(f"db{number} = host=h reserve_pool=1\n" for number in range(MOST_WARNINGS + 5))
        path.write_text(INI.replace("[databases]\n", "[databases]\n" + names))
        assert await proxy.reload() == []
        assert proxy.log.text.count("old name") == MOST_WARNINGS
        assert "and 5 warnings more: pgshuttle --check says them all" in proxy.log.text

    asyncio.run(main())


def test_a_pool_whose_limits_stay_is_not_touched(path, monkeypatch):
    async def main():
        proxy = a_proxy(path)
        pool, limits = a_pool(proxy), []
        monkeypatch.setattr(type(pool), "set_limits", lambda _, new: limits.append(new))
        path.write_text(INI + "log_stats = 0\n")
        assert await proxy.reload() == []
        assert limits == []
        path.write_text(INI + "query_timeout = 9\n")
        assert await proxy.reload() == []
        assert [each.query_timeout for each in limits] == [9.0]

    asyncio.run(main())


def test_a_bad_set_of_tls_files_refuses_the_whole_reload_and_keeps_the_old_set(path):
    async def main():
        proxy = a_proxy(path)
        tls, text = proxy.tls, INI + "server_tls_ca_file = /nowhere/ca.crt\ndefault_pool_size = 5\n"
        path.write_text(text)
        line = text.split("\n").index("server_tls_ca_file = /nowhere/ca.crt") + 1
        assert await proxy.reload() == [
            f"{path}:{line}: server_tls_ca_file: /nowhere/ca.crt: cannot be read: No such file or directory",
            "TLS configuration could not be reloaded, keeping old configuration",
        ]
        assert (proxy.tls, proxy.settings.default_pool_size) == (tls, 20)
        assert "nothing has changed" in proxy.log.text

    asyncio.run(main())


def test_each_reload_builds_its_contexts_anew_since_files_may_have_changed_under_their_names(path):
    async def main():
        proxy = a_proxy(path)
        before = proxy.tls.for_servers
        assert await proxy.reload() == []
        assert proxy.tls.for_servers is not before

    asyncio.run(main())


def test_a_setting_of_tls_that_cannot_be_kept_is_not_set(path):
    async def main():
        proxy = a_proxy(path)
        tls = proxy.tls
        with pytest.raises(ValueError, match="server_tls_ciphers: OpenSSL knows none of these"):
            await proxy.reloader.apply_setting("server_tls_ciphers", "nonsense")
        assert proxy.tls is tls
        await proxy.reloader.apply_setting("server_tls_sslmode", "disable")
        assert proxy.tls.for_servers is None

    asyncio.run(main())


class Reached:
    """A server behind TCP, in use."""

    endpoint = Endpoint("127.0.0.1", 1)
    doomed = None


def test_servers_behind_tcp_are_replaced_when_what_tls_is_made_of_has_changed_and_only_then(path, tmp_path):
    async def main():
        authority = Authority(tmp_path)
        ca = tmp_path / "ca.crt"
        ca.write_bytes(authority.cert.read_bytes())
        path.write_text(INI + f"server_tls_ca_file = {ca}\n")
        proxy = a_proxy(path)
        pool = a_pool(proxy)
        server = Reached()
        pool.places[LINKED][server] = None

        assert await proxy.reload() == []
        assert server.doomed is None
        ca.write_bytes(ca.read_bytes() * 2)
        assert await proxy.reload() == []
        assert server.doomed is Closing.STALE
        assert "TLS towards servers has changed" in proxy.log.text

        server.doomed = None
        await proxy.reloader.apply_setting("server_tls_sslmode", "disable")
        assert server.doomed is Closing.STALE

    asyncio.run(main())


def test_a_log_that_cannot_be_opened_refuses_a_reload_at_its_line(path, tmp_path):
    async def main():
        proxy = a_proxy(path)
        path.write_text(INI + f"default_pool_size = 5\nlogfile = {tmp_path}/nowhere/log\n")
        line = path.read_text().splitlines().index(f"logfile = {tmp_path}/nowhere/log") + 1
        (mistake,) = await proxy.reload()
        assert mistake == (
            f"{path}:{line}: logfile: {tmp_path}/nowhere/log cannot be opened: there is no folder {tmp_path}/nowhere"
        )
        assert proxy.settings.default_pool_size == 20
        assert proxy.reloader.refused == [mistake]
        with pytest.raises(ValueError, match="cannot be opened: there is no folder"):
            await proxy.reloader.apply_setting("logfile", f"{tmp_path}/nowhere/log")

    asyncio.run(main())


def test_what_was_refused_is_remembered_until_a_reload_succeeds_and_told_to_systemd(path, monkeypatch):
    async def main():
        proxy, told = a_proxy(path), []
        monkeypatch.setattr(type(proxy.notifier), "status", lambda _, sentence: told.append(sentence))
        path.write_text(INI + "no_such_thing = 1\n")
        mistakes = await proxy.reload()
        assert proxy.reloader.refused == mistakes
        assert told == [f"reload refused: {mistakes[0]}"]
        path.write_text(INI)
        assert await proxy.reload() == []
        assert proxy.reloader.refused == []

    asyncio.run(main())


def test_a_reload_that_is_refused_opens_the_log_again_all_the_same_and_only_once(path, monkeypatch):
    async def main():
        proxy, opened = a_proxy(path), []
        monkeypatch.setattr(type(proxy.log), "reopen", lambda _: opened.append("again"))
        path.write_text(INI + "no_such_thing = 1\n")
        proxy.on_hangup()
        while not proxy.reloader.refused:
            await asyncio.sleep(0.01)
        assert opened == ["again"]

    asyncio.run(main())
