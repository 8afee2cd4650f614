"""
The gate: which rule is about a caller, and what the kernel or his certificate says about him.

Theory. Everybody who logs in comes here once, after he has said who he is and before he is asked to prove it. With
auth_type = hba the first rule about him says how (rules.py); with any other auth_type there is one rule for all, and
it is about everybody. What the caller cannot choose is taken from his connection: the address, whether TLS is
spoken, the account at the other end of a Unix socket, the certificate that the handshake has checked.

A caller who is not let in hears PgBouncer's sentence with PostgreSQL's as its detail. The log hears the rule's file
and line too, also when the password under it was wrong; he does not. Under peer, cert and trust a user must be known,
as in PgBouncer: one that is not hears the same as somebody else's.
"""

import asyncio
import contextlib
import pwd
from collections.abc import Iterator
from typing import Any, Final

from protocol import sqlstate
from protocol.errors import Refused
from protocol.replication import Replication
from protocol.startup import Startup
from proxy.auth.certificate import Names as CertificateNames
from proxy.auth.certificate import check_certificate
from proxy.auth.claim import Claim
from proxy.auth.exchange import Exchange
from proxy.auth.ident import Maps, is_allowed
from proxy.auth.interfaces import Interfaces
from proxy.auth.owner import find_uid
from proxy.auth.rulebook import NO_RULES, Rulebook, read_rulebook
from proxy.auth.rules import Caller, ClientCert, Method, Names, Record, Rule, Where, find_rule
from proxy.auth.verify import AuthMethod, verify_client
from proxy.config.ini import BadConfig
from proxy.config.kinds import AuthType
from proxy.config.lines import Mistake
from proxy.config.outside import OUTSIDE
from proxy.config.settings import Settings
from proxy.inbox import Inbox
from proxy.log import DEBUG, UNIX, tag_client
from proxy.tls import is_encrypted

MOST_WARNINGS: Final = 20  # in the log of one reload
MAX_CERTIFICATE_NAME: Final = 1_000  # characters; of a common name X.520 allows 64

_OF_ALL: Final = Names(("all",), has_all=True, has_replication=True)
_NOWHERE: Final = Mistake("auth_type", 0, "")


def _make_rule(method: Method, record: Record = Record.HOST, cert: ClientCert = ClientCert.UNASKED) -> Rule:
    return Rule(_NOWHERE, record, _OF_ALL, _OF_ALL, Where.ALL, method, client_cert=cert)


ASK_NOTHING: Final = _make_rule(Method.TRUST)  # not even whether the user is known

_ONE_RULE: Final = {
    AuthType.ANY: ASK_NOTHING,
    AuthType.TRUST: _make_rule(Method.TRUST),
    AuthType.PLAIN: _make_rule(Method.PASSWORD),
    AuthType.MD5: _make_rule(Method.MD5),
    AuthType.SCRAM: _make_rule(Method.SCRAM),
    AuthType.CERT: _make_rule(Method.CERT, Record.HOSTSSL, ClientCert.VERIFY_FULL),
    **{each: _make_rule(Method(each)) for each in OUTSIDE},
}

_REJECTED: Final = {  # by (there is no rule, physical replication is wanted)
    (True, False): "no pg_hba.conf entry for",
    (True, True): "no pg_hba.conf entry for replication connection from",
    (False, False): "pg_hba.conf rejects connection for",
    (False, True): "pg_hba.conf rejects replication connection for",
}

ASKED: Final = {
    Method.TRUST: AuthMethod.TRUST,
    Method.PASSWORD: AuthMethod.PLAIN,
    Method.MD5: AuthMethod.MD5,
    Method.SCRAM: AuthMethod.SCRAM,
}


