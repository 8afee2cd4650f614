"""The compose file: who is started, what is mounted, and that no password breaks the files that are made of it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from proxy.auth.users import read_users

DEPLOY = Path(__file__).parents[2] / "deploy"
PASSWORDS = ["plain", 'a"b""', r"a\b\\", "a:b", "$HOME `id` $(id)", "%s %d", "an 'end' & more", "pä/ß", "-n", "#;"]


@pytest.fixture(name="services", scope="module")
def _services():
    yaml = pytest.importorskip("yaml")
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]


def run_command(service, replaced, environ):
    """What the container would do, with other paths; what it would become says its environment instead."""
    (command,) = service["command"]
    for here, there in {"$$": "$", **replaced}.items():
        assert here in command
        command = command.replace(here, there)
    done = [*service["entrypoint"], re.sub(r"(?m)^exec .*", f"exec {sys.executable} -c ''", command)]
    return subprocess.run(done, env={"PATH": "/usr/bin:/bin", **environ}, capture_output=True, text=True, check=True)


def write_list(services, tmp_path, **passwords):
    path = tmp_path / "userlist.txt"
    run_command(services["pgshuttle"], {"/etc/pgshuttle/userlist.txt": str(path)}, passwords)
    return path


@pytest.mark.parametrize("password", PASSWORDS)
def test_the_user_list_holds_every_password_as_it_is(services, tmp_path, password):
    path = write_list(services, tmp_path, POSTGRES_PASSWORD=password, PGSHUTTLE_ADMIN_PASSWORD=password + "2")
    users = read_users(str(path))
    assert {user: users.password_of(user).reveal() for user in users.secrets} == {
        "postgres": password,
        "pgshuttle_admin": password + "2",
    }
    assert path.stat().st_mode & 0o777 == 0o600


def test_without_a_password_for_him_there_is_no_administrator(services, tmp_path):
    path = write_list(services, tmp_path, POSTGRES_PASSWORD="x", PGSHUTTLE_ADMIN_PASSWORD="")
    assert list(read_users(str(path)).secrets) == ["postgres"]


def test_the_proxy_is_the_first_process_and_does_not_get_the_passwords(services):
    lines = services["pgshuttle"]["command"][0].splitlines()
    assert lines[-2:] == [
        "unset POSTGRES_PASSWORD PGSHUTTLE_ADMIN_PASSWORD",
        "exec /opt/pgshuttle/bin/pgshuttle /settings/container.ini",
    ]


@pytest.mark.parametrize("password", PASSWORDS)
def test_the_password_file_of_pgadmin_holds_every_password_as_it_is(services, tmp_path, password):
    path = tmp_path / "pgpass"
    run_command(services["pgadmin"], {"/tmp/pgpass": str(path)}, {"POSTGRES_PASSWORD": password})
    (line,) = path.read_text().splitlines()
    fields = re.findall(r"((?:\\.|[^\\:])*)(?::|$)", line)[:5]  # docs: The Password File
    assert [re.sub(r"\\(.)", r"\1", field) for field in fields] == ["*", "*", "*", "postgres", password]
    assert path.stat().st_mode & 0o777 == 0o600


def test_pgadmin_which_asks_for_no_login_is_started_only_by_who_asks_for_it(services):
    assert services["pgadmin"]["profiles"] == ["pgadmin"]
    assert not any("profiles" in services[name] for name in ("postgres", "pgshuttle"))


def test_every_port_is_open_to_this_machine_only(services):
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_nothing_is_mounted_but_what_is_needed(services):
    mounted = [volume for service in services.values() for volume in service.get("volumes", []) if volume[0] == "."]
    assert mounted == ["./container:/settings:ro", "./servers.json:/pgadmin4/servers.json:ro"]
    assert [path.name for path in (DEPLOY / "container").iterdir()] == ["container.ini"]


def test_the_settings_name_the_list_that_is_written_and_no_administrator_whom_applications_are(services):
    said = dict(re.findall(r"(?m)^(\w+) = ?(.*)$", (DEPLOY / "container" / "container.ini").read_text()))
    assert f"> {said['auth_file']}\n" in services["pgshuttle"]["command"][0]
    assert said["admin_users"] == "pgshuttle_admin"


def test_whoever_holds_up_the_end_is_told_before_docker_kills_us(services):
    said = dict(re.findall(r"(?m)^(\w+) = ?(.*)$", (DEPLOY / "container" / "container.ini").read_text()))
    assert 10 <= int(said["shutdown_timeout"]) <= int(services["pgshuttle"]["stop_grace_period"].removesuffix("s")) - 5
