"""
Who must prove by SCRAM who he is, asked and answered on the doorstep: a login of two messages without a conversation.

Theory. A conversation costs a task, timers and futures, more than all the hashing; and applications that connect for
each query pay it each time. So where nothing has to be waited for the question is put in the call that brings the
startup packet, and each answer is met in the call that brings it. The judgement is the same, by the same functions in
the same order as in visit.py and login.py: nothing of it is remembered by packet, so a name that is known is answered
no sooner than one that is not. What comes after the proof is (express.py).

Whatever is not usual (an answer in pieces, or two in one; a wrong one; somebody who has to wait after failures; a
server that must be opened first; silence) is left to a conversation, which goes on from here with what has come, and
finds the words. Until then `Asked` is all there is of such a login, at the door where it stands, counted and timed as
everybody there.
"""

from dataclasses import dataclass
from typing import Any, Final

from protocol import codes
from protocol.codes import MAX_STARTUP_LENGTH
from protocol.errors import ProtocolError, Refused
from protocol.framing import HEADER_SIZE
from protocol.replication import Replication
from protocol.scram import WrongPassword
from protocol.startup import Startup, negotiate, parse_startup
from proxy.auth.exchange import MAX_SASL_MESSAGE, Exchange
from proxy.auth.gate import ASKED
from proxy.auth.guesses import Attempt
from proxy.auth.lookup import recall_claim
from proxy.auth.rules import ClientCert, Rule
from proxy.auth.verifiers import find_verifiers
from proxy.auth.verify import AuthMethod, meets_scram
from proxy.config.entries import CONSOLES
from proxy.config.kinds import AuthType
from proxy.encryption import needs_tls
from proxy.express import Rules
from proxy.log import UNIX
from proxy.login import check_max_clients, log_attempt, read_wishes

_ANSWER: Final = bytes([codes.PASSWORD])
_MAY_ASK: Final = frozenset({AuthType.SCRAM, AuthType.MD5, AuthType.HBA})
_BY_SCRAM: Final = frozenset({AuthMethod.SCRAM, AuthMethod.MD5})


@dataclass(slots=True)
class Asked:
    """Somebody who has said who he is, and what he was told to prove it with."""

    packet: bytes
    startup: Startup
    wishes: dict[str, str]
    rules: Rules  # what was in force
    rule: Rule
    attempt: Attempt
    exchange: Exchange


def ask(proxy: Any, packet: bytes, door: Any) -> Asked | None:
    """Put the question, if it is one for SCRAM and nothing has to be waited for. None: nothing has happened."""
    if proxy.settings.auth_type not in _MAY_ASK or proxy.suspension.is_on:
        return None
    if not 8 <= len(packet) <= MAX_STARTUP_LENGTH or int.from_bytes(packet[:4]) != len(packet):
        return None
    if needs_tls(proxy) and door.address[0] != UNIX:
        return None
    try:
        asked = _judge(proxy, packet, door)
    except (ProtocolError, Refused):
        return None
    if asked is None:
        return None
    startup = asked.startup
    if proxy.settings.log_connections:
        log_attempt(proxy, door.address, startup.database, startup.user, Replication.NONE.asked)
    proxy.gate.tell(asked.rule, startup, door.address)
    door.transport.write(asked.exchange.question)
    return asked


def _judge(proxy: Any, packet: bytes, door: Any) -> Asked | None:
    startup = parse_startup(packet[4:])
    if not isinstance(startup, Startup) or startup.database in CONSOLES or "replication" in startup.parameters:
        return None
    check_max_clients(proxy, coming=1)
    attempt = proxy.strangers.guesses.begin(door.address, startup.user)
    if attempt is None or negotiate(startup) is not None:
        return None
    wishes = read_wishes(startup, proxy)
    rule = proxy.gate.choose_rule(door, startup, door.address, Replication.NONE)
    exchange = _begin_exchange(proxy, startup, rule, door)
    if exchange is None:
        return None
    return Asked(packet, startup, wishes, proxy.express.begin(), rule, attempt, exchange)


def _begin_exchange(proxy: Any, startup: Startup, rule: Rule, door: Any) -> Exchange | None:
    method = ASKED.get(rule.method)
    if method not in _BY_SCRAM or rule.client_cert is not ClientCert.UNASKED:
        return None
    claim = recall_claim(proxy, startup, door.address[0])
    if claim is None or not meets_scram(method, claim):
        return None
    verifiers = find_verifiers(claim, proxy.keeper)
    return None if verifiers is None else Exchange(claim, verifiers=verifiers)


def challenge(proxy: Any, asked: Asked, data: bytes, door: Any) -> bool:
    """Meet its first answer, if that is usual. False: nothing has happened."""
    if not _is_answer(data):
        return False
    try:
        said = asked.exchange.open(data[HEADER_SIZE:])
    except (ProtocolError, Refused):
        return False
    door.transport.write(said)
    return True


def admit(proxy: Any, asked: Asked, data: bytes, door: Any) -> bool:
    """Make it a client, if its second answer is right and nothing stands in the way. False: nothing has happened."""
    if not _is_answer(data):
        return False
    try:
        last = asked.exchange.close(data[HEADER_SIZE:])
    except (ProtocolError, Refused, WrongPassword):
        return False
    return bool(proxy.express.let_in(asked, last, door))


def _is_answer(data: bytes) -> bool:
    """One whole message of the right kind, and nothing else."""
    return data[:1] == _ANSWER and int.from_bytes(data[1:HEADER_SIZE]) == len(data) - 1 <= MAX_SASL_MESSAGE
