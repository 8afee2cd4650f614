"""
Libraries that are extras of ours, and programs of Debian: a test that needs one is skipped where it is missing.

Theory. A skip says what is missing. On a build machine (CI=true) nothing may be: there a missing library is a failure,
or nobody would notice that its tests have not run for a year.
"""

import importlib.util
import os
import shutil

import pytest


def need(*modules: str) -> None:
    """Skip the whole file when one of these modules of Python is missing."""
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        give_up(f"{', '.join(missing)} of Python is not installed (an extra in pyproject.toml)")


def need_program(name: str, package: str) -> str:
    """The path of a program; skip the whole file when there is none."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found is None:
        give_up(f"{name} is not installed (Debian's package {package})")
    return str(found)


def give_up(why: str) -> None:
    """Skip the whole file; on a build machine, fail."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI=true, and {why}", pytrace=False)
    pytest.skip(why, allow_module_level=True)
