"""Whole files: what they make, and what is wrong with them."""

import time
from pathlib import Path

import pytest

from proxy.config.ini import BadConfig, Config, read
from proxy.config.kinds import AuthType, PoolMode
from proxy.config.settings import SETTINGS


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """`make(text)` reads a file of that text, called a.ini in its messages."""
    monkeypatch.chdir(tmp_path)

    def make(text: str) -> Config:
        (tmp_path / "a.ini").write_text(text)
        return read("a.ini")

    return make


def mistakes_of(make, text: str) -> list[str]:  # type: ignore[no-untyped-def]
    with pytest.raises(BadConfig) as caught:
        make(text)
    assert str(caught.value).splitlines() == [str(mistake) for mistake in caught.value.mistakes]
    return [str(mistake) for mistake in caught.value.mistakes]


def test_a_whole_file(make) -> None:  # type: ignore[no-untyped-def]
    config = make(
        "[proxy]\nlisten_addr = 127.0.0.1, ::1\nauth_type = trust\nquery_timeout = 1.5\nadmin_users = ann,bob\n"
        '[databases]\nshop = host=db1\n"odd name" =\n* = host=db2 dbname=x\n[users]\nann = pool_size=1\n'
    )
    assert config.settings.listen_addr == ("127.0.0.1", "::1")
    assert config.settings.auth_type is AuthType.TRUST
    assert config.settings.query_timeout == 1.5
    assert config.settings.admin_users == ("ann", "bob")
    assert list(config.databases) == ["shop", "odd name", "*"]
    assert config.users["ann"].pool_size == 1
    assert (config.path, config.section, config.files, config.warnings) == ("a.ini", "proxy", ("a.ini",), ())


def test_the_pool_mode_follows_the_name_of_the_main_section(make) -> None:  # type: ignore[no-untyped-def]
    assert make("[proxy]\n").settings.pool_mode is PoolMode.TRANSACTION
    assert make("[pgbouncer]\n").settings.pool_mode is PoolMode.SESSION
    assert make("[pgbouncer]\npool_mode = statement\n").settings.pool_mode is PoolMode.STATEMENT


def test_of_a_repeated_key_the_last_counts_also_over_two_sections(make) -> None:  # type: ignore[no-untyped-def]
    config = make(
        "[proxy]\nlisten_port = 1\nlisten_port = 2\nverbose = 1\n[databases]\na = port=1 user=x\n"
        "[proxy]\nlisten_port = 3\n[databases]\na = port=2\n"
    )
    assert (config.settings.listen_port, config.settings.verbose) == (3, 1)
    assert (config.databases["a"].port, config.databases["a"].user) == (2, None)


def test_all_mistakes_are_said_at_once_in_order_with_their_lines(make, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "b.ini").write_text("verbose = loud\n")
    assert mistakes_of(
        make,
        "[proxy]\nlisten_port = 70000\ndefault_pool_sise = 3\n%include b.ini\nwords\nquery_timeout = -1\n"
        "[databass]\nx = y\n[databases]\nshop = prot=1 pool_size=-2\npgbouncer =\n[users]\nann = x\n[peers]\n0 =\n",
    ) == [
        "a.ini:2: listen_port is outside 0 to 65535: '70000'",
        "a.ini:3: unknown setting 'default_pool_sise', did you mean default_pool_size?",
        "a.ini:5: this is neither a [section] nor key = value",
        "a.ini:6: query_timeout is negative: a time is 0 seconds or more: '-1'",
        "a.ini:7: unknown section [databass], did you mean databases?",
        "a.ini:10: shop: unknown key 'prot', did you mean port?",
        "a.ini:10: shop: pool_size is outside 0 to 2147483647",
        "a.ini:11: pgbouncer: the database name 'pgbouncer' is reserved for the console",
        "a.ini:13: ann: expected key=value at character 1",
        "a.ini:15: 0: the peer's id '0' is not a number from 1 to 16383",
        "a.ini:15: 0: host is missing",
        "b.ini:1: verbose is not a whole number: 'loud'",
    ]


def test_the_main_section_must_be_there_under_one_name(make) -> None:  # type: ignore[no-untyped-def]
    assert mistakes_of(make, "[databases]\n") == ["a.ini: there is no main section, [proxy] or [pgbouncer]"]
    assert mistakes_of(make, "[proxy]\n[databases]\n[pgbouncer]\n") == [
        "a.ini:3: [pgbouncer] stands beside [proxy]: the main section has one name in a file"
    ]


def test_a_file_that_cannot_be_read_is_one_mistake(make) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(BadConfig, match=r"none\.ini: cannot be read"):
        read("none.ini")


