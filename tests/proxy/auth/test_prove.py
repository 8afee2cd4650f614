"""Our login to PostgreSQL: what we answer to an honest server, and how a hostile one gets nothing."""

import asyncio
import base64
import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import codes
from protocol.backend import (
    build_authentication,
    build_authentication_cleartext,
    build_authentication_md5,
    build_authentication_ok,
    build_error,
    build_negotiate,
    build_notice,
    build_parameter_status,
    build_sasl,
    build_sasl_continue,
    build_sasl_final,
)
from protocol.body import build_message
from protocol.certificates import find_end_point
from protocol.errors import ProtocolError, Refused
from protocol.frontend import build_password, parse_sasl_initial
from protocol.passwords import LearntKeys, Md5, ScramKeys, Secret, derive_salted_password, md5_stored
from protocol.scram import ScramServer, offered_with
from proxy.auth.claim import Password
from proxy.auth.prove import ServerRefused, TooNew, prove_ourselves
from proxy.inbox import Inbox, PeerGone
from tests.proxy.auth.wire import a_keeper, alone, joined, play, wired

OK = build_authentication_ok()
NOTICE = build_notice("NOTICE", "00000", "hello")
NEGOTIATE = build_negotiate(0, ["_pq_.x"])
RIGHT = Secret("swordfish")
VERIFIER = ScramKeys.from_salted_password(derive_salted_password(RIGHT, b"salt", 2)).verifier(b"salt", 2)


def answers(*messages: bytes, password: Password = RIGHT, must_bind: bool = False) -> bytes:
    """What we say to a server that says all this."""

    async def answer() -> bytes:
        inbox, keeper = alone(b"".join(messages)), a_keeper()
        try:
            await prove_ourselves(inbox, "joe", password, keeper, must_bind=must_bind)
        finally:
            keeper.close()
        return wired(inbox).written

    return play(answer())


def test_a_server_that_trusts_us_hears_nothing() -> None:
    assert answers(OK) == answers(OK, password=None) == b""


def test_a_server_that_asks_for_the_password_gets_it() -> None:
    assert answers(build_authentication_cleartext(), OK) == build_password("swordfish")


def test_where_scram_must_be_bound_and_cannot_be_we_say_nothing_and_why() -> None:
    with pytest.raises(ProtocolError, match="cannot be bound to the server's certificate"):
        answers(build_sasl(["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"]), must_bind=True)
    assert answers(build_authentication_cleartext(), OK, must_bind=True) == build_password("swordfish")


def test_a_server_that_asks_for_md5_gets_the_hash_postgresql_documents() -> None:
    said = answers(build_authentication_md5(b"\1\2\3\4"), OK)
    assert said == answers(build_authentication_md5(b"\1\2\3\4"), OK, password=md5_stored(RIGHT, "joe"))
    inner = hashlib.md5(b"swordfish" + b"joe").hexdigest()  # docs: Message Flow, AuthenticationMD5Password
    assert said == build_password("md5" + hashlib.md5(inner.encode() + b"\1\2\3\4").hexdigest())


def test_notices_and_one_version_negotiation_may_come_at_any_time() -> None:
    assert answers(NEGOTIATE, OK) == answers(NOTICE, NEGOTIATE, NOTICE, OK) == b""
    assert answers(NOTICE, build_authentication_cleartext(), NOTICE, OK) == build_password("swordfish")


def minor_with(*messages: bytes, minor: int = 2, hangs_up: bool = False) -> int:
    """Which minor is spoken in the end with a server that says all this."""

    async def ask() -> int:
        inbox, keeper = alone(b"".join(messages)), a_keeper()
        if hangs_up:
            inbox.eof_received()
        try:
            return await prove_ourselves(inbox, "joe", RIGHT, keeper, minor)
        finally:
            keeper.close()

    return play(ask())


def test_the_server_decides_which_minor_is_spoken() -> None:
    assert minor_with(OK) == 2
    assert minor_with(build_negotiate(0, []), OK) == 0
    assert minor_with(NOTICE, NEGOTIATE, build_authentication_cleartext(), OK) == 0
    assert minor_with(OK, minor=0) == 0


@pytest.mark.parametrize("nonsense", [build_negotiate(3, []), build_message(codes.NEGOTIATE_PROTOCOL_VERSION, b"\0")])
def test_a_server_may_not_offer_more_than_was_asked_for(nonsense: bytes) -> None:
    with pytest.raises(ProtocolError):
        minor_with(nonsense, OK)


