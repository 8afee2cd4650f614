"""Mock salts are the same after a restart, and in each process that serves the same."""

from proxy.auth.keys import KeyKeeper
from proxy.auth.mock_key import find_mock_key
from proxy.auth.users import NOBODY
from proxy.config.ini import read
from proxy.main import Proxy
from tests.fakes import FakeClock, FakeLog

KEY = "-----BEGIN PRIVATE KEY-----\n" + "x" * 64
NUMBER = "3d1219c7c4c5404aaa1f6d2a48adfda4\n"


def files(folder, **texts):
    for name, text in texts.items():
        (folder / name).write_text(text)
    return [str(folder / name) for name in ("key", "number")]


def test_it_is_made_of_the_certificates_key_and_else_of_the_machines_number(tmp_path):
    both = files(tmp_path, key=KEY, number=NUMBER)
    with_key = find_mock_key(*both)
    assert with_key == find_mock_key(*both)
    assert find_mock_key(both[0], "nowhere") == with_key
    without = find_mock_key("", both[1])
    assert without == find_mock_key("", both[1]) != with_key
    assert find_mock_key(str(tmp_path / "missing"), both[1]) == without
    files(tmp_path, key=KEY + "y")
    assert find_mock_key(*both) not in (with_key, without)


def test_it_does_not_show_what_it_is_made_of(tmp_path):
    key_file, machine_id = files(tmp_path, key=KEY, number=NUMBER)
    made = find_mock_key(key_file, machine_id)
    assert len(made) == 32
    assert made not in KEY.encode()
    assert NUMBER.strip().encode() not in find_mock_key("", machine_id)


def test_where_there_is_neither_it_is_made_by_chance(tmp_path):
    for text in ("", "uninitialized\n"):
        _, machine_id = files(tmp_path, number=text)
        assert find_mock_key("", machine_id) != find_mock_key("", machine_id)
    assert find_mock_key("", "nowhere") != find_mock_key("", "nowhere")


def test_after_a_restart_nobody_has_the_salt_he_had(tmp_path):
    (tmp_path / "key").write_text(KEY)
    (tmp_path / "proxy.ini").write_text(f"[databases]\n[proxy]\nclient_tls_key_file = {tmp_path / 'key'}\n")
    one, two = (Proxy(read(str(tmp_path / "proxy.ini")), NOBODY, FakeLog(), FakeClock()) for _ in range(2))
    assert one.keeper.mock("nobody") == two.keeper.mock("nobody")
    assert one.keeper.draw("nobody") == two.keeper.draw("nobody")
    assert one.keeper.mock("nobody").salt != KeyKeeper().mock("nobody").salt
