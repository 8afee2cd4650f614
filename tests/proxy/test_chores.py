"""Owners of our own debts: they hear everything and tell nobody."""

from protocol.backend import ErrorFields
from proxy.chores import Chore, Preface, is_for
from proxy.probes import Probe, Trace


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


def test_a_preface_tells_of_its_failure_at_once_and_else_of_nothing():
    done = []
    Preface(done.append).finish(None, b"12C")
    Preface(done.append).failed(ErrorFields("FATAL", "57P01", "goodbye"))
    assert not done
    preface = Preface(done.append)
    preface.failed(ErrorFields("ERROR", "25006", "no"))
    assert [each.error.message for each in done] == ["no"]


def test_a_look_at_an_answer_is_for_its_client():
    client, other = object(), object()
    for owner in (Probe(client, None, b""), Trace(client, b"", {"a shape": 1}), client):
        assert is_for(owner, client)
        assert not is_for(owner, other)
