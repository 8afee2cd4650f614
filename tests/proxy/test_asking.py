"""A login by SCRAM on the doorstep: the same end as a conversation's, whatever is said and whatever happens."""

import asyncio
from base64 import b64encode
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protocol import scram
from protocol.backend import parse_error
from protocol.codes import MAX_STARTUP_LENGTH
from protocol.frontend import build_password, build_query, build_sasl_initial, build_sasl_response
from protocol.passwords import LearntKeys, Md5, Plain, ScramKeys, Secret, derive_salted_password
from protocol.scram import MECHANISM_PLUS
from protocol.startup import build_gss_request, build_ssl_request, build_startup
from proxy import doorstep
from proxy.auth.guesses import PAIR_FREE
from proxy.auth.lookup import Found
from proxy.auth.rulebook import read_rulebook
from proxy.auth.users import Users
from proxy.client import Client
from proxy.doorstep import Doorstep
from proxy.inbox import Inbox
from proxy.janitor import Janitor
from proxy.outbox import AT_THE_DOOR as CROWD
from proxy.states import Leaving
from proxy.strangers import TOO_MANY
from tests.proxy.applicant import ADDRESS, Applicant
from tests.proxy.auth.wire import play
from tests.proxy.test_doorstep import Door, turns
from tests.proxy.test_express import without_key
from tests.proxy.test_login import HELLO, PARAMETERS, a_proxy, find_pool, refusal

STRANGER = build_startup({"user": "nobody", "database": "shop"})
ELSEWHERE = ("192.0.2.1", 4711)


def verifier_of(password, salt=b"salt of anna's"):
    return ScramKeys.from_salted_password(derive_salted_password(Secret(password), salt, 2)).verifier(salt, 2)


async def warmed(tmp_path, text="", **settings):
    """A proxy that asks by SCRAM, with a pool that needs no server."""
    proxy = a_proxy(tmp_path, text, **{"auth_type": "scram-sha-256", **settings})
    proxy.keeper.iterations, proxy.keeper._mock_key = 2, b"k" * 32
    await proxy.keeper.warm(proxy.users.secrets.items())
    find_pool(proxy).welcome = PARAMETERS
    return proxy


async def known(tmp_path, **settings):
    """The same, where anna has logged in before, and has left."""
    proxy = await warmed(tmp_path, **settings)
    first = Applicant(proxy, HELLO)
    await first.log_in()
    first.check_welcome()
    first.phase.data_received(b"X\0\0\0\x04")
    assert proxy.client_count == 0
    proxy.log.lines.clear()
    return proxy


def check_books(proxy, clients=0):
    assert (proxy.callers, proxy.visitors, len(proxy.strangers), len(proxy.tasks)) == (0, 0, 0, 0)
    assert proxy.client_count == clients


# The usual login.


def test_nothing_of_it_is_a_conversation_and_what_is_heard_is_the_same(tmp_path):
    async def main():
        proxy = await warmed(tmp_path)
        welcomes, phases = [], []
        for _ in range(2):
            anna = Applicant(proxy, HELLO)
            anna.door.phase.data_received(HELLO)
            phases.append(type(anna.phase))
            anna.take()
            anna.phase.data_received(anna.initial())
            phases.append(type(anna.phase))
            anna.phase.data_received(anna.proof(anna.take()[1]))
            phases.append(type(anna.phase))
            await turns()
            welcomes.append(anna.heard)
            anna.check_welcome()
        check_books(proxy, clients=2)
        assert len(find_pool(proxy).clients) == 2
        assert proxy.log.text.count("login attempt: db=shop user=anna tls=no") == 2
        return phases, welcomes

    phases, (first, second) = play(main())
    assert phases[:3] == [Doorstep, Doorstep, Inbox], "the first one is given its parameters by a conversation"
    assert phases[3:] == [Doorstep, Doorstep, Client]
    size = 1 + int.from_bytes(first[1:5])
    assert without_key(first[size:]) == without_key(second[size:])


