"""
A scripted PostgreSQL backend: understands enough of the protocol to be fooled by a proxy, and notices when it is.

Theory. A backend reads messages in order and answers in order, so its output is a function of its input, but for
`sleep`, whose end is decided from outside (`outcomes`: the token of the statement, woken or cancelled). That makes it
its own referee: beside the backends behind the proxy every client has a private one, its shadow, that is fed the same
bytes. What the proxy delivers must be, byte for byte, what the shadow says.

Statements are words; the last one is a token that only their client knows, and every answer that can carries it:

    rows 3 TOKEN     big 5000 TOKEN      copyout 2 TOKEN     copyin TOKEN    copytrap TOKEN (fails at once)
    begin TOKEN      commit TOKEN        rollback TOKEN      error TOKEN     notice TOKEN      sleep TOKEN
    set NAME VALUE TOKEN                 show NAME TOKEN     die TOKEN

and what the proxy itself says: SET name=E'value';..., ROLLBACK, DISCARD ALL, an empty text.

Statements that are shared have no token; `echo` says what it was bound to, and is described by its text. They are
parsed, bound, described and closed by their names as in PostgreSQL, or made in SQL:

    select echo TEXT     select wrong TEXT (fails when parsed)     select late TEXT (when bound)     select fail TEXT
    prepare NAME as ...  execute NAME  deallocate NAME  deallocate all, several of these with "; " in between
"""

import re
from collections.abc import Callable

from protocol import backend, codes
from protocol.backend import CopyResponse
from protocol.body import build_message
from tests.fakes import WELCOME

WOKEN, CANCELLED = "woken", "cancelled"
_SET = re.compile(r"SET (\w+)=E'([^']*)'")
_COPY = CopyResponse(0, (0,))


