"""The second looks at what a client sends."""

import pytest

from protocol.errors import ProtocolError, Refused
from protocol.frontend import TERMINATE_MESSAGE, build_parse
from proxy.requests import is_terminate, may_parse


def test_terminate_is_the_only_other_message_that_is_legal():
    assert is_terminate(TERMINATE_MESSAGE[0])
    for kind in b"p\0Zz":
        with pytest.raises(ProtocolError, match=f"invalid frontend message type {kind}"):
            is_terminate(kind)


def test_an_unnamed_parse_may_always_pass():
    parse = build_parse(b"", b"select 1")
    assert may_parse(parse, 0, len(parse), may_be_named=False)


def test_a_named_parse_may_pass_where_the_server_is_the_clients_own():
    parse = build_parse(b"mine", b"select 1")
    assert may_parse(parse, 0, len(parse), may_be_named=True)
    with pytest.raises(Refused) as no:
        may_parse(parse, 0, len(parse), may_be_named=False)
    assert no.value.sqlstate == "0A000"


def test_a_parse_whose_name_has_not_arrived_must_wait():
    parse = build_parse(b"mine", b"select 1")
    assert not may_parse(parse[:5], 0, len(parse), may_be_named=False)


def test_a_parse_without_a_body_is_malformed():
    with pytest.raises(ProtocolError, match="without a body"):
        may_parse(b"P\0\0\0\4", 0, 5, may_be_named=True)