def test_a_crowd_hears_the_same_and_all_of_a_turn_together(tmp_path):
    async def main():
        proxy = await known(tmp_path)
        crowd = [Applicant(proxy, HELLO) for _ in range(CROWD + 2)]
        for guest in crowd:
            guest.phase.data_received(HELLO)
        assert not any(guest.heard for guest in crowd)
        await turns(1)
        assert {guest.take()[0] for guest in crowd} == {b"R"}
        for guest in crowd:
            guest.phase.data_received(guest.initial())
        assert not any(guest.heard for guest in crowd)
        await turns(1)
        for guest in crowd:
            guest.phase.data_received(guest.proof(guest.take()[1]))
            assert type(guest.phase) is Client, "whether it has been told or not"
        assert not any(guest.heard for guest in crowd), "also the last ones, with few left at the door"
        await turns(1)
        for guest in crowd:
            guest.check_welcome()
        check_books(proxy, clients=len(crowd))

    play(main())


def test_who_is_thrown_out_of_a_crowd_hears_why_behind_what_he_was_told(tmp_path):
    async def main():
        proxy = await known(tmp_path, max_half_open=CROWD)
        crowd = [Applicant(proxy, HELLO) for _ in range(CROWD)]
        for guest in crowd:
            guest.phase.data_received(HELLO)
        Applicant(proxy, HELLO)
        await turns(1)
        heard = [guest.heard for guest in crowd]
        assert heard[0] == heard[1] + TOO_MANY
        assert all(words.startswith(b"R") for words in heard[1:])

    play(main())


def test_what_it_has_shown_opens_servers(tmp_path):
    async def main():
        proxy = await warmed(tmp_path)
        proxy.users = Users({"anna": (verifier_of("secret"),)})
        for _ in range(2):
            anna = Applicant(proxy, HELLO)
            await anna.log_in()
            anna.check_welcome()
            proof = proxy.proofs[find_pool(proxy)]
            assert isinstance(proof.password, LearntKeys)
            proxy.proofs._proofs.clear()
        return type(anna.phase)

    assert play(main()) is Client


def test_a_known_user_and_an_unknown_one_are_asked_alike(tmp_path):
    async def main():
        proxy = await known(tmp_path)
        said = []
        for hello in (HELLO, STRANGER):
            guest = Applicant(proxy, hello, "wrong")
            await guest.say(hello)
            assert type(guest.phase) is Doorstep
            question = guest.take()
            await guest.say(guest.initial())
            assert type(guest.phase) is Doorstep
            challenge = guest.take()
            await guest.say(guest.proof(challenge[1]))
            said.append((question, len(challenge[1]), refusal(guest.heard)))
        check_books(proxy)
        return said

    (question, length, no), (same, as_long, also_no) = play(main())
    assert (question, length) == (same, as_long)
    assert no == ("28P01", 'password authentication failed for user "anna"')
    assert also_no == ("28P01", 'password authentication failed for user "nobody"')


def test_behind_a_request_for_encryption_too(tmp_path):
    async def main():
        proxy = await known(tmp_path)
        anna = Applicant(proxy, HELLO)
        for request in (build_ssl_request(), build_gss_request()):
            await anna.say(request)
        assert anna.heard == b"NN"
        anna._read = 2
        await anna.log_in()
        anna.check_welcome()
        return type(anna.phase)

    assert play(main()) is Client


def test_under_md5_who_has_a_verifier_is_asked_by_scram(tmp_path):
    async def main():
        proxy = await warmed(tmp_path, auth_type="md5")
        proxy.users = Users({"anna": (verifier_of("secret"),)})
        for _ in range(2):
            anna = Applicant(proxy, HELLO)
            await anna.log_in()
            anna.check_welcome()
        return type(anna.phase)

    assert play(main()) is Client


