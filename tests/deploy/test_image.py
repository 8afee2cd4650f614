"""The Dockerfile, as far as it can be read without an engine; tests/live/test_container.py runs what it makes."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LDAP_NEEDS = ("libldap-dev", "ldap-utils")  # to build it, to run it


def read_instructions():
    """Each of the Dockerfile as (word, rest), lines joined."""
    text = re.sub(r"(?m)^#.*\n", "", (ROOT / "deploy" / "Dockerfile").read_text()).replace("\\\n", "")
    return [tuple(line.split(maxsplit=1)) for line in text.splitlines() if line]


def run_all(folder, extras):
    """The RUN instructions with programs that only say what they were asked for."""
    programs = folder / "programs"
    programs.mkdir()
    for name in ("apt-get", "pip", "python3", "rm"):
        (programs / name).write_text(f'#!/bin/sh\necho "{name} $*"\n')
        (programs / name).chmod(0o755)
    script = "\n".join(rest for word, rest in read_instructions() if word == "RUN")
    script = script.replace("/opt/pgshuttle/bin/", "").replace("/var/lib/apt/lists", str(folder / "lists"))
    environ = {"PATH": f"{programs}:/usr/bin:/bin", "EXTRAS": extras}
    done = subprocess.run(["sh", "-ec", script], cwd=folder, env=environ, capture_output=True, text=True, check=True)
    return done.stdout


def test_all_that_is_copied_is_there_and_is_let_into_the_build():
    let_in = set(re.findall(r"(?m)^!(.+)$", (ROOT / ".dockerignore").read_text()))
    copied = [rest.split()[:-1] for word, rest in read_instructions() if word == "COPY" and "--from" not in rest]
    sources = {source for each in copied for source in each if source != "wheels*"}
    assert sources <= let_in
    assert all((ROOT / source).exists() for source in sources)


def test_without_extras_nothing_is_fetched_but_the_proxy(tmp_path):
    said = run_all(tmp_path, "")
    assert "apt-get" not in said
    assert "pip install --no-cache-dir .\n" in said


@pytest.mark.parametrize("extras", ["oauth", "ldap", "ldap,oauth"])
def test_extras_are_installed_with_what_they_are_built_from(tmp_path, extras):
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(extras.split(",")) <= set(known)
    said = run_all(tmp_path, extras)
    assert f"pip install --no-cache-dir .[{extras}]\n" in said
    for package in LDAP_NEEDS:
        assert (package in said) is ("ldap" in extras)


def test_extras_go_with_wheels_too(tmp_path):
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / "pgshuttle-0-py3-none-any.whl").touch()
    assert "--no-index --find-links wheels pgshuttle[oauth]\n" in run_all(tmp_path, "oauth")
