"""The first packets: what is understood, what is refused with which words, and that nothing else can happen."""

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import startup
from protocol.codes import PROTOCOL_3_2
from protocol.errors import ProtocolError, Refused
from protocol.startup import (
    CancelRequest,
    GssRequest,
    SslRequest,
    Startup,
    SuccessionRequest,
    build_cancel_request,
    build_gss_request,
    build_packet,
    build_ssl_request,
    build_startup,
    build_succession_request,
    negotiate,
    parse_options,
    parse_startup,
)

LOGIN = b"\0\x03\0\0user\0app\0database\0shop\0application_name\0web\0\0"


def packet(minor=0, major=3, **parameters):
    pairs = "".join(f"{name}\0{value}\0" for name, value in parameters.items())
    return struct.pack("!HH", major, minor) + pairs.encode() + b"\0"


def refusal(body):
    with pytest.raises(Refused) as caught:
        parse_startup(body)
    return caught.value


# Logins.


def test_a_login_as_libpq_sends_it():
    startup = parse_startup(LOGIN)
    assert startup == Startup(3, 0, {"user": "app", "database": "shop", "application_name": "web"})
    assert (startup.user, startup.database) == ("app", "shop")


@pytest.mark.parametrize("extra", [{}, {"database": ""}])
def test_the_database_is_the_users_name_when_none_is_given(extra):
    assert parse_startup(packet(user="app", **extra)).database == "app"


def test_of_a_parameter_sent_twice_the_last_counts():
    assert parse_startup(b"\0\x03\0\0user\0a\0user\0b\0\0").user == "b"


def test_names_that_are_not_utf8_come_through_unchanged():
    startup = parse_startup(b"\0\x03\0\0user\0\xff\xfe\0\0")
    assert startup.user.encode("utf-8", "surrogateescape") == b"\xff\xfe"
    assert build_startup(startup.parameters).count(b"\xff\xfe") == 2  # user and database


def test_protocol_options_are_kept_apart_from_parameters():
    startup = parse_startup(packet(minor=2, user="a", **{"_pq_.x": "1", "_pq_.y": ""}))
    assert startup.options == ("_pq_.x", "_pq_.y")
    assert set(startup.parameters) == {"user", "database"}


@pytest.mark.parametrize("end", range(len(LOGIN)))
def test_a_login_that_is_cut_short_is_an_error(end):
    with pytest.raises((ProtocolError, Refused)):
        parse_startup(LOGIN[:end])


@pytest.mark.parametrize("body", [LOGIN + b"x", LOGIN + b"\0", b"\0\x03\0\0user\0a\0odd\0\0", b"\0\x03\0\0user\0a\0"])
def test_a_login_with_a_wrong_layout_is_an_error(body):
    with pytest.raises(ProtocolError):
        parse_startup(body)


@pytest.mark.parametrize("body", [packet(), packet(user=""), packet(database="shop")])
def test_a_login_without_a_user_is_refused(body):
    refused = refusal(body)
    assert refused.sqlstate == "28000"
    assert refused.sentence == "no PostgreSQL user name specified in startup packet"


@pytest.mark.parametrize(("major", "minor"), [(2, 0), (4, 0), (0, 0), (1234, 5681), (0x4745, 0x5420)])
def test_other_protocols_are_refused(major, minor):
    refused = refusal(packet(major=major, minor=minor, user="a"))
    assert refused.sqlstate == "0A000"
    assert refused.sentence == f"unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.2"


def test_a_name_may_have_63_bytes_and_no_more():
    check_limit("database", 63)


def test_a_users_name_may_have_127_as_in_pgbouncer():
    check_limit("user", 127)