@pytest.mark.parametrize("code", ["0A000", "08P01"])
def test_whoever_turns_us_away_at_once_may_not_know_our_version(code: str) -> None:
    refusal = build_error("FATAL", code, "unsupported frontend protocol 3.2")
    with pytest.raises(TooNew, match="unsupported frontend protocol"):
        minor_with(refusal)
    with pytest.raises(ServerRefused):
        minor_with(refusal, minor=0)
    with pytest.raises(ServerRefused):
        minor_with(build_authentication_cleartext(), refusal)


def test_so_may_whoever_hangs_up_without_a_word() -> None:
    with pytest.raises(TooNew):
        minor_with(hangs_up=True)
    with pytest.raises(PeerGone):
        minor_with(hangs_up=True, minor=0)
    with pytest.raises(PeerGone):
        minor_with(build_authentication_cleartext(), hangs_up=True)


def test_any_other_refusal_is_not_about_the_version() -> None:
    with pytest.raises(ServerRefused):
        minor_with(build_error("FATAL", "57P03", "the database system is starting up"))


def test_what_comes_after_authentication_ok_is_left_unread() -> None:
    async def hurry() -> None:
        inbox, keeper = alone(OK + build_parameter_status("a", "b")), a_keeper()
        await prove_ourselves(inbox, "joe", None, keeper)
        assert (await inbox.wait_message(100))[0] == codes.PARAMETER_STATUS
        keeper.close()

    play(hurry())


def test_the_servers_refusal_keeps_its_own_words() -> None:
    with pytest.raises(ServerRefused, match="too many connections") as refusal:
        answers(build_error("FATAL", "53300", "too many connections", detail="sorry"))
    fields = refusal.value.fields
    assert (fields.severity, fields.sqlstate, fields.message, fields.detail) == (
        "FATAL",
        "53300",
        "too many connections",
        "sorry",
    )


def test_a_refusal_without_a_word_is_still_a_refusal() -> None:
    with pytest.raises(ServerRefused, match="without a word"):
        answers(build_message(codes.ERROR_RESPONSE, b"\0"))


SASL = build_sasl(["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"])


@pytest.mark.parametrize("question", [build_authentication_cleartext(), build_authentication_md5(b"1234"), SASL])
@pytest.mark.parametrize("password", [None, Secret("")])
def test_a_password_we_do_not_have_is_said_to_be_missing_and_where_to_give_it(
    question: bytes, password: Password
) -> None:
    with pytest.raises(ServerRefused, match='PostgreSQL asks user "joe" for a password') as refusal:
        answers(question, OK, password=password)
    assert refusal.value.fields.sqlstate == "28P01"
    assert "password=" in refusal.value.fields.hint


@pytest.mark.parametrize("question", [build_authentication_cleartext(), SASL])
def test_an_md5_is_no_password(question: bytes) -> None:
    with pytest.raises(ServerRefused, match="of which we have only the md5"):
        answers(question, OK, password=Md5("0" * 32))


# The keys that a client has shown us.

KEYS = ScramKeys.from_salted_password(derive_salted_password(RIGHT, b"salt", 2))


def against_a_real_one(password: Password) -> str:
    """Log in to a server that has VERIFIER; what it refuses with, or nothing."""

    async def both() -> str:
        ours, theirs = joined()
        keeper = a_keeper()
        try:
            _, verdict = await asyncio.gather(serve_scram(theirs), prove_ourselves(ours, "joe", password, keeper))
        finally:
            keeper.close()
        return str(verdict)

    return play(both())


async def serve_scram(inbox: Inbox) -> None:
    server = ScramServer(VERIFIER)
    inbox.write(build_sasl(["SCRAM-SHA-256"]))
    initial = parse_sasl_initial((await inbox.wait_message(5000))[1])
    inbox.write(build_sasl_continue(server.first(initial.data or b"")))
    inbox.write(build_sasl_final(server.final((await inbox.wait_message(5000))[1])) + OK)


def test_keys_are_as_good_as_the_password_for_the_verifier_they_belong_to() -> None:
    assert against_a_real_one(LearntKeys(KEYS, b"salt", 2)) == against_a_real_one(RIGHT) == "0"


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (LearntKeys(KEYS, b"pepper", 2), "a proof of its password with another salt"),
        (LearntKeys(KEYS, b"salt", 4096), "with 2 iterations instead of 4096"),
    ],
)
def test_a_server_with_another_verifier_is_said_to_have_another(keys: LearntKeys, words: str) -> None:
    with pytest.raises(ServerRefused, match=words) as refusal:
        against_a_real_one(keys)
    assert refusal.value.fields.sqlstate == "28P01"
    assert "the same to the byte" in refusal.value.fields.hint
    assert "pepper" not in str(refusal.value)


