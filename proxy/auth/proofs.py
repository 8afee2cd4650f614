"""
What we show PostgreSQL for each pool: a password of the file, or what a client has shown us.

Theory. The best proof is the one that a client of this very pool has just given: of several secrets it is the one that
is right at this moment, and where only a SCRAM verifier is known there is no other. So the last login's proof is kept
with the pool, and goes when the pool goes. It is worth nothing any more when the secret it was given for is gone, from
the file or from what auth_query last said; then the old key is forgotten, and the next login brings a new one.

A file may have several secrets of one user while his password is changed, and PostgreSQL knows one of them, nobody
says which. So all that could be right are tried, the one that was taken last first.

Nothing of this is ever written down. A process that takes over is told (parcel.py); after any other start a user of
whom only a verifier is known has no servers until his first client has logged in. `name_unwarmed` says which of those
min_pool_size waits for.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final
from weakref import WeakKeyDictionary

from protocol.passwords import Md5, Plain, ScramVerifier, Stored, parse_stored
from proxy.auth.claim import Claim, Password
from proxy.auth.users import Users
from proxy.config.entries import FALLBACK, Database
from proxy.config.ini import Config
from proxy.lookup_pool import LookupPool
from proxy.pool import Pool

MOST_NAMES: Final = 10  # in one line of the log


@dataclass(frozen=True, slots=True)
class Proof:
    """`password` is good as long as `stored` is what is stored; `source` has found that, None: it is in the file."""

    stored: Stored | None
    password: Password
    source: object


class Proofs:
    """One per proxy."""

    def __init__(self, proxy: Any) -> None:
        self._proxy = proxy
        self._proofs: WeakKeyDictionary[Pool, Proof] = WeakKeyDictionary()
        self._worked: WeakKeyDictionary[Pool, Proof] = WeakKeyDictionary()  # what PostgreSQL has taken last

    def __len__(self) -> int:
        return len(self._proofs)

    def __getitem__(self, pool: Pool) -> Proof | None:
        return self._proofs.get(pool)

    def learn(self, pool: Pool, claim: Claim | None) -> None:
        """A client of `pool` has logged in."""
        if claim is None or pool.user != claim.user:
            return  # a forced user has a password of his own
        if claim.source is not None:
            self._proxy.pools.passing.add(pool)
        before = self._proofs.get(pool)
        if claim.proven is not None:
            if before is None or (before.stored, before.password, before.source) != _shown_by(claim):
                self.keep(pool, Proof(*_shown_by(claim)))
        elif claim.source is not None and (before is None or before.stored not in claim.stored):
            # Nobody was asked: what was found must do.
            self.keep(pool, Proof(next(iter(claim.stored), None), _find_best(claim.stored), claim.source))

    def inherit(self, pool: Pool, proof: Proof | None) -> None:
        """A client of `pool` has come over from the process before us, where it, or another one, has shown this."""
        if proof is not None and pool not in self._proofs:
            self.keep(pool, proof)
            if proof.source is not None:
                self._proxy.pools.passing.add(pool)

    def keep(self, pool: Pool, proof: Proof) -> None:
        """With another password than before it may be another matter whether servers can be opened."""
        before, self._proofs[pool] = self._proofs.get(pool), proof
        if before is None or before.password != proof.password:
            pool.failure = None
            if pool.waiting:
                pool.grow()

    def worked(self, pool: Pool, password: Password) -> None:
        """PostgreSQL has taken that, perhaps of several."""
        serving = self._find_serving(pool)
        if serving is not None:
            kept, stored = self._proofs.get(serving), self._proxy.users.secrets_of(pool.user)
            known = [*([kept] if kept is not None else []), *map(_make_proof, stored)]
            for proof in known:
                if proof.password == password:
                    self._worked[serving] = proof
                    return

    def find_login(self, pool: Pool) -> tuple[Database, tuple[Password, ...]]:
        """Where `pool` connects to, and what may be right there, the best first. OSError: its database is gone."""
        database: Database | None = self._proxy.config.find_database(pool.database)
        if database is None:
            raise OSError(f"database {pool.database} is no longer configured")
        return database, self._find(pool, database, self._proxy.users)

    def _find(self, pool: Pool, database: Database, users: Users) -> tuple[Password, ...]:
        """
        An entry's password is that of the user it names, or of all if it names none, in any form that auth_file knows;
        but who runs auth_query has his own in the file.
        """
        stored = users.secrets_of(pool.user)
        has_own = isinstance(pool, LookupPool) and (stored or database.user not in (None, pool.user))
        if database.password is not None and not has_own:
            return (_make_proof(parse_stored(database.password.reveal())).password,)
        serving = self._find_serving(pool)
        kept = [] if serving is None else [self._worked.get(serving), self._proofs.get(serving)]
        good = [each.password for each in kept if each is not None and self._holds(each, pool.user, stored)]
        good += [_make_proof(each).password for each in stored if _is_good(each)]
        if (shown := self._proxy.outside.password_of(pool.user)) is not None:
            good.append(shown)  # to a directory, which PostgreSQL may ask too
        unique = [each for at, each in enumerate(good) if each not in good[:at]]
        unique.sort(key=lambda each: isinstance(each, ScramVerifier))  # nothing can be done with it alone
        return tuple(unique) or (_find_best(stored),)

    def _holds(self, proof: Proof, user: str, stored: tuple[Stored, ...]) -> bool:
        if stored or proof.source is None:
            return proof.stored in stored
        return proof.stored is None or self._proxy.lookups.is_current(proof.source, user, proof.stored)

    def _find_serving(self, pool: Pool) -> Pool | None:
        """The pool of that name that clients are served from: what they have shown is with that one."""
        database = self._proxy.find_database(pool.database)
        found: Pool | None = None if database is None else self._proxy.pools.find_old(database, pool.user)
        return found


def _shown_by(claim: Claim) -> tuple[Stored | None, Password, object]:
    return claim.proven, claim.proof, claim.source


def _is_good(stored: Stored) -> bool:
    """Can one log in with that alone?"""
    return bool(stored.secret) if isinstance(stored, Plain) else isinstance(stored, Md5)


def _make_proof(stored: Stored) -> Proof:
    """Of what is in the file."""
    return Proof(stored, stored.secret if isinstance(stored, Plain) else stored, None)


def _find_best(stored: tuple[Stored, ...]) -> Password:
    """Of what is kept of a password: itself or its md5, else a verifier, with which nothing can be done yet."""
    best = next(filter(_is_good, stored), None) or next((e for e in stored if isinstance(e, ScramVerifier)), None)
    return None if best is None else _make_proof(best).password


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
