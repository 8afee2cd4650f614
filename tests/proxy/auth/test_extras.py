"""Libraries that are extras: loaded when wanted, and not by whoever does without them."""

import subprocess
import sys

import pytest

from proxy.auth.extras import library, load, wait_loaded
from proxy.config.outside import MODULES
from tests.proxy.auth.wire import play


def test_a_library_is_there_once_it_has_been_waited_for() -> None:
    sys.modules.pop("wave", None)
    play(wait_loaded(["wave"]))
    assert library("wave") is sys.modules["wave"]


def test_or_once_it_has_been_loaded_at_the_start() -> None:
    sys.modules.pop("wave", None)
    load(["wave"])
    assert "wave" in sys.modules


def test_a_library_that_is_missing_is_an_error_at_once() -> None:
    with pytest.raises(ModuleNotFoundError):
        play(wait_loaded(["no_such_library"]))


def test_a_proxy_that_does_without_the_outside_methods_loads_none_of_their_libraries() -> None:
    names = {name for modules in MODULES.values() for name in modules} | {"cryptography"}
    code = f"import proxy.main, sys; print(sorted(set(sys.modules) & {names!r}))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"
