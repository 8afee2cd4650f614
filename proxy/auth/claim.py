"""
Somebody says who he is: the secrets that would prove it, and what he has shown of them by the end.

Theory. A login is judged by the secrets that count at this moment, wherever they come from: the auth_file, or an
auth_query. A `Claim` carries them through the exchange. While a client proves itself it may show more than it has to:
its password in the clear, or, under SCRAM, the key that made its proof (RFC 5802 section 3: ClientKey is ClientProof
XOR ClientSignature, and only who knows the verifier can tell). That is what PostgreSQL asks of the same client, so
servers can be opened in its name though nobody ever wrote its password down (proofs.py). `proven` is which of several
secrets it was, `proof` what PostgreSQL will be shown.

Secrets that come from elsewhere may be out of date. Before a password is called wrong `renew` asks once more; what is
in a file is what it is, and there is nobody to ask.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

from protocol.passwords import LearntKeys, Md5, Plain, ScramVerifier, Secret, Stored
from proxy.auth.turns import arrange, find_salts

Password: TypeAlias = Secret | Md5 | LearntKeys | ScramVerifier | None
"""What we have to log in to PostgreSQL with. An Md5 is good for servers that ask for md5, LearntKeys for those that
have the verifier they belong to. A ScramVerifier alone is good for nothing yet; None: we have nothing at all."""

Renew: TypeAlias = Callable[[], Awaitable[Sequence[Stored] | None]]
"""The secrets as they are now; None when there is nothing new to be heard."""


class Claim:
    """
    One login as `user`. No `stored` secret: nobody of that name is known. `source` has found the secrets; None: they
    are in the file. `turn` is how often this one has failed, `mocks` how many salts it is shown if it is nobody, and
    `why_nobody` it is so, where that is known, for the log.
    """

    __slots__ = (
        "_missed",
        "_renew",
        "_turn",
        "mocks",
        "proof",
        "proven",
        "source",
        "stored",
        "strangers_meet_scram",
        "user",
        "why_nobody",
    )

    def __init__(
        self,
        user: str,
        stored: Sequence[Stored],
        *,
        strangers_meet_scram: bool = False,
        source: object = None,
        renew: Renew | None = None,
        turn: int = 0,
        mocks: int = 1,
        missed: Callable[[], None] | None = None,
        why_nobody: str = "",
    ) -> None:
        self.user = user
        self.stored = arrange(stored, turn)
        self.strangers_meet_scram = strangers_meet_scram
        self.source = source
        self.proven: Stored | None = None
        self.proof: Password = None
        self.mocks = mocks
        self.why_nobody = why_nobody
        self._turn = turn
        self._renew = renew
        self._missed = missed

    @property
    def usable(self) -> list[Stored]:
        """Secrets that can be right: an empty one never is."""
        return [each for each in self.stored if each != Plain(Secret(""))]

    @property
    def mock_number(self) -> int:
        """Which of its mocks it is shown, if it is nobody."""
        return self._turn % self.mocks

    def miss(self) -> None:
        """The proof was wrong, or made with another salt: another one has its turn, where there are several."""
        salts = len(find_salts(self.stored)) if self.usable else self.mocks
        if salts > 1 and self._missed is not None:
            self._missed()

    def prove(self, stored: Stored, proof: Password) -> None:
        """The client knows `stored`, and this is what it has shown us."""
        self.proven, self.proof = stored, proof

    async def renew(self) -> bool:
        """Ask for the secrets again, once. Are they others now?"""
        ask, self._renew = self._renew, None
        stored = await ask() if ask is not None else None
        if stored is None or tuple(stored) == self.stored:
            return False
        self.stored = tuple(stored)
        return True
