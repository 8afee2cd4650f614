"""SCRAM: RFC 7677's own transcript in both roles, each role against the other, and each against liars."""

import base64
import hmac
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import scram
from protocol.errors import ProtocolError, Refused
from protocol.passwords import ScramKeys, Secret, derive_salted_password
from protocol.scram import ScramClient, ScramServer, WrongPassword, mock_verifier, offered_with

# RFC 7677 section 3.
SALT = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
PENCIL = ScramKeys.from_salted_password(derive_salted_password(Secret("pencil"), SALT, 4096))
EXAMINE = ScramKeys.from_salted_password(derive_salted_password(Secret("examine"), SALT, 4096))
VERIFIER = PENCIL.verifier(SALT, 4096)
CLIENT_FIRST = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
SERVER_FIRST = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
CLIENT_FINAL = (
    b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
)
SERVER_FINAL = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


def a_client() -> ScramClient:
    return ScramClient(user="user", nonce="rOprNGfwEbeRWgbNEkqO")


def a_server() -> ScramServer:
    return ScramServer(VERIFIER, nonce="%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0")


def test_the_client_speaks_the_transcript_of_rfc_7677() -> None:
    client = a_client()
    assert client.first() == CLIENT_FIRST
    challenge = client.challenge(SERVER_FIRST)
    assert (challenge.salt, challenge.iterations) == (SALT, 4096)
    assert client.proof(PENCIL) == CLIENT_FINAL
    client.check_final(SERVER_FINAL)


def test_the_server_speaks_the_transcript_of_rfc_7677() -> None:
    server = a_server()
    assert server.first(CLIENT_FIRST) == SERVER_FIRST
    assert server.final(CLIENT_FINAL) == SERVER_FINAL


def converse(client: ScramClient, server: ScramServer, keys: ScramKeys) -> None:
    client.challenge(server.first(client.first()))
    client.check_final(server.final(client.proof(keys)))


def test_a_last_message_with_an_extension_is_signed_with_it() -> None:
    """It is not the usual one, and is looked at closer."""
    server = a_server()
    server.first(CLIENT_FIRST)
    without_proof = CLIENT_FINAL.partition(b",p=")[0] + b",x=more"
    signed = b",".join((CLIENT_FIRST[3:], SERVER_FIRST, without_proof))
    signature = hmac.digest(PENCIL.stored_key, signed, "sha256")
    proof = bytes(one ^ other for one, other in zip(PENCIL.client_key, signature, strict=True))
    said = base64.b64encode(hmac.digest(PENCIL.server_key, signed, "sha256"))
    assert server.final(without_proof + b",p=" + base64.b64encode(proof)) == b"v=" + said
    assert server.keys == PENCIL


def test_both_roles_understand_each_other_with_nonces_of_their_own() -> None:
    server = ScramServer(VERIFIER)
    converse(ScramClient(), server, PENCIL)
    assert server.keys == PENCIL


def test_nonces_are_new_each_time() -> None:
    assert ScramClient().first() != ScramClient().first()
    assert ScramServer(VERIFIER).first(CLIENT_FIRST) != ScramServer(VERIFIER).first(CLIENT_FIRST)


def test_a_wrong_password_is_a_wrong_password() -> None:
    with pytest.raises(WrongPassword):
        converse(ScramClient(), ScramServer(VERIFIER), EXAMINE)


def test_while_a_password_is_rotated_both_are_right() -> None:
    verifiers = VERIFIER, EXAMINE.verifier(SALT, 4096)
    for keys in (PENCIL, EXAMINE):
        server = ScramServer(*verifiers)
        converse(ScramClient(), server, keys)
        assert server.keys == keys


def test_verifiers_of_different_salts_are_our_own_mistake() -> None:
    with pytest.raises(AssertionError):
        ScramServer(VERIFIER, EXAMINE.verifier(b"other", 4096))


