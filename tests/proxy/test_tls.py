"""Contexts from settings: each word of PgBouncer's, and each mistake with its setting and its file."""

import ssl
from dataclasses import replace

import pytest

from proxy.config.ini import read
from proxy.config.settings import assign, defaults
from proxy.tls import BadTls, Contexts, build_contexts, parse_protocols, read_contexts
from tests.certificates import Authority, run

V = ssl.TLSVersion


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def pair(authority):
    return authority.issue("pooler", sans="DNS:localhost,IP:127.0.0.1")


def settings_of(**texts):
    settings = defaults()
    for name, text in texts.items():
        settings = assign(settings, name, str(text))
    return settings


@pytest.fixture
def with_pair(pair):
    def build(**texts):
        ours = {"client_tls_sslmode": "require", "client_tls_cert_file": pair.cert, "client_tls_key_file": pair.key}
        return settings_of(**{**ours, **texts})

    return build


def mistakes_of(settings):
    with pytest.raises(BadTls) as caught:
        build_contexts(settings)
    return caught.value.mistakes


def test_disable_on_both_sides_builds_nothing():
    assert build_contexts(settings_of(server_tls_sslmode="disable")) == Contexts(None, None)


def test_by_default_servers_may_be_asked_for_tls_and_clients_are_not_offered_it():
    contexts = build_contexts(defaults())
    assert contexts.for_clients is None
    assert contexts.for_servers.verify_mode is ssl.CERT_NONE


@pytest.mark.parametrize(
    ("mode", "verify", "checks_name"),
    [
        ("allow", ssl.CERT_NONE, False),
        ("prefer", ssl.CERT_NONE, False),
        ("require", ssl.CERT_NONE, False),
        ("verify-ca", ssl.CERT_REQUIRED, False),
        ("verify-full", ssl.CERT_REQUIRED, True),
    ],
)
def test_each_mode_towards_servers_believes_as_much_as_it_says(authority, mode, verify, checks_name):
    for ca_file in (authority.cert, ""):
        context = build_contexts(settings_of(server_tls_sslmode=mode, server_tls_ca_file=ca_file)).for_servers
        assert (context.verify_mode, context.check_hostname) == (verify, checks_name)


@pytest.mark.parametrize(
    ("mode", "verify"),
    [
        ("allow", ssl.CERT_OPTIONAL),
        ("prefer", ssl.CERT_OPTIONAL),
        ("require", ssl.CERT_OPTIONAL),
        ("verify-ca", ssl.CERT_REQUIRED),
        ("verify-full", ssl.CERT_REQUIRED),
    ],
)
def test_with_a_ca_file_a_client_may_show_a_certificate_or_must(with_pair, authority, mode, verify):
    settings = with_pair(client_tls_sslmode=mode, client_tls_ca_file=authority.cert)
    assert build_contexts(settings).for_clients.verify_mode is verify


def test_without_a_ca_file_no_client_is_asked_for_a_certificate(with_pair):
    assert build_contexts(with_pair()).for_clients.verify_mode is ssl.CERT_NONE


@pytest.mark.parametrize("mode", ["verify-ca", "verify-full"])
def test_nobody_can_be_verified_without_an_authority(with_pair, mode):
    assert mistakes_of(with_pair(client_tls_sslmode=mode)) == [
        f"client_tls_sslmode: {mode} needs client_tls_ca_file: nobody's certificate can be checked"
    ]


def test_tls_for_clients_needs_a_certificate_and_its_key():
    assert mistakes_of(settings_of(client_tls_sslmode="allow")) == [
        "client_tls_sslmode: allow needs client_tls_cert_file and client_tls_key_file"
    ]


def test_auth_type_cert_needs_verify_full(with_pair):
    assert mistakes_of(with_pair(auth_type="cert")) == ["client_tls_sslmode: auth_type = cert needs verify-full"]


