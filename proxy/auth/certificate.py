"""
Who somebody is by the certificate that he showed in the TLS handshake.

Theory. Python hands out only certificates that were checked, against client_tls_ca_file and their dates, so whoever has
one here has been vouched for; what is left is for whom it was made: its common name (CN). The subject must hold exactly
one, and it must be the user's name to the letter: no pattern, no alternative names (those are for hosts), no choice
between two. An unknown user hears the same as one whose certificate is another's.

`dn` is the whole subject as RFC 2253 writes it, last part first: what PostgreSQL's maps match (clientname=DN).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from protocol import sqlstate
from protocol.errors import Refused

_SHORT: Final = {  # RFC 2253, section 2.3; OpenSSL writes these beside it
    "commonName": "CN",
    "localityName": "L",
    "stateOrProvinceName": "ST",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "countryName": "C",
    "streetAddress": "street",
    "domainComponent": "DC",
    "userId": "UID",
}
_SPECIAL: Final = re.compile(r'[,+"\\<>;]|^[# ]| $')


@dataclass(frozen=True, slots=True)
class Names:
    """Of a certificate's subject. `cn` is empty when there is no common name, or more than one."""

    cn: str
    dn: str


def names_of(connection: Any) -> Names | None:
    """The names of the other side of `connection` (an ssl.SSLObject, or None); None: it has shown no certificate."""
    certificate = connection.getpeercert() if connection is not None else None
    if not certificate:
        return None
    subject = certificate.get("subject", ())
    common = [value for part in subject for name, value in part if name == "commonName"]
    return Names(common[0] if len(common) == 1 else "", ",".join(_write_part(part) for part in reversed(subject)))


def _write_part(part: Any) -> str:
    """Several names at one level stand with a + between."""
    return "+".join(f"{_SHORT.get(name, name)}={_SPECIAL.sub(_escape, value)}" for name, value in reversed(part))


def _escape(match: re.Match[str]) -> str:
    return "\\" + match[0]


def check_certificate(
    connection: Any, user: str, *, is_known: bool, is_his: Callable[[Names], bool] | None = None
) -> None:
    """Refused, unless the other side of `connection` has shown that it is `user`; the note is for the log alone.

    `is_his`: do these names make somebody `user`? Without it only his own name does, to the letter.
    """
    names = names_of(connection)
    if connection is None:
        note = "TLS connection required"
    elif names is None:
        note = "TLS client certificate required"
    elif not (is_his(names) if is_his is not None else names.cn != "" and names.cn == user):
        note = f"TLS certificate name mismatch: {names.dn!r} is not {user!r}"
    elif not is_known:
        note = "no such user"
    else:
        return
    raise Refused(sqlstate.INVALID_AUTHORIZATION, f'certificate authentication failed for user "{user}"', note=note)