def test_of_several_salts_each_has_its_turn(tmp_path):
    async def main():
        proxy = await warmed(tmp_path)
        proxy.users = Users({"anna": (verifier_of("new", b"new salt"), verifier_of("secret", b"old salt"))})
        one, other = Applicant(proxy, HELLO), Applicant(proxy, HELLO)
        assert refusal(await one.log_in())[0] == "28P01", "the new salt, the old password"
        await other.log_in()
        other.check_welcome()

    play(main())


# What is not usual.


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 30])
def test_in_pieces(tmp_path, piece):
    async def main():
        proxy = await known(tmp_path)
        anna = Applicant(proxy, HELLO)
        await anna.log_in(piece)
        anna.check_welcome()
        check_books(proxy, clients=1)
        assert proxy.log.text.count("login attempt") == 1

    play(main())


@pytest.mark.parametrize("at", [1, 4, 5, 6, 20, -1])
@pytest.mark.parametrize("step", ["initial", "proof"])
def test_an_answer_that_is_cut_anywhere(tmp_path, step, at):
    async def main():
        proxy = await known(tmp_path)
        anna = Applicant(proxy, HELLO)
        await anna.say(HELLO)
        anna.take()
        answer = anna.initial()
        if step == "proof":
            await anna.say(answer)
            answer = anna.proof(anna.take()[1])
        await anna.say(answer[:at])
        assert type(anna.phase) is Inbox
        await anna.say(answer[at:])
        if step == "initial":
            await anna.say(anna.proof(anna.take()[1]))
        anna.check_welcome()
        check_books(proxy, clients=1)
        assert proxy.log.text.count("login attempt") == 1

    play(main())


def test_the_packet_and_the_first_answer_in_one(tmp_path):
    async def main():
        proxy = await known(tmp_path)
        anna = Applicant(proxy, HELLO)
        await anna.say(HELLO + anna.initial())
        anna.take()
        await anna.say(anna.proof(anna.take()[1]))
        anna.check_welcome()

    play(main())


@pytest.mark.parametrize("is_known", [False, True])
def test_what_is_said_behind_the_proof_is_not_lost(tmp_path, is_known):
    async def main():
        proxy = await (known if is_known else warmed)(tmp_path)
        anna = Applicant(proxy, HELLO)
        await anna.say(HELLO)
        anna.take()
        await anna.say(anna.initial())
        await anna.say(anna.proof(anna.take()[1]) + b"X\0\0\0\x04")
        anna.check_welcome()
        assert anna.door.is_closed
        check_books(proxy)

    play(main())


def scripts():
    """What somebody says in place of an answer: what we call it, and the bytes."""
    first = b"n,,n=,r=" + b"n" * 24
    yield "nothing", b""
    yield "request for TLS", build_ssl_request()
    yield "its own packet again", HELLO
    yield "query", build_query("select 1")
    yield "terminate", b"X\0\0\0\x04"
    yield "empty", b"p\0\0\0\x04"
    yield "password", build_password("secret")
    yield "too long", b"p" + (2**20).to_bytes(4) + b"x" * 20
    yield "negative", b"p\xff\xff\xff\xff" + b"x" * 20
    yield "shorter than itself", b"p\0\0\0\x03xxx"
    yield "plus", build_sasl_initial(MECHANISM_PLUS, first)
    yield "unknown", build_sasl_initial("SCRAM-SHA-1", first)
    yield "no data", build_sasl_initial("SCRAM-SHA-256", None)
    yield "data of another length", build_sasl_initial("SCRAM-SHA-256", first)[:-1] + b"nn"
    yield "binds", build_sasl_initial("SCRAM-SHA-256", b"p=tls-unique,,n=,r=abc")
    yield "extension", build_sasl_initial("SCRAM-SHA-256", b"n,,m=x,n=,r=abc")
    yield "nonce", build_sasl_initial("SCRAM-SHA-256", b"n,,n=,r=" + b"n" * 300)
    yield "not scram", build_sasl_initial("SCRAM-SHA-256", b"\xff\0" * 9)
    yield "garbage", bytes(range(256))
    yield "http", b"GET / HTTP/1.1\r\n\r\n"
    yield "tls", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
    yield "no proof", build_sasl_response(b"c=biws,r=" + b"n" * 24)
    yield "another nonce", build_sasl_response(b"c=biws,r=" + b"m" * 24 + b",p=" + b"A" * 43 + b"=")


