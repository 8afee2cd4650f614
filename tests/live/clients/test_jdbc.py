"""JDBC: each scenario of java/Clients.java is one test. The driver is Debian's, the program is compiled here."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.live.clients.fleet import SECONDS, find_program, miss

pytestmark = pytest.mark.live

FOLDER = Path(__file__).parent / "java"
DRIVER = Path("/usr/share/java/postgresql.jar")
QUICK = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto", "-Xmx256m")  # it lives for a second


@pytest.fixture(scope="module", name="classes")
def _classes(tmp_path_factory):
    """Where the compiled program lies."""
    if not DRIVER.exists():
        miss(f"no {DRIVER}: the package is libpostgresql-jdbc-java")
    compiler = find_program("javac", "it compiles the JDBC program; the package is default-jdk-headless")
    folder = tmp_path_factory.mktemp("classes")
    subprocess.run([compiler, "-cp", DRIVER, "-d", folder, *FOLDER.glob("*.java")], check=True, timeout=120)
    return folder


@pytest.mark.parametrize("name", re.findall(r'SCENARIOS\.put\("([^"]+)"', (FOLDER / "Clients.java").read_text()))
def test_scenario(fleet, classes, name):
    java = find_program("java", "it runs the JDBC program")
    done = subprocess.run(
        [java, *QUICK, "-cp", os.pathsep.join(map(str, (classes, DRIVER))), "Clients", name],
        env=fleet.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS * 2,
    )
    assert done.returncode == 0, done.stdout + done.stderr
