"""
The outside methods: a client proves who it is to somebody else, and we take that one's word.

Theory. `Outside` is one per proxy and holds what outlives a login: the issuers' keys, the threads, and the passwords
with which PostgreSQL can be logged in to where its users are the directory's too, as in PgBouncer. Whoever decides by
which method a client is asked (auth_type, or a line of the HBA file with options of its own) calls `verify`, which is a
conversation like `verify_client` and ends like it: it returns, or raises.

All of it stands under `client_login_timeout`. What a method needs is imported when the first client comes to it.
"""

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from protocol import sqlstate
from protocol.errors import Refused
from protocol.passwords import Secret
from proxy.auth.crew import Crew
from proxy.auth.extras import wait_loaded
from proxy.auth.ident import Maps, is_allowed
from proxy.auth.jwks import KeySet
from proxy.auth.ldap import verify_by_ldap
from proxy.auth.oauth import verify_bearer
from proxy.auth.pam import verify_by_pam
from proxy.config.kinds import AuthType
from proxy.config.ldap import LdapRules
from proxy.config.outside import MODULES, NO_OPTIONS, READERS, OauthRules, PamRules, Rules
from proxy.inbox import Inbox

NO_MAPS: Final[Maps] = MappingProxyType({})
MAX_KEY_SETS: Final = 100
MAX_PASSWORDS: Final = 10_000


class Outside:
    """What the outside methods share with all their clients."""

    def __init__(self, proxy: Any) -> None:
        self._proxy = proxy
        self._key_sets: dict[str, KeySet] = {}
        self._ldap = Crew("ldap")
        self._pam = Crew("pam")
        self._passwords: OrderedDict[str, Secret] = OrderedDict()
        self._judged: Any = None  # the configuration that the next is about
        self._is_useful = False

    async def verify(
        self,
        inbox: Inbox,
        user: str,
        method: AuthType,
        address: tuple[str, int],
        options: Mapping[str, str] = NO_OPTIONS,
        maps: Maps = NO_MAPS,
    ) -> bytes:
        """
        Let the client, who comes from `address`, prove that it is `user`. Returns the bytes to send in front of
        AuthenticationOk. `options` are those of the line of the HBA file that says so, `maps` those of auth_ident_file.

        Raises what `verify_client` does; Refused with XX000 when the rules are wrong, which --check would have said.
        """
        rules = await self._wait_rules(method, options)
        await _METHODS[method](self, inbox, user, address[0], rules, maps)
        return b""

    async def _wait_rules(self, method: AuthType, options: Mapping[str, str]) -> Rules:
        try:
            rules = READERS[method](self._proxy.settings, options)
            await wait_loaded(MODULES[method])
        except (ValueError, ImportError) as error:
            sentence = f"{method} authentication is not set up for this login"
            raise Refused(sqlstate.INTERNAL_ERROR, sentence, note=str(error)) from None
        return rules

    def forget(self) -> None:
        """The files are read again: so are keys."""
        self._key_sets.clear()

    async def _verify_oauth(self, inbox: Inbox, user: str, host: str, rules: OauthRules, maps: Maps) -> None:
        def may_be(identity: str) -> bool:
            return is_allowed(maps, rules.map, identity, user)

        await verify_bearer(inbox, user, rules, self._find_keys(rules.jwks), host, may_be)

    async def _verify_ldap(self, inbox: Inbox, user: str, host: str, rules: LdapRules, maps: Maps) -> None:
        self._learn(user, await verify_by_ldap(inbox, user, rules, self._ldap))

    async def _verify_pam(self, inbox: Inbox, user: str, host: str, rules: PamRules, maps: Maps) -> None:
        self._learn(user, await verify_by_pam(inbox, user, rules, host, self._pam))

    def password_of(self, user: str) -> Secret | None:
        """What `user` has logged in with last, if he was asked for it as it is."""
        return self._passwords.get(user)

    def _learn(self, user: str, password: Secret) -> None:
        if not self._has_use_for_passwords():
            self._passwords.clear()
            return
        if self._passwords.get(user) != password:
            for pool in self._proxy.pools:
                if pool.user == user:
                    pool.failure = None  # with this it may be another matter
        self._passwords[user] = password
        self._passwords.move_to_end(user)
        if len(self._passwords) > MAX_PASSWORDS:
            self._passwords.popitem(last=False)

    def _has_use_for_passwords(self) -> bool:
        """Is there a database whose entry names none? Else nobody's is kept."""
        config = self._proxy.config
        if config is not self._judged:
            self._judged = config
            self._is_useful = any(entry.password is None for entry in config.databases.values())
        return self._is_useful

    def _find_keys(self, source: str) -> KeySet:
        if source not in self._key_sets:
            if len(self._key_sets) >= MAX_KEY_SETS:
                self._key_sets.clear()
            proxy = self._proxy
            self._key_sets[source] = KeySet(source, proxy.clock, proxy.tasks, proxy.log)
        return self._key_sets[source]


_Verify = Callable[[Outside, Inbox, str, str, Any, Maps], Awaitable[None]]
_METHODS: Final[Mapping[AuthType, _Verify]] = {
    AuthType.OAUTH: Outside._verify_oauth,
    AuthType.LDAP: Outside._verify_ldap,
    AuthType.PAM: Outside._verify_pam,
}
