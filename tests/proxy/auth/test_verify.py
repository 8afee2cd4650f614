"""A client's login: who is believed under which method, and that nobody learns who exists."""

import asyncio
from collections.abc import Iterable

import pytest

from protocol import codes
from protocol.backend import build_authentication_ok, build_error, build_sasl
from protocol.errors import ProtocolError, Refused
from protocol.frontend import build_password, build_query, build_sasl_initial, build_sasl_response
from protocol.passwords import (
    LearntKeys,
    Md5,
    Plain,
    ScramKeys,
    ScramVerifier,
    Secret,
    Stored,
    derive_salted_password,
    md5_stored,
)
from protocol.scram import ScramClient
from proxy.auth import keys
from proxy.auth.claim import Claim, Password
from proxy.auth.prove import ServerRefused, prove_ourselves
from proxy.auth.verify import AuthMethod, verify_client
from proxy.inbox import Inbox, PeerGone
from tests.proxy.auth.wire import a_keeper, alone, joined, play, wired

TRUST, ANY, PLAIN, MD5, SCRAM = AuthMethod
ASKING = PLAIN, MD5, SCRAM
RIGHT = Secret("swordfish")
WRONG = Secret("hunter2")


def scram_of(password: Secret, salt: bytes = b"0123456789abcdef") -> ScramVerifier:
    return ScramKeys.from_salted_password(derive_salted_password(password, salt, 2)).verifier(salt, 2)


FORMS: dict[str, Stored] = {"plain": Plain(RIGHT), "md5": md5_stored(RIGHT, "joe"), "scram": scram_of(RIGHT)}


async def receive(inbox: Inbox, method: AuthMethod, stored: Iterable[Stored], strangers_meet_scram: bool) -> str:
    """Our side of a login, as the proxy will do it: the sentence of a refusal, or nothing."""
    keeper = a_keeper()
    try:
        claim = Claim("joe", tuple(stored), strangers_meet_scram=strangers_meet_scram)
        last = await verify_client(inbox, claim, method, keeper)
    except Refused as refusal:
        inbox.write(build_error("FATAL", refusal.sqlstate, refusal.sentence))
        return f"{refusal.sqlstate} {refusal.sentence}"
    finally:
        keeper.close()
    inbox.write(last + build_authentication_ok())
    return ""


async def enter(inbox: Inbox, password: Password) -> str:
    """The client's side, for which our own login to PostgreSQL stands in."""
    keeper = a_keeper()
    try:
        await prove_ourselves(inbox, "joe", password, keeper)
    except ServerRefused as refusal:
        return f"{refusal.fields.sqlstate} {refusal.fields.message}"
    finally:
        keeper.close()
    return ""


def log_in(
    method: AuthMethod, stored: Iterable[Stored], password: Password, strangers_meet_scram: bool = False
) -> tuple[str, list[tuple[str, int]]]:
    """(refusal or nothing, the messages we sent as type and length)."""

    async def both() -> tuple[str, list[tuple[str, int]]]:
        us, client = joined()
        verdict, heard = await asyncio.gather(
            receive(us, method, stored, strangers_meet_scram), enter(client, password)
        )
        assert verdict == heard, "the client hears the very words of the refusal"
        return verdict, outline(wired(us).written)

    return play(both())


def outline(sent: bytes) -> list[tuple[str, int]]:
    messages = []
    while sent:
        length = int.from_bytes(sent[1:5], "big") + 1
        messages.append((chr(sent[0]), length))
        sent = sent[length:]
    return messages


WRONG_PASSWORD = '28P01 password authentication failed for user "joe"'
LETS_IN = [(method, form) for method in ASKING for form in FORMS if (method, form) != (SCRAM, "md5")]


@pytest.mark.parametrize(("method", "form"), LETS_IN)
def test_the_right_password_is_believed_and_no_other(method: AuthMethod, form: str) -> None:
    assert log_in(method, [FORMS[form]], RIGHT)[0] == ""
    assert log_in(method, [FORMS[form]], WRONG)[0] == WRONG_PASSWORD


def test_scram_cannot_be_checked_against_an_md5_and_fails_like_a_wrong_password() -> None:
    assert log_in(SCRAM, [FORMS["md5"]], RIGHT) == log_in(SCRAM, [FORMS["plain"]], WRONG)


