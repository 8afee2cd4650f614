"""What systemd is given: the unit, the sockets, and the settings that the unit starts with."""

import re
import shutil
import subprocess
import sys
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
PROGRAM = "/opt/pgshuttle/bin/pgshuttle"
INI = "/etc/pgshuttle/pgshuttle.ini"


def read_unit(name):
    """Of each section its keys, of each key its values: many may stand more than once."""
    sections, section = defaultdict(lambda: defaultdict(list)), ""
    for line in (DEPLOY / name).read_text().splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and not line.startswith("#"):
            key, is_said, value = line.partition("=")
            assert is_said, line
            sections[section][key].append(value)
    return sections


def read_settings():
    """Of pgshuttle.ini the main section."""
    main = (DEPLOY / "pgshuttle.ini").read_text().split("[databases]")[0]
    return dict(re.findall(r"(?m)^(\w+) = ?(.*)$", main))


@pytest.mark.parametrize("name", ["pgshuttle.service", "pgshuttle.socket", "pgshuttle.ini"])
def test_no_line_is_too_long(name):
    assert max(map(len, (DEPLOY / name).read_text().splitlines())) <= 120


def test_the_unit_is_of_a_type_that_systemd_252_knows_and_is_reloaded_only_when_the_files_are_right():
    service = read_unit("pgshuttle.service")["Service"]
    assert service["Type"] == ["notify"]
    check = f"{PROGRAM} --check {INI}"
    assert service["ExecStartPre"] == [check]
    assert service["ExecStart"] == [f"{PROGRAM} {INI}"]
    assert service["ExecReload"] == [check, "/bin/kill -HUP $MAINPID"]


def test_accounts_at_the_other_end_of_the_unix_socket_are_not_hidden_from_us():
    assert read_unit("pgshuttle.service")["Service"]["PrivateUsers"] == ["no"]


def test_the_folder_of_the_unix_socket_is_the_units_own_and_stays_while_the_socket_is_systemds():
    service = read_unit("pgshuttle.service")["Service"]
    (folder,) = service["RuntimeDirectory"]
    assert read_settings()["unix_socket_dir"] == f"/run/{folder}"
    assert service["RuntimeDirectoryPreserve"] == ["yes"]


def test_systemd_listens_where_we_would():
    listening, settings = read_unit("pgshuttle.socket")["Socket"], read_settings()
    port = settings["listen_port"]
    assert listening["ListenStream"] == [
        f"{settings['listen_addr']}:{port}",
        f"{settings['unix_socket_dir']}/.s.PGSQL.{port}",
    ]


def test_whoever_holds_up_the_end_is_told_before_systemd_kills_us():
    (patience,) = read_unit("pgshuttle.service")["Service"]["TimeoutStopSec"]
    assert 10 <= int(read_settings()["shutdown_timeout"]) <= int(patience) - 5


def test_what_is_installed_is_what_the_unit_names():
    """The recipe at its head."""
    recipe = (DEPLOY / "pgshuttle.service").read_text().split("[Unit]")[0]
    assert f"install -D -m 640 -g pgshuttle deploy/pgshuttle.ini {INI}\n" in recipe
    assert f"install -m 640 -g pgshuttle /dev/null {read_settings()['auth_file']} " in recipe
    assert "--shell /usr/sbin/nologin" in recipe
    sources = re.findall(r"deploy/\S+", recipe)
    assert sources
    assert all((ROOT / source).is_file() for source in sources)


def test_the_settings_have_no_mistake_and_nothing_to_be_warned_about(tmp_path):
    users = tmp_path / "userlist.txt"
    users.write_text('"pgshuttle_admin" "one"\n"pgshuttle_stats" "two"\n"web" "three"\n')
    users.chmod(0o640)
    text = (DEPLOY / "pgshuttle.ini").read_text()
    ini = tmp_path / "pgshuttle.ini"
    ini.write_text(text.replace("/etc/pgshuttle", str(tmp_path)).replace("/run/pgshuttle", str(tmp_path)))
    checked = [sys.executable, "-m", "proxy", "--check", str(ini)]
    done = subprocess.run(checked, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "0 warnings, 0 notes, 0 pieces of advice" in done.stdout


def test_each_setting_says_why():
    lines = (DEPLOY / "pgshuttle.ini").read_text().splitlines()
    for above, line in pairwise(lines):
        if "=" in line and not line.startswith(";"):
            assert above.startswith(";"), line


def test_systemd_has_nothing_to_say_against_either(tmp_path):
    if not shutil.which("systemd-analyze"):
        pytest.skip("no systemd-analyze here")
    files = []
    for name in ("pgshuttle.service", "pgshuttle.socket"):
        files.append(tmp_path / name)
        files[-1].write_text((DEPLOY / name).read_text().replace(PROGRAM, "/bin/true"))  # it wants to see the program
    verify = ["systemd-analyze", "verify", "--man=no", *map(str, files)]
    done = subprocess.run(verify, capture_output=True, text=True, check=False)
    ours = [line for line in (done.stdout + done.stderr).splitlines() if "pgshuttle" in line]  # others' may be worse
    assert ours == []
