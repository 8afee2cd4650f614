"""
Programs of others that a test needs: where one is missing the test is skipped and says what to install.

Theory. On a build machine (CI=true) everything is installed, by `.ci/run` or from pyproject.toml, and there a missing
program is a failure: else nobody would notice that a whole file of tests has not run for months.
"""

import importlib.util
import os
import shutil
from pathlib import Path

import pytest


def need_program(name: str, package: str) -> str:
    """The full path of the program `name`, which Debian's `package` brings."""
    found = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"]))
    return found or _miss(f"{name} is not installed (Debian's {package})")


def need_file(path: str, package: str) -> str:
    return path if Path(path).exists() else _miss(f"{path} is not there (Debian's {package})")


def need_module(name: str) -> None:
    """A Python module of the extra `drivers`."""
    if importlib.util.find_spec(name) is None:
        _miss(f"the Python module {name} is not installed (pip install -e '.[drivers]')")


def _miss(sentence: str) -> str:
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI=true, and {sentence}")
    pytest.skip(sentence)