def check_limit(what, most):
    name = "é" * (most // 2) + "x"
    assert parse_startup(packet(**{"user": "a", "database": "b", what: name})).parameters[what] == name
    refused = refusal(packet(**{"user": "a", "database": "b", what: name + "x"}))
    assert refused.sqlstate == "08P01"
    assert refused.sentence.startswith(f"{what} name of {most + 1} bytes is too long, at most {most} are allowed: ")


def test_a_database_that_is_not_named_may_not_have_the_name_of_a_user_with_a_long_one():
    assert refusal(packet(user="x" * 64)).sentence.startswith("database name of 64 bytes is too long")


def test_a_refusal_repeats_little_of_a_long_name_and_nothing_unprintable():
    sentence = refusal(packet(user="\n\x1b" + "x" * 9000)).sentence
    assert len(sentence) < 150
    assert sentence.isprintable()


def test_too_many_parameters_are_refused():
    assert parse_startup(packet(user="a", **{f"p{i}": "" for i in range(199)}))
    assert refusal(packet(user="a", **{f"p{i}": "" for i in range(200)})).sqlstate == "08P01"


# Everything else that may come first.


def test_requests_for_encryption():
    assert parse_startup(b"\x04\xd2\x16\x2f") == SslRequest()
    assert parse_startup(b"\x04\xd2\x16\x30") == GssRequest()
    with pytest.raises(ProtocolError):
        parse_startup(b"\x04\xd2\x16\x2fx")


@pytest.mark.parametrize("size", [8, 36, 260])
def test_a_cancel_request_gives_the_whole_key(size):
    assert parse_startup(b"\x04\xd2\x16\x2e" + b"k" * size) == CancelRequest(b"k" * size)


@pytest.mark.parametrize("size", [0, 4, 7, 261])
def test_a_cancel_key_that_is_too_short_or_too_long_is_an_error(size):
    with pytest.raises(ProtocolError):
        parse_startup(b"\x04\xd2\x16\x2e" + b"k" * size)
    with pytest.raises(ValueError, match="cancel key"):
        build_cancel_request(b"k" * size)


@given(st.one_of(st.binary(max_size=300), st.binary(max_size=300).map(lambda tail: b"\0\x03\0\0user\0a\0" + tail)))
def test_any_bytes_parse_or_are_refused(body):
    with contextlib.suppress(ProtocolError, Refused):
        parse_startup(body)


_texts = st.text(st.characters(codec="utf-8"), max_size=3).map(str.encode) | st.just(b"_pq_.x")


@given(st.lists(_texts | st.binary(max_size=3), max_size=8), st.sampled_from([b"", b"\0", b"\0\0", b"\0\0\0", b"x"]))
def test_the_short_way_through_a_packet_finds_what_the_long_one_finds_or_nothing(texts, end):
    body = b"\0".join(texts) + end
    pairs = startup._split_pairs(body)
    assert not pairs or pairs == startup._parse_pairs(body)


def test_the_usual_packet_goes_the_short_way():
    assert startup._split_pairs(LOGIN[4:]) == [("user", "app"), ("database", "shop"), ("application_name", "web")]


# Negotiation.


@pytest.mark.parametrize(
    ("minor", "options", "answer"),
    [
        (0, {}, None),
        (2, {}, None),
        (1, {}, (0, ())),  # 3.1 was never a version
        (3, {}, (2, ())),
        (9999, {}, (2, ())),
        (0, {"_pq_.a": "1"}, (0, ("_pq_.a",))),
        (2, {"_pq_.a": "1", "_pq_.b": "2"}, (2, ("_pq_.a", "_pq_.b"))),
        (9999, {"_pq_.test_protocol_negotiation": ""}, (2, ("_pq_.test_protocol_negotiation",))),
    ],
)
def test_what_is_said_about_versions_and_options(minor, options, answer):
    assert negotiate(parse_startup(packet(minor=minor, user="a", **options))) == answer


# The `options` parameter.


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("", []),
        (" \t\n", []),
        ("-c a=1", [("a", "1")]),
        ("-ca=1", [("a", "1")]),
        ("--a=1", [("a", "1")]),
        ("  -c  a=1\t--b=2 ", [("a", "1"), ("b", "2")]),
        ("--statement-timeout=5", [("statement_timeout", "5")]),
        ("-c search_path=a,b=c", [("search_path", "a,b=c")]),
        (r"-c search_path=a,\ b", [("search_path", "a, b")]),
        (r"-c a=\\x\y", [("a", r"\xy")]),
        ("-c a=", [("a", "")]),
        ("-c a=1\\", [("a", "1")]),
    ],
)
def test_options_are_split_as_postgresql_does(text, pairs):
    assert parse_options(text) == pairs


@pytest.mark.parametrize("text", ["-c", "-c a", "--a", "--=1", "-c =1", "-e", "x", "-B 5", "\\", "-", "-C a=1"])
def test_other_switches_are_refused(text):
    with pytest.raises(Refused):
        parse_options(text)


@given(st.text(alphabet="-c =\\a\n\t", max_size=40))
def test_any_options_parse_or_are_refused(text):
    with contextlib.suppress(Refused):
        parse_options(text)


def test_a_refused_option_is_repeated_only_in_part():
    with pytest.raises(Refused) as caught:
        parse_options("x" * 9000)
    assert len(caught.value.sentence) < 150


def test_a_flood_of_backslashes_is_no_trap():
    assert parse_options("-c a=" + "\\" * 100_000) == [("a", "\\" * 50_000)]


# Building.


def test_a_login_of_ours_byte_by_byte():
    assert build_startup({"user": "a"}) == b"\0\0\0\x10\0\x03\0\0user\0a\0\0"
    assert build_startup({"user": "a"}, PROTOCOL_3_2)[4:8] == b"\0\x03\0\x02"


def test_what_is_built_can_be_parsed():
    parameters = {"user": "ä", "database": "d", "options": "-c a=1"}
    assert parse_startup(build_startup(parameters)[4:]) == Startup(3, 0, parameters)
    assert parse_startup(build_cancel_request(b"12345678")[4:]) == CancelRequest(b"12345678")
    assert parse_startup(build_ssl_request()[4:]) == SslRequest()
    assert parse_startup(build_gss_request()[4:]) == GssRequest()


def test_requests_byte_by_byte():
    assert build_ssl_request() == b"\0\0\0\x08\x04\xd2\x16\x2f"
    assert build_cancel_request(b"pid:key:") == b"\0\0\0\x10\x04\xd2\x16\x2epid:key:"


@pytest.mark.parametrize("parameters", [{"user": "a\0b"}, {"us\0er": "a"}, {"user": "a", "": "x"}])
def test_a_value_cannot_become_another_parameter(parameters):
    with pytest.raises(ValueError):  # noqa: PT011
        build_startup(parameters)


def test_a_packet_is_its_length_and_its_body():
    whole = build_startup({"user": "anna"})
    assert build_packet(whole[4:]) == whole


# Taking over.


def test_a_question_for_our_place_has_its_version_and_nothing_else():
    packet_ = build_succession_request(7)
    assert int.from_bytes(packet_[:4]) == len(packet_)
    assert parse_startup(packet_[4:]) == SuccessionRequest(7)


@pytest.mark.parametrize("version", [b"", b"\0\0\0", b"\0\0\0\1x"])
def test_a_question_without_a_version_is_refused(version):
    with pytest.raises(ProtocolError, match="succession request"):
        parse_startup(b"pgsh" + version)
