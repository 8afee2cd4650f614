"""What --check says."""

from pathlib import Path

import pytest

from proxy.config.advice import Secrets
from proxy.config.check import report
from proxy.config.lines import Mistake


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_good_file_is_ok_and_counted() -> None:
    text = "[proxy]\nauth_type = trust\nadmin_users = ann\n[databases]\na =\nb =\n[users]\nann =\n"
    Path("a.ini").write_text(text)
    summary = "2 databases and 1 user with settings of their own, 1 file read; 2 settings honoured"
    assert report("a.ini") == ([f"a.ini: ok, {summary}, 0 warnings, 0 notes, 0 pieces of advice"], True)


def test_what_has_no_effect_is_listed_and_still_ok() -> None:
    Path("a.ini").write_text("[proxy]\nauth_type = trust\npkt_buf = 1\n")
    lines, usable = report("a.ini")
    assert usable
    assert lines[0].startswith("a.ini:3: warning: pkt_buf is accepted but has no effect: it has no meaning here")
    assert lines[-1].endswith("1 setting honoured, 2 warnings, 0 notes, 1 piece of advice")


def test_every_mistake_is_said_with_its_line() -> None:
    Path("a.ini").write_text("[proxy]\nverbose = x\nlisten_prt = 1\npkt_buf = 1\n")
    lines, usable = report("a.ini")
    assert not usable
    assert lines == [
        "a.ini:2: error: verbose is not a whole number: 'x'",
        "a.ini:3: error: unknown setting 'listen_prt', did you mean listen_port?",
        "a.ini:4: warning: pkt_buf is accepted but has no effect: "
        "it has no meaning here: the event loop sizes its reads itself",
        "a.ini: not usable, 2 mistakes",
    ]


def test_a_missing_file_is_a_mistake() -> None:
    assert report("none.ini") == (
        ["none.ini: error: cannot be read: No such file or directory", "none.ini: not usable, 1 mistake"],
        False,
    )


def test_the_auth_file_is_looked_at_too() -> None:
    Path("a.ini").write_text("[proxy]\nauth_file = users.txt\n")
    asked = []

    def look_at_users(path: str) -> tuple[tuple[str, ...], Secrets]:
        asked.append(path)
        return (f"{path}:1: a secret in double quotes is missing",), Secrets()

    lines, usable = report("a.ini", look_at_users)
    assert not usable
    assert asked == ["users.txt"]
    assert "users.txt:1: error: a secret in double quotes is missing" in lines
    assert report("a.ini", lambda path: ((), Secrets(plain=1)))[1]


def test_without_an_auth_file_none_is_read() -> None:
    Path("a.ini").write_text("[proxy]\nauth_type = trust\n")
    assert report("a.ini", lambda path: pytest.fail("read anyway"))[1]


def test_the_files_of_rules_are_looked_at_too() -> None:
    Path("a.ini").write_text("[proxy]\nauth_type = trust\n")
    odd = (Mistake("hba.conf", 3, "this rule is about nobody"),)
    lines, usable = report("a.ini", look_at_rules=lambda settings: ((), odd))
    assert usable
    assert "hba.conf:3: warning: this rule is about nobody" in lines
    bad = (Mistake("hba.conf", 4, "the line ends in front of the method"),)
    lines, usable = report("a.ini", look_at_rules=lambda settings: (bad, ()))
    assert not usable
    assert lines[-2:] == [
        "hba.conf:4: error: the line ends in front of the method",
        "a.ini: not usable, 1 mistake",
    ]
