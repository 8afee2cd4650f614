"""
What we show PostgreSQL for each pool: a password of the file, or what a client has shown us.

Theory. The best proof is the one that a client of this very pool has just given: of several secrets it is the one that
is right at this moment, and where only a SCRAM verifier is known there is no other. So the last login's proof is kept
with the pool, and goes when the pool goes. It is worth nothing any more when the secret it was given for is gone, from
the file or from what auth_query last said; then the old key is forgotten, and the next login brings a new one.

Nothing of this is ever written down, not even over a restart: after one, a user of whom only a verifier is known has
no servers until his first client has logged in. `name_unwarmed` says which of those min_pool_size waits for.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final
from weakref import WeakKeyDictionary

from protocol.passwords import Md5, Plain, ScramVerifier, Stored
from proxy.auth.claim import Claim, Password
from proxy.auth.users import Users
from proxy.config.entries import FALLBACK, Database
from proxy.config.ini import Config
from proxy.lookup_pool import LookupPool
from proxy.pool import Pool

MOST_NAMES: Final = 10  # in one line of the log


@dataclass(frozen=True, slots=True)
class _Proof:
    stored: Stored | None  # what was proved; None: nobody was asked
    password: Password
    source: object  # who has found `stored`; None: it is in the file


class Proofs:
    """One per proxy. `is_current` says whether a secret is what its source last said of a user."""

    def __init__(self, is_current: Callable[[object, str, Stored], bool]) -> None:
        self._is_current = is_current
        self._proofs: WeakKeyDictionary[Pool, _Proof] = WeakKeyDictionary()

    def __len__(self) -> int:
        return len(self._proofs)

    def learn(self, pools: Any, pool: Pool, claim: Claim | None) -> None:
        """A client of `pool` has logged in."""
        if claim is None or pool.user != claim.user:
            return  # a forced user has a password of his own
        if claim.source is not None:
            pools.passing.add(pool)
        before, proof = self._proofs.get(pool), _Proof(claim.proven, claim.proof, claim.source)
        if claim.proven is None:
            if claim.source is None or before is not None:
                return  # nobody was asked, and what the file says is known
            proof = _Proof(next(iter(claim.stored), None), _find_best(claim.stored), claim.source)
        self._proofs[pool] = proof
        if before is None or before.password != proof.password:
            pool.failure = None  # with this it may be another matter
            if pool.waiting:
                pool.grow()

    def find(self, pool: Pool, serving: Pool | None, database: Database, users: Users) -> Password:
        """
        What to log in with as `pool.user`; `serving` is the pool that clients are served from. An entry's password is
        that of the user it names, or of all if it names none; but who runs auth_query has his own in the file.
        """
        stored = users.secrets_of(pool.user)
        has_own = isinstance(pool, LookupPool) and (stored or database.user not in (None, pool.user))
        if database.password is not None and not has_own:
            return database.password
        proof = self._proofs.get(serving) if serving is not None else None
        if proof is not None and self._holds(proof, pool.user, stored):
            return proof.password
        return _find_best(stored)

    def _holds(self, proof: _Proof, user: str, stored: tuple[Stored, ...]) -> bool:
        if stored or proof.source is None:
            return proof.stored in stored
        return proof.stored is None or self._is_current(proof.source, user, proof.stored)


def _find_best(stored: tuple[Stored, ...]) -> Password:
    """Of what is kept of a password: itself, else its md5, else a verifier, with which nothing can be done yet."""
    plain = (each.secret for each in stored if isinstance(each, Plain) and each.secret)
    hashed = (each for each in stored if isinstance(each, Md5))
    return next(plain, None) or next(hashed, None) or next((e for e in stored if isinstance(e, ScramVerifier)), None)


def name_unwarmed(config: Config, users: Users) -> str:
    """A line for the log: for whom min_pool_size holds only from the first login on. Empty: for nobody."""
    names = sorted(user for user, stored in users.secrets.items() if isinstance(_find_best(stored), ScramVerifier))
    wanting = [database.name for database in _find_wanting(config)]
    if not names or not wanting:
        return ""
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return (
        f"min_pool_size of {', '.join(wanting[:MOST_NAMES])} is not kept before the first login of"
        f" {', '.join(names[:MOST_NAMES])}{more}: of these auth_file has only a SCRAM verifier"
    )


def _find_wanting(config: Config) -> Iterator[Database]:
    for database in config.databases.values():
        wanted = config.settings.min_pool_size if database.min_pool_size is None else database.min_pool_size
        if wanted and database.name != FALLBACK and database.password is None:
            yield database
