"""The rules in force: read as a whole or not at all, and what is said about a change."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.auth.rulebook import MAX_STEPS, NO_RULES, look_at_rules, read_rulebook
from proxy.auth.rules import Method
from proxy.config.ini import BadConfig
from proxy.config.kinds import AuthType, SslMode
from proxy.config.settings import Settings


@pytest.fixture(name="folder")
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("proxy.auth.rulebook.sees_all_accounts", lambda: True)  # wherever the tests run
    return tmp_path


def book(hba, ident=None, **more):
    Path("hba.conf").write_text(hba)
    if ident is not None:
        Path("ident.conf").write_text(ident)
    named = {"auth_hba_file": "hba.conf", "auth_ident_file": "" if ident is None else "ident.conf"}
    return read_rulebook(Settings(auth_type=AuthType.HBA, **(named | more)))


def mistakes(*args, **more):
    with pytest.raises(BadConfig) as caught:
        book(*args, **more)
    return [str(mistake) for mistake in caught.value.mistakes]


def warnings(*args, **more):
    return [str(warning) for warning in book(*args, **more).warnings]


def test_rules_and_maps_are_read_together(folder):
    found = book("local all all peer map=m\nhost all all 127.0.0.1/32 md5\n", "m root all\n")
    assert [rule.method for rule in found.rules] == [Method.PEER, Method.MD5]
    assert list(found.maps) == ["m"]
    assert found.files == ("hba.conf", "ident.conf")
    assert found.warnings == ()


def test_all_mistakes_are_told_at_once_and_nothing_is_taken(folder):
    Path("more").write_text("host all all nowhere md5\n")
    assert mistakes("local all all trust\nlocal all\ninclude more\nlocal all all psychic\n", "m x\nm a,b c\n") == [
        "hba.conf:2: the line ends in front of the users",
        "more:1: 'nowhere' is no address, and host names are not looked up: a login would wait for the caller's own"
        " name server and believe it; write the addresses as 10.0.0.0/8",
        "hba.conf:4: 'psychic' is no method: trust, reject, password, md5, scram-sha-256, cert, peer, ldap, pam, oauth",
        "ident.conf:1: a line is a map, a system's name and a user's name: there must be three",
        "ident.conf:2: a list cannot stand here: write one line for each",
    ]


def test_a_file_that_is_not_there_or_not_named_is_a_mistake(folder):
    settings = Settings(auth_type=AuthType.HBA, auth_hba_file="nowhere", conffile="a.ini")
    assert [str(each) for each in look_at_rules(settings)[0]] == ["nowhere: cannot be read: No such file or directory"]
    unnamed = look_at_rules(Settings(auth_type=AuthType.HBA, conffile="a.ini"))[0]
    assert [str(each) for each in unnamed] == [
        "a.ini: auth_type is hba and there is no auth_hba_file: nobody could log in"
    ]


def test_with_another_auth_type_no_file_is_read():
    assert read_rulebook(Settings(auth_hba_file="/nowhere")) is NO_RULES
    assert look_at_rules(Settings(auth_hba_file="/nowhere")) == ((), ())


@pytest.mark.parametrize("method", [Method.LDAP, Method.PAM, Method.OAUTH])
def test_a_method_whose_library_is_missing_is_a_mistake_when_the_file_is_read(folder, method, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("proxy.config.outside.LIBPAM", "libpam-of-nowhere.so.0")
    (mistake,) = mistakes(f"host all all all {method}\n")
    assert mistake.startswith(f"hba.conf:1: the method {method} needs ")


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        ("host all all all ldap", "ldapserver is missing"),
        ("host all all all ldap ldapserver=a ldapprefix=x ldapbasedn=y", "ldapbasedn is for a search"),
        ("host all all all ldap ldapserver=a ldapbasedn=y ldapbindpasswd=hush", "belong together"),
        ("host all all all oauth issuer=https://a scope=b", "issuer= needs jwks= beside it"),
        ("host all all all oauth issuer=http://a scope=b jwks=/k audience=c", "oauth_issuer is no https"),
        ("host all all all pam pamservice=../shadow", "pam_service is no name"),
        ("host all all all pam pam_use_hostname=1", "pam_use_hostname is not supported"),
    ],
)
def test_the_options_of_an_outside_method_are_checked_where_they_are_read(folder, rule, why, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    (mistake,) = mistakes(f"\n{rule}\n")
    assert mistake.startswith("hba.conf:2: ")
    assert why in mistake
    assert "hush" not in mistake


def test_oauth_for_all_has_its_map_too(folder):
    Path("ident.conf").write_text("people /^(.*)@example.com$ \\1\n")
    said = {"auth_type": AuthType.OAUTH, "auth_ident_file": "ident.conf", "conffile": "a.ini"}
    found = read_rulebook(Settings(**said, oauth_map="people"))
    assert (list(found.maps), found.rules, found.files) == (["people"], (), ("ident.conf",))
    assert read_rulebook(Settings(**said)) is NO_RULES
    (mistake,) = look_at_rules(Settings(**said, oauth_map="others"))[0]
    assert str(mistake) == "a.ini: oauth_map: no line of auth_ident_file is about the map 'others'"
    Path("ident.conf").write_text("people\n")
    assert look_at_rules(Settings(**said, oauth_map="people"))[0]


@pytest.mark.parametrize("rule", ["hostssl all all all cert", "hostssl all all all md5 clientcert=verify-ca"])
def test_certificates_need_something_to_be_checked_with(folder, rule):
    (mistake,) = mistakes(rule)
    assert mistake == "hba.conf:1: certificates of clients are checked with client_tls_ca_file, and there is none"
    assert book(rule, client_tls_ca_file="ca.pem").rules


def test_rules_that_let_nobody_in_are_warned_about(folder):
    text = "host all all all trust\nhost shop all all md5\nlocal all all peer map=m\nhostssl replication all all md5\n"
    assert warnings(text, "n root all\n") == [
        "hba.conf:2: this rule is about nobody: the one at hba.conf:1 is about all of its callers",
        "hba.conf:3: this rule lets nobody in: no line of auth_ident_file is about the map 'm'",
        "hba.conf:4: this rule is about nobody: client_tls_sslmode is disable",
    ]
    assert warnings("hostssl all all all md5", client_tls_sslmode=SslMode.REQUIRE) == []


def test_where_the_kernel_tells_not_all_accounts_the_first_peer_is_warned_about(folder, monkeypatch):
    monkeypatch.setattr("proxy.auth.rulebook.sees_all_accounts", lambda: False)
    assert warnings("local all all trust\n") == []
    text = "local a all peer map=m\nlocal b all peer\nlocal c all peer\n"
    assert warnings(text) == [
        "hba.conf:1: this rule lets nobody in: no line of auth_ident_file is about the map 'm'",
        "hba.conf:2: peer: this process runs in a user namespace that leaves accounts out (PrivateUsers= of systemd, a"
        " rootless container): whoever comes from one of those is nobody here",
    ]


def test_all_patterns_together_are_bounded(folder):
    large = "/" + "a" * 900
    lines = MAX_STEPS // 900
    (mistake,) = mistakes(f"host {large} all all trust\n" * (lines + 1))[:1]
    assert mistake == (
        f"hba.conf:{lines + 1}: the regular expressions up to here are too large: more than {MAX_STEPS} steps"
    )


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("local all all trust", "# moved\n\nlocal all all trust", ""),
        ("local all all trust", "local all all trust\nhost all all all md5", "2 rules, 1 added, 0 removed"),
        ("local all all trust", "local all all md5", "1 rules, 1 added, 1 removed"),
        ("local a b md5\nlocal c d md5", "local c d md5\nlocal a b md5", "2 rules, in another order"),
        ("local a b md5\nlocal a b md5", "local a b md5", "1 rules, 0 added, 1 removed"),
    ],
)
def test_what_a_change_means_is_told_in_numbers(folder, old, new, said):
    assert book(old).describe_change(book(new)) == said


def test_a_map_that_differs_is_told(folder):
    rules = "local all all peer map=m"
    changed = book(rules, "m a b").describe_change(book(rules, "m a c"))
    assert changed == "1 rules, 0 added, 0 removed, the user name maps differ"


PIECES = [
    *["local", "host", "all", "@x", "/^a$", "10.0.0.0/8", "trust", "peer", "map=x", "include", "hba.conf"],
    *["include_dir", ".", '"', ",", "#", "\\", "\n", " ", "\0", "é"],
]
TEXT = st.lists(st.sampled_from(PIECES), max_size=40).map("".join)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(TEXT, TEXT)
def test_any_two_files_are_rules_or_mistakes_with_a_place(folder, hba, ident):
    Path("hba.conf").write_text(hba)
    Path("ident.conf").write_text(ident)
    wanted = Settings(auth_type=AuthType.HBA, auth_hba_file="hba.conf", auth_ident_file="ident.conf")
    for mistake in look_at_rules(wanted)[0]:
        assert str(mistake).startswith(("hba.conf:", "ident.conf:", "./hba.conf:", "./ident.conf:"))
