"""
What the startup parameter `replication` asks for: nothing, the server's WAL as it is, or the changes of one database.

Theory. The parameter is a boolean that grew a third value. `database` (spelled exactly so) makes a walsender that is
bound to a database: it decodes WAL logically and takes SQL as well. Any way of writing a boolean PostgreSQL knows
("true", "on", "yes", "1", and every unambiguous beginning of the words, in any case) makes one that is bound to
none, for standbys and backups, or an ordinary session. Everything else is an error, before anybody is asked for a
password.

Source: PostgreSQL docs, "Streaming Replication Protocol"; what a boolean may be is in "Setting Parameters".
"""

import enum

from protocol import sqlstate
from protocol.errors import Refused
from protocol.parameters import clean

_WORDS = (
    ("true", 1, True),
    ("false", 1, False),
    ("yes", 1, True),
    ("no", 1, False),
    ("on", 2, True),
    ("off", 2, False),
)


class Replication(enum.Enum):
    """The words are those of SHOW CLIENTS and SHOW SERVERS."""

    NONE = "none"
    LOGICAL = "logical"
    PHYSICAL = "physical"

    def __bool__(self) -> bool:
        return self is not Replication.NONE

    @property
    def asked(self) -> str:
        """As a startup parameter, but for NONE, and as PgBouncer writes it into its log."""
        return {"none": "no", "logical": "database", "physical": "yes"}[self.value]


def parse_replication(text: str | None) -> Replication:
    """What the parameter asks for; None when it was not sent. Refused when its value is none."""
    if text is None:
        return Replication.NONE
    if text == "database":
        return Replication.LOGICAL
    wanted = _parse_bool(text.lower())
    if wanted is None:
        raise Refused(
            sqlstate.INVALID_PARAMETER_VALUE,
            f'invalid value for parameter "replication": "{clean(text)}"',
            hint='Valid values are: "false", 0, "true", 1, "database".',
        )
    return Replication.PHYSICAL if wanted else Replication.NONE


def _parse_bool(text: str) -> bool | None:
    """None when it is no boolean. "o" alone begins two words and is none."""
    if text in ("0", "1"):
        return text == "1"
    found = (value for word, least, value in _WORDS if len(text) >= least and word.startswith(text))
    return next(found, None)