@pytest.mark.parametrize("is_second", [False, True], ids=["first", "second"])
@pytest.mark.parametrize("said", [pytest.param(said, id=name) for name, said in scripts()])
def test_the_doorstep_and_a_conversation_come_to_the_same_end(tmp_path, monkeypatch, said, is_second):
    """What is heard, and what the log says, when this is said in place of an answer and then the line is cut."""
    monkeypatch.setattr(scram, "_new_nonce", lambda: "s" * 24)

    async def main(is_on_the_doorstep):
        proxy = await known(tmp_path)
        if not is_on_the_doorstep:
            monkeypatch.setattr(doorstep, "ask", lambda *args: None)
        anna = Applicant(proxy, HELLO)
        await anna.say(HELLO)
        assert (type(anna.phase) is Doorstep) is is_on_the_doorstep
        anna.take()
        if is_second:
            await anna.say(anna.initial())
            anna.take()
        if said:
            await anna.say(said)
        anna.phase.connection_lost(None)
        await turns()
        check_books(proxy)
        failed = [(record.failures, pair) for pair, record in proxy.strangers.guesses.pairs.failing(0.0)]
        return anna.heard, [str(line).partition(": ")[2] for line in proxy.log.lines], failed

    assert play(main(True)) == play(main(False))


@st.composite
def streams(draw):
    """All that somebody says, rightly or with one thing wrong, and where it is cut."""
    requests = draw(st.lists(st.sampled_from([build_ssl_request(), build_gss_request()]), max_size=3))
    messages = [*requests, HELLO, *DANCE, b"X\0\0\0\x04"]
    at = draw(st.integers(0, len(messages) - 1))
    change = draw(st.sampled_from(["none", "none", "leave out", "twice", "flip", "in front"]))
    if change == "leave out":
        del messages[at]
    elif change == "twice":
        messages.insert(at, messages[at])
    elif change == "flip":
        where = draw(st.integers(0, len(messages[at]) - 1))
        messages[at] = messages[at][:where] + bytes([messages[at][where] ^ 1]) + messages[at][where + 1 :]
    elif change == "in front":
        messages.insert(at, draw(st.binary(min_size=1, max_size=12)))
    pieces = []
    for message in messages:
        cut = draw(st.integers(0, 3 * len(message)))
        pieces += [message[:cut], message[cut:]] if 0 < cut < len(message) else [message]
    if len(pieces) > 1 and draw(st.booleans()):
        joined = draw(st.integers(0, len(pieces) - 2))
        pieces[joined : joined + 2] = [pieces[joined] + pieces[joined + 1]]
    return pieces


FIRST = b"n,,n=,r=" + b"n" * 24


def dance():
    """What anna answers to a proxy of `warmed` whose nonce is all s."""
    salted = derive_salted_password(Secret("secret"), SALT, 2)
    client = scram.ScramClient(nonce="n" * 24)
    client.first()
    client.challenge(b"r=" + b"n" * 24 + b"s" * 24 + b",s=" + b64encode(SALT) + b",i=2")
    proof = client.proof(ScramKeys.from_salted_password(salted))
    return build_sasl_initial("SCRAM-SHA-256", FIRST), build_sasl_response(proof)


SALT = scram.mock_verifier("anna", b"k" * 32, 2).salt
DANCE = dance()