def test_nobody_passes_a_mock_verifier_and_it_is_the_same_each_time() -> None:
    mock = mock_verifier("joe", b"key", 4096)
    assert mock == mock_verifier("joe", b"key", 4096)
    assert mock.salt != mock_verifier("jim", b"key", 4096).salt
    assert mock.salt != mock_verifier("joe", b"yek", 4096).salt
    assert len(mock.salt) == 16
    with pytest.raises(WrongPassword):
        converse(ScramClient(), ScramServer(mock), PENCIL)


def test_any_user_name_is_escaped_and_none_matters() -> None:
    for user in ("a,b=c", "é", "\udcff"):
        converse(ScramClient(user=user), ScramServer(VERIFIER), PENCIL)
    assert ScramClient(user="a,b=c", nonce="x").first() == b"n,,n=a=2Cb=3Dc,r=x"


# Channel binding.

PLUS = "SCRAM-SHA-256-PLUS"
BOTH = (PLUS, "SCRAM-SHA-256")


def a_binding_server(mechanism: str, channel_binding: bytes | None = b"hash") -> ScramServer:
    return ScramServer(VERIFIER, mechanism=mechanism, channel_binding=channel_binding)


def test_a_server_offers_what_the_connection_can_be_bound_to() -> None:
    assert offered_with(b"hash") == BOTH
    assert offered_with(None) == ("SCRAM-SHA-256",)


@pytest.mark.parametrize(
    ("offered", "channel_binding", "mechanism", "header"),
    [
        (BOTH, b"hash", PLUS, b"p=tls-server-end-point,,"),
        ((PLUS,), b"hash", PLUS, b"p=tls-server-end-point,,"),
        (("SCRAM-SHA-256",), b"hash", "SCRAM-SHA-256", b"y,,"),
        (BOTH, None, "SCRAM-SHA-256", b"n,,"),
        (("SCRAM-SHA-256",), None, "SCRAM-SHA-256", b"n,,"),
    ],
)
def test_a_client_binds_where_it_can_and_says_when_it_could(
    offered: tuple[str, ...], channel_binding: bytes | None, mechanism: str, header: bytes
) -> None:
    client = ScramClient(offered, nonce="c", channel_binding=channel_binding)
    assert client.mechanism == mechanism
    assert client.first() == header + b"n=,r=c"


def test_a_client_says_what_it_was_offered_and_what_it_can() -> None:
    with pytest.raises(ProtocolError, match="'SCRAM-SHA-256-PLUS'; we speak only SCRAM-SHA-256 here"):
        ScramClient((PLUS,))
    with pytest.raises(ProtocolError, match="'A, B'; we speak only SCRAM-SHA-256-PLUS and SCRAM-SHA-256 here"):
        ScramClient(("A", "B"), channel_binding=b"hash")


def test_channel_binding_binds_both_sides_to_the_same_certificate() -> None:
    converse(ScramClient(BOTH, channel_binding=b"hash"), a_binding_server(PLUS), PENCIL)
    with pytest.raises(Refused, match="channel binding check failed") as refusal:
        converse(ScramClient(BOTH, channel_binding=b"hash"), a_binding_server(PLUS, b"other"), PENCIL)
    assert refusal.value.sqlstate == "28000"


def test_a_client_that_cannot_bind_is_welcome_where_binding_is_offered() -> None:
    converse(ScramClient(BOTH), a_binding_server("SCRAM-SHA-256"), PENCIL)


def test_whatever_it_says_besides() -> None:
    """What is not written as usual is read by another path: only a `y` is suspicious there too."""
    for nonce in (b"x" * 20, b"x" * 256):
        assert a_binding_server("SCRAM-SHA-256").first(b"n,,n=,r=" + nonce).startswith(b"r=" + nonce)