class Gate:
    """One per proxy. `rulebook` is what is in force, and replaced as a whole."""

    def __init__(self, proxy: Any) -> None:
        self._proxy = proxy
        self._interfaces = Interfaces(proxy.clock.now)
        self.rulebook: Rulebook = NO_RULES
        self.mistakes: tuple[Mistake, ...] = ()  # why the files were not taken when they were read last

    def read(self, settings: Settings) -> Rulebook:
        """What the settings name. BadConfig: it cannot be used, and SHOW HBA tells why. Made for a thread."""
        try:
            rulebook = read_rulebook(settings)
        except BadConfig as bad:
            self.mistakes = bad.mistakes
            raise
        self.mistakes = ()
        return rulebook

    def replace(self, rulebook: Rulebook) -> None:
        """Rules for all who log in from now on. Who is logged in stays."""
        before, self.rulebook = self.rulebook, rulebook
        if told := before.describe_change(rulebook):
            self._proxy.log.log(f"{self._proxy.settings.auth_hba_file or 'auth_type'}: {told}")
        if rulebook is not before:
            for warning in rulebook.warnings[:MOST_WARNINGS]:
                self._proxy.log.warning(str(warning))

    def choose_rule(self, inbox: Any, startup: Startup, address: tuple[str, int], replication: Replication) -> Rule:
        """The rule this login is judged by. Refused (28000): it says no, or there is none."""
        settings = self._proxy.settings
        if settings.auth_type is not AuthType.HBA:
            return _ONE_RULE[settings.auth_type]
        caller = Caller(
            user=startup.user,
            database=startup.database,
            host=address[0],
            has_tls=is_encrypted(inbox.transport),
            is_physical=replication is Replication.PHYSICAL,
        )
        rule = find_rule(self.rulebook.rules, caller, self._interfaces.find)
        if rule is None or rule.method is Method.REJECT:
            raise _rejected(caller, rule, settings.auth_hba_file)
        return rule

    def tell(self, rule: Rule, startup: Startup, address: tuple[str, int]) -> None:
        """Which rule it was, for the log."""
        if self._proxy.log.level >= DEBUG and rule.place is not _NOWHERE:
            voice = self._proxy.log.for_socket(tag_client(address, startup.database, startup.user))
            voice.debug(f"is asked by {rule.method}: rule {rule}")

    async def wait_proof(
        self, inbox: Inbox, rule: Rule, claim: Claim, address: tuple[str, int], begun: Exchange | None = None
    ) -> bytes:
        """Let the client prove that it is who it claims to be, as the rule says; see `verify_client`."""
        user, maps = claim.user, self.rulebook.maps
        is_known = bool(claim.stored) or rule.method in OUTSIDE  # who is known is known there
        with _blaming(rule):
            if rule.client_cert is not ClientCert.UNASKED:
                check_client_cert(inbox, rule, maps, user, is_known=is_known)
            if rule.method is Method.CERT:
                return b""
            if rule.method is Method.PEER:
                await _check_peer(inbox, rule, maps, user, is_known=is_known)
                return b""
            if rule.method in OUTSIDE:
                return await self._ask_outside(inbox, rule, user, address)
            method = AuthMethod.ANY if rule is ASK_NOTHING else ASKED[rule.method]
            return await verify_client(inbox, claim, method, self._proxy.keeper, begun)

    async def _ask_outside(self, inbox: Inbox, rule: Rule, user: str, address: tuple[str, int]) -> bytes:
        method, maps = AuthType(rule.method), self.rulebook.maps
        told: bytes = await self._proxy.outside.verify(inbox, user, method, address, rule.options, maps)
        return told


def needs_secrets(rule: Rule) -> bool:
    """Does it matter what we know of the user? Of some nothing is asked, and of others somebody else is."""
    return rule is not ASK_NOTHING and rule.method not in OUTSIDE


def _rejected(caller: Caller, rule: Rule | None, file: str) -> Refused:
    """The detail is what PostgreSQL says."""
    host = "[local]" if caller.host == UNIX else caller.host
    database = "" if caller.is_physical else f', database "{caller.database}"'
    crypt = "SSL encryption" if caller.has_tls else "no encryption"
    return Refused(
        sqlstate.INVALID_AUTHORIZATION,
        "login rejected",
        detail=f'{_REJECTED[rule is None, caller.is_physical]} host "{host}", user "{caller.user}"{database}, {crypt}',
        note=f"no rule of {file} is about it" if rule is None else f"rule {rule}",
    )


@contextlib.contextmanager
def _blaming(rule: Rule) -> Iterator[None]:
    """Whoever is refused inside is refused under this rule, and the log says so."""
    try:
        yield
    except Refused as no:
        if rule.place is not _NOWHERE:
            no.note = f"{no.note}, rule {rule}" if no.note else f"rule {rule}"
        raise


def check_client_cert(inbox: Inbox, rule: Rule, maps: Maps, user: str, *, is_known: bool) -> None:
    """Refused (28000): the handshake has checked no certificate of the client, or it is somebody else's."""
    must_be_his = rule.client_cert is ClientCert.VERIFY_FULL

    def is_his(names: CertificateNames) -> bool:
        name = names.dn if rule.options.get("clientname") == "DN" else names.cn
        is_usable = 0 < len(name) <= MAX_CERTIFICATE_NAME and name.isprintable()
        return not must_be_his or (is_usable and is_allowed(maps, rule.options.get("map", ""), name, user))

    connection = inbox.transport.get_extra_info("ssl_object")
    check_certificate(connection, user, is_known=is_known or not must_be_his, is_his=is_his)


async def _check_peer(inbox: Inbox, rule: Rule, maps: Maps, user: str, *, is_known: bool) -> None:
    """Refused (28000): the account at the other end of the Unix socket may not be `user`."""
    uid = find_uid(inbox.transport)
    # Names of accounts may come over the network (NSS), so a thread asks.
    account = await asyncio.to_thread(_name_of, uid) if uid is not None else None
    note = f"the account is {account!r}" if account is not None else f"no account has the number {uid}"
    is_his = account is not None and is_allowed(maps, rule.options.get("map", ""), account, user)
    if not (is_known and is_his):
        detail = f'peer authentication failed for user "{user}"'
        raise Refused(sqlstate.INVALID_AUTHORIZATION, "unix socket login rejected", detail=detail, note=note)


def _name_of(uid: int) -> str | None:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return None
