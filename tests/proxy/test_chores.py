"""Owners of our own debts: they hear everything and tell nobody."""

from protocol.backend import ErrorFields
from proxy.chores import Chore


def test_a_chore_keeps_the_reason_and_is_done_at_its_answer():
    done = []
    chore = Chore(done.append)
    chore.deliver(b"rows")
    chore.failed(ErrorFields("ERROR", "22012", "no"))
    assert not done
    chore.answered(None)
    assert done == [chore]
    assert chore.error is not None
    assert chore.error.message == "no"


def test_a_chore_may_have_nothing_to_do_afterwards():
    chore = Chore()
    chore.answered(None)
    assert chore.error is None
