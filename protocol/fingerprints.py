"""
Which texts are the same statement but for their values.

Theory. Applications send few statements and many values. A fingerprint is the statement without them:
literals and parameters become `?`, comments go (tracing tools put a new one into every text), spacing and the
case of words are made even. Texts with one fingerprint are one line in the statistics, and share what has
been learnt about them. Lists count as one value, or `IN` with 1 to 1,000 members would be 1,000 statements.

A fingerprint is fit for logs and dashboards: no literal is ever in it, passwords least of all.

Cost: about 1 us a token, for at most MAX_TOKENS of them.
"""

from protocol.tokens import BAD, LITERAL, NUMBER, OPENERS, WORD, tokens

MAX_TOKENS = 10_000  # texts that are alike so far are taken for alike

# Words that stand apart from an opening parenthesis, and before which a sign belongs to its number. Any other word
# is taken for the name of a function, a type or a table.
_KEY_WORDS = frozenset(
    b"all and any as between by case check else except exists from group having in intersect is join key lateral like "
    b"limit not offset on or over primary returning select set some then union unique using values when where "
    b"with".split()
)
_NEVER_AFTER = frozenset((b"", b"(", b"[", b".", b"::", b":"))  # no space behind these
_NEVER_BEFORE = frozenset((b")", b"]", b"[", b",", b".", b";", b"::", b":"))  # and none in front of these
_OPERATOR_START = frozenset(b"(,[*/<>=~!@#%^&|`+-:")
_ONE = [b"(", b"?", b")"]  # a list, folded


def fingerprint(text: bytes, *, standard_conforming_strings: bool = True) -> bytes:
    """
    `SELECT * FROM t WHERE a IN (1, -2) -- x` gives `select * from t where a in (?)`.

    Never raises. Where the text cannot be read on (a quote that is never closed) the fingerprint ends with `?`, and
    where it is not read on (MAX_TOKENS) with `...`.
    """
    last, pieces = b"", []
    for token in _fold(text, standard_conforming_strings):
        pieces.append(b" " + token if _is_apart(last, token) else token)
        last = token
    return b"".join(pieces)


def _fold(text: bytes, standard_conforming_strings: bool) -> list[bytes]:
    """The tokens, words in lower case, literals as `?`, lists of literals as one."""
    folded: list[bytes] = []
    matches = tokens(text, standard_conforming_strings=standard_conforming_strings)
    for match, _ in zip(matches, range(MAX_TOKENS), strict=False):
        kind = match.lastindex or BAD
        token = match[kind]
        if kind == BAD and token in OPENERS:
            return [*folded, b"?"]
        if kind == NUMBER and _has_sign(folded):
            folded.pop()
        folded.append(token.lower() if kind == WORD else b"?" if kind in (LITERAL, NUMBER) else token)
        if token == b")":
            _fold_list(folded)
    return folded if next(matches, None) is None else [*folded, b"..."]


def _has_sign(folded: list[bytes]) -> bool:
    """Does a + or - at the end belong to the number that follows? Not when a value stands before it."""
    if not folded or folded[-1] not in (b"-", b"+"):
        return False
    before = folded[-2] if len(folded) > 1 else b"("
    return before in _KEY_WORDS or before[0] in _OPERATOR_START


def _fold_list(folded: list[bytes]) -> None:
    """`(?, ?, ?)` at the end becomes `(?)`, and then `(?), (?)` becomes `(?)`: each token is walked over once."""
    start = len(folded) - 2
    while start >= 2 and folded[start] == b"?" and folded[start - 1] == b",":
        start -= 2
    if start < 1 or folded[start - 1 : start + 1] != [b"(", b"?"]:
        return
    folded[start - 1 :] = _ONE
    if folded[-7:-3] == [*_ONE, b","]:
        del folded[-4:]


def _is_apart(last: bytes, token: bytes) -> bool:
    """Is there a space between the two?"""
    if last in _NEVER_AFTER or token in _NEVER_BEFORE:
        return False
    if token == b"(":
        return last in _KEY_WORDS or not (last[-1:].isalnum() or last[-1:] in (b"_", b'"') or last[-1] >= 0x80)
    return True
