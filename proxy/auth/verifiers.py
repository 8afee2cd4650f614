"""
What one SCRAM exchange can check: the verifiers of all secrets that are right for a user at this moment.

Theory. An exchange names one salt, that of the first verifier; one with another salt has its turn after a failure
(turns.py), and plain secrets are salted to suit. The mock comes last, when there is nothing else: an unknown user goes
through the exchange of everybody.

Mostly all of it is known. A verifier of the file is what it is, and a plain secret has been hashed when it was read
(`KeyKeeper.warm`), so `find_verifiers` waits for nothing; what it has found for somebody it finds again at once, as
long as his secrets are the very same. Where a secret has yet to be hashed, it says so, and `wait_verifiers` waits.
"""

from protocol.passwords import Plain, ScramVerifier, Stored
from proxy.auth.claim import Claim
from proxy.auth.keys import Gathered, KeyKeeper, Verifiers


def find_verifiers(claim: Claim, keeper: KeyKeeper) -> Verifiers | None:
    """All at once; None: a secret must be hashed first."""
    known = keeper.gathered.get(claim.user)
    if known is not None and known.stored is claim.stored and known.iterations == keeper.iterations:
        return known.verifiers
    like, found = _begin(claim, keeper)
    for each in claim.usable:
        if isinstance(each, Plain):
            verifier = keeper.recall_verifier(each.secret, like)
            if verifier is None:
                return None
            found.setdefault(verifier, each)
    if found:  # not of those whom nobody knows: there is no end of them
        keeper.keep_gathered(claim.user, Gathered(claim.stored, keeper.iterations, found))
    return found or {like: like}


async def wait_verifiers(claim: Claim, keeper: KeyKeeper) -> Verifiers:
    """The same, when all secrets are hashed."""
    like, found = _begin(claim, keeper)
    for each in claim.usable:
        if isinstance(each, Plain):
            found.setdefault(await keeper.verifier_for(claim.user, each.secret, like), each)
    return found or {like: like}


def _begin(claim: Claim, keeper: KeyKeeper) -> tuple[ScramVerifier, dict[ScramVerifier, Stored]]:
    """The one whose salt is named, and those that are there already and share it."""
    verifiers = verifiers_among(claim.usable)
    like = verifiers[0] if verifiers else keeper.mock(claim.user, claim.mock_number)
    return like, {each: each for each in verifiers if (each.salt, each.iterations) == (like.salt, like.iterations)}


def verifiers_among(usable: list[Stored]) -> list[ScramVerifier]:
    return [each for each in usable if isinstance(each, ScramVerifier)]
