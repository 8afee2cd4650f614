"""The sample file is the table."""

import re
from pathlib import Path

from proxy.config.ini import read
from proxy.config.sample import THEMES, build_sample
from proxy.config.settings import SETTINGS, format_setting

ROOT = Path(__file__).parents[3]


def test_proxy_ini_is_in_sync_with_the_table() -> None:
    text = (ROOT / "proxy.ini").read_text()
    assert text == build_sample(), "run: python -m proxy.config.sample > proxy.ini"


def test_proxy_ini_can_be_used_as_it_is() -> None:
    config = read(str(ROOT / "proxy.ini"))
    assert config.warnings == ()
    assert set(config.databases) == {"postgres", "*"}
    assert config.settings.auth_file


def test_every_setting_is_shown_at_its_default_and_none_changes_anything_when_uncommented(tmp_path: Path) -> None:
    lines = [line[1:] for line in build_sample().split("\n") if re.match(r";[a-z0-9_]+ =", line)]
    shown = [line for line in lines if line.split(" =")[0] in SETTINGS]
    assert [line.split(" =")[0] for line in shown] == list(SETTINGS)
    (tmp_path / "all.ini").write_text("[proxy]\n" + "\n".join(shown))
    settings = read(str(tmp_path / "all.ini")).settings
    assert {name: format_setting(settings, name) for name in SETTINGS} == {
        name: setting.default_text for name, setting in SETTINGS.items()
    }


def test_every_theme_begins_at_a_setting() -> None:
    assert set(THEMES) <= set(SETTINGS)
    assert next(iter(THEMES)) == next(iter(SETTINGS))


def test_no_line_is_endless() -> None:
    assert max(len(line) for line in build_sample().split("\n") if not line.startswith(";auth_query")) <= 140