async def hear_out(tmp_path, pieces):
    proxy = await known(tmp_path)
    door = Door(proxy)
    phases = set()
    for piece in pieces:
        door.phase.data_received(piece)
        phases.add(type(door.phase))
        await turns(12)
        if door.is_closed:
            break
    door.phase.connection_lost(None)
    await turns()
    check_books(proxy)
    failed = [(record.failures, pair) for pair, record in proxy.strangers.guesses.pairs.failing(0.0)]
    heard = door.written
    return (without_key(heard) if b"K\0\0\0" in heard else heard), str(proxy.log.text).count("\n"), failed


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
@given(streams())
def test_whatever_is_said_and_however_it_is_cut_a_conversation_would_have_said_the_same(tmp_path, pieces):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scram, "_new_nonce", lambda: "s" * 24)
        on_the_doorstep = play(hear_out(tmp_path, pieces))
        patch.setattr(doorstep, "ask", lambda *args: None)
        assert on_the_doorstep == play(hear_out(tmp_path, pieces))


def test_the_dance_of_that_test_is_a_login(tmp_path, monkeypatch):
    monkeypatch.setattr(scram, "_new_nonce", lambda: "s" * 24)
    heard, _, failed = play(hear_out(tmp_path, [HELLO, *DANCE]))
    assert heard.endswith(b"Z\0\0\0\x05I")
    assert not failed


@pytest.mark.parametrize(
    "hello",
    [
        b"",
        HELLO[:-1],
        HELLO + b"\0",
        (8).to_bytes(4) + b"\0\3\0\0",
        build_startup({"user": "anna", "database": "pgbouncer"}),
        build_startup({"user": "anna", "database": "shop", "replication": "database"}),
        build_startup({"user": "anna", "database": "shop", "replication": "no"}),
        build_startup({"user": "anna", "database": "shop", "_pq_.greeting": "1"}),
        build_startup({"user": "anna", "database": "shop", "options": "-z"}),
        build_startup({"user": "anna", "database": "shop", "DateStyle\n": "x"}),
        build_startup({"user": "anna", "database": "x" * 64}),
        build_startup({"user": "anna", "database": "shop", "x.y": "z" * MAX_STARTUP_LENGTH}),
    ],
)
def test_another_packet_is_left_to_a_conversation(tmp_path, hello):
    async def main():
        proxy = await known(tmp_path)
        door = Door(proxy)
        door.phase.data_received(hello)
        assert isinstance(door.phase, Inbox)
        door.phase.connection_lost(None)
        await turns()
        check_books(proxy)

    play(main())


# Time, crowds, and those who leave.


def test_who_does_not_answer_in_time_is_told_so(tmp_path):
    async def main(steps):
        proxy = await known(tmp_path, client_login_timeout=10)
        anna = Applicant(proxy, HELLO)
        proxy.clock.advance(6)
        await anna.say(HELLO)
        anna.take()
        if steps == 2:
            await anna.say(anna.initial())
            anna.take()
        janitor = Janitor(proxy)
        janitor.sweep()
        await turns()
        assert anna.heard == b""
        proxy.clock.advance(5)
        janitor.sweep()
        await asyncio.sleep(0.01)
        check_books(proxy)
        assert "shop/anna@10.0.0.7:51234 closing because: client_login_timeout" in proxy.log.text
        return refusal(anna.heard)

    assert play(main(1)) == play(main(2)) == ("57014", "client_login_timeout")


def test_the_time_on_the_doorstep_is_part_of_the_conversations(tmp_path):
    async def main():
        proxy = await known(tmp_path, client_login_timeout=10)
        anna = Applicant(proxy, HELLO)
        await anna.say(HELLO)
        anna.take()
        proxy.clock.advance(9.99)
        await anna.say(anna.initial()[:9])
        async with asyncio.timeout(10):
            while len(proxy.tasks):
                await asyncio.sleep(0.01)
        check_books(proxy)
        return refusal(anna.heard)

    assert play(main()) == ("57014", "client_login_timeout")