@pytest.mark.parametrize("question", [build_authentication_cleartext(), build_authentication_md5(b"1234")])
def test_keys_are_no_password(question: bytes) -> None:
    with pytest.raises(ServerRefused, match="of which we have only the keys of SCRAM"):
        answers(question, OK, password=LearntKeys(KEYS, b"salt", 2))


def test_a_verifier_alone_opens_nothing_yet() -> None:
    with pytest.raises(ServerRefused, match="only a SCRAM verifier: its keys come with a client's login"):
        answers(SASL, OK, password=VERIFIER)


# A hostile server.


@pytest.mark.parametrize(
    ("messages", "complaint"),
    [
        ([build_authentication(codes.AUTH_GSS)], r"for GSSAPI, which we do not speak: give this user scram-sha-256"),
        ([build_authentication(codes.AUTH_SSPI)], "for SSPI"),
        ([build_authentication(codes.AUTH_KERBEROS_V5)], "for Kerberos"),
        ([build_authentication(99)], "type 99 where it makes no sense"),
        ([build_sasl_continue(b"r=x")], "type 11 where it makes no sense"),
        ([build_sasl_final(b"v=x")], "type 12 where it makes no sense"),
        ([build_message(codes.AUTHENTICATION, b"\0\0")], "ends too early"),
        ([build_authentication(codes.AUTH_MD5, b"123")], "md5 salt of 3 bytes"),
        ([build_authentication(codes.AUTH_MD5, b"12345")], "md5 salt of 5 bytes"),
        ([build_authentication_cleartext(), build_authentication_cleartext()], "type 3 where it makes no sense"),
        ([build_authentication_md5(b"1234"), SASL], "type 10 where it makes no sense"),
        ([build_sasl(["SCRAM-SHA-256-PLUS"])], "'SCRAM-SHA-256-PLUS'; we speak only SCRAM-SHA-256"),
        ([build_sasl([])], "we speak only"),
        ([build_sasl(["X" * 10_000] * 6)], "we speak only"),
        ([build_authentication(codes.AUTH_SASL, b"SCRAM-SHA-256")], "no end"),
        ([SASL, OK], "without having proved"),
        ([SASL, SASL], "type 10 where it makes no sense"),
        ([SASL, build_sasl_continue(b"r=abc,s=AAAA,i=1")], "does not continue ours"),
        ([NEGOTIATE, NEGOTIATE], "message of type 'v' while we log in"),
        ([build_parameter_status("a", "b")], "message of type 'S' while we log in"),
        ([b"Z\0\0\0\5I"], "message of type 'Z' while we log in"),
        ([NOTICE] * 21, "more than 20 messages"),
        ([b"R\xff\xff\xff\xff"], "invalid message length"),
        ([b"R\0\0\0\3"], "invalid message length"),
        ([b"R\0\1\0\1"], "invalid message length"),
    ],
)
def test_a_server_that_breaks_the_rules_is_left(messages: list[bytes], complaint: str) -> None:
    with pytest.raises(ProtocolError, match=complaint) as refusal:
        answers(*messages)
    assert len(str(refusal.value)) < 400


def test_a_server_that_leaves_is_gone() -> None:
    async def leave() -> None:
        inbox = alone(NOTICE)
        inbox.eof_received()
        with pytest.raises(PeerGone):
            await prove_ourselves(inbox, "joe", RIGHT, a_keeper())

    play(leave())


async def serve(inbox: Inbox, lie: str) -> None:
    """A SCRAM server that is honest but for one thing."""
    inbox.write(SASL)
    _, body = await inbox.wait_message(1000)
    initial = parse_sasl_initial(body)
    assert initial.mechanism == "SCRAM-SHA-256"
    scram = ScramServer(VERIFIER)
    first = scram.first(initial.data or b"")
    if lie == "iterations":
        first = first.replace(b",i=2", b",i=1000001")
    if lie == "ok instead of a challenge":
        inbox.write(OK)
    inbox.write(build_sasl_continue(first))
    _, body = await inbox.wait_message(1000)
    final = scram.final(body)
    if lie == "no proof":
        inbox.write(OK)
    if lie == "false proof":
        final = b"v=" + base64.b64encode(bytes(32))
    inbox.write(build_sasl_final(final) + OK)


def meet(lie: str) -> None:
    async def both() -> None:
        server, ours = joined()
        keeper = a_keeper()
        serving = asyncio.ensure_future(serve(server, lie))
        try:
            await prove_ourselves(ours, "joe", RIGHT, keeper)
        finally:
            serving.cancel()
            keeper.close()

    play(both())


