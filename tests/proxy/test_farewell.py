"""What a client is told: for every reason something, with a SQLSTATE."""

import pytest

from protocol import sqlstate
from proxy.farewell import ERRORS, QUIET
from proxy.states import Closing

KNOWN = {value for name, value in vars(sqlstate).items() if name.isupper()}


def test_every_reason_is_either_told_or_the_clients_own():
    assert set(ERRORS) | QUIET == set(Closing)
    assert not set(ERRORS) & QUIET


@pytest.mark.parametrize("why", ERRORS)
def test_every_error_is_fatal_and_has_a_sqlstate_and_words(why):
    error = ERRORS[why]
    assert error.severity == "FATAL"
    assert error.sqlstate in KNOWN
    assert error.message


@pytest.mark.parametrize(
    "words",
    [
        "query_wait_timeout",
        "query_timeout",
        "query timeout",
        "client_idle_timeout",
        "server conn crashed?",
        "admin forced disconnect",
        "database removed",
        "too many servers in the pool",
    ],
)
def test_the_words_people_look_for_are_pgbouncers(words):
    assert words in {error.message for error in ERRORS.values()}
