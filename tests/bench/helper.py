"""
Our own load makers, each run beside the bench on an interpreter of its own: the command line both sides agree on.

Theory. A load maker in the bench's process would share its memory and its garbage collector. So each is a program that
is told where to log in and prints its figures as one JSON object, which also makes it of use by hand.
"""

import argparse
import json
import sys
from collections.abc import Sequence

from tests.bench.figures import Figures
from tests.bench.processes import run
from tests.bench.wire import Address


def call(name: str, address: Address, options: Sequence[str], seconds: float) -> Figures:
    """Run the program `tests.bench.NAME`, at most for so long, and read the figures it prints."""
    where = ["--host", address.host, "--port", str(address.port), "--user", address.user]
    command = [sys.executable, "-m", f"tests.bench.{name}", *where, "--database", address.database, *options]
    figures: Figures = json.loads(run(command, seconds=seconds))
    return figures


def parser(theory: str | None) -> argparse.ArgumentParser:
    """The options that all of them have; `theory` is the file's docstring."""
    made = argparse.ArgumentParser(description=(theory or "").strip().partition("\n\n")[0])
    made.add_argument("--host", default="127.0.0.1")
    made.add_argument("--port", type=int, required=True)
    made.add_argument("--user", default="postgres")
    made.add_argument("--database", default="bench")
    return made


def address_of(args: argparse.Namespace) -> Address:
    return Address(args.host, args.port, args.user, args.database)
