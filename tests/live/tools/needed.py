"""
Programs of others that a test needs: where one is missing the test is skipped and says what to install.

Theory. On a build machine (CI=true) everything is installed, by `.ci/run` or from pyproject.toml, and there a missing
program is a failure: else nobody would notice that a whole file of tests has not run for months.
"""

import importlib.util
import os
import shutil
from pathlib import Path

from tests.live.clients.fleet import miss


def missed(sentence: str) -> str:
    """Does not return."""
    miss(sentence)
    return sentence


def need_program(name: str, package: str) -> str:
    """The full path of the program `name`, which Debian's `package` brings."""
    found = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"]))
    return found or missed(f"{name} is not installed (Debian's {package})")


def need_file(path: str, package: str) -> str:
    return path if Path(path).exists() else missed(f"{path} is not there (Debian's {package})")


def need_module(name: str) -> None:
    """A Python module that `make test` installs."""
    if importlib.util.find_spec(name) is None:
        missed(f"the Python module {name} is not installed (`make test` does it)")