def test_whoever_hides_our_offer_is_found_out() -> None:
    """Somebody in between strikes the mechanism from what we offer: the client says `y`, which he cannot change."""
    client = ScramClient(("SCRAM-SHA-256",), channel_binding=b"theirs")
    with pytest.raises(Refused, match="negotiation error") as refusal:
        converse(client, a_binding_server("SCRAM-SHA-256"), PENCIL)
    assert refusal.value.sqlstate == "28000"
    converse(ScramClient(("SCRAM-SHA-256",), channel_binding=b"x"), ScramServer(VERIFIER), PENCIL)


def test_whoever_changes_the_flag_breaks_the_signature() -> None:
    client = ScramClient(("SCRAM-SHA-256",), channel_binding=b"theirs")
    server = a_binding_server("SCRAM-SHA-256")
    client.challenge(server.first(client.first().replace(b"y,,", b"n,,", 1)))
    with pytest.raises(ProtocolError, match="unexpected SCRAM channel-binding attribute"):
        server.final(client.proof(PENCIL))


@pytest.mark.parametrize(
    ("mechanism", "header", "complaint"),
    [
        (PLUS, b"n", "the client selected SCRAM-SHA-256-PLUS, but"),
        (PLUS, b"y", "the client selected SCRAM-SHA-256-PLUS, but"),
        (PLUS, b"p=tls-unique", 'unsupported SCRAM channel-binding type "tls-unique"'),
        (PLUS, b"p=", "malformed"),
        (PLUS, b"p=" + b"x" * 65, "malformed"),
        (PLUS, b"p=a\x1bb", "malformed"),
        ("SCRAM-SHA-256", b"p=tls-server-end-point", "selected SCRAM-SHA-256 without channel binding, but"),
        ("SCRAM-SHA-256", b"p=tls-unique", "selected SCRAM-SHA-256 without channel binding, but"),
    ],
)
def test_the_header_must_suit_the_mechanism(mechanism: str, header: bytes, complaint: str) -> None:
    with pytest.raises(ProtocolError, match=complaint):
        a_binding_server(mechanism).first(header + b",,n=,r=c")


def test_a_mechanism_that_was_not_offered_is_our_own_mistake() -> None:
    with pytest.raises(AssertionError):
        ScramServer(VERIFIER, mechanism=PLUS)


# A hostile server.

OURS = "rOprNGfwEbeRWgbNEkqO"
REST = ",s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"


@pytest.mark.parametrize(
    ("server_first", "complaint"),
    [
        ("", "malformed"),
        ("r=", "malformed"),
        ("m=x,r=" + OURS + "x" + REST, "malformed"),
        ("r=other" + REST, "does not continue ours"),
        ("r=" + OURS + REST, "does not continue ours"),
        ("r=" + OURS[:-1] + REST, "does not continue ours"),
        ("r=x" + OURS + REST, "does not continue ours"),
        ("r=" + OURS + "x" * 493 + REST, "longer than 512"),
        ("r=" + OURS + "x" * 5000 + REST, "malformed"),
        ("r=" + OURS + "\x00" + REST, "malformed"),
        ("r=" + OURS + "é" + REST, "malformed"),
        ("r=" + OURS + "x,s=,i=4096", "malformed"),
        ("r=" + OURS + "x,s=====,i=4096", "salt"),
        ("r=" + OURS + "x,s=abc,i=4096", "salt"),
        ("r=" + OURS + "x,s=" + "AAAA" * 400 + ",i=4096", "salt"),
        ("r=" + OURS + "x,s=AAAA,i=0", "asks for 0 SCRAM iterations"),
        ("r=" + OURS + "x,s=AAAA,i=1000001", "asks for 1000001 SCRAM iterations"),
        ("r=" + OURS + "x,s=AAAA,i=-1", "malformed"),
        ("r=" + OURS + "x,s=AAAA,i=" + "9" * 4000, "malformed"),
        ("r=" + OURS + "x,s=AAAA,i=1\n", "malformed"),
        ("r=" + OURS + "x,s=AAAA", "malformed"),
        ("e=other-error", "malformed"),
    ],
)
def test_a_bad_first_message_of_the_server_is_refused(server_first: str, complaint: str) -> None:
    with pytest.raises(ProtocolError, match=complaint) as refusal:
        a_client().challenge(server_first.encode())
    assert len(str(refusal.value)) < 200