def test_a_server_that_knows_our_password_is_believed() -> None:
    meet("")


@pytest.mark.parametrize(
    ("lie", "complaint"),
    [
        ("iterations", "the server asks for 1000001 SCRAM iterations"),
        ("ok instead of a challenge", "without having proved"),
        ("no proof", "without having proved"),
        ("false proof", "the server does not know our password"),
    ],
)
def test_a_server_that_does_not_is_left(lie: str, complaint: str) -> None:
    with pytest.raises(ProtocolError, match=complaint):
        meet(lie)


pieces = st.sampled_from([NOTICE, NEGOTIATE, SASL, build_authentication_cleartext(), build_sasl_continue(b"r=x")])


@given(st.lists(pieces | st.binary(max_size=20), max_size=5))
@settings(max_examples=50, deadline=None)
def test_whatever_a_server_says_we_end_in_one_of_four_ways(said: list[bytes]) -> None:
    async def listen() -> None:
        inbox, keeper = alone(b"".join(said)), a_keeper()
        inbox.eof_received()
        with pytest.raises((ProtocolError, ServerRefused, PeerGone)):
            await prove_ourselves(inbox, "joe", RIGHT, keeper)
        keeper.close()

    play(listen())


# SCRAM bound to the server's certificate.

# As much of one as is read: signed by SHA-256 with RSA.
CERTIFICATE = bytes.fromhex("3014" + "3000" + "300d06092a864886f70d01010b0500" + "030100")
PLUS = "SCRAM-SHA-256-PLUS"


class Shown:
    """The TLS of a connection to a server that has shown this certificate."""

    def __init__(self, certificate: bytes) -> None:
        self.certificate = certificate

    def getpeercert(self, *, binary_form: bool) -> bytes:
        return self.certificate


def bound(offered: tuple[str, ...], theirs: bytes | None, shown: bytes | None = CERTIFICATE) -> str:
    """The mechanism selected where `shown` is what we see and `theirs` what the server means; its words if it fails."""
    binding = None if theirs is None else find_end_point(theirs)

    async def serve(inbox: Inbox) -> str:
        inbox.write(build_sasl(offered))
        initial = parse_sasl_initial((await inbox.wait_message(1000))[1])
        scram = ScramServer(VERIFIER, mechanism=initial.mechanism, channel_binding=binding)
        assert initial.data is not None
        try:
            inbox.write(build_sasl_continue(scram.first(initial.data)))
            last = scram.final((await inbox.wait_message(1000))[1])
        except Refused as refusal:
            inbox.write(build_error("FATAL", refusal.sqlstate, refusal.sentence))
            return refusal.sentence
        inbox.write(build_sasl_final(last) + OK)
        return initial.mechanism

    async def both() -> str:
        us, server = joined()
        if shown is not None:
            wired(us).show("ssl_object", Shown(shown))
        keeper = a_keeper()
        try:
            told, heard = await asyncio.gather(
                serve(server), prove_ourselves(us, "joe", RIGHT, keeper), return_exceptions=True
            )
        finally:
            keeper.close()
        assert isinstance(told, str)
        assert isinstance(heard, ServerRefused if "SHA" not in told else int)
        return told

    return play(both())


def test_over_tls_we_are_bound_to_the_certificate_where_the_server_offers_it() -> None:
    assert bound(offered_with(b""), CERTIFICATE) == PLUS
    assert bound((PLUS,), CERTIFICATE) == PLUS
    assert bound(("SCRAM-SHA-256",), None) == "SCRAM-SHA-256"


def test_a_certificate_of_somebody_in_between_and_an_offer_he_hides_are_noticed_by_the_server() -> None:
    assert bound(offered_with(b""), CERTIFICATE + b"\0") == "SCRAM channel binding check failed"
    assert bound(("SCRAM-SHA-256",), CERTIFICATE) == "SCRAM channel binding negotiation error"


def test_where_nothing_can_be_bound_we_say_so() -> None:
    assert bound(offered_with(b""), CERTIFICATE, shown=None) == "SCRAM-SHA-256"
    assert bound(offered_with(b""), CERTIFICATE, shown=b"no certificate") == "SCRAM-SHA-256"


def test_a_server_without_tls_that_offers_nothing_else_is_not_for_us() -> None:
    with pytest.raises(ProtocolError, match="'SCRAM-SHA-256-PLUS'; we speak only SCRAM-SHA-256 here"):
        answers(build_sasl([PLUS]))
