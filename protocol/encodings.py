"""
Client encodings: a client's bytes as UTF-8 and back, where Python and PostgreSQL agree what they mean.

Theory. Nearly everything passes through as it is, in whatever encoding client and server have agreed on. Where one
connection speaks for clients of different encodings (notifications), it speaks UTF-8, and what is not ASCII must be
translated. All of PostgreSQL's client encodings hold ASCII unchanged, so a text of ASCII needs no question.

`CODECS` names only encodings whose tables are the same on both sides: every character up to U+FFFF was converted by
PostgreSQL 18 and by Python, and compared (tests/live/test_listen.py does it again for those of one byte). EUC_JP,
EUC_KR, SJIS, BIG5 and the 2004 ones differ in places, EUC_TW and MULE_INTERNAL are unknown to Python: for those only
ASCII can be said. SQL_ASCII means "bytes": what is UTF-8 passes as it is.
"""

import re
from typing import Final

UTF8: Final = "utf-8"

CODECS: Final = {
    "utf8": UTF8, "unicode": UTF8, "sqlascii": UTF8,
    "latin1": "iso8859-1", "latin2": "iso8859-2", "latin3": "iso8859-3", "latin4": "iso8859-4",
    "latin5": "iso8859-9", "latin6": "iso8859-10", "latin7": "iso8859-13", "latin8": "iso8859-14",
    "latin9": "iso8859-15", "latin10": "iso8859-16",
    "iso88591": "iso8859-1", "iso88592": "iso8859-2", "iso88593": "iso8859-3", "iso88594": "iso8859-4",
    "iso88595": "iso8859-5", "iso88596": "iso8859-6", "iso88597": "iso8859-7", "iso88598": "iso8859-8",
    "iso88599": "iso8859-9", "iso885910": "iso8859-10", "iso885913": "iso8859-13", "iso885914": "iso8859-14",
    "iso885915": "iso8859-15", "iso885916": "iso8859-16",
    "win866": "cp866", "alt": "cp866", "win874": "cp874",
    **{f"win{page}": f"cp{page}" for page in range(1250, 1259)},
    **{f"windows{page}": f"cp{page}" for page in (866, 874, *range(1250, 1259))},
    "win": "cp1251", "abc": "cp1258", "tcvn": "cp1258", "tcvn5712": "cp1258", "vscii": "cp1258",
    "koi8": "koi8-r", "koi8r": "koi8-r", "koi8u": "koi8-u",
    "euccn": "gb2312", "gbk": "cp936", "win936": "cp936", "windows936": "cp936", "gb18030": "gb18030",
    "uhc": "cp949", "win949": "cp949", "windows949": "cp949", "johab": "johab",
}  # fmt: skip
"""From PostgreSQL's name, as `_clean` writes it, to Python's."""

_BYTES_ARE_MEANT: Final = "sqlascii"
_OTHERS = re.compile(r"[^0-9a-z]")


def to_utf8(text: bytes, encoding: str) -> bytes:
    """`text` of a client whose client_encoding is `encoding`. ValueError when that cannot be done."""
    if text.isascii():
        return text
    return text.decode(_find_codec(encoding)).encode(UTF8)


def from_utf8(text: bytes, encoding: str) -> bytes:
    """The same the other way. ValueError when the encoding is not ours, or has no such character."""
    if text.isascii() or _clean(encoding) == _BYTES_ARE_MEANT:
        return text
    return text.decode(UTF8).encode(_find_codec(encoding))


def is_known(encoding: str) -> bool:
    """Can more than ASCII be said in it?"""
    return _clean(encoding) in CODECS


def _find_codec(encoding: str) -> str:
    codec = CODECS.get(_clean(encoding))
    if codec is None:
        raise ValueError(f"nothing but ASCII can be translated from and to {encoding}")
    return codec


def _clean(encoding: str) -> str:
    """As PostgreSQL compares names: letters and digits, in any case."""
    return _OTHERS.sub("", encoding.lower())
