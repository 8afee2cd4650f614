"""
The log: one line per event, in PgBouncer's words, because people's scripts parse it.

Theory. Four rooms: `tags` says who a line is about, `lines` how it looks (text or JSON), `sinks` where it goes (stderr,
a file, syslog), `voice` what can be said. Whoever logs needs the last one only.
"""

from proxy.log.lines import Format, Level, printable
from proxy.log.sinks import FACILITIES, find_trouble, mark
from proxy.log.tags import UNIX, Address, Tag, as_address, tag_client, tag_server, unmapped
from proxy.log.voice import DEBUG, ERROR, FATAL, LOG, NOISE, WARNING, Destination, Log, Voice

__all__ = [
    "DEBUG", "ERROR", "FACILITIES", "FATAL", "LOG", "NOISE", "UNIX", "WARNING",
    "Address", "Destination", "Format", "Level", "Log", "Tag", "Voice",
    "as_address", "find_trouble", "mark", "printable", "tag_client", "tag_server", "unmapped",
]  # fmt: skip