def test_what_has_no_effect_yet_is_warned_about(make) -> None:  # type: ignore[no-untyped-def]
    config = make(
        "[proxy]\nauth_type = any\npkt_buf = 8192\nsbuf_loopcnt = 6\nservice_name = x\n"
        "[databases]\nshop = auth_user=ann reserve_pool=1\n[peers]\n1 = host=a\n"
    )
    assert [str(warning) for warning in config.warnings] == [
        "a.ini:3: pkt_buf is accepted but has no effect: it has no meaning here: the event loop sizes its reads itself",
        "a.ini:4: sbuf_loopcnt is accepted but has no effect: " + SETTINGS["sbuf_loopcnt"].reason,
        "a.ini:5: service_name is accepted but has no effect: "
        "it is for Windows services: job_name names the process here",
        "a.ini:7: shop: reserve_pool is the old name of reserve_pool_size",
    ]
    assert config.peers[1].host == "a"


def test_a_file_full_of_defaults_is_no_reason_to_complain(make) -> None:  # type: ignore[no-untyped-def]
    lines = [f"{name} = {setting.default_text}" for name, setting in SETTINGS.items() if not setting.acted]
    assert make("[proxy]\nauth_type = any\n" + "\n".join(lines) + "\n").warnings == ()
    (warning,) = make("[proxy]\nauth_type = any\nsbuf_loopcnt = 5\nresolv_conf = /etc/other.conf\n").warnings
    assert "resolv_conf is accepted but has no effect" in str(warning)


def test_what_only_another_resolver_does_is_warned_about_when_it_is_wanted(make) -> None:  # type: ignore[no-untyped-def]
    quiet = make("[proxy]\nauth_type = any\ndns_max_ttl = 5\ndns_zone_check_period = 0\nresolv_conf =\n")
    assert not quiet.warnings
    loud = make("[proxy]\nauth_type = any\ndns_zone_check_period = 60\nresolv_conf = /etc/other\n")
    reason = "accepted but has no effect: the system's resolver looks up host names:"
    assert [str(warning).split(" it is set up")[0] for warning in loud.warnings] == [
        f"a.ini:3: dns_zone_check_period is {reason}",
        f"a.ini:4: resolv_conf is {reason}",
    ]


def test_logins_nobody_can_pass_are_warned_about(make) -> None:  # type: ignore[no-untyped-def]
    (warning,) = make("[proxy]\n").warnings
    assert str(warning) == "a.ini: auth_type is md5 and there is no auth_file: nobody can log in"
    assert make("[proxy]\nauth_file = x\n").warnings == ()


def test_what_auth_type_needs_and_does_not_have_is_a_mistake_of_its_line(make) -> None:  # type: ignore[no-untyped-def]
    assert mistakes_of(make, "[proxy]\nverbose = 1\nauth_type = ldap\n")[0] == (
        "a.ini:3: auth_type is ldap: ldapserver is missing: which directory is asked (it is not looked for in DNS)"
    )


def test_warnings_are_told_beside_mistakes(make) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(BadConfig) as caught:
        make("[proxy]\npkt_buf = 8192\nverbose = x\n")
    assert (len(caught.value.mistakes), len(caught.value.warnings)) == (1, 1)


def test_a_password_is_in_no_message(make) -> None:  # type: ignore[no-untyped-def]
    lines = ["password='hush", "password=hush port=x", "password='hush'x", "host hush", "pass=hush"]
    text = "[proxy]\n[databases]\n" + "".join(f"a = {line}\n" for line in lines)
    said = mistakes_of(make, text)
    assert len(said) == len(lines)
    assert "hush" not in "".join(said)


def test_the_fallback_serves_every_other_name_under_that_name(make) -> None:  # type: ignore[no-untyped-def]
    config = make("[proxy]\n[databases]\nshop = port=1\n* = port=2\n")
    assert config.find_database("shop") is config.databases["shop"]
    other = config.find_database("other")
    assert (other.name, other.server_dbname, other.port) == ("other", "other", 2)
    assert make("[proxy]\n").find_database("shop") is None


def test_too_many_mistakes_are_cut_short(make) -> None:  # type: ignore[no-untyped-def]
    said = mistakes_of(make, "[proxy]\n" + "nonsense = 1\n" * 5_000)
    assert len(said) == 201
    assert "a.ini: more than 200 mistakes: the rest is not read" in said


@pytest.mark.slow
def test_five_thousand_databases_are_read_in_well_under_a_second(make) -> None:  # type: ignore[no-untyped-def]
    entry = "db{0} = host=10.0.0.{1} port=5432 dbname=real{0} user=owner password='se''cret {0}' pool_size=5\n"
    text = "[proxy]\nauth_type = trust\n[databases]\n" + "".join(entry.format(i, i % 250) for i in range(5_000))
    start = time.process_time()
    config = make(text)
    assert time.process_time() - start < 2.0  # about 0.2 s; the bound is for a busy machine
    assert len(config.databases) == 5_000


def test_entries_without_end_are_one_mistake(make, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr("proxy.config.ini.MAX_ENTRIES", 3)
    many = "".join(f"d{number} =\n" for number in range(9))
    assert mistakes_of(make, f"[databases]\n{many}[proxy]\n") == [
        "a.ini:5: more than 3 entries in [databases]: the rest is not read"
    ]
