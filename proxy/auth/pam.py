"""
The system's PAM says who a client is: method pam, by a service file under /etc/pam.d.

Theory. PAM is a stack of modules, each a library that may do anything and take any time, so it is called in a few
threads (crew.py): what hangs there costs logins, and never a query. As PgBouncer does we give it the user, the client's
address and the password for each question without echo, and ask for both its verdicts: is it him (authenticate), and
may he come now (account). Sessions and credentials are nothing of ours: nobody logs in to this machine.

The library is called by ctypes, in a hundred lines and without an extra: what wraps it on PyPI cannot tell it the
client's address, which modules such as pam_access decide by, nor keep it from sleeping for seconds after each wrong
password (the fail delay), which would hold a thread and so hold up others; whoever guesses is slowed down elsewhere.

Modules run with the rights of our account: pam_unix of an account that is not root knows nobody's password but its own.
"""

import ctypes
from collections.abc import Callable
from ctypes import CFUNCTYPE, POINTER, Structure, c_char_p, c_int, c_uint, c_void_p
from typing import Any, Final

from protocol.passwords import Secret, encode_text
from proxy.auth.cleartext import cannot_ask, wait_password
from proxy.auth.crew import Crew, NoAnswer
from proxy.auth.verify import wrong_password
from proxy.config.outside import LIBPAM, PamRules
from proxy.inbox import Inbox
from proxy.log import UNIX

SILENT: Final = 0x8000
ITEM_RHOST: Final = 4
ITEM_FAIL_DELAY: Final = 10
SUCCESS: Final = 0
CONVERSATION_FAILED: Final = 19
PROMPT_WITHOUT_ECHO: Final = 1
PROMPT_WITH_ECHO: Final = 2
MAX_MESSAGES: Final = 32  # at a time; PAM's own limit

# What is the system's trouble and not the user's: open, symbol, service, buffer, unavailable, abort, unknown module.
# Not the system error, 4: pam_exec says that of a program that says no.
_TROUBLE: Final = frozenset({1, 2, 3, 5, 9, 26, 28})


class NotLetIn(Exception):
    """PAM says no: why, for our log."""


class CannotAsk(Exception):
    """PAM says neither yes nor no."""


class Message(Structure):
    """struct pam_message."""

    _fields_ = (("style", c_int), ("text", c_char_p))


class Response(Structure):
    """struct pam_response; its text is freed by the library."""

    _fields_ = (("text", c_void_p), ("code", c_int))


_Converse = CFUNCTYPE(c_int, c_int, POINTER(POINTER(Message)), POINTER(POINTER(Response)), c_void_p)
_Delay = CFUNCTYPE(None, c_int, c_uint, c_void_p)


class Conversation(Structure):
    """struct pam_conv."""

    _fields_ = (("converse", _Converse), ("about", c_void_p))


async def verify_by_pam(inbox: Inbox, user: str, rules: PamRules, host: str, crew: Crew) -> Secret:
    """
    Let the client, who comes from `host`, prove that it is `user` to PAM; returns the password.

    Refused: 28P01 when PAM says no, 28000 when it says nothing. ProtocolError, PeerGone: as of `verify_client`.
    """
    password = await wait_password(inbox, user)
    try:
        await crew.run(ask_pam, rules.service, user, password, "" if host == UNIX else host)
    except NotLetIn as no:
        raise wrong_password(user, str(no)) from None
    except (CannotAsk, NoAnswer) as trouble:
        raise cannot_ask(user, "PAM", f"PAM service {rules.service}: {trouble}") from None
    return password


def ask_pam(service: str, user: str, password: Secret, host: str) -> None:
    """In a thread. NotLetIn, CannotAsk."""
    try:
        library = _load()
    except OSError as error:
        raise CannotAsk(str(error)) from None
    converse = _Converse(_answer_with(password))
    conversation, handle = Conversation(converse, None), c_void_p()
    name = encode_text(user)
    _check(library, handle, library.pam_start(service.encode(), name, ctypes.byref(conversation), ctypes.byref(handle)))
    code = SUCCESS
    try:
        library.pam_set_item(handle, ITEM_FAIL_DELAY, ctypes.cast(_NO_DELAY, c_void_p))
        if host:
            library.pam_set_item(handle, ITEM_RHOST, ctypes.cast(c_char_p(host.encode()), c_void_p))
        code = library.pam_authenticate(handle, SILENT)
        _check(library, handle, code)
        code = library.pam_acct_mgmt(handle, SILENT)
        _check(library, handle, code)
    finally:
        library.pam_end(handle, code)


def _load() -> Any:
    """libpam, which the system loads once. OSError: there is none."""
    library = ctypes.CDLL(LIBPAM)
    library.pam_start.argtypes = (c_char_p, c_char_p, POINTER(Conversation), POINTER(c_void_p))
    library.pam_set_item.argtypes = (c_void_p, c_int, c_void_p)
    library.pam_authenticate.argtypes = library.pam_acct_mgmt.argtypes = library.pam_end.argtypes = (c_void_p, c_int)
    library.pam_strerror.argtypes, library.pam_strerror.restype = (c_void_p, c_int), c_char_p
    return library


def _answer_with(password: Secret) -> Callable[[int, Any, Any, Any], int]:
    """To each question without echo the password; others have no answer, and what PAM only says is not ours to tell."""
    system = ctypes.CDLL(None)
    system.calloc.argtypes, system.calloc.restype = (ctypes.c_size_t, ctypes.c_size_t), c_void_p
    system.strdup.argtypes, system.strdup.restype = (c_char_p,), c_void_p

    def converse(count: int, messages: Any, responses: Any, _: Any) -> int:
        if not 0 < count <= MAX_MESSAGES:
            return CONVERSATION_FAILED
        styles = [messages[index].contents.style for index in range(count)]
        if PROMPT_WITH_ECHO in styles:
            return CONVERSATION_FAILED
        place = system.calloc(count, ctypes.sizeof(Response))
        if not place:
            return CONVERSATION_FAILED
        answers = ctypes.cast(place, POINTER(Response))
        for index, style in enumerate(styles):
            if style == PROMPT_WITHOUT_ECHO:
                answers[index].text = system.strdup(password.encode())
        responses[0] = answers
        return SUCCESS

    return converse


def _check(library: Any, handle: c_void_p, code: int) -> None:
    if code == SUCCESS:
        return
    words = (library.pam_strerror(handle, code) or b"").decode(errors="replace")[:200]
    raise (CannotAsk if code in _TROUBLE else NotLetIn)(f"PAM says: {words}")


_NO_DELAY: Final = _Delay(lambda code, microseconds, about: None)
