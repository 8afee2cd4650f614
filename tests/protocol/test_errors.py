"""What the two exceptions carry."""

from protocol.errors import ProtocolError, Refused


def test_refused_carries_what_the_client_is_told():
    refused = Refused("28P01", "password authentication failed", detail="why", hint="what to do")
    assert (refused.sqlstate, refused.sentence) == ("28P01", "password authentication failed")
    assert (refused.detail, refused.hint) == ("why", "what to do")
    assert str(refused) == "password authentication failed"


def test_a_refusal_is_not_a_broken_protocol():
    assert not issubclass(Refused, ProtocolError)
    assert not issubclass(ProtocolError, Refused)