@pytest.mark.parametrize("method", ASKING)
@pytest.mark.parametrize("strangers_meet_scram", [False, True])
def test_an_unknown_user_sees_what_a_wrong_password_sees(method: AuthMethod, strangers_meet_scram: bool) -> None:
    form = FORMS["scram" if strangers_meet_scram else "plain"]
    known = log_in(method, [form], WRONG, strangers_meet_scram)
    assert log_in(method, [], WRONG, strangers_meet_scram) == known
    assert log_in(method, [Plain(Secret(""))], WRONG, strangers_meet_scram) == known
    assert known[0] == WRONG_PASSWORD


@pytest.mark.parametrize("method", ASKING)
@pytest.mark.parametrize(
    ("stored", "note"),
    [
        ((), "nobody of that name is known"),
        ((FORMS["plain"],), "it is not the stored one"),
        ((Plain(Secret("")),), "the stored one is empty"),
    ],
)
def test_the_log_alone_knows_why(method: AuthMethod, stored: tuple[Stored, ...], note: str) -> None:
    check_note(method, Claim("joe", stored), note)


@pytest.mark.parametrize("method", ASKING)
def test_the_log_alone_knows_that_nobody_could_be_asked(method: AuthMethod) -> None:
    check_note(method, Claim("joe", (), why_nobody='database "x" does not exist'), 'database "x" does not exist')


def check_note(method: AuthMethod, claim: Claim, note: str) -> None:
    async def both() -> Refused:
        us, client = joined()
        keeper = a_keeper()
        entering = asyncio.ensure_future(enter(client, WRONG))
        with pytest.raises(Refused) as caught:
            await verify_client(us, claim, method, keeper)
        keeper.close()
        us.write(build_error("FATAL", caught.value.sqlstate, caught.value.sentence))
        await entering
        return caught.value

    refused = play(both())
    assert (refused.note, refused.detail, refused.hint) == (note, "", "")
    assert f"{refused.sqlstate} {refused.sentence}" == WRONG_PASSWORD


@pytest.mark.parametrize("method", ASKING)
def test_an_empty_stored_password_lets_nobody_in(method: AuthMethod) -> None:
    keeper_of_empty = [Plain(Secret(""))]

    async def say_nothing() -> str:
        return await receive(alone(build_password("")), method, keeper_of_empty, False)

    if method is SCRAM:
        assert log_in(method, keeper_of_empty, WRONG)[0] == WRONG_PASSWORD
    else:
        assert play(say_nothing()) == WRONG_PASSWORD


