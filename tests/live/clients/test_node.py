"""node-postgres and postgres.js: each scenario of their programs is one test, run by node in a process of its own."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.live.clients.fleet import SECONDS, find_node_modules, find_program

pytestmark = pytest.mark.live

FOLDER = Path(__file__).parent / "node"
NEEDS = {"pg": ("pg", "pg-cursor", "pg-query-stream"), "postgres": ("postgres",)}


def scenarios(program):
    """Their names, as the program's text has them: node may not be here to be asked."""
    text = (FOLDER / f"{program}.js").read_text()
    return re.findall(r'^scenario\("([^"]+)"', text, re.MULTILINE)


@pytest.mark.parametrize(("program", "name"), [(each, name) for each in NEEDS for name in scenarios(each)])
def test_scenario(fleet, program, name):
    node = find_program("node", "it runs node-postgres and postgres.js")
    modules = find_node_modules(*NEEDS[program])
    done = subprocess.run(
        [node, "--no-deprecation", FOLDER / f"{program}.js", name],
        env=fleet.environment | {"NODE_PATH": os.fspath(modules)},
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS * 2,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