@pytest.mark.parametrize("name", ["client_tls_cert_file", "client_tls_key_file", "client_tls_ca_file"])
def test_a_file_that_is_not_there_is_named_with_its_setting(with_pair, tmp_path, name):
    assert mistakes_of(with_pair(**{name: tmp_path / "none"})) == [
        f"{name}: {tmp_path}/none: cannot be read: No such file or directory"
    ]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("client_tls_cert_file", "holds no certificate in PEM format"),
        ("client_tls_key_file", "holds no private key in PEM format"),
        ("client_tls_ca_file", "holds no usable certificates: no certificate or crl found"),
    ],
)
def test_a_file_of_something_else_is_named_and_not_repeated(with_pair, tmp_path, name, sentence):
    wrong = tmp_path / "wrong.pem"
    wrong.write_text("what stands here is nobody's business")
    assert mistakes_of(with_pair(**{name: wrong})) == [f"{name}: {wrong}: {sentence}"]


@pytest.mark.parametrize("name", ["cert", "key"])
def test_a_damaged_file_is_a_mistake_without_its_contents(with_pair, pair, tmp_path, name):
    damaged = tmp_path / "damaged.pem"
    lines = getattr(pair, name).read_text().splitlines()
    damaged.write_text("\n".join([lines[0], "AAAA" + lines[1][4:], *lines[2:]]))
    (mistake,) = mistakes_of(with_pair(**{f"client_tls_{name}_file": damaged}))
    assert str(damaged) in mistake
    assert lines[1][4:] not in mistake


def test_the_key_of_another_certificate_is_not_taken(with_pair, authority, pair):
    other = authority.issue("other")
    assert mistakes_of(with_pair(client_tls_key_file=other.key)) == [
        f"client_tls_key_file: {other.key}: is not the key of {pair.cert}"
    ]


def test_a_key_with_a_password_is_a_mistake_and_nobody_is_asked(with_pair, pair, tmp_path):
    sealed = tmp_path / "sealed.key"
    run("pkey", "-in", pair.key, "-aes256", "-passout", "pass:secret", "-out", sealed)
    (mistake,) = mistakes_of(with_pair(client_tls_key_file=sealed))
    assert mistake.startswith(f"client_tls_key_file: {sealed}: is sealed with a password")


def test_all_mistakes_of_both_sides_are_told_at_once(with_pair, tmp_path):
    settings = with_pair(
        client_tls_protocols="tlsv9",
        client_tls_ciphers="nonsense",
        client_tls_ecdhcurve="flat",
        client_tls_dheparams="wide",
        server_tls_cert_file=tmp_path / "none",
        server_tls13_ciphers="TLS_NONE",
    )
    assert [mistake.split(":")[0] for mistake in mistakes_of(settings)] == [
        "client_tls_ecdhcurve",
        "client_tls_dheparams",
        "client_tls_protocols",
        "client_tls_ciphers",
        "server_tls_cert_file",
        "server_tls13_ciphers",
    ]


@pytest.mark.parametrize(
    ("text", "versions"),
    [
        ("secure", {V.TLSv1_2, V.TLSv1_3}),
        ("default", {V.TLSv1_2, V.TLSv1_3}),
        ("all", {V.TLSv1, V.TLSv1_1, V.TLSv1_2, V.TLSv1_3}),
        ("legacy", {V.TLSv1, V.TLSv1_1, V.TLSv1_2, V.TLSv1_3}),
        ("tlsv1.3", {V.TLSv1_3}),
        ("TLSv1.2, tlsv1.3", {V.TLSv1_2, V.TLSv1_3}),
        ("tlsv1.0:tlsv1.2", {V.TLSv1, V.TLSv1_2}),
        ("!tlsv1.0,!tlsv1.1", {V.TLSv1_2, V.TLSv1_3}),
        ("secure,!tlsv1.2", {V.TLSv1_3}),
    ],
)
def test_protocols_are_pgbouncers_words(text, versions):
    assert parse_protocols(text) == versions


@pytest.mark.parametrize("text", ["tlsv1.4", "secure,", "!all", "sslv3"])
def test_other_words_for_protocols_are_a_mistake(text):
    with pytest.raises(ValueError, match=r"has a word that is none of|leaves no version"):
        parse_protocols(text)


