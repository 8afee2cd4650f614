"""
Both streams with everything between them: what clients ask, what the server says, in any order and cut anywhere.

Theory. The input is a script. Each step is an act and a number: somebody says a word everybody understands, or so many
bytes of the script as they are. After each the LAWs are checked over the whole picture (`check_world`), and whatever
the server said for one client must not be found at the other: two say words of their own, and hear only these.
"""

from collections.abc import Callable

from proxy.client import Client
from proxy.config.kinds import ListenMode
from proxy.server import Server
from tests.fakes import FakeWorld, check_world, socket_of
from tests.fuzz.registry import target
from tests.play import asked, said

ASKED = [
    asked(word)
    for word in (
        "Q:rows", "P", "B", "D", "E", "C", "S", "H", "F", "d:data", "c", "f:why", "X", "R", "PARSE:s=select_1",
        "PARSE:t=select_2", "BIND:=s", "BIND:=t", "ASK:s", "CLOSE:s", "Q:begin", "Q:commit", "Q:set_a.b=c",
        "Q:prepare_p_as_select_1", "Q:execute_p", "Q:deallocate_all", "Q:listen_c", "Q:create_temp_table_t()",
        "Q:discard_all", "Q:do_$$x$$", "P B E S", "PARSE:s=select_1 ASK:s S", "BIND:=s E S", "Q:set_timezone='x'",
    )
]  # fmt: skip
SAID = [
    said(word)
    for word in (
        "Z:I", "Z:T", "Z:E", "C", "D:x", "T", "1", "2", "3", "n", "s", "I", "t", "G", "H", "d:x", "c", "V", "N:x",
        "A:x", "ERROR:x", "FATAL:x", "S:TimeZone=x", "S:application_name=y", "T D:x C Z:I", "1 2 C Z:I", "1 t n Z:I",
        "2 D:x C Z:I", "MISSING:PGSHUTTLE_1", "TAKEN:PGSHUTTLE_1", "STALE", "C Z:T", "ERROR:x Z:I", "ERROR:x Z:E",
    )
]  # fmt: skip
MODES = (
    {"session_state": "leak"},
    {"session_state": "track", "deferred_begin": True, "max_prepared_statements": 1},
    {"session_state": "track", "max_prepared_statements": 100},
    {"pool_mode": "session"},
    {"pool_mode": "statement"},
    {"session_state": "reset"},
)


class Stage:
    """One server, two clients, and the rest of the script."""

    def __init__(self, script: bytes) -> None:
        mode = MODES[script[0] % len(MODES)] if script else {}
        self.world = FakeWorld(pool_size=1, listen_mode=ListenMode.PIN, **mode)  # the hub is not on this stage
        self.rest = script[1:]
        self.clients: list[Client] = []

    def play(self) -> None:
        with self.world.loop.running():
            self.clients = [self.world.new_client(), self.world.new_client()]
            self.world.new_server()
            while len(self.rest) >= 2:
                act, number, self.rest = self.rest[0], self.rest[1], self.rest[2:]
                ACTS[act % len(ACTS)](self, number)
                check_world(self.world)
                self.world.loop.turn()
                check_world(self.world)

    def take(self, count: int) -> bytes:
        taken, self.rest = self.rest[:count], self.rest[count:]
        return taken

    @property
    def servers(self) -> list[Server]:
        return [server for place in self.world.pool.places for server in place if hasattr(server, "transport")]

    def client_says(self, which: int, data: bytes) -> None:
        _say(self.clients[which], data)

    def server_says(self, data: bytes) -> None:
        for server in self.servers[:1]:
            _say(server, data)

    def client_leaves(self, number: int) -> None:
        socket = socket_of(self.clients[number % 2])
        socket.peer_hangs_up() if number & 2 else socket.peer_breaks()
        self.world.loop.turn()
        self.clients[number % 2] = self.world.new_client()

    def server_dies(self, number: int) -> None:
        for server in self.servers[:1]:
            socket = socket_of(server)
            socket.peer_hangs_up() if number & 1 else socket.peer_breaks()

    def time_passes(self, number: int) -> None:
        """Openings that are wanted succeed, cancels arrive."""
        self.world.clock.advance(number / 10)
        for server in list(self.world.openings):
            if server.opening is not None and server in self.world.pool.places[server.state]:
                self.world.finish_opening(server)
        for server in list(self.world.cancels):
            self.world.cancel_arrives(server)


def _say(who: Client | Server, data: bytes) -> None:
    socket = socket_of(who)
    if data and socket.reads and not socket.is_lost:
        socket.peer_sends(data)


ACTS: tuple[Callable[[Stage, int], None], ...] = (
    lambda stage, number: stage.client_says(0, ASKED[number % len(ASKED)]),
    lambda stage, number: stage.server_says(SAID[number % len(SAID)]),
    lambda stage, number: stage.client_says(1, ASKED[number % len(ASKED)]),
    lambda stage, number: stage.client_says(0, stage.take(number)),
    lambda stage, number: stage.server_says(stage.take(number)),
    lambda stage, number: stage.server_says(SAID[number % len(SAID)][: 1 + number // len(SAID)]),
    lambda stage, number: stage.client_says(0, ASKED[number % len(ASKED)][: 1 + number // len(ASKED)]),
    Stage.time_passes,
    Stage.client_leaves,
    Stage.server_dies,
)

target(
    "streams",
    lambda script: Stage(script).play(),
    seeds=(
        bytes([0, 0, 0, 1, 24]),
        bytes([1, 0, 20, 0, 0, 1, 24, 0, 21, 1, 24]),
        bytes([2, 0, 31, 1, 26, 0, 32, 1, 27, 2, 32, 1, 28, 1, 0]),
        bytes([2, 0, 23, 1, 3, 1, 0, 0, 24, 1, 24, 2, 0, 8, 0, 7, 100, 1, 24]),
        bytes([3, 0, 30, 1, 25, 9, 0, 7, 10, 2, 0, 1, 24]),
    ),
    base=300_000,
    each=60_000,
)