@pytest.mark.parametrize("stored", [[], *([form] for form in FORMS.values())])
def test_every_wrong_cleartext_password_costs_one_slow_hash(
    stored: list[Stored], monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed = []

    def derive(password: Secret, salt: bytes, iterations: int) -> bytes:
        hashed.append(iterations)
        return derive_salted_password(password, salt, iterations)

    monkeypatch.setattr(keys, "derive_salted_password", derive)

    async def wrong() -> None:
        keeper = a_keeper()
        with pytest.raises(Refused):
            await verify_client(alone(build_password("wrong")), Claim("joe", stored), PLAIN, keeper)
        keeper.close()

    play(wrong())
    assert hashed == [2]


@pytest.mark.parametrize("method", ASKING)
def test_while_a_password_is_rotated_both_are_right(method: AuthMethod) -> None:
    stored = [Plain(WRONG), Plain(RIGHT)]
    assert log_in(method, stored, RIGHT)[0] == log_in(method, stored, WRONG)[0] == ""
    assert log_in(method, stored, Secret("neither"))[0] == WRONG_PASSWORD


@pytest.mark.parametrize("method", ASKING)
def test_a_new_plain_password_is_right_beside_an_old_verifier(method: AuthMethod) -> None:
    stored = [Plain(WRONG), FORMS["scram"]]
    assert log_in(method, stored, RIGHT)[0] == log_in(method, stored, WRONG)[0] == ""


def test_of_two_verifiers_with_two_salts_scram_tries_the_first() -> None:
    stored = [scram_of(WRONG, b"new"), scram_of(RIGHT, b"old")]
    assert log_in(SCRAM, stored, WRONG)[0] == ""
    assert log_in(SCRAM, stored, RIGHT)[0] == WRONG_PASSWORD
    assert log_in(PLAIN, stored, RIGHT)[0] == ""


def test_any_and_trust_ask_nothing_but_trust_knows_its_users() -> None:
    assert log_in(ANY, [], None) == ("", [("R", 9)])
    assert log_in(TRUST, [Plain(Secret(""))], None) == ("", [("R", 9)])
    assert log_in(TRUST, [], None)[0] == '28000 "trust" authentication failed for user "joe"'


def test_passwords_that_are_not_ascii_or_not_even_utf8_are_believed() -> None:
    for password in (Secret("grün \u00a0\u2168"), Secret.decode(b"gr\xfcn")):
        for method in ASKING:
            assert log_in(method, [Plain(password)], password)[0] == ""
            assert log_in(method, [Plain(password)], Secret("grun"))[0] == WRONG_PASSWORD


def test_a_stored_md5_is_enough_for_a_server_that_asks_for_md5() -> None:
    assert log_in(MD5, [Plain(RIGHT)], md5_stored(RIGHT, "joe"))[0] == ""
    assert log_in(MD5, [Plain(RIGHT)], Md5("0" * 32))[0] == WRONG_PASSWORD


def test_the_methods_are_those_of_auth_type() -> None:
    assert [AuthMethod(name) for name in ("trust", "any", "plain", "md5", "scram-sha-256")] == list(AuthMethod)


# What is learnt on the way.


def claim_after(method: AuthMethod, stored: Iterable[Stored], password: Password, renewed: object = None) -> Claim:
    """The claim at the end of a login that goes well. `renewed`: what is found when somebody asks again."""

    async def ask() -> Iterable[Stored] | None:
        return renewed  # type: ignore[return-value]

    claim = Claim("joe", tuple(stored), renew=ask)  # type: ignore[arg-type]

    async def both() -> Claim:
        us, client = joined()
        keeper = a_keeper()

        async def let_in() -> None:
            us.write(await verify_client(us, claim, method, keeper) + build_authentication_ok())

        try:
            await asyncio.gather(let_in(), enter(client, password))
        finally:
            keeper.close()
        return claim

    return play(both())


KEYS = ScramKeys.from_salted_password(derive_salted_password(RIGHT, b"0123456789abcdef", 2))
LEARNT = LearntKeys(KEYS, b"0123456789abcdef", 2)


@pytest.mark.parametrize(
    ("method", "form", "proof"),
    [
        (PLAIN, "plain", RIGHT),
        (PLAIN, "md5", FORMS["md5"]),
        (PLAIN, "scram", LEARNT),
        (MD5, "plain", RIGHT),
        (MD5, "md5", FORMS["md5"]),
        (MD5, "scram", LEARNT),
        (SCRAM, "plain", RIGHT),
        (SCRAM, "scram", LEARNT),
    ],
)
def test_a_login_shows_what_servers_can_be_opened_with(method: AuthMethod, form: str, proof: Password) -> None:
    claim = claim_after(method, [Plain(WRONG), FORMS[form]], RIGHT)
    assert (claim.proven, claim.proof) == (FORMS[form], proof)


def test_who_is_not_asked_shows_nothing() -> None:
    assert claim_after(TRUST, [FORMS["scram"]], None).proof is None


@pytest.mark.parametrize(("method", "form"), [(PLAIN, "plain"), (PLAIN, "scram"), (MD5, "plain"), (MD5, "md5")])
def test_a_password_that_is_newer_than_what_we_know_is_believed_at_once(method: AuthMethod, form: str) -> None:
    old = Plain(WRONG) if method is PLAIN else md5_stored(WRONG, "joe")
    claim = claim_after(method, [old], RIGHT, [FORMS[form]])
    assert claim.proven == FORMS[form]


@pytest.mark.parametrize("method", [PLAIN, MD5])
@pytest.mark.parametrize("renewed", [None, [], [Plain(WRONG)]])
def test_a_password_that_is_wrong_stays_wrong(method: AuthMethod, renewed: object) -> None:
    with pytest.raises(Refused, match="password authentication failed"):
        claim_after(method, [Plain(WRONG)], RIGHT, renewed)


def test_under_scram_the_next_try_meets_what_was_found() -> None:
    found = []

    async def ask() -> list[Stored]:
        found.append(FORMS["scram"])
        return [FORMS["scram"]]

    async def main() -> None:
        us, client = joined()
        claim = Claim("joe", [scram_of(WRONG, b"old")], renew=ask)
        keeper = a_keeper()

        async def refuse() -> None:
            with pytest.raises(Refused):
                await verify_client(us, claim, SCRAM, keeper)
            us.write(build_error("FATAL", "28P01", "no"))

        await asyncio.gather(refuse(), enter(client, RIGHT))
        keeper.close()

    play(main())
    assert found == [FORMS["scram"]]


def test_of_two_salts_the_one_whose_turn_it_is_is_shown_and_a_miss_is_noted() -> None:
    missed: list[bool] = []

    async def attempt(turn: int, stored: list[Stored], mocks: int = 1) -> bytes:
        us, client = joined()
        claim = Claim("joe", stored, turn=turn, mocks=mocks, missed=lambda: missed.append(True))
        keeper = a_keeper()

        async def judge() -> None:
            try:
                us.write(await verify_client(us, claim, SCRAM, keeper) + build_authentication_ok())
            except Refused:
                us.write(build_error("FATAL", "28P01", "no"))

        await asyncio.gather(judge(), enter(client, RIGHT))
        keeper.close()
        return wired(us).written

    stored: list[Stored] = [scram_of(WRONG, b"new"), scram_of(RIGHT, b"old")]
    first, second = play(attempt(0, stored)), play(attempt(1, stored))
    assert b"s=bmV3" in first
    assert b"s=b2xk" in second
    assert second.endswith(build_authentication_ok())
    assert missed == [True]
    shown = {play(attempt(turn, [], mocks=2))[:90].partition(b",s=")[2] for turn in range(4)}
    assert len(shown) == 2, "as somebody with two"
    assert len(missed) == 5


# Hostile clients.


def said(method: AuthMethod, *messages: bytes, stored: Iterable[Stored] = FORMS.values()) -> str:
    """What a client hears that says this, whatever it is asked."""

    async def hear() -> str:
        return await receive(alone(b"".join(messages)), method, stored, False)

    return play(hear())


@pytest.mark.parametrize("method", ASKING)
def test_another_message_than_a_password_ends_the_login(method: AuthMethod) -> None:
    what = "password" if method is PLAIN else "SASL"
    assert said(method, build_query("SELECT 1")) == f"08P01 expected {what} response, got message type 'Q'"


@pytest.mark.parametrize("method", ASKING)
@pytest.mark.parametrize(
    "message",
    [
        b"p\xff\xff\xff\xff",
        b"p\x00\x00\x00\x00",
        b"p\x00\x00\x00\x03",
        b"p\x00\x01\x00\x01",
        b"p\x00\x00\x00\x04",
        b"p\x00\x00\x00\x07abc",
        b"p\x00\x00\x00\x08a\0b\0",
    ],
)
@pytest.mark.parametrize("stored", [[FORMS["plain"]], []])
def test_a_message_that_makes_no_sense_is_the_peers_fault(
    method: AuthMethod, message: bytes, stored: list[Stored]
) -> None:
    with pytest.raises(ProtocolError):
        said(method, message, stored=stored)


def test_the_longest_password_passes_and_one_byte_more_does_not() -> None:
    longest = "x" * 65_530
    assert said(PLAIN, build_password(longest), stored=[Plain(Secret(longest))]) == ""
    with pytest.raises(ProtocolError, match="invalid message length"):
        said(PLAIN, build_password(longest + "x"), stored=[Plain(Secret(longest))])


FIRST = b"n,,n=,r=abc"


@pytest.mark.parametrize(
    ("mechanism", "data"),
    [("SCRAM-SHA-1", FIRST), ("SCRAM-SHA-256-PLUS", FIRST), ("", FIRST), ("SCRAM-SHA-256", None)],
)
def test_a_mechanism_we_did_not_offer_is_refused(mechanism: str, data: bytes | None) -> None:
    heard = said(SCRAM, build_sasl_initial(mechanism, data))
    assert heard == "08P01 client selected an invalid SASL authentication mechanism"


def test_a_client_that_leaves_in_the_middle_is_gone() -> None:
    async def leave() -> None:
        us, client = joined()
        client.close()
        with pytest.raises(PeerGone):
            await receive(us, SCRAM, [], False)

    play(leave())


def test_a_scram_proof_cannot_be_used_a_second_time() -> None:
    async def listen_and_repeat() -> None:
        us, client = joined()
        scram = ScramClient()

        async def genuine() -> bytes:
            await client.wait_message(1000)
            client.write(build_sasl_initial("SCRAM-SHA-256", scram.first()))
            _, body = await client.wait_message(1000)
            challenge = scram.challenge(body[4:])
            salted = derive_salted_password(RIGHT, challenge.salt, challenge.iterations)
            final = build_sasl_response(scram.proof(ScramKeys.from_salted_password(salted)))
            client.write(final)
            return final

        verdict, final = await asyncio.gather(receive(us, SCRAM, [FORMS["scram"]], False), genuine())
        assert verdict == ""
        again = alone(build_sasl_initial("SCRAM-SHA-256", scram.first()) + final)
        with pytest.raises(ProtocolError, match="nonce"):
            await receive(again, SCRAM, [FORMS["scram"]], False)

    play(listen_and_repeat())


def test_an_md5_answer_is_good_for_one_salt_only() -> None:
    async def listen_and_repeat() -> None:
        us, client = joined()
        assert not any(await asyncio.gather(receive(us, MD5, [FORMS["md5"]], False), enter(client, RIGHT)))
        assert await receive(alone(wired(client).written), MD5, [FORMS["md5"]], False) == WRONG_PASSWORD

    play(listen_and_repeat())


def test_what_the_client_says_after_its_password_is_left_unread() -> None:
    async def hurry() -> None:
        inbox = alone(build_password("swordfish") + build_query("SELECT 1"))
        assert await receive(inbox, PLAIN, [FORMS["plain"]], False) == ""
        assert (await inbox.wait_message(100))[0] == codes.QUERY

    play(hurry())


# SCRAM bound to our certificate.


class Ours:
    """The context of a connection to us."""

    end_point = b"a hash"


def log_in_bound(offered_to_client: bytes, initial: bytes) -> str:
    """What a client hears that has been offered this and answers that, where we could be bound."""

    async def both() -> str:
        us, client = joined()
        wired(us).show("sslcontext", Ours())
        client.write(initial)
        verdict = await receive(us, SCRAM, [FORMS["scram"]], False)
        assert wired(us).written.startswith(offered_to_client)
        return verdict

    return play(both())


BOTH = build_sasl(["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"])


def test_over_tls_both_mechanisms_are_offered_and_the_bound_one_works() -> None:
    async def both() -> list[str]:
        us, client = joined()
        wired(us).show("sslcontext", Ours())

        async def enter_bound() -> str:
            await client.wait_message(1000)
            scram = ScramClient(("SCRAM-SHA-256-PLUS",), channel_binding=Ours.end_point)
            client.write(build_sasl_initial(scram.mechanism, scram.first()))
            challenge = scram.challenge((await client.wait_message(1000))[1][4:])
            salted = derive_salted_password(RIGHT, challenge.salt, challenge.iterations)
            client.write(build_sasl_response(scram.proof(ScramKeys.from_salted_password(salted))))
            scram.check_final((await client.wait_message(1000))[1][4:])
            return scram.mechanism

        verdict, mechanism = await asyncio.gather(receive(us, SCRAM, [FORMS["scram"]], False), enter_bound())
        assert wired(us).written.startswith(BOTH)
        return [verdict, mechanism]

    assert play(both()) == ["", "SCRAM-SHA-256-PLUS"]


def test_a_client_that_believes_it_was_not_offered_that_has_been_lied_to() -> None:
    heard = log_in_bound(BOTH, build_sasl_initial("SCRAM-SHA-256", b"y,,n=,r=abc"))
    assert heard == "28000 SCRAM channel binding negotiation error"


@pytest.mark.parametrize("header", [b"n,,", b"y,,", b"p=tls-unique,,"])
def test_a_client_that_selects_the_bound_one_must_be_bound(header: bytes) -> None:
    with pytest.raises(ProtocolError):
        log_in_bound(BOTH, build_sasl_initial("SCRAM-SHA-256-PLUS", header + b"n=,r=abc"))


def test_without_tls_it_is_not_offered() -> None:
    async def hear() -> bytes:
        inbox = alone(build_query("x"))
        await receive(inbox, SCRAM, [], False)
        return wired(inbox).written

    assert play(hear()).startswith(build_sasl(["SCRAM-SHA-256"]))
