"""A claim: which secrets count, what was shown of them, and that they are asked for again once."""

from protocol.passwords import LearntKeys, Plain, ScramKeys, ScramVerifier, Secret
from proxy.auth.claim import Claim
from tests.proxy.auth.wire import play

FIRST, SECOND = Plain(Secret("first")), Plain(Secret("second"))
OLD, NEW = (ScramVerifier(4096, salt, bytes(32), bytes(32)) for salt in (b"old", b"new"))


def renewed(*answers):
    """The claim after two tries to renew it, what came of them, and how often somebody was asked."""
    asked = []

    async def ask():
        asked.append(None)
        return answers[len(asked) - 1]

    async def main():
        claim = Claim("ann", [FIRST], renew=ask)
        return claim, [await claim.renew(), await claim.renew()], len(asked)

    return play(main())


def test_other_secrets_are_news_and_are_asked_for_once():
    claim, news, asked = renewed([SECOND])
    assert (claim.stored, news, asked) == ((SECOND,), [True, False], 1)


def test_the_same_and_none_are_no_news():
    for said in ([FIRST], None):
        claim, news, _ = renewed(said)
        assert (claim.stored, news) == ((FIRST,), [False, False])


def test_that_somebody_is_gone_is_news():
    claim, news, _ = renewed([])
    assert (claim.stored, claim.usable, news[0]) == ((), [], True)


def test_what_is_in_a_file_is_what_it_is():
    assert not play(Claim("ann", [FIRST]).renew())


def test_an_empty_secret_is_never_right():
    assert Claim("ann", [Plain(Secret("")), FIRST]).usable == [FIRST]


def test_a_miss_is_told_only_where_there_are_several_salts():
    missed = []
    for stored, mocks in (([OLD, NEW], 1), ([OLD], 3), ([], 1), ([], 2), ([FIRST], 2)):
        Claim("ann", stored, mocks=mocks, missed=lambda: missed.append(stored)).miss()  # noqa: B023
    assert missed == [[OLD, NEW], []]


def test_turns_go_round():
    assert [Claim("ann", [OLD, NEW], turn=turn).stored[0] for turn in range(3)] == [OLD, NEW, OLD]
    assert [Claim("ann", [], turn=turn, mocks=2).mock_number for turn in range(3)] == [0, 1, 0]


def test_nothing_of_it_shows():
    claim = Claim("ann", [FIRST, OLD])
    claim.prove(OLD, LearntKeys(ScramKeys(b"client", b"server", b"stored"), b"salt", 4096))
    words = f"{claim!r} {claim.stored!r} {claim.proof!r} {claim.proven!r}"
    for secret in ("first", "client", "server", "salt", "old"):
        assert secret not in words.replace("proxy.auth.claim", "")