class FakePostgres:
    """One backend. `reads` bytes, appends its answers to `out`; `is_dead` once it has hung up."""

    def __init__(self, parameters: dict[str, str] | None = None, outcomes: dict[str, str] | None = None) -> None:
        self.parameters = dict(WELCOME, **(parameters or {}))
        self.defaults = dict(WELCOME)
        self.outcomes = {} if outcomes is None else outcomes
        self.name = f"S{len(self.outcomes)}"
        self.out = bytearray()
        self.status = codes.IDLE
        self.sleeping = ""  # the token of what sleeps
        self.is_dead = False
        self.statements: list[str] = []  # all it was asked to run
        self.inbox = bytearray()
        self._reported = dict(self.parameters)
        self._before = dict(self.parameters)  # what a rollback restores
        self._is_skipping = False
        self._copying = ""  # the token of the COPY that reads
        self._is_extended = False  # what runs now is an Execute
        self.names: dict[bytes, str] = {}  # prepared statements
        self._portals: dict[bytes, tuple[str, str]] = {}  # text, token it was bound to
        self._has_failed = False  # the statement that ran last
        self._left = -1  # rows of a suspended portal
        self._bound = ""  # the token of what runs now

    def reads(self, data: bytes) -> None:
        self.inbox += data
        self.run()

    def run(self) -> None:
        """As far as the input goes."""
        self._wake()
        while not self.is_dead and not self.sleeping and len(self.inbox) >= 5:
            end = 1 + int.from_bytes(self.inbox[1:5], "big")
            if len(self.inbox) < end:
                return
            kind, body = self.inbox[0], bytes(self.inbox[5:end])
            del self.inbox[:end]
            self._heed(kind, body)
            self._wake()

    def _wake(self) -> None:
        token = self.sleeping
        if token in self.outcomes and not self.is_dead:
            self.sleeping = ""
            if self.outcomes[token] == CANCELLED:
                self._fail("57014", f"canceling statement {token}")
            else:
                self._complete(f"SLEPT {token}")
            self._after()

    def cancel(self) -> None:
        """The signal of a cancel request: whatever runs now."""
        if self.sleeping:
            self.outcomes[self.sleeping] = CANCELLED
            self.run()

    def dies(self, words: str = "terminating connection due to administrator command") -> None:
        self._say(backend.build_error("FATAL", "57P01", words))
        self.is_dead = True

    # Messages.

    def _say(self, message: bytes) -> None:
        self.out += message

    def _heed(self, kind: int, body: bytes) -> None:
        if self._copying:
            self._heed_copy(kind, body)
        elif kind == codes.TERMINATE:
            self.is_dead = True
        elif kind in (codes.COPY_DATA, codes.COPY_DONE, codes.COPY_FAIL, codes.FLUSH):
            return
        elif kind == codes.SYNC:
            self._is_skipping = False
            self._is_extended = False
            self._ready()
        elif self._is_skipping:
            return
        elif kind == codes.QUERY:
            self._is_extended = False
            self._run_simple(body[:-1].decode())
        elif kind == codes.FUNCTION_CALL:
            self._say(backend.build_function_result(body))
            self._ready()
        elif kind in _EXTENDED:
            self._is_extended = True
            _EXTENDED[kind](self, body)
        else:
            self.dies(f"invalid frontend message type {kind}")

    def _heed_copy(self, kind: int, body: bytes) -> None:
        token = self._copying
        if kind == codes.COPY_DATA:
            if b"bad" in body:
                self._copying = ""
                self._fail("22P04", f"bad copy data {token}")
                self._after()
        elif kind == codes.COPY_DONE:
            self._copying = ""
            self._complete(f"COPY {token}")
            self._after()
        elif kind == codes.COPY_FAIL:
            self._copying = ""
            self._fail("57014", f"COPY from stdin failed {token}")
            self._after()
        elif kind not in (codes.FLUSH, codes.SYNC):
            self.dies("terminating connection because protocol synchronization was lost")

    def _after(self) -> None:
        """What ran for a while is over."""
        if not self._is_extended:
            self._ready()

    def _ready(self) -> None:
        for name, value in self.parameters.items():
            if self._reported[name] != value:
                self._reported[name] = value
                self._say(backend.build_parameter_status(name, value))
        if self.status == codes.IDLE:
            self._before = dict(self.parameters)
            self._portals.clear()
        self._say(backend.build_ready(self.status))

    # Simple queries.

    def _run_simple(self, text: str) -> None:
        self.names.pop(b"", None)
        self._bound = "simple"
        if text.startswith("SET "):
            self._run_sets(text)
        elif text:
            self._run_script(text)
        else:
            self._say(backend.EMPTY_QUERY_MESSAGE)
        if not (self._copying or self.sleeping or self.is_dead):
            self._ready()

    def _run_sets(self, text: str) -> None:
        self.statements.append(text)
        for name, value in _SET.findall(text):
            if value == "bad":
                self._fail("22023", f"invalid value for parameter {name}")
                return
            self.parameters[name] = value
            self._complete("SET")

    def _run_script(self, text: str) -> None:
        for each in text.split("; "):
            self._has_failed = False
            self._execute(each)
            if self._has_failed:
                return

    def _execute(self, text: str) -> None:
        self.statements.append(text)
        word, *more = text.removeprefix("select ").split()
        if self.status == codes.FAILED and word.lower() not in ("commit", "rollback"):
            token = "" if word.lower() in ("prepare", "execute", "deallocate", "echo") else " ".join(more[-1:])
            self._fail("25P02", f"current transaction is aborted {token}".rstrip())
            return
        _STATEMENTS[word.lower()](self, *more)

    def _complete(self, tag: str) -> None:
        self._say(backend.build_command_complete(tag))

    def _fail(self, sqlstate: str, words: str) -> None:
        self._say(backend.build_error("ERROR", sqlstate, words))
        self._has_failed = True
        if self.status == codes.IDLE:
            self.parameters = dict(self._before)
        else:
            self.status = codes.FAILED
        self._is_skipping = self._is_extended

    def _describe_rows(self) -> None:
        if not self._is_extended:
            self._say(backend.build_row_description([("token", 25, -1)]))

    def _rows(self, count: str, token: str) -> None:
        self._describe_rows()
        for number in range(int(count)):
            self._say(backend.build_data_row([f"{token}.{number}"]))
        self._complete(f"SELECT {token}")

    def _big(self, size: str, token: str) -> None:
        self._describe_rows()
        self._say(backend.build_data_row([(token * (int(size) // len(token) + 1))[: int(size)]]))
        self._complete(f"SELECT {token}")

    def _begin(self, token: str = "") -> None:
        self.status = codes.IN_TRANSACTION
        self._complete(f"BEGIN {token}".rstrip())

    def _commit(self, token: str = "") -> None:
        if self.status == codes.FAILED:
            self._rollback(token)
        else:
            self.status = codes.IDLE
            self._complete(f"COMMIT {token}".rstrip())

    def _rollback(self, token: str = "", *savepoint: str) -> None:
        if savepoint:
            self._fail("3B001", f"savepoint {savepoint[-1]} does not exist")
            return
        self.status = codes.IDLE
        self.parameters = dict(self._before)
        self._complete(f"ROLLBACK {token}".rstrip())

    def _late(self, token: str) -> None:
        self._fail("22P02", f"invalid input {token}")

    def _error(self, token: str) -> None:
        self._fail("22012", f"division by zero {token}")

    def _notice(self, token: str) -> None:
        self._say(backend.build_notice("NOTICE", "00000", token))
        self._complete(f"DO {token}")

    def _sleep(self, token: str) -> None:
        self.sleeping = token

    def _set(self, name: str, value: str, token: str) -> None:
        if value == "bad":
            self._fail("22023", f"invalid value for parameter {name} {token}")
            return
        self.parameters[name] = value
        self._complete(f"SET {token}")

    def _show(self, name: str, token: str) -> None:
        self._describe_rows()
        self._say(backend.build_data_row([f"{self.parameters[name]} {token}"]))
        self._complete(f"SHOW {token}")

    def _copy_in(self, token: str) -> None:
        self._say(backend.build_copy_response(codes.COPY_IN_RESPONSE, _COPY))
        self._copying = token

    def _copy_trap(self, token: str) -> None:
        self._say(backend.build_copy_response(codes.COPY_IN_RESPONSE, _COPY))
        self._fail("P0001", f"a trigger says no {token}")

    def _copy_out(self, count: str, token: str) -> None:
        self._say(backend.build_copy_response(codes.COPY_OUT_RESPONSE, _COPY))
        for _ in range(int(count)):
            self._say(build_message(codes.COPY_DATA, token.encode()))
        self._say(build_message(codes.COPY_DONE))
        self._complete(f"COPY {token}")

    def _die(self, token: str) -> None:
        self.dies(f"terminating connection due to administrator command {token}")

    def _discard(self, _: str) -> None:
        if self.status != codes.IDLE:
            self._fail("25001", "DISCARD ALL cannot run inside a transaction block")
            return
        self.parameters = dict(self.defaults)
        self.names.clear()
        self._complete("DISCARD ALL")

    # Statements by their names, in SQL.

    def _echo(self, text: str) -> None:
        self._describe_rows()
        self._say(backend.build_data_row([f"{text} {self._bound}"]))
        self._complete(f"SELECT {self._bound}")

    def _prepare(self, name: str, _as: str, *words: str) -> None:
        text = " ".join(words)
        if not (self._refuses(text) or self._is_taken(_unquoted(name))):
            self.names[_unquoted(name)] = text
            self._complete("PREPARE")

    def _execute_named(self, name: str) -> None:
        text = self._find(_unquoted(name))
        if text is not None:
            self._execute(text)

    def _deallocate(self, name: str) -> None:
        if name == "all":
            self.names.clear()
            self._complete("DEALLOCATE ALL")
        elif self._find(_unquoted(name)) is not None:
            del self.names[_unquoted(name)]
            self._complete("DEALLOCATE")

    def _find(self, name: bytes) -> str | None:
        text = self.names.get(name)
        if text is None:
            told = f'prepared statement "{name.decode()}"' if name else "unnamed prepared statement"
            self._fail("26000", f"{told} does not exist")
        return text

    def _is_taken(self, name: bytes) -> bool:
        if name and name in self.names:
            self._fail("42P05", f'prepared statement "{name.decode()}" already exists')
            return True
        return False

    def _refuses(self, text: str) -> bool:
        if text.startswith("select wrong"):
            self._fail("42601", f"syntax error {text}")
            return True
        return False

    # Extended queries.

    def _parse(self, body: bytes) -> None:
        name, text, _ = body.split(b"\0", 2)
        if not name:
            self.names.pop(b"", None)
        is_exit = text.lower() in (b"", b"commit", b"rollback")
        if self.status == codes.FAILED and not is_exit:
            self._fail("25P02", "current transaction is aborted")
        elif not (self._refuses(text.decode()) or self._is_taken(name)):
            self.names[name] = text.decode()
            self._say(backend.PARSE_COMPLETE_MESSAGE)

    def _bind(self, body: bytes) -> None:
        portal, name, rest = body.split(b"\0", 2)
        text = self._find(name)
        if text is None:
            return
        if self.status == codes.FAILED and text.split(" ")[0].lower() not in ("commit", "rollback"):
            self._fail("25P02", "current transaction is aborted")
        elif text.startswith("select late"):
            self._fail("22P02", f"invalid input {text}")
        else:
            self._portals[portal] = (text, rest[8:-2].decode())  # one value, in text
            self._left = -1
            self._say(backend.BIND_COMPLETE_MESSAGE)

    def _close(self, body: bytes) -> None:
        (self.names if body[:1] == b"S" else self._portals).pop(body[1:-1], None)  # type: ignore[attr-defined]
        self._say(backend.CLOSE_COMPLETE_MESSAGE)

    def _describe(self, body: bytes) -> None:
        if body[:1] == b"S":
            text = self._find(body[1:-1])
        else:
            text, _ = self._portals.get(body[1:-1], (None, ""))
            if text is None:
                self._fail("34000", "portal does not exist")
        if text is None:
            return
        word, *more = text.removeprefix("select ").split(" ")
        has_rows = word in ("rows", "big", "show", "echo", "fail", "late")
        if has_rows and self.status == codes.FAILED:
            self._fail("25P02", "current transaction is aborted")
            return
        if body[:1] == b"S":
            self._say(backend.build_parameter_description([]))
        name = more[0] if word in ("echo", "fail", "late") else "token"
        self._say(backend.build_row_description([(name, 25, -1)]) if has_rows else backend.NO_DATA_MESSAGE)

    def _execute_portal(self, body: bytes) -> None:
        portal, most = body[:-5], int.from_bytes(body[-4:], "big")
        text, self._bound = self._portals.get(portal, (None, ""))
        if text is None:
            self._fail("34000", "portal does not exist")
            return
        words = text.split()
        if not words:
            self._say(backend.EMPTY_QUERY_MESSAGE)
        elif words[0] == "rows" and most and self.status != codes.FAILED:
            self._execute_some(most, int(words[1]), words[2])
        else:
            self._execute(text)

    def _execute_some(self, most: int, count: int, token: str) -> None:
        left = count if self._left < 0 else self._left
        for number in range(min(most, left)):
            self._say(backend.build_data_row([f"{token}.{number}"]))
        self._left = left - most
        if self._left > 0:
            self._say(backend.PORTAL_SUSPENDED_MESSAGE)
        else:
            self._complete(f"SELECT {token}")


_EXTENDED: dict[int, Callable[[FakePostgres, bytes], None]] = {
    codes.PARSE: FakePostgres._parse,
    codes.BIND: FakePostgres._bind,
    codes.CLOSE: FakePostgres._close,
    codes.DESCRIBE: FakePostgres._describe,
    codes.EXECUTE: FakePostgres._execute_portal,
}

_STATEMENTS: dict[str, Callable[..., None]] = {
    "rows": FakePostgres._rows,
    "big": FakePostgres._big,
    "begin": FakePostgres._begin,
    "commit": FakePostgres._commit,
    "rollback": FakePostgres._rollback,
    "error": FakePostgres._error,
    "notice": FakePostgres._notice,
    "sleep": FakePostgres._sleep,
    "set": FakePostgres._set,
    "show": FakePostgres._show,
    "copyin": FakePostgres._copy_in,
    "copytrap": FakePostgres._copy_trap,
    "copyout": FakePostgres._copy_out,
    "die": FakePostgres._die,
    "discard": FakePostgres._discard,
    "echo": FakePostgres._echo,
    "fail": FakePostgres._error,
    "late": FakePostgres._late,
    "prepare": FakePostgres._prepare,
    "execute": FakePostgres._execute_named,
    "deallocate": FakePostgres._deallocate,
}


def _unquoted(name: str) -> bytes:
    return name.strip('"').encode()
