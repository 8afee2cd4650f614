"""
The outside methods: a client proves who it is to somebody else, and we take that one's word.

Theory. `Outside` is one per proxy and holds what outlives a login: the issuers' keys. Whoever decides by which method a
client is asked (auth_type, or a line of the HBA file with options of its own) calls `verify`, which is a conversation
like `verify_client` and ends like it: it returns, or raises.

All of it stands under `client_login_timeout`. What a method needs is imported when the first client comes to it.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from protocol import sqlstate
from protocol.errors import Refused
from proxy.auth.extras import wait_loaded
from proxy.auth.jwks import KeySet
from proxy.auth.oauth import verify_bearer
from proxy.config.kinds import AuthType
from proxy.config.outside import MODULES, NO_OPTIONS, READERS, OauthRules, Rules
from proxy.inbox import Inbox

MAX_KEY_SETS: Final = 100


class Outside:
    """What the outside methods share with all their clients."""

    def __init__(self, proxy: Any) -> None:
        self._proxy = proxy
        self._key_sets: dict[str, KeySet] = {}

    async def verify(
        self,
        inbox: Inbox,
        user: str,
        method: AuthType,
        address: tuple[str, int],
        options: Mapping[str, str] = NO_OPTIONS,
    ) -> bytes:
        """
        Let the client, who comes from `address`, prove that it is `user`. Returns the bytes to send in front of
        AuthenticationOk. `options` are those of the line of the HBA file that says so.

        Raises what `verify_client` does; Refused with XX000 when the rules are wrong, which --check would have said.
        """
        rules = await self._wait_rules(method, options)
        await _METHODS[method](self, inbox, user, address[0], rules)
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

    async def _verify_oauth(self, inbox: Inbox, user: str, host: str, rules: OauthRules) -> None:
        await verify_bearer(inbox, user, rules, self._find_keys(rules.jwks), host)

    def _find_keys(self, source: str) -> KeySet:
        if source not in self._key_sets:
            if len(self._key_sets) >= MAX_KEY_SETS:
                self._key_sets.clear()
            proxy = self._proxy
            self._key_sets[source] = KeySet(source, proxy.clock, proxy.tasks, proxy.log)
        return self._key_sets[source]


_Verify = Callable[[Outside, Inbox, str, str, Any], Awaitable[None]]
_METHODS: Final[Mapping[AuthType, _Verify]] = {AuthType.OAUTH: Outside._verify_oauth}
