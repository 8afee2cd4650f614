"""The gate: whom a rule lets in, what those hear who are not, and what the log says about it."""

import asyncio
import os
import pwd
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from protocol.backend import parse_error
from protocol.frontend import build_password
from protocol.startup import build_startup
from proxy.auth import gate
from proxy.auth.lookup import Found
from proxy.auth.rulebook import read_rulebook
from proxy.auth.users import read_users
from proxy.config.kinds import AuthType
from proxy.log import UNIX, Address
from proxy.visit import Visit
from tests.proxy.auth.wire import alone, play, wired
from tests.proxy.test_login import a_proxy

ME = pwd.getpwuid(os.geteuid()).pw_name
PARAMETERS = {"TimeZone": "UTC", "application_name": "", "server_version": "18.0"}


class Certified:
    """A TLS connection whose client has shown a certificate for `name`; None: it has shown none."""

    def __init__(self, *names):
        self.names = names

    def version(self):
        return "TLSv1.3"

    def cipher(self):
        return ("TLS_AES_256_GCM_SHA384", "TLSv1.3", 256)

    def getpeercert(self):
        return {"subject": tuple((("commonName", name),) for name in self.names)} if self.names else {}


def hba_proxy(tmp_path, rules, ident="", **settings):
    (tmp_path / "hba.conf").write_text(rules)
    (tmp_path / "ident.conf").write_text(ident)
    files = {"auth_hba_file": tmp_path / "hba.conf", "auth_ident_file": tmp_path / "ident.conf"}
    proxy = a_proxy(tmp_path, auth_type="hba", **files, **settings)
    proxy.gate.rulebook = read_rulebook(proxy.settings)
    return proxy


def call(proxy, said, host="10.0.0.7", *, tls=None, peer=None):
    """Everything that is heard by somebody who says this from there. He hangs up when nothing more comes."""

    async def main():
        for user in ("anna", ME):
            proxy.pools.find(proxy.config.find_database("shop"), user).welcome = PARAMETERS
        inbox = alone(said)
        line = wired(inbox)
        facts = {"ssl_object": tls, "socket": peer}
        line.get_extra_info = lambda name, default=None: facts.get(name, default)
        line.set_protocol = lambda phase: None
        visit = Visit(proxy, inbox, Address(host, 51234))
        meeting = asyncio.ensure_future(visit.serve())
        await asyncio.wait([meeting], timeout=0.2)
        inbox.eof_received()
        await meeting
        visit.finish()
        return line.written

    return play(main())


def hello(user="anna", database="shop", **more):
    return build_startup({"user": user, "database": database, **more})


def refusal(heard):
    error = parse_error(heard[5:])
    return error.sqlstate, error.message, error.detail


def is_in(heard):
    return heard[:1] == b"R" and heard[-6:-1] == b"Z\0\0\0\5"


def test_the_rule_about_a_caller_says_how_he_is_asked(tmp_path):
    proxy = hba_proxy(tmp_path, "host all all 10.0.0.7/32 trust\nhost all all ::1/128 password\nlocal all all md5\n")
    assert is_in(call(proxy, hello()))
    assert is_in(call(proxy, hello() + build_password(b"secret"), "::1")[9:])
    assert call(proxy, hello(), UNIX)[:9] == b"R\0\0\0\x0c\0\0\0\5"


def test_no_rule_is_a_no_in_the_words_of_both(tmp_path):
    proxy = hba_proxy(tmp_path, "host all all 127.0.0.1/32 trust\n")
    assert refusal(call(proxy, hello())) == (
        "28000",
        "login rejected",
        'no pg_hba.conf entry for host "10.0.0.7", user "anna", database "shop", no encryption',
    )
    assert f"pooler error: login rejected: no rule of {tmp_path}/hba.conf is about it" in proxy.log.text


@pytest.mark.parametrize(
    ("said", "host", "tls", "detail"),
    [
        (hello(), UNIX, None, 'connection for host "[local]", user "anna", database "shop", no encryption'),
        (hello(), "::1", Certified(), 'connection for host "::1", user "anna", database "shop", SSL encryption'),
        (
            hello(replication="true"),
            "::1",
            None,
            'replication connection for host "::1", user "anna", no encryption',
        ),
    ],
)
def test_a_rule_that_rejects_is_named_in_the_log_and_not_to_the_caller(tmp_path, said, host, tls, detail):
    proxy = hba_proxy(tmp_path, "\nlocal all all reject\nhost all,replication all all reject\n")
    assert refusal(call(proxy, said, host, tls=tls)) == ("28000", "login rejected", f"pg_hba.conf rejects {detail}")
    line = 2 if host == UNIX else 3
    assert f"pooler error: login rejected: rule {tmp_path}/hba.conf:{line}" in proxy.log.text
    assert "login failed: db=shop user=anna" in proxy.log.text


