"""SHOW HBA: the rules in force as PostgreSQL's own view tells them, and what keeps newer ones out."""

from pathlib import Path

from proxy.auth.rulebook import NO_RULES, Rulebook
from proxy.config.ini import BadConfig
from proxy.config.kinds import AuthType
from proxy.config.settings import Settings
from proxy.main import Proxy
from tests.proxy.admin.desk import Operator, at_desk

RULES = """\
# who may come
local  all,"all"  all  peer
host   shop  /^app_,ann  10.1.0.0/16  scram-sha-256
hostnossl  all  all  samenet  reject
hostssl  all  all  all  md5
"""


def settings(tmp_path: Path, text: str) -> Settings:
    (tmp_path / "hba.conf").write_text(text)
    return Settings(auth_type=AuthType.HBA, auth_hba_file=str(tmp_path / "hba.conf"))


def test_each_rule_is_a_row_in_order(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        proxy.gate.rulebook = proxy.gate.read(settings(tmp_path, RULES))
        file, vain = f"{tmp_path}/hba.conf", "this rule is about nobody: client_tls_sslmode is disable"
        assert (await operator.ask("SHOW HBA")).rows == [
            ("1", file, "2", "local", "all,all", "all", None, None, "peer", None, None),
            ("2", file, "3", "host", "shop", "/^app_,ann", "10.1.0.0", "255.255.0.0", "scram-sha-256", None, None),
            ("3", file, "4", "hostnossl", "all", "all", "samenet", None, "reject", None, None),
            ("4", file, "5", "hostssl", "all", "all", "all", None, "md5", None, vain),
        ]

    at_desk(tmp_path, story)


def test_mistakes_of_a_file_that_was_not_taken_stand_behind_the_rules_in_force(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        try:
            proxy.gate.read(settings(tmp_path, "local all all nonsense\n"))
        except BadConfig:
            proxy.gate.rulebook = NO_RULES
        (row,) = (await operator.ask("SHOW HBA")).dicts()
        assert (row["rule_number"], row["line_number"], row["type"]) == (None, "1", None)
        assert row["file_name"] == f"{tmp_path}/hba.conf"
        assert str(row["error"]).startswith("'nonsense' is no method")
        proxy.gate.read(settings(tmp_path, "local all all trust\n"))
        assert (await operator.ask("SHOW HBA")).rows == []

    at_desk(tmp_path, story)


def test_no_secret_of_an_option_is_shown(tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr("proxy.auth.rulebook.why_not_served", lambda method: "")

    async def story(proxy: Proxy, operator: Operator) -> None:
        rule = "host all all all ldap ldapserver=x ldapbasedn=y ldapbinddn=z ldapbindpasswd=hunter2\n"
        book: Rulebook = proxy.gate.read(settings(tmp_path, rule))
        proxy.gate.rulebook = book
        (row,) = (await operator.ask("SHOW HBA")).dicts()
        assert row["options"] == "ldapserver=x ldapbasedn=y ldapbinddn=z ldapbindpasswd=***"

    at_desk(tmp_path, story)


def test_it_is_for_administrators(tmp_path: Path) -> None:
    async def story(proxy: Proxy, operator: Operator) -> None:
        assert "admin access needed" in (await operator.ask("SHOW HBA")).error

    at_desk(tmp_path, story, user="watcher")
