"""What an exchange can check: found at once where all is hashed, and found again while the secrets are the same."""

from protocol.passwords import Md5, Plain, ScramKeys, Secret, derive_salted_password
from proxy.auth.claim import Claim
from proxy.auth.verifiers import find_verifiers, wait_verifiers
from tests.proxy.auth.wire import a_keeper, play


def verifier_of(password, salt):
    return ScramKeys.from_salted_password(derive_salted_password(Secret(password), salt, 2)).verifier(salt, 2)


OLD, NEW = verifier_of("old", b"old salt"), verifier_of("new", b"new salt")
PLAIN = Plain(Secret("swordfish"))


def test_a_verifier_is_what_it_is():
    keeper = a_keeper()
    assert find_verifiers(Claim("ann", (OLD,)), keeper) == {OLD: OLD}


def test_one_exchange_names_one_salt_and_the_claim_says_whose_turn_it_is():
    keeper = a_keeper()
    assert find_verifiers(Claim("ann", (NEW, OLD)), keeper) == {NEW: NEW}
    assert find_verifiers(Claim("ann", (NEW, OLD), turn=1), keeper) == {OLD: OLD}


def test_a_plain_secret_is_waited_for_once():
    async def main():
        keeper = a_keeper()
        claim = Claim("ann", (PLAIN,))
        assert find_verifiers(claim, keeper) is None
        waited = await wait_verifiers(claim, keeper)
        assert find_verifiers(claim, keeper) == waited
        ((verifier, stored),) = waited.items()
        assert (verifier.salt, stored) == (keeper.mock("ann").salt, PLAIN)
        keeper.close()

    play(main())


def test_plain_secrets_are_salted_to_suit_a_verifier():
    async def main():
        keeper = a_keeper()
        found = await wait_verifiers(Claim("ann", (NEW, PLAIN)), keeper)
        assert {each.salt for each in found} == {b"new salt"}
        assert list(found.values()) == [NEW, PLAIN]
        assert find_verifiers(Claim("ann", (NEW, PLAIN)), keeper) == found
        keeper.close()

    play(main())


def test_what_was_found_is_found_again_while_the_secrets_and_the_rounds_are_the_same():
    keeper = a_keeper()
    stored = (OLD,)
    first = find_verifiers(Claim("ann", stored), keeper)
    assert find_verifiers(Claim("ann", stored), keeper) is first
    assert find_verifiers(Claim("bob", stored), keeper) is not first
    assert find_verifiers(Claim("ann", (NEW,)), keeper) == {NEW: NEW}
    again = find_verifiers(Claim("ann", stored), keeper)
    assert again == first
    keeper.iterations += 1
    assert find_verifiers(Claim("ann", stored), keeper) is not again


def test_who_is_unknown_meets_his_mock_and_is_not_kept():
    keeper = a_keeper()
    for stored in ((), (Plain(Secret("")),), (Md5("0" * 32),)):
        mock = keeper.mock("joe")
        assert find_verifiers(Claim("joe", stored), keeper) == {mock: mock}
        assert play(wait_verifiers(Claim("joe", stored), keeper)) == {mock: mock}
    assert not keeper.gathered


def test_no_more_is_kept_than_the_keeper_holds():
    keeper = a_keeper()
    keeper._capacity = 3
    for number in range(10):
        find_verifiers(Claim(str(number), (OLD,)), keeper)
    assert list(keeper.gathered) == ["7", "8", "9"]