def test_an_outside_method_hears_the_options_of_the_rule_the_maps_and_the_address(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    asked = []

    async def verify(self, inbox, user, method, address, options, maps):
        asked.append((user, method, address[0], dict(options), list(maps)))
        return b""

    monkeypatch.setattr("proxy.auth.outside.Outside.verify", verify)
    rules = (
        "host all all 10.0.0.7/32 ldap ldapserver=a ldapprefix=x\n"
        "host all all ::1/128 pam pamservice=db\n"
        "local all all oauth issuer=https://a scope=b jwks=/k audience=c map=m\n"
    )
    proxy = hba_proxy(tmp_path, rules, "m /^(.*)@x$ \\1\n")
    assert all(is_in(call(proxy, hello(), host)) for host in ("10.0.0.7", "::1", UNIX))
    oauth = {"issuer": "https://a", "scope": "b", "jwks": "/k", "audience": "c", "map": "m"}
    assert asked == [
        ("anna", "ldap", "10.0.0.7", {"ldapserver": "a", "ldapprefix": "x"}, ["m"]),
        ("anna", "pam", "::1", {"pamservice": "db"}, ["m"]),
        ("anna", "oauth", UNIX, oauth, ["m"]),
    ]


@pytest.mark.parametrize(("method", "is_asked"), [("scram-sha-256", True), ("trust", True), ("pam", False)])
def test_secrets_are_looked_for_where_they_matter(tmp_path, monkeypatch, method, is_asked):
    proxy = hba_proxy(tmp_path, f"host all all all {method}\n", auth_user="guard")
    asked = []

    async def ask(question, user):
        asked.append(user)
        return Found((), 0.0)

    async def believe(*_):
        return b""

    monkeypatch.setattr(proxy.lookups, "wait", ask)
    monkeypatch.setattr(proxy.outside, "verify", believe)
    call(proxy, hello("bert"))
    assert asked == ["bert"] * is_asked


def test_a_wrong_password_is_logged_with_the_rule_it_was_asked_by(tmp_path):
    proxy = hba_proxy(tmp_path, "# who?\nhost all all all password\n")
    state, sentence, detail = refusal(call(proxy, hello() + build_password(b"wrong"))[9:])
    assert (state, sentence, detail) == ("28P01", 'password authentication failed for user "anna"', "")
    assert f"pooler error: {sentence}: it is not the stored one, rule {tmp_path}/hba.conf:2" in proxy.log.text


def test_in_a_wordy_log_everybody_has_his_rule(tmp_path):
    proxy = hba_proxy(tmp_path, "host all all all trust\n", verbose=1)
    assert is_in(call(proxy, hello()))
    assert f"shop/anna@10.0.0.7:51234 is asked by trust: rule {tmp_path}/hba.conf:1" in proxy.log.text


def test_somebody_unknown_meets_the_same_rules(tmp_path):
    proxy = hba_proxy(tmp_path, "host all bob all reject\nhost all all all trust\n")
    assert refusal(call(proxy, hello("zoe")))[:2] == ("28000", '"trust" authentication failed for user "zoe"')
    assert refusal(call(proxy, hello("bob")))[1] == "login rejected"


def test_the_console_has_rules_as_any_database(tmp_path):
    proxy = hba_proxy(tmp_path, "host pgbouncer all all reject\nhost all all all trust\n", admin_users="anna")
    assert refusal(call(proxy, hello(database="pgbouncer")))[1] == "login rejected"
    assert is_in(call(proxy, hello()))


def test_physical_replication_has_a_rule_of_its_own(tmp_path):
    proxy = hba_proxy(tmp_path, "host all all all trust\n")
    detail = 'no pg_hba.conf entry for replication connection from host "10.0.0.7", user "anna", no encryption'
    assert refusal(call(proxy, hello(replication="true"))) == ("28000", "login rejected", detail)


@pytest.fixture(name="peer")
def _peer():
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        yield ours


@pytest.mark.parametrize(
    ("ident", "user", "is_let_in"),
    [
        (None, ME, True),
        (None, "anna", False),
        (f"m {ME} anna", "anna", True),
        ("m somebody-else anna", "anna", False),
        (f"m {ME} all", "anna", True),
        (f"m {ME} all", "stranger", False),
        ("m /^(.).*$ anna", "anna", True),
    ],
)
def test_the_kernel_says_who_is_at_the_other_end(tmp_path, peer, ident, user, is_let_in):
    proxy = hba_proxy(tmp_path, f"local all all peer {'map=m' if ident else ''}\n", ident or "")
    (tmp_path / "users.txt").write_text(f'"anna" "secret"\n"{ME}" ""\n')
    proxy.users = read_users(str(tmp_path / "users.txt"))
    heard = call(proxy, hello(user), UNIX, peer=peer)
    if is_let_in:
        assert is_in(heard)
    else:
        state, sentence, detail = refusal(heard)
        assert (state, sentence) == ("28000", "unix socket login rejected")
        assert detail == f'peer authentication failed for user "{user}"'
        assert f"the account is {ME!r}, rule {tmp_path}/hba.conf:1" in proxy.log.text


def test_an_account_without_a_name_is_nobody(tmp_path, peer, monkeypatch):
    monkeypatch.setattr(gate, "find_uid", lambda transport: 4_000_000_000)
    proxy = hba_proxy(tmp_path, "local all all peer\n")
    assert refusal(call(proxy, hello(), UNIX, peer=peer))[1] == "unix socket login rejected"
    assert "no account has the number 4000000000" in proxy.log.text


def test_a_socket_that_says_nothing_is_nobody(tmp_path, monkeypatch):
    monkeypatch.setattr(gate, "find_uid", lambda transport: None)
    proxy = hba_proxy(tmp_path, "local all all peer\n")
    assert refusal(call(proxy, hello(), UNIX))[1] == "unix socket login rejected"


@pytest.mark.parametrize(
    ("rule", "ident", "tls", "note"),
    [
        ("cert", "", Certified("anna"), None),
        ("cert", "", Certified("bob"), "TLS certificate name mismatch: 'CN=bob' is not 'anna'"),
        ("cert", "", Certified(), "TLS client certificate required"),
        ("cert", "", Certified("anna", "bob"), "name mismatch: 'CN=bob,CN=anna' is not 'anna'"),
        ("cert map=m", "m /^anna anna", Certified("anna\0.evil"), "name mismatch"),
        ("cert map=m", "m /^a+ anna", Certified("a" * 1001), "name mismatch"),
        ("cert map=m", r"m /^(.*)@example\.com$ \1", Certified("anna@example.com"), None),
        ("cert map=m", r"m /^(.*)@example\.com$ \1", Certified("anna@example.org"), "name mismatch"),
        ("cert map=m", r"m /^(.*)@example\.com$ \1", Certified("anna"), "name mismatch"),
        ("cert map=m clientname=DN", 'm "CN=anna,CN=ours" anna', Certified("ours", "anna"), None),
        ("cert map=m clientname=DN", 'm "CN=anna,CN=ours" anna', Certified("theirs", "anna"), "name mismatch"),
        ("trust clientcert=verify-ca", "", Certified("anybody"), None),
        ("trust clientcert=verify-ca", "", Certified(), "TLS client certificate required"),
        ("trust clientcert=verify-full", "", Certified("anna"), None),
        ("trust clientcert=verify-full", "", Certified("bob"), "name mismatch"),
    ],
)
def test_a_certificate_says_who_its_owner_is(tmp_path, rule, ident, tls, note):
    proxy = hba_proxy(tmp_path, f"hostssl all all all {rule}\n", ident, client_tls_ca_file="ca.pem")
    heard = call(proxy, hello(), tls=tls)
    if note is None:
        assert is_in(heard)
    else:
        assert refusal(heard) == ("28000", 'certificate authentication failed for user "anna"', "")
        assert note in proxy.log.text
        assert f"rule {tmp_path}/hba.conf:1" in proxy.log.text


def test_a_certificate_does_not_make_anybody_known(tmp_path):
    proxy = hba_proxy(tmp_path, "hostssl all all all cert\n", client_tls_ca_file="ca.pem")
    heard = call(proxy, hello("zoe"), tls=Certified("zoe"))
    assert refusal(heard)[1] == 'certificate authentication failed for user "zoe"'


def test_auth_type_cert_is_one_such_rule_for_all(tmp_path):
    proxy = a_proxy(tmp_path)
    proxy.settings = replace(proxy.settings, auth_type=AuthType.CERT)
    assert is_in(call(proxy, hello(), tls=Certified("anna")))
    assert refusal(call(proxy, hello()))[0] == "28000"
    assert "TLS connection required" in proxy.log.text
    assert refusal(call(proxy, hello(), UNIX))[0] == "28000"


def test_a_password_is_asked_for_behind_a_certificate(tmp_path):
    rule = "hostssl all all all password clientcert=verify-full\n"
    proxy = hba_proxy(tmp_path, rule, client_tls_ca_file="ca.pem")
    assert is_in(call(proxy, hello() + build_password(b"secret"), tls=Certified("anna"))[9:])
    assert refusal(call(proxy, hello() + build_password(b"wrong"), tls=Certified("anna"))[9:])[0] == "28P01"


def test_who_is_known_outside_needs_no_line_in_the_auth_file_beside_his_certificate(tmp_path, monkeypatch):
    async def verify(self, *args):
        return b""

    monkeypatch.setattr("proxy.auth.outside.Outside.verify", verify)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    rule = "hostssl all all all ldap ldapserver=a ldapprefix=x clientcert=verify-full\n"
    proxy = hba_proxy(tmp_path, rule, client_tls_ca_file="ca.pem")
    assert refusal(call(proxy, hello("zoe"), tls=Certified("anna")))[0] == "28000"
    assert refusal(call(proxy, hello("zoe"), tls=Certified("zoe")))[0] == "08006", "PostgreSQL, which is not there"


def test_a_login_without_a_question_is_not_remembered_for_others(tmp_path):
    """The packet alone does not decide here: the same one from elsewhere meets another rule."""
    proxy = hba_proxy(tmp_path, "host all all 10.0.0.7/32 trust\n")
    assert is_in(call(proxy, hello()))
    assert is_in(call(proxy, hello()))
    assert len(proxy.express) == 0
    assert refusal(call(proxy, hello(), "10.0.0.8"))[1] == "login rejected"


@pytest.mark.parametrize("cut", [b"\0\0\0\x10\x04\xd2\x16\x2e" + b"12345678"])
def test_a_cancel_request_meets_no_rule(tmp_path, cut):
    proxy = hba_proxy(tmp_path, "host all all all reject\n")
    asked = []

    async def serve(key):
        asked.append(key)
        return "served"

    proxy.cancels.serve = serve
    assert call(proxy, cut) == b""
    assert asked == [b"12345678"]


def test_a_reload_brings_the_new_rules_and_says_how_many(tmp_path):
    proxy = hba_proxy(tmp_path, "host all all all reject\n")

    async def main():
        (tmp_path / "hba.conf").write_text("host all all all trust\nhost shop all all md5\n")
        assert await proxy.reload() == []

    play(main())
    assert is_in(call(proxy, hello()))
    assert f"{tmp_path}/hba.conf: 2 rules, 2 added, 1 removed" in proxy.log.text
    assert "hba.conf:2: this rule is about nobody" in proxy.log.text


def test_other_files_take_effect_with_a_reload(tmp_path, peer):
    proxy = hba_proxy(tmp_path, "host all all all reject\n")
    file = Path(proxy.config.path)
    (tmp_path / "other.conf").write_text("host all all all trust\nlocal all all peer map=m\n")
    (tmp_path / "maps.conf").write_text(f"m {ME} anna\n")
    text = file.read_text().replace("/hba.conf", "/other.conf")
    file.write_text(text)
    assert play(proxy.reload()) == []
    assert is_in(call(proxy, hello()))
    assert refusal(call(proxy, hello(), UNIX, peer=peer))[1] == "unix socket login rejected"
    file.write_text(text.replace("/ident.conf", "/maps.conf"))
    assert play(proxy.reload()) == []
    assert is_in(call(proxy, hello(), UNIX, peer=peer))


def test_a_bad_file_on_reload_keeps_the_old_rules_and_says_why(tmp_path):
    proxy = hba_proxy(tmp_path, "host all bob all trust\nhost all all all reject\n")

    async def main():
        (tmp_path / "hba.conf").write_text("host all bob all trust\nhost all all all rejct\n")
        (mistake,) = await proxy.reload()
        assert mistake.startswith(f"{tmp_path}/hba.conf:2: 'rejct' is no method")

    play(main())
    assert refusal(call(proxy, hello()))[1] == "login rejected"
    assert [each.line for each in proxy.gate.mistakes] == [2]


def test_auth_type_hba_on_the_console_reads_the_rules_first(tmp_path):
    (tmp_path / "hba.conf").write_text("host all all all reject\n")
    proxy = a_proxy(tmp_path, auth_hba_file=tmp_path / "hba.conf")
    assert is_in(call(proxy, hello()))
    play(proxy.reloader.apply_setting("auth_type", "hba"))
    assert refusal(call(proxy, hello()))[1] == "login rejected"
