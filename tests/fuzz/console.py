"""What is typed on the console: commands, and what drivers say to every database."""

from types import SimpleNamespace

from protocol.errors import Refused
from proxy.admin.answers import parse_request
from proxy.admin.courtesy import find_courtesy
from proxy.admin.grammar import parse_command, split_commands
from proxy.admin.rights import RIGHTS, Right
from tests.fuzz.registry import target, text_of

SESSION = SimpleNamespace(key=b"12345678", database="pgbouncer", user="ann", right=max(Right), rights=RIGHTS)
SEEDS = (
    b'-- words\nSHOW "a b" c; /* x */ PAUSE shop;SET a = \'b\';SET c TO "d";',
    b"select current_setting('server_version_num')::int/100, 'x' as y, pg_backend_pid()",
    b"set session timezone to 'UTC'; show transaction isolation level",
)


def command(data: bytes) -> None:
    for text in split_commands(data):
        parse_command(text)


def request(data: bytes) -> None:
    parse_request(SESSION, text_of(data))  # type: ignore[arg-type]


target("commands", command, Refused, seeds=SEEDS)
target("requests", request, Refused, seeds=SEEDS, each=2_000)
target("courtesies", lambda data: find_courtesy(text_of(data), SESSION), Refused, seeds=SEEDS, each=2_000)