def test_an_extension_that_may_be_ignored_is_ignored() -> None:
    assert a_client().challenge(SERVER_FIRST + b",x=y").iterations == 4096


@pytest.mark.parametrize(
    ("server_final", "complaint"),
    [
        (b"", "malformed"),
        (b"v=", "malformed"),
        (b"v=AAAA", "does not know our password"),
        (b"v=!!!!", "malformed"),
        (b"v=" + base64.b64encode(bytes(32)), "does not know our password"),
        (SERVER_FINAL[:-1], "does not know our password"),
        (SERVER_FINAL + b"=", "does not know our password"),
        (b"e=invalid-proof", "the server ends the SCRAM exchange: invalid-proof"),
        (b"e=\x1b[2J", "malformed"),
        (b"e=" + b"x" * 201, "malformed"),
        (b"v=" + b"A" * 5000, "malformed"),
    ],
)
def test_a_server_that_cannot_prove_itself_is_refused(server_final: bytes, complaint: str) -> None:
    client = a_client()
    client.challenge(SERVER_FIRST)
    client.proof(PENCIL)
    with pytest.raises(ProtocolError, match=complaint):
        client.check_final(server_final)


# A hostile client.


@pytest.mark.parametrize(
    ("client_first", "complaint"),
    [
        (b"", "malformed"),
        (b"n", "malformed"),
        (b"n,,", "malformed"),
        (b"x,,n=,r=abc", "malformed"),
        (b"n=x,,n=,r=abc", "malformed"),
        (b"p,,n=,r=abc", "malformed"),
        (b"p=tls-server-end-point,,n=,r=abc", "without channel binding"),
        (b"p=,,n=,r=abc", "malformed"),
        (b"n,a=admin,n=,r=abc", "authorization identity"),
        (b"n,,m=ext,n=,r=abc", "extension"),
        (b"n,,n=,r=", "malformed"),
        (b"n,,r=abc", "malformed"),
        (b"n,,n=,r=a\x00c", "malformed"),
        (b"n,,n=,r=a\xffc", "malformed"),
        (b"n,,n=,r=" + b"x" * 257, "longer than 256"),
        (b"n,,n=,r=" + b"x" * 5000, "malformed"),
        (b"n,,n=" + b"x" * 5000 + b",r=abc", "malformed"),
    ],
)
def test_a_bad_first_message_of_the_client_is_refused(client_first: bytes, complaint: str) -> None:
    with pytest.raises(ProtocolError, match=complaint):
        a_server().first(client_first)


@pytest.mark.parametrize("header", [b"n,,", b"y,,"])
def test_a_client_without_channel_binding_is_welcome_and_must_repeat_its_header(header: bytes) -> None:
    server = ScramServer(VERIFIER, nonce="s")
    server.first(header + b"n=,r=c")
    for other in (b"n,,", b"y,,", b"p=tls-server-end-point,,"):
        final = b"c=" + base64.b64encode(other) + b",r=cs,p=" + base64.b64encode(bytes(32))
        with pytest.raises(WrongPassword if other == header else ProtocolError):
            server.final(final)


