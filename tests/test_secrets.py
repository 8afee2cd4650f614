"""
Secrets, read from the sources: none is compared in a time that tells, none shows in a `repr`.

Theory. Both are habits that one careless line breaks, so the lines are found and not trusted: every comparison in which
something is called as secrets are, and every class that keeps one. What is found is either safe by its type (`Secret`
compares in constant time and prints as ***) or stands in a table here with its reason.
"""

import ast
import dataclasses
import importlib
import inspect
import re
from collections.abc import Iterator

import pytest

from protocol.frontend import SaslInitial
from protocol.passwords import Plain, ScramKeys, Secret, parse_stored
from protocol.startup import CancelRequest, Startup
from proxy.auth.keys import KeyKeeper
from proxy.auth.users import Users
from proxy.config.entries import parse_database
from proxy.config.lines import Line
from tests.test_house import SOURCES, name_of, tree_of

CALLED = re.compile(
    r"(?:^|_)(?:secret|password|passwd|key|proof|digest|digits|signature|token|verifier|salted|stored|response)s?$"
)

REVIEWED = {
    ("protocol/passwords.py", "stored.secret == password"): "Secret compares in constant time",
    ("proxy/auth/users.py", "each != stored"): "both are of the auth_file",
    ("proxy/userfile.py", "old.secrets[user] != stored"): "both are of the auth_file",
    ("proxy/config/advice.py", "rule.key == key"): "names of settings",
    ("proxy/config/ini.py", "line.key == setting"): "names of settings",
    ("proxy/auth/claim.py", "tuple(stored) == self.stored"): "both are of the database",
    (
        "proxy/auth/outside.py",
        "self._passwords.get(user) != password",
    ): "Secret compares in constant time; both are right",
    ("proxy/auth/proofs.py", "before.password != proof.password"): "both have been proven",
    ("proxy/auth/proofs.py", "proof.password == password"): "both have been proven",
    ("proxy/reloading.py", "proxy.tls.servers_digest != found.tls.servers_digest"): "digests of files",
}


def names_in(node: ast.expr) -> Iterator[str]:
    if isinstance(node, ast.Name):
        yield node.id
    elif isinstance(node, ast.Attribute):
        yield node.attr
    elif isinstance(node, ast.Call):
        yield from names_in(node.func)
    elif isinstance(node, ast.Subscript):
        yield from names_in(node.value)
    elif isinstance(node, ast.BinOp):
        yield from (*names_in(node.left), *names_in(node.right))


def find_comparisons() -> set[tuple[str, str]]:
    """Those of something that is called like a secret, with anything but what is written there in letters."""
    found = set()
    for path in SOURCES:
        for node in ast.walk(tree_of(path)):
            if not isinstance(node, ast.Compare) or not any(isinstance(op, ast.Eq | ast.NotEq) for op in node.ops):
                continue
            sides = [node.left, *node.comparators]
            has_literal = any(isinstance(side, ast.Constant) for side in sides)
            if not has_literal and any(CALLED.search(name) for side in sides for name in names_in(side)):
                found.add((name_of(path), ast.unparse(node)))
    return found


def test_secrets_are_compared_in_constant_time_or_the_comparison_is_reviewed() -> None:
    assert find_comparisons() == set(REVIEWED), "use hmac.compare_digest"


def test_the_search_finds_what_it_should() -> None:
    node = ast.parse("given.password == self.stored_key").body[0]
    assert isinstance(node, ast.Expr)
    assert isinstance(node.value, ast.Compare)
    assert {name for side in (node.value.left, *node.value.comparators) for name in names_in(side)} == {
        "password",
        "stored_key",
    }


SAFE_TYPES = re.compile(r"Secret|Stored|Plain|Md5|ScramVerifier|ScramKeys")
HARMLESS = {
    "proxy.config.advice.Rule.key": "the name of a setting",
    "proxy.config.lines.Line.key": "the name of a setting",
    "proxy.config.ini._Entries.keys": "the names of settings",
    "proxy.tls.Contexts.servers_digest": "of files, and one way",
}


def module_names() -> list[str]:
    return [".".join(name_of(path).removesuffix(".py").removesuffix("/__init__").split("/")) for path in SOURCES]


def shown_fields() -> Iterator[tuple[str, str]]:
    """(module.Class.field, its type) of all dataclasses whose `repr` is made of their fields."""
    for name in module_names():
        if name == "proxy.__main__":
            continue
        module = importlib.import_module(name)
        for kind in vars(module).values():
            if not (inspect.isclass(kind) and kind.__module__ == name and dataclasses.is_dataclass(kind)):
                continue
            if kind.__dataclass_params__.repr:  # type: ignore[attr-defined]
                for field in dataclasses.fields(kind):
                    if field.repr:
                        yield f"{name}.{kind.__name__}.{field.name}", str(field.type)


def test_no_dataclass_shows_a_secret() -> None:
    fields = list(shown_fields())
    assert len(fields) > 100
    wrong = {name for name, kind in fields if CALLED.search(name.rpartition(".")[2]) and not SAFE_TYPES.search(kind)}
    assert wrong == set(HARMLESS)


VERIFIER = "SCRAM-SHA-256$4096:c2FsdHNhbHRzYWx0$" + "QUFB" * 10 + "QUE=:" + "QkJC" * 10 + "QkI="


@pytest.mark.parametrize(
    "thing",
    [
        Secret("hunter2"),
        Plain(Secret("hunter2")),
        (Plain(Secret("hunter2")),),
        parse_stored("md5" + "a1b2c3d4" * 4),
        parse_stored(VERIFIER),
        ScramKeys(b"hunter2", b"hunter2", b"hunter2"),
        Users({"anna": (Plain(Secret("hunter2")),)}),
        parse_database("shop", "host=db password=hunter2"),
        Startup(3, 0, {"user": "anna", "database": "shop", "password": "hunter2", "options": "-c x=hunter2"}),
        CancelRequest(b"hunter2hunter2"),
        Line("proxy.ini", 7, "databases", "shop", "password=hunter2"),
        SaslInitial("OAUTHBEARER", b"hunter2"),
        KeyKeeper(2, mock_key=b"hunter2"),
    ],
    ids=lambda thing: type(thing).__name__,
)
def test_whoever_keeps_a_secret_does_not_show_it(thing: object) -> None:
    for text in (repr(thing), str(thing), f"{thing}", f"{thing!r:>80}"):
        for secret in ("hunter2", "a1b2c3d4", "QUFB", "QkJC", "AAAA", "BBBB"):
            assert secret not in text


def test_neither_does_an_error_that_names_it() -> None:
    with pytest.raises(ValueError, match="SCRAM verifier") as caught:
        parse_stored(VERIFIER.replace("4096", "0"))
    assert "QUFB" not in str(caught.value)
