"""
One SCRAM exchange of a client that logs in to us, without a wire: what is asked, and what its two answers mean.

Theory. Two ways lead through it: a conversation that waits for each answer (verify.py), and the doorstep, where an
answer that comes whole and alone is met in the very call that brings it (asking.py). So the exchange itself does no
I/O and waits for nothing, and a step that fails leaves it as it was: what was not usual on the doorstep is said again
in a conversation, which begins where the doorstep has stopped, comes to the same end, and has the words for it.

`verifiers` are all that it can check, each with the stored secret that it is made of (verifiers.py); they may be
given later than the question, but before the first answer.
"""

import hmac
from typing import Final

from protocol import sqlstate
from protocol.backend import build_sasl, build_sasl_continue, build_sasl_final
from protocol.body import build_string
from protocol.errors import Refused
from protocol.frontend import parse_sasl_initial, parse_sasl_response
from protocol.passwords import LearntKeys, Plain, ScramKeys
from protocol.scram import MAX_MESSAGE_LENGTH, MECHANISM, ScramServer, offered_with
from proxy.auth.claim import Claim
from proxy.auth.keys import Verifiers

MAX_SASL_MESSAGE: Final = MAX_MESSAGE_LENGTH + 64  # its length, and the mechanism's name

_USUAL: Final = build_string(MECHANISM)  # what its first answer begins with
_LENGTH_AT, _DATA_AT = len(_USUAL), len(_USUAL) + 4
_PLAIN_OFFER: Final = build_sasl(offered_with(None))


class Exchange:
    """`question`, `open`, `close`, in this order. The two answers raise Refused, ProtocolError, and WrongPassword."""

    __slots__ = ("_binding", "_server", "claim", "verifiers")

    def __init__(self, claim: Claim, binding: bytes | None = None, verifiers: Verifiers | None = None) -> None:
        self.claim = claim
        self.verifiers = verifiers
        self._binding = binding
        self._server: ScramServer | None = None

    @property
    def question(self) -> bytes:
        """The mechanisms it may choose from."""
        return _PLAIN_OFFER if self._binding is None else build_sasl(offered_with(self._binding))

    @property
    def is_open(self) -> bool:
        """Has its first answer been met?"""
        return self._server is not None

    def check_choice(self, answer: bytes) -> None:
        """Refused, ProtocolError: the body of its first answer makes no sense, whatever is stored."""
        self._choose(answer)

    def open(self, answer: bytes) -> bytes:
        """The challenge, for the body of its first answer."""
        assert self.verifiers is not None, "gathered before"
        mechanism, first = self._choose(answer)
        server = ScramServer(*self.verifiers, mechanism=mechanism, channel_binding=self._binding)
        challenge = build_sasl_continue(server.first(first))
        self._server = server
        return challenge

    def _choose(self, answer: bytes) -> tuple[str, bytes]:
        if answer[:_LENGTH_AT] == _USUAL and int.from_bytes(answer[_LENGTH_AT:_DATA_AT]) == len(answer) - _DATA_AT:
            return MECHANISM, answer[_DATA_AT:]
        initial = parse_sasl_initial(answer)
        if initial.mechanism not in offered_with(self._binding) or initial.data is None:
            raise Refused(sqlstate.PROTOCOL_VIOLATION, "client selected an invalid SASL authentication mechanism")
        return initial.mechanism, initial.data

    def close(self, answer: bytes) -> bytes:
        """What proves that we know it too, for the body of its second answer. What it has shown is in the claim."""
        assert self._server is not None, "opened before"
        last = self._server.final(parse_sasl_response(answer))
        self._note(self._server.keys)
        return build_sasl_final(last)

    def _note(self, keys: ScramKeys) -> None:
        """It knows the password of one of these: with its plain text, if we have that, else with the keys."""
        for verifier, stored in (self.verifiers or {}).items():
            if hmac.compare_digest(verifier.stored_key, keys.stored_key):
                learnt = LearntKeys(keys, verifier.salt, verifier.iterations)
                self.claim.prove(stored, stored.secret if isinstance(stored, Plain) else learnt)
