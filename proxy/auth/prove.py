"""
We log in to PostgreSQL: after our startup packet, until AuthenticationOk.

Theory. The server asks, we answer, in whichever way it prefers: nothing at all (trust), the password, its md5,
or SCRAM-SHA-256, bound to its certificate where there is TLS and it offers that. Then it either lets us in or says in
an ErrorResponse why not, which `ServerRefused` carries to whoever waits for this server, word for word.

Over TLS where nobody has looked at the name in the certificate (require, verify-ca) it is the binding alone that tells
somebody in between from the server. A certificate that allows none (Ed25519) could be anybody's: there we `must_bind`.

The server may be hostile, or may not be the one we mean. So: messages and their number are bounded; it may
ask once; what is illegal at this moment ends the login; and once it has begun SCRAM it must show that it knows
our password too, before an AuthenticationOk counts.

We ask for protocol 3.2. PostgreSQL, however old, answers that with the minor it speaks and goes on; other poolers turn
us away, with an error or without a word, as their very first answer: `TooNew`, come again and ask for 3.0.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from protocol import codes, sqlstate
from protocol.backend import (
    ErrorFields,
    parse_authentication,
    parse_error,
    parse_md5_salt,
    parse_negotiate,
    parse_sasl_mechanisms,
)
from protocol.errors import ProtocolError
from protocol.frontend import build_password, build_sasl_initial, build_sasl_response
from protocol.passwords import LearntKeys, Md5, ScramKeys, ScramVerifier, Secret, md5_response, md5_stored
from protocol.scram import Challenge, ScramClient
from proxy.auth.binding import find_peers_end_point
from proxy.auth.claim import Password
from proxy.auth.keys import KeyKeeper
from proxy.inbox import Inbox, PeerGone

MAX_MESSAGE: Final = 65_536
MAX_MESSAGES: Final = 20  # a login by SCRAM has 4, and perhaps a notice or two

_ABOUT_OUR_VERSION: Final = (sqlstate.FEATURE_NOT_SUPPORTED, sqlstate.PROTOCOL_VIOLATION)
_FOREIGN: Final = {
    codes.AUTH_KERBEROS_V5: "Kerberos",
    codes.AUTH_GSS: "GSSAPI",
    codes.AUTH_GSS_CONTINUE: "GSSAPI",
    codes.AUTH_SSPI: "SSPI",
}


_HAVE: Final = {
    type(None): "a password, by {}, which we do not have",
    Secret: "a password, by {}, which we do not have",  # it is empty
    Md5: "the password, by {}, of which we have only the md5",
    ScramVerifier: "the password, by {}, of which we have only a SCRAM verifier: its keys come with a client's login",
    LearntKeys: "the password, by {}, of which we have only the keys of SCRAM",
}
_WHERE_TO_GIVE: Final = "Give it as password= of the database in {}, or in the user's line of auth_file."
_UNLIKE: Final = "a proof of its password {}, which the SCRAM keys of a client's login here cannot give"
_UNBINDABLE: Final = (
    "SCRAM cannot be bound to the server's certificate (Ed25519 allows none), so somebody in between would not be"
    " noticed: use server_tls_sslmode = verify-full, or another certificate"
)
_MAKE_ALIKE: Final = (
    "The pooler's verifier of this user and the server's must be the same to the byte: copy rolpassword from pg_authid"
    " to auth_file, or use auth_query, or give the password itself."
)


class ServerRefused(Exception):
    """PostgreSQL does not let us in: `fields` are its own words, or ours where it asks for what we do not have."""

    def __init__(self, fields: ErrorFields) -> None:
        super().__init__(fields.message or "PostgreSQL refused our login without a word")
        self.fields = fields


class TooNew(Exception):
    """The server turned us away at once: it may not know the version we asked for. Its words, if any, are the text."""


async def prove_ourselves(
    inbox: Inbox,
    user: str,
    password: Password,
    keeper: KeyKeeper,
    minor: int = 0,
    *,
    file: str = "proxy.ini",
    must_bind: bool = False,
) -> int:
    """
    Log in as `user` with protocol 3.`minor`; returns when AuthenticationOk has come, with the minor that is spoken.
    `file` is named where a password is missing. `must_bind`: SCRAM only where the certificate allows it to be bound.

    ServerRefused: the server said no, or asks for a password we do not have. ProtocolError: it breaks the protocol,
    asks in a way we do not speak, or cannot prove itself. PeerGone: it closed the connection. TooNew: try an older one.
    """
    login = _Login(inbox, user, password, keeper, minor, file)
    login.must_bind = must_bind
    code, rest = await login.wait_request()
    if code in _ANSWERS:
        await _ANSWERS[code](login, rest)
        code, _ = await login.wait_request()
    if code != codes.AUTH_OK:
        raise ProtocolError(_complain(code, user))
    return login.minor


def _complain(code: int, user: str) -> str:
    if code in _FOREIGN:
        return (
            f'the server asks user "{user}" for {_FOREIGN[code]}, which we do not speak: '
            f"give this user scram-sha-256 in the server's pg_hba.conf"
        )
    return f"the server sends an authentication request of type {code} where it makes no sense"


class _Login:
    """One login: what we know, and the server's requests one after another."""

    def __init__(self, inbox: Inbox, user: str, password: Password, keeper: KeyKeeper, minor: int, file: str) -> None:
        self.inbox = inbox
        self.user = user
        self.password = password
        self.keeper = keeper
        self.minor = minor
        self.must_bind = False
        self._file = file
        self._messages_left = MAX_MESSAGES
        self._has_negotiated = False

    async def wait_request(self) -> tuple[int, bytes]:
        """The next Authentication message as (codes.AUTH_*, rest). Notices and one NegotiateProtocolVersion pass."""
        while self._messages_left:
            kind, body = await self._wait_message()
            if kind == codes.AUTHENTICATION:
                return parse_authentication(body)
            self._check_legal(kind, body)
        raise ProtocolError(f"the server sends more than {MAX_MESSAGES} messages and does not let us in")

    async def _wait_message(self) -> tuple[int, bytes]:
        may_be_too_new = self.minor > 0 and self._messages_left == MAX_MESSAGES
        self._messages_left -= 1
        try:
            kind, body = await self.inbox.wait_message(MAX_MESSAGE)
        except PeerGone as gone:
            if may_be_too_new:
                raise TooNew(str(gone)) from gone
            raise
        if may_be_too_new and kind == codes.ERROR_RESPONSE:
            error = parse_error(body)
            if error.sqlstate in _ABOUT_OUR_VERSION:
                raise TooNew(error.message)
        return kind, body

    async def wait_sasl(self, wanted: int) -> bytes:
        """The data of the SASL message that must come now."""
        code, data = await self.wait_request()
        if code == wanted:
            return data
        if code == codes.AUTH_OK:
            raise ProtocolError("the server lets us in without having proved that it knows our password")
        raise ProtocolError(_complain(code, self.user))

    def _check_legal(self, kind: int, body: bytes) -> None:
        if kind == codes.ERROR_RESPONSE:
            raise ServerRefused(parse_error(body))
        if kind == codes.NEGOTIATE_PROTOCOL_VERSION and not self._has_negotiated:
            self._has_negotiated = True
            self._negotiate(body)
        elif kind != codes.NOTICE_RESPONSE:
            raise ProtocolError(f"the server sends a message of type {chr(kind)!r} while we log in")

    def _negotiate(self, body: bytes) -> None:
        """The server speaks an older minor. (That it knows no `_pq_.` option either is no news: we name none.)"""
        minor, _ = parse_negotiate(body)
        if minor > self.minor:
            raise ProtocolError(f"the server offers protocol 3.{minor} where we asked for 3.{self.minor}")
        self.minor = minor

    def take_password(self, method: str) -> Secret:
        """Our password, which `method` needs; ServerRefused when we have none, or only something made of it."""
        if isinstance(self.password, Secret) and self.password:
            return self.password
        raise self._lack(_HAVE[type(self.password)].format(method), _WHERE_TO_GIVE.format(self._file))

    def check_scram(self, mechanism: str) -> None:
        """ServerRefused when nothing that we have is good for SCRAM."""
        if not isinstance(self.password, LearntKeys):
            self.take_password(mechanism)

    async def wait_keys(self, challenge: Challenge) -> ScramKeys:
        """The keys that answer `challenge`: learnt from a client, or made of the password."""
        if not isinstance(self.password, LearntKeys):
            password = self.take_password("SCRAM")
            return ScramKeys.from_salted_password(
                await self.keeper.salted(password, challenge.salt, challenge.iterations)
            )
        if challenge.salt != self.password.salt:
            raise self._lack(_UNLIKE.format("with another salt"), _MAKE_ALIKE)
        if challenge.iterations != self.password.iterations:
            ours, theirs = self.password.iterations, challenge.iterations
            raise self._lack(_UNLIKE.format(f"with {theirs} iterations instead of {ours}"), _MAKE_ALIKE)
        return self.password.keys

    def _lack(self, what: str, hint: str) -> ServerRefused:
        message = f'PostgreSQL asks user "{self.user}" for {what}'
        return ServerRefused(ErrorFields("FATAL", sqlstate.INVALID_PASSWORD, message, hint=hint))


