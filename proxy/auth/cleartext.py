"""
A client is asked for its password as it is, since somebody else shall judge it: a directory, or PAM.

Theory. The password is held as a Secret, which shows in no log and no traceback. An empty one is refused before anybody
is asked: to a directory a bind without a password is a bind of nobody, which it grants to everybody, and whoever took
that for a yes would have no passwords at all.
"""

from protocol import sqlstate
from protocol.backend import build_authentication_cleartext
from protocol.errors import Refused
from protocol.frontend import parse_password
from protocol.passwords import Secret
from proxy.auth.verify import MAX_PASSWORD_MESSAGE, wait_answer, wrong_password
from proxy.inbox import Inbox


async def wait_password(inbox: Inbox, user: str) -> Secret:
    """What the client gives as its password; never empty. Refused: it is, or the message is another one."""
    inbox.write(build_authentication_cleartext())
    password = Secret.decode(parse_password(await wait_answer(inbox, "password", MAX_PASSWORD_MESSAGE)))
    if not password:
        raise wrong_password(user, "it is empty")
    return password


def cannot_ask(user: str, what: str, note: str) -> Refused:
    """`what` has not said yes or no."""
    return Refused(
        sqlstate.INVALID_AUTHORIZATION,
        f'{what} authentication failed for user "{user}"',
        detail="The password could not be checked: whoever knows did not answer.",
        note=note,
    )