def test_who_has_been_asked_counts_among_the_strangers(tmp_path):
    async def main():
        proxy = await known(tmp_path, max_half_open=3)
        anna = Applicant(proxy, HELLO)
        await anna.say(HELLO)
        anna.take()
        assert (len(proxy.strangers), proxy.strangers.logging_in, proxy.client_count) == (1, 1, 0)
        for _ in range(3):
            Door(proxy)
        assert len(proxy.strangers) == 3
        assert anna.door.is_closed
        return anna.heard

    assert play(main()) == TOO_MANY


@pytest.mark.parametrize("steps", [1, 2])
def test_who_leaves_after_the_question_is_named_in_the_log(tmp_path, steps):
    async def main():
        proxy = await known(tmp_path)
        anna = Applicant(proxy, HELLO)
        await anna.say(HELLO)
        if steps == 2:
            await anna.say(anna.initial())
        anna.phase.connection_lost(None)
        await turns()
        check_books(proxy)
        return proxy.log.text

    assert "shop/anna@10.0.0.7:51234 closing because: client unexpected eof" in play(main())


def test_a_gentle_end_waits_for_those_who_have_been_asked(tmp_path):
    async def main():
        proxy = await known(tmp_path)
        silent, anna = Door(proxy), Applicant(proxy, HELLO)
        await anna.say(HELLO)
        anna.take()
        proxy.leave(Leaving.WAIT_FOR_CLIENTS)
        assert not proxy._gone.is_set()
        await anna.say(anna.initial())
        await anna.say(anna.proof(anna.take()[1]))
        anna.check_welcome()
        assert not proxy._gone.is_set()
        anna.phase.data_received(b"X\0\0\0\x04")
        assert proxy._gone.is_set(), "who has said nothing is not waited for"
        silent.phase.connection_lost(None)

    play(main())


# What changes meanwhile.


async def answer_after(tmp_path, change, steps=2, **settings):
    """Anna answers the question, and `change` comes in between; she, and the proxy."""
    proxy = await known(tmp_path, **settings)
    anna = Applicant(proxy, HELLO)
    await anna.say(HELLO)
    anna.take()
    if steps == 1:
        change(proxy)
    await anna.say(anna.initial())
    challenge = anna.take()[1]
    if steps == 2:
        change(proxy)
    await anna.say(anna.proof(challenge))
    await turns()
    return anna, proxy


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize(
    "change",
    [
        lambda proxy: setattr(proxy, "config", replace(proxy.config)),
        lambda proxy: setattr(proxy, "users", Users({"anna": (Plain(Secret("another")),)})),
        lambda proxy: find_pool(proxy).greetings.clear(),
    ],
    ids=["config", "users", "greeting"],
)
def test_a_reload_in_between_takes_a_conversation_to_the_end_that_was_begun(tmp_path, change, steps):
    async def main():
        anna, proxy = await answer_after(tmp_path, change, steps)
        anna.check_welcome()
        check_books(proxy, clients=1)
        return proxy

    play(main())


def test_what_was_right_before_a_reload_is_not_after_it(tmp_path):
    async def main():
        proxy = await known(tmp_path)
        proxy.users = Users({"anna": (Plain(Secret("another")),)})
        await proxy.keeper.warm(proxy.users.secrets.items())
        old, new = Applicant(proxy, HELLO), Applicant(proxy, HELLO, "another")
        assert refusal(await old.log_in())[0] == "28P01"
        await new.log_in()
        new.check_welcome()

    play(main())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda proxy: proxy.disabled.add("shop"), 'database "shop" is disabled'),
        (lambda proxy: setattr(proxy, "visitors", 1000), "no more connections allowed (max_client_conn)"),
    ],
    ids=["disabled", "full"],
)
def test_who_may_not_come_in_any_more_is_told_so(tmp_path, change, words):
    async def main():
        anna, proxy = await answer_after(tmp_path, change)
        proxy.visitors = 0
        check_books(proxy)
        return anna.heard

    heard = play(main())
    assert parse_error(heard[5:]).message == words
    assert b"R\0\0\0\x08\0\0\0\0" not in heard


