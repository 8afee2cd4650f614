"""The auth_file is followed without a RELOAD."""

import asyncio
import os

import pytest

from proxy.auth.users import read_users
from proxy.reloading import read_users_of
from proxy.userfile import UserFile
from tests.whole import INI, a_proxy


class Desk:
    """A proxy, its auth_file, and who follows it."""

    def __init__(self, folder):
        self.path = folder / "users"
        self.write('"ann" "x"\n')
        (folder / "proxy.ini").write_text(INI + f"auth_file = {self.path}\n")
        self.proxy = a_proxy(folder / "proxy.ini")
        self.proxy.users = read_users_of(self.proxy.config)
        self.follower = UserFile(self.proxy)

    def write(self, text):
        """Each time it is another file, however fast the test."""
        (self.path.parent / "new").write_text(text)
        os.replace(self.path.parent / "new", self.path)

    def look(self, times=2):
        async def main():
            for _ in range(times):
                await self.follower.look()

        asyncio.run(main())
        return sorted(self.proxy.users.secrets)

    @property
    def log(self):
        return self.proxy.log.text


@pytest.fixture(name="desk")
def _desk(tmp_path):
    return Desk(tmp_path)


def test_who_is_written_into_the_file_is_known_a_moment_later(desk):
    assert desk.look() == ["ann"]
    assert "has changed" not in desk.log
    desk.write('"bob" "y"\n"ann" "z"\n')
    assert desk.look() == ["ann", "bob"]
    assert "has changed: 2 users, 1 added, 0 removed, 1 with another secret" in desk.log
    desk.look(5)
    assert desk.log.count("has changed") == 1


def test_a_file_that_is_being_written_is_left_alone(desk):
    desk.look()
    desk.write("")
    assert desk.look(1) == ["ann"]
    desk.write('"bob" "y"\n')
    assert desk.look(1) == ["ann"]
    assert desk.look(1) == ["bob"]


def test_a_file_with_mistakes_changes_nothing_and_is_complained_about_once(desk):
    desk.write('"bob" "y"\nbroken\n')
    assert desk.look(5) == ["ann"]
    assert desk.log.count(f"{desk.path}:2: ") == 1
    assert desk.log.count("the users stay as they were") == 1
    desk.write('"bob" "y"\n')
    assert desk.look() == ["bob"]


def test_a_file_that_vanishes_changes_nothing_and_comes_back(desk):
    desk.path.unlink()
    assert desk.look(3) == ["ann"]
    assert desk.log.count("cannot be read: No such file") == 1
    desk.write('"bob" "y"\n')
    assert desk.look() == ["bob"]
    desk.path.unlink()
    assert desk.look(3) == ["bob"]
    assert desk.log.count("cannot be read: No such file") == 2


def test_what_a_reload_has_read_is_not_read_again(desk):
    desk.write('"bob" "y"\n')
    desk.proxy.users = read_users(str(desk.path))
    assert desk.look() == ["bob"]
    assert "has changed" not in desk.log


def test_without_an_auth_file_nothing_is_looked_at(tmp_path):
    (tmp_path / "proxy.ini").write_text(INI)
    proxy = a_proxy(tmp_path / "proxy.ini")
    asyncio.run(UserFile(proxy).look())
    assert len(proxy.users) == 0


def test_it_goes_on_after_a_stumble(desk, monkeypatch):
    looks = []

    async def stumble():
        looks.append(1)
        raise RuntimeError("not like this")

    async def main():
        task = asyncio.ensure_future(desk.follower.run())
        while len(looks) < 3:
            await asyncio.sleep(0)
        task.cancel()

    monkeypatch.setattr("proxy.userfile.EVERY", 0.0)
    desk.follower.look = stumble
    asyncio.run(main())
    assert "not like this" in desk.log