def test_a_gap_between_two_versions_is_kept_open(with_pair):
    context = build_contexts(with_pair(client_tls_protocols="tlsv1.1,tlsv1.3")).for_clients
    assert (context.minimum_version, context.maximum_version) == (V.TLSv1_1, V.TLSv1_3)
    assert context.options & ssl.Options.OP_NO_TLSv1_2
    assert not context.options & ssl.Options.OP_NO_TLSv1_1


@pytest.mark.parametrize("word", ["default", "secure", "normal", "fast", "compat", "legacy", "all", "insecure", ""])
def test_pgbouncers_words_for_ciphers_choose_none_that_is_not_authenticated(with_pair, word):
    names = [each["name"] for each in build_contexts(with_pair(client_tls_ciphers=word)).for_clients.get_ciphers()]
    assert names
    assert not [name for name in names if "NULL" in name or "anon" in name or name.startswith("ADH")]


def test_ciphers_may_be_listed_as_openssl_writes_them(with_pair):
    context = build_contexts(with_pair(client_tls_ciphers="ECDHE-ECDSA-AES128-GCM-SHA256")).for_clients
    below = [each["name"] for each in context.get_ciphers() if each["protocol"] != "TLSv1.3"]
    assert below == ["ECDHE-ECDSA-AES128-GCM-SHA256"]


def test_a_choice_among_the_ciphers_of_tls13_is_refused_where_it_cannot_be_kept(with_pair):
    settings = with_pair(client_tls13_ciphers="TLS_AES_256_GCM_SHA384")
    if hasattr(ssl.SSLContext, "set_ciphersuites"):
        assert build_contexts(settings).for_clients
    else:
        assert mistakes_of(settings)[0].startswith("client_tls13_ciphers: before Python 3.15 TLS 1.3 is spoken with")


def test_all_usual_ciphers_of_tls13_may_be_named(with_pair):
    usual = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
    assert build_contexts(with_pair(client_tls13_ciphers=usual)).for_clients


@pytest.mark.parametrize("curve", ["auto", "none", "prime256v1", "secp384r1"])
def test_curves_are_named_as_openssl_names_them(with_pair, curve):
    assert build_contexts(with_pair(client_tls_ecdhcurve=curve)).for_clients


def test_what_is_asked_of_the_other_side_does_not_matter_when_this_one_is_off(with_pair, tmp_path):
    settings = replace(with_pair(server_tls_ca_file=tmp_path / "none"))
    assert mistakes_of(settings)[0].startswith("server_tls_ca_file")
    assert build_contexts(assign(settings, "server_tls_sslmode", "disable")).for_servers is None


def test_a_mistake_stands_at_the_line_of_its_setting(tmp_path):
    file = tmp_path / "proxy.ini"
    file.write_text("[proxy]\nauth_type = trust\nserver_tls_ciphers = nonsense\nserver_tls_ca_file = /nowhere/ca.crt\n")
    with pytest.raises(BadTls) as caught:
        read_contexts(read(str(file)))
    assert caught.value.mistakes == [
        f"{file}:4: server_tls_ca_file: /nowhere/ca.crt: cannot be read: No such file or directory",
        f"{file}:3: server_tls_ciphers: OpenSSL knows none of these ciphers",
    ]


@pytest.mark.parametrize("mode", ["disable", "prefer"])
def test_direct_tls_where_tls_need_not_be_is_a_mistake_with_its_place(tmp_path, mode):
    file = tmp_path / "a.ini"
    file.write_text(
        "[databases]\nshop = host=db server_tls_negotiation=direct\n"
        f"[proxy]\nauth_type = any\nserver_tls_sslmode = {mode}\nserver_tls_negotiation = direct\n"
    )
    with pytest.raises(BadTls) as caught:
        read_contexts(read(str(file)))
    sentence = "direct needs server_tls_sslmode = require, verify-ca or verify-full"
    expected = [f"{file}:6: server_tls_negotiation: {sentence}", f"{file}:2: shop: server_tls_negotiation: {sentence}"]
    assert caught.value.mistakes == expected
    file.write_text(file.read_text().replace(mode, "require"))
    assert read_contexts(read(str(file))).for_servers is not None