def test_who_comes_when_it_is_full_is_not_even_asked(tmp_path):
    async def main():
        proxy = await known(tmp_path)
        proxy.visitors = 1000
        door = Door(proxy)
        door.phase.data_received(HELLO)
        await turns()
        return refusal(door.written)

    assert play(main())[1] == "no more connections allowed (max_client_conn)"


def test_nobody_is_asked_while_all_is_suspended(tmp_path):
    async def main():
        proxy = await known(tmp_path)
        proxy.suspension.begin()
        anna = Applicant(proxy, HELLO)
        await anna.say(HELLO)
        assert anna.heard == b""
        proxy.suspension.end()
        await turns()
        anna.take()
        await anna.say(anna.initial())
        await anna.say(anna.proof(anna.take()[1]))
        anna.check_welcome()

    play(main())


def test_tls_that_is_required_meanwhile_is_asked_for_before_any_question(tmp_path):
    async def main():
        proxy = await known(tmp_path)
        anna = Applicant(proxy, HELLO)
        await anna.say(build_ssl_request())
        assert anna.heard == b"N"
        required = replace(proxy.settings, client_tls_sslmode=type(proxy.settings.client_tls_sslmode)("require"))
        proxy.settings, proxy.config = required, replace(proxy.config, settings=required)
        await anna.say(HELLO)
        return anna.heard[1:]

    assert refusal(play(main())) == ("28000", "SSL required")


# Guesses.


def test_after_failures_the_next_one_waits_and_nobody_else_does(tmp_path):
    async def main():
        proxy = await known(tmp_path, auth_failure_delay=1)
        for _ in range(PAIR_FREE + 1):
            assert refusal(await Applicant(proxy, HELLO, "wrong").log_in())[0] == "28P01"
        late, elsewhere = Applicant(proxy, HELLO), Applicant(proxy, HELLO, address=ELSEWHERE)
        await late.say(HELLO)
        assert late.heard == b"", "not asked yet"
        await elsewhere.log_in()
        elsewhere.check_welcome()
        late.phase.connection_lost(None)
        await turns()

    play(main())


def test_an_answer_that_comes_while_others_fail_waits_before_it_is_known_to_be_right(tmp_path):
    async def main():
        proxy = await known(tmp_path, auth_failure_delay=1)
        crowd = [Applicant(proxy, HELLO, "wrong") for _ in range(PAIR_FREE + 1)]
        anna = Applicant(proxy, HELLO)
        challenges = []
        for each in (*crowd, anna):
            await each.say(HELLO)
            each.take()
            await each.say(each.initial())
            challenges.append(each.take()[1])
        for each, challenge in zip((*crowd, anna), challenges, strict=True):
            await each.say(each.proof(challenge))
        await turns()
        assert anna.heard == b""
        assert proxy.strangers.guesses.delayed >= 1
        anna.phase.connection_lost(None)
        for each in crowd:
            each.phase.connection_lost(None)
        await turns()

    play(main())


def test_a_success_wipes_out_the_failures_of_its_pair(tmp_path):
    async def main():
        proxy = await known(tmp_path)
        assert refusal(await Applicant(proxy, HELLO, "wrong").log_in())[0] == "28P01"
        pair = (ADDRESS[0], "anna")
        assert proxy.strangers.guesses.pairs.find(pair, 0.0).failures == 1
        anna = Applicant(proxy, HELLO)
        await anna.log_in()
        anna.check_welcome()
        assert type(anna.phase) is Client
        record = proxy.strangers.guesses.pairs.find(pair, 0.0)
        return record.failures, record.is_known

    assert play(main()) == (0, True)


