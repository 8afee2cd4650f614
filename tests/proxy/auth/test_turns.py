"""Several verifiers of one user: each has its turn, and those who are nobody cannot be told by it."""

from protocol.passwords import Plain, ScramVerifier, Secret
from proxy.auth.keys import KeyKeeper
from proxy.auth.turns import MOST, Turns, arrange, find_salts
from proxy.auth.users import Users

OLD, NEW = (ScramVerifier(4096, salt, bytes(32), bytes(32)) for salt in (b"old", b"new"))
PLAIN = Plain(Secret("x"))


def test_with_each_failure_another_salt_comes_first():
    assert [arrange([NEW, PLAIN, OLD], turn)[0] for turn in (0, 1, 2)] == [NEW, PLAIN, NEW]
    assert [arrange([NEW, OLD], turn)[0] for turn in (0, 1, 2)] == [NEW, OLD, NEW]
    assert sorted(map(repr, arrange([NEW, PLAIN, OLD], 1))) == sorted(map(repr, [NEW, PLAIN, OLD]))


def test_what_has_one_salt_stays_in_order():
    assert arrange([PLAIN, NEW], 5) == (PLAIN, NEW)
    assert arrange([], 5) == ()
    other = ScramVerifier(4096, b"new", bytes(32), b"\1" * 32)
    assert arrange([NEW, other], 1) == (NEW, other)
    assert find_salts([NEW, other, PLAIN, OLD]) == [(b"new", 4096), (b"old", 4096)]


def test_who_has_failed_is_remembered_by_address_and_name_and_not_without_bound():
    turns = Turns()
    turns.next(("10.0.0.1", "ann"))
    assert (turns.find(("10.0.0.1", "ann")), turns.find(("10.0.0.2", "ann"))) == (1, 0)
    for number in range(MOST + 5):
        turns.next(("10.0.0.1", str(number)))
    assert len(turns) == MOST


def test_of_the_unknown_as_many_have_several_salts_as_of_the_known():
    keeper = KeyKeeper(mock_key=b"k" * 32)
    secrets = {str(number): (NEW, OLD) if number % 4 == 0 else (NEW,) for number in range(100)}
    users = Users(secrets)
    counts = [users.count_salts(keeper.draw(f"nobody{number}")) for number in range(2000)]
    assert set(counts) == {1, 2}
    assert 400 < counts.count(2) < 600
    assert keeper.draw("nobody") == keeper.draw("nobody")
    keeper.close()


def test_where_nobody_has_several_nothing_alternates():
    users = Users({"ann": (NEW,), "bob": (PLAIN, NEW)})
    assert {users.count_salts(draw / 10) for draw in range(10)} == {1}
    assert Users({}).count_salts(0.0) == 1


def test_the_mocks_of_one_name_differ_and_stay_the_same():
    keeper = KeyKeeper(mock_key=b"k" * 32)
    assert keeper.mock("ann") == keeper.mock("ann", 0) != keeper.mock("ann", 1) == keeper.mock("ann", 1)
    keeper.close()
