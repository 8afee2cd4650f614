"""The house's laws about its rooms: who imports whom, what stands where, how large it may be. Read from the sources."""

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted(path for top in ("protocol", "proxy") for path in (ROOT / top).rglob("*.py"))
MODULES = [path for path in SOURCES if path.name != "__init__.py"]

PURE = {
    "base64", "binascii", "collections", "dataclasses", "enum", "hashlib", "hmac", "ipaddress", "json", "re", "secrets",
    "string", "stringprep", "struct", "typing", "unicodedata", "functools", "itertools", "weakref",
}  # fmt: skip
SETTLED = ("proxy/config/", "proxy/states.py", "proxy/clock.py", "proxy/log/")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def imports_of(path: Path) -> Iterator[str]:
    """Absolute names of the modules a file imports."""
    package = name_of(path).removesuffix(".py").split("/")[:-1]
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def ours(path: Path) -> set[str]:
    return {name for name in imports_of(path) if name.split(".")[0] in ("proxy", "protocol")}


@pytest.mark.parametrize("path", [path for path in SOURCES if path.parts[-2] == "protocol"], ids=name_of)
def test_the_protocol_knows_no_socket_no_clock_and_no_proxy(path):
    roots = {name.split(".")[0] for name in imports_of(path)}
    assert roots <= PURE | {"protocol"}


def test_the_two_streams_do_not_know_each_other():
    assert not {name for name in ours(ROOT / "proxy/client.py") if name.startswith("proxy.server")}
    assert not {name for name in ours(ROOT / "proxy/server.py") if name.startswith("proxy.client")}


def test_the_pool_knows_neither_stream():
    names = ours(ROOT / "proxy/pool.py")
    assert not {name for name in names if name.startswith(("proxy.server", "proxy.client"))}


@pytest.mark.parametrize("path", [path for path in SOURCES if name_of(path).startswith(SETTLED)], ids=name_of)
def test_settled_rooms_import_nothing_of_ours_but_the_protocol_and_each_other(path):
    mine = ("proxy.config", "proxy.log")
    assert {name for name in ours(path) if not name.startswith(("protocol", *mine))} <= {"proxy"}


def test_nobody_imports_the_proxy_itself_but_the_command_line():
    importers = {name_of(path) for path in SOURCES if any(name.startswith("proxy.main") for name in ours(path))}
    assert importers == {"proxy/__main__.py"}


def test_only_uvloop_comes_from_outside_the_standard_library():
    for path in SOURCES:
        roots = {name.split(".")[0] for name in imports_of(path)}
        assert roots <= set(sys.stdlib_module_names) | {"proxy", "protocol", "uvloop"}, name_of(path)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_source_file_has_its_test_file(path):
    relative = path.relative_to(ROOT)
    assert (ROOT / "tests" / relative.parent / f"test_{relative.name}").is_file()


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_every_file_begins_with_its_theory(path):
    words = ast.get_docstring(tree_of(path))
    assert words
    if path.name != "__init__.py":
        assert len(words.split()) >= 20


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_no_file_is_longer_than_four_hundred_lines(path):
    assert path.read_text().count("\n") <= 400


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_no_function_is_longer_than_a_screen(path):
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno < 50, node.name


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_no_state_lives_at_module_level(path):
    """A name bound to a mutable literal at module level may only be a constant table."""
    for node in tree_of(path).body:
        targets = getattr(node, "targets", None) or [getattr(node, "target", None)]
        for target in targets:
            if isinstance(target, ast.Name) and isinstance(node.value, ast.List | ast.Dict | ast.Set | ast.ListComp):
                assert target.id.lstrip("_").isupper() or target.id == "__all__", f"{name_of(path)}: {target.id}"
    assert not any(isinstance(node, ast.Global) for node in ast.walk(tree_of(path)))


def test_streams_never_await():
    """LAW: between choosing a server and handing it over nothing else can run."""
    for name in ("client", "server", "dispatch", "reset", "chores"):
        for node in ast.walk(tree_of(ROOT / f"proxy/{name}.py")):
            assert not isinstance(node, ast.Await | ast.AsyncFunctionDef), name


def test_the_internals_name_only_functions_that_exist():
    journeys = (ROOT / "deploy/docs/internals.md").read_text()
    defined = {
        node.name
        for path in SOURCES
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    }
    named = set(re.findall(r"`(?:\w+\.)*(\w+)\(\)`", journeys))
    assert named
    assert named <= defined, named - defined


def test_the_readme_shows_only_figures_of_the_benchmarks_table():
    """The rows are copies: a new run changes both."""
    shown, all_rows = (
        [line for line in page.read_text().split("\n## How fast", 1)[-1].splitlines() if line.startswith("|")]
        for page in (ROOT / "README.md", ROOT / "deploy/docs/bench.md")
    )
    assert len(shown) > 2
    assert [row for row in all_rows if row in shown] == shown


PAGES = [ROOT / "README.md", ROOT / "SECURITY.md", *sorted((ROOT / "deploy/docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_between_pages_lead_somewhere(page):
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", page.read_text()):
        there = (page.parent / target).resolve() if target else page
        assert there.exists(), target
        if anchor:
            heads = [head.lower().replace(" ", "-") for head in re.findall(r"(?m)^#+ (.*)$", there.read_text())]
            assert anchor in heads, f"{target}#{anchor}"


@pytest.mark.parametrize("page", PAGES[1:], ids=name_of)
def test_the_docs_name_only_tests_that_exist(page):
    named = set(re.findall(r"`(test_\w+)`", page.read_text()))
    defined = {
        node.name
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert named
    assert named <= defined | {path.stem for path in (ROOT / "tests").rglob("test_*.py")}, named - defined