async def _answer_cleartext(login: _Login, rest: bytes) -> None:
    login.inbox.write(build_password(login.take_password("cleartext").encode()))


async def _answer_md5(login: _Login, rest: bytes) -> None:
    salt = parse_md5_salt(rest)
    stored = login.password if isinstance(login.password, Md5) else md5_stored(login.take_password("md5"), login.user)
    login.inbox.write(build_password(md5_response(stored, salt)))


async def _answer_sasl(login: _Login, rest: bytes) -> None:
    """The whole SCRAM exchange, up to the server's proof."""
    binding = find_peers_end_point(login.inbox.transport)
    if binding is None and login.must_bind:
        raise ProtocolError(_UNBINDABLE)
    scram = ScramClient(parse_sasl_mechanisms(rest), channel_binding=binding)
    login.check_scram(scram.mechanism)
    login.inbox.write(build_sasl_initial(scram.mechanism, scram.first()))
    challenge = scram.challenge(await login.wait_sasl(codes.AUTH_SASL_CONTINUE))
    login.inbox.write(build_sasl_response(scram.proof(await login.wait_keys(challenge))))
    scram.check_final(await login.wait_sasl(codes.AUTH_SASL_FINAL))


_ANSWERS: Final[Mapping[int, Callable[[_Login, bytes], Awaitable[None]]]] = {
    codes.AUTH_CLEARTEXT: _answer_cleartext,
    codes.AUTH_MD5: _answer_md5,
    codes.AUTH_SASL: _answer_sasl,
}