# Rules, and secrets that are elsewhere.

RULES = """
host shop anna 10.0.0.0/8 scram-sha-256
host shop anna 192.0.2.0/24 reject
host shop bert all trust
host all all all md5
"""


def with_rules(tmp_path, proxy, text):
    (tmp_path / "hba.conf").write_text(text)
    proxy.gate.rulebook = read_rulebook(proxy.settings)


async def ruled(tmp_path, rules=RULES):
    (tmp_path / "hba.conf").write_text(rules)
    proxy = await warmed(tmp_path, auth_type="hba", auth_hba_file=tmp_path / "hba.conf")
    with_rules(tmp_path, proxy, rules)
    return proxy


def test_the_rule_about_the_caller_decides_each_time(tmp_path):
    async def main():
        proxy = await ruled(tmp_path)
        for expected in (Inbox, Client):
            anna = Applicant(proxy, HELLO)
            await anna.say(HELLO)
            assert type(anna.phase) is Doorstep
            anna.take()
            await anna.say(anna.initial())
            anna.phase.data_received(anna.proof(anna.take()[1]))
            assert type(anna.phase) is expected
            await turns()
            anna.check_welcome()
        there = Applicant(proxy, HELLO, address=ELSEWHERE)
        await there.say(HELLO)
        with_rules(tmp_path, proxy, "host all all all reject\n")
        proxy.config = replace(proxy.config)
        here = Applicant(proxy, HELLO)
        await here.say(HELLO)
        return refusal(there.heard), refusal(here.heard)

    assert play(main()) == (("28000", "login rejected"), ("28000", "login rejected"))


@pytest.mark.parametrize("user", ["bert", "carl"])
def test_a_rule_that_asks_in_another_way_or_not_at_all_is_left_to_a_conversation(tmp_path, user):
    async def main():
        proxy = await ruled(tmp_path)
        proxy.users = Users({"bert": (Plain(Secret("x")),), "carl": (Md5("0" * 32),)})
        door = Door(proxy)
        door.phase.data_received(build_startup({"user": user, "database": "shop"}))
        return type(door.phase)

    assert play(main()) is Inbox


def test_what_auth_query_has_said_counts_as_long_as_it_does(tmp_path):
    async def main():
        proxy = await warmed(tmp_path, auth_user="guard", auth_query_ttl="60")
        hello = build_startup({"user": "bert", "database": "shop"})
        proxy.pools.find(proxy.config.find_database("shop"), "bert").welcome = PARAMETERS
        question = proxy.lookups.wait.__self__
        asked = []

        async def fly(key):
            asked.append(key)
            found = Found((verifier_of("secret"),), proxy.clock.now())
            question.note(key, found)
            return found

        question._fly = fly
        phases = []
        for wait in (0, 1, 100):
            proxy.clock.advance(wait)
            bert = Applicant(proxy, hello)
            bert.door.phase.data_received(hello)
            phases.append(type(bert.phase))
            await turns()
            bert.take()
            await bert.say(bert.initial())
            bert.phase.data_received(bert.proof(bert.take()[1]))
            phases.append(type(bert.phase))
            await turns()
            bert.check_welcome()
        return phases, len(asked)

    phases, asked = play(main())
    assert phases == [Inbox, Inbox, Doorstep, Client, Inbox, Inbox]
    assert asked == 2


def test_a_plain_secret_that_is_not_hashed_yet_is_left_to_a_conversation(tmp_path):
    async def main():
        proxy = a_proxy(tmp_path, auth_type="scram-sha-256")
        proxy.keeper.iterations = 2
        find_pool(proxy).welcome = PARAMETERS
        anna = Applicant(proxy, HELLO)
        anna.door.phase.data_received(HELLO)
        return type(anna.phase)

    assert play(main()) is Inbox
