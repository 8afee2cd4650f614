"""
A directory says who a client is: method ldap, by a simple bind as the user, perhaps after a search for him.

Theory. LDAP has one question of this sort: may I be this entry, with this password? (a bind). The client's password is
asked for as it is, the entry is named or searched for as the rules say (proxy/config/ldap.py), and the directory's yes
is ours. All other answers are a no. A directory that gives none is told apart in the log and in the words, since that
is nobody's wrong password.

The library is python-ldap: libldap underneath, as in PostgreSQL and PgBouncer, with its ldap.conf for the
certificates of TLS. It waits, so a few threads call it (crew.py), and it lets go of the interpreter's lock while it
does. (bonsai, made for asyncio, connects inside the event loop's own thread and holds that lock: a directory behind
a dead route stops every query for minutes.) Each answer has a time limit, and nobody is followed to another server:
a referral would show the password to whoever it names.
"""

import contextlib
from typing import Any, Final

from protocol.passwords import Secret
from proxy.auth.cleartext import cannot_ask, wait_password
from proxy.auth.crew import Crew, NoAnswer
from proxy.auth.extras import library
from proxy.auth.verify import wrong_password
from proxy.config.ldap import LdapRules
from proxy.inbox import Inbox

CONNECT_TIME: Final = 3.0  # seconds, to each server; PgBouncer's
ANSWER_TIME: Final = 5.0  # seconds
NO_ATTRIBUTES: Final = ("1.1",)


class NotLetIn(Exception):
    """The directory says no: why, for our log."""


class CannotAsk(Exception):
    """The directory says neither yes nor no."""


async def verify_by_ldap(inbox: Inbox, user: str, rules: LdapRules, crew: Crew) -> Secret:
    """
    Let the client prove that it is `user` to the directory; returns the password.

    Refused: 28P01 when the directory says no, 28000 when it says nothing. ProtocolError, PeerGone: as of
    `verify_client`.
    """
    password = await wait_password(inbox, user)
    try:
        await crew.run(bind_as, rules, user, password)
    except NotLetIn as no:
        raise wrong_password(user, str(no)) from None
    except (CannotAsk, NoAnswer) as trouble:
        raise cannot_ask(user, "LDAP", f"LDAP at {rules.servers}: {trouble}") from None
    return password


def bind_as(rules: LdapRules, user: str, password: Secret) -> None:
    """In a thread. NotLetIn, CannotAsk."""
    if not password:
        raise NotLetIn("the password is empty")  # and a bind with it would be one of nobody
    ldap = library("ldap")
    try:
        directory = _connect(ldap, rules)
    except (ldap.LDAPError, ValueError) as error:
        raise CannotAsk(_tell(error)) from None
    try:
        entry = rules.entry_of(user) if rules.base is None else _find_entry(ldap, directory, rules, user)
        _bind(ldap, directory, entry, password)
    finally:
        _leave(ldap, directory)


def _connect(ldap: Any, rules: LdapRules) -> Any:
    directory = ldap.initialize(rules.servers)
    directory.protocol_version = ldap.VERSION3
    directory.set_option(ldap.OPT_REFERRALS, 0)
    directory.set_option(ldap.OPT_NETWORK_TIMEOUT, CONNECT_TIME)
    directory.set_option(ldap.OPT_TIMEOUT, ANSWER_TIME)
    if rules.starttls:
        directory.start_tls_s()
    return directory


def _find_entry(ldap: Any, directory: Any, rules: LdapRules, user: str) -> str:
    """The name of the only entry that is the user's."""
    try:
        directory.simple_bind_s(rules.bind_dn, rules.bind_password.reveal())
        wanted = rules.filter_for(user), list(NO_ATTRIBUTES)
        found = directory.search_ext_s(rules.base, rules.scope, *wanted, timeout=ANSWER_TIME, sizelimit=2)
    except ldap.SIZELIMIT_EXCEEDED:
        raise NotLetIn("the directory has several entries for this user") from None
    except UnicodeEncodeError:
        raise NotLetIn("the name is not UTF-8, and no entry has it") from None
    except ldap.LDAPError as error:
        raise CannotAsk(f"the search failed: {_tell(error)}") from None
    names = [name for name, _ in found if name]  # a referral has none
    if len(names) != 1:
        raise NotLetIn(
            "the directory has several entries for this user" if names else "the directory does not know him"
        )
    return str(names[0])


def _bind(ldap: Any, directory: Any, entry: str, password: Secret) -> None:
    if not entry:
        raise NotLetIn("the entry has no name")  # and a bind as it would be one of nobody
    try:
        directory.simple_bind_s(entry, password.encode())
    except (ldap.SERVER_DOWN, ldap.TIMEOUT, ldap.CONNECT_ERROR, ldap.BUSY, ldap.UNAVAILABLE) as error:
        raise CannotAsk(_tell(error)) from None
    except UnicodeEncodeError:
        raise NotLetIn("the name is not UTF-8, and no entry has it") from None
    except (ldap.LDAPError, ValueError) as error:
        raise NotLetIn(f"the directory says: {_tell(error)}") from None


def _leave(ldap: Any, directory: Any) -> None:
    with contextlib.suppress(ldap.LDAPError):  # it is gone
        directory.unbind_ext_s()


def _tell(error: Exception) -> str:
    """The directory's words, and never what was asked."""
    about = error.args[0] if error.args and isinstance(error.args[0], dict) else {}
    words = [str(about[key])[:200] for key in ("desc", "info") if about.get(key)]
    return ": ".join(words) or type(error).__name__
