"""Startup parameters tried on: nothing stays, and the answer is how the server spells them."""

import pytest

from protocol.backend import READY_IDLE_MESSAGE, build_command_complete, build_data_row
from protocol.errors import ProtocolError
from protocol.frontend import parse_query
from protocol.trial import build_trial, parse_trial

BASE = {"client_encoding": "UTF8", "DateStyle": "ISO, MDY"}


def text_of(wishes, actual=BASE):
    return parse_query(build_trial(wishes, BASE, actual)[5:]).decode()


def said(*values):
    rows = b"".join(build_data_row([value]) + build_command_complete("SELECT 1") for value in values)
    return rows + READY_IDLE_MESSAGE


def test_a_value_is_set_for_the_length_of_the_message():
    assert text_of({"work_mem": "1GB"}) == "SELECT pg_catalog.set_config(E'work_mem',E'1GB',true)"


def test_a_server_in_another_state_is_first_as_it_was_opened():
    text = text_of({"DateStyle": "German"}, {**BASE, "DateStyle": "SQL, DMY", "role": "clerk"})
    assert text.startswith('SET LOCAL "role" TO DEFAULT;')
    assert text.index("ISO, MDY") < text.index("German")
    assert ",false)" not in text


def test_a_role_comes_behind_the_rest_and_the_encoding_of_the_answer_last():
    text = text_of({"client_encoding": "LATIN1", "role": "clerk", "work_mem": "1GB"})
    assert text.index("work_mem") < text.index("role") < text.index("client_encoding")


def test_the_answer_is_read_in_the_order_of_the_question_behind_whatever_came_before():
    wishes = {"client_encoding": "utf-8", "my.x": "\u00fc"}
    assert parse_trial(wishes, said("ISO, MDY", "\u00fc", "UTF8"), "UTF8") == {
        "my.x": "\u00fc",
        "client_encoding": "UTF8",
    }


@pytest.mark.parametrize(
    "data", [b"", READY_IDLE_MESSAGE, said("1"), said("1", "2")[:-8], build_data_row(["1", "2"]) * 2]
)
def test_another_answer_is_refused(data):
    with pytest.raises(ProtocolError):
        parse_trial({"a": "1", "b": "2"}, data, "UTF8")