@pytest.mark.parametrize(
    ("client_final", "complaint"),
    [
        (b"", "malformed"),
        (CLIENT_FINAL.replace(b"c=biws", b"c=eSws"), "unexpected SCRAM channel-binding attribute"),
        (CLIENT_FINAL.replace(b"k0,", b"k1,"), "not the one agreed upon"),
        (CLIENT_FINAL.replace(b"k0,", b"k0x,"), "not the one agreed upon"),
        (CLIENT_FINAL[: CLIENT_FINAL.index(b",p=")], "malformed"),
        (CLIENT_FINAL[: CLIENT_FINAL.index(b",p=")] + b",p=", "malformed"),
        (CLIENT_FINAL[: CLIENT_FINAL.index(b",p=")] + b",p=AAAA", "proof is not base64"),
        (CLIENT_FINAL + b"=", "proof is not base64"),
        (CLIENT_FINAL + b"\n", "malformed"),
        (CLIENT_FINAL + b",x=y", "malformed"),
        (b"c=biws," + CLIENT_FINAL, "malformed"),
        (b"m=x," + CLIENT_FINAL, "malformed"),
        (CLIENT_FINAL + b"A" * 5000, "malformed"),
    ],
)
def test_a_bad_last_message_of_the_client_is_refused(client_final: bytes, complaint: str) -> None:
    server = a_server()
    server.first(CLIENT_FIRST)
    with pytest.raises(ProtocolError, match=complaint):
        server.final(client_final)


def test_what_the_client_adds_is_signed_too() -> None:
    server = a_server()
    server.first(CLIENT_FIRST)
    with pytest.raises(WrongPassword):
        server.final(CLIENT_FINAL.replace(b",p=", b",x=y,p="))


SAID = [CLIENT_FIRST, SERVER_FIRST, CLIENT_FINAL, SERVER_FINAL, b"p=tls-server-end-point" + CLIENT_FIRST[1:]]
messages = st.binary(max_size=200) | st.sampled_from(SAID).flatmap(
    lambda message: st.builds(
        lambda at, piece: message[:at] + piece + message[at + 1 :],
        st.integers(0, len(message)),
        st.binary(max_size=4),
    )
)


@given(messages, messages)
def test_whatever_is_said_the_server_answers_or_refuses(first: bytes, final: bytes) -> None:
    server = a_server()
    with suppress(ProtocolError):
        server.first(first)
    server = a_server()
    server.first(CLIENT_FIRST)
    with suppress(ProtocolError, WrongPassword):
        assert server.final(final) == SERVER_FINAL


@given(messages, messages)
def test_whatever_is_said_the_client_goes_on_or_refuses(first: bytes, final: bytes) -> None:
    with suppress(ProtocolError):
        a_client().challenge(first)
    client = a_client()
    client.challenge(SERVER_FIRST)
    client.proof(PENCIL)
    with suppress(ProtocolError):
        client.check_final(final)
        assert final.startswith(SERVER_FINAL)


@given(
    st.sampled_from([b"n,,", b"y,,", b"n,a=x,", b"p=tls-server-end-point,,", b"n,", b""]),
    st.sampled_from([b"n=", b"n=ann,", b"m=x,n=", b"x"]),
    st.sampled_from([b"r=", b",r=", b",r=,", b""]),
    st.one_of(st.binary(max_size=3), st.just(b"n" * 18), st.just(b"n" * 200), st.just(b"n" * 201), st.just(b"n" * 257)),
    st.sampled_from([b"", b",", b",x=y", b"\n"]),
    st.booleans(),
)
def test_the_short_way_through_a_first_message_says_what_the_long_one_says(
    header: bytes, name: bytes, mark: bytes, nonce: bytes, tail: bytes, is_bound: bool
) -> None:
    said = header + name + mark + nonce + tail

    def hear(server: ScramServer, is_long: bool) -> tuple[object, ...]:
        try:
            if is_long:
                bare, found = server._look_closer(said)
                return bare, found + server._nonce, server._bound
            server.first(said)
        except (ProtocolError, Refused) as no:
            return type(no), str(no)
        return server._opening.partition(b",r=" + server._nonces + b",s=")[0], server._nonces, server._bound

    binding = b"hash" if is_bound else None
    short, long = (ScramServer(VERIFIER, nonce="s", channel_binding=binding) for _ in range(2))
    assert hear(short, is_long=False) == hear(long, is_long=True)


def test_the_usual_first_message_goes_the_short_way() -> None:
    assert scram._USUAL_FIRST.fullmatch(CLIENT_FIRST) is not None
