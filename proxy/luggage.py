"""
What travels with a client from one process to the next: to values that JSON can say, and back.

Theory. A client that rests between transactions, with nothing said and nothing owed, is its socket and what it may
rely on: who it is, its cancel key, the parameters it believes in and those it came with, its statements. All of that is
here and nothing else is: what a server has (a temporary table, a lock, an open transaction) cannot be packed, so such a
client stays where it is (`find_hindrance`).

Many clients have names for the same texts, so a text travels once, by a number, ahead of the first client that has it.
In the new process it is shared with whoever has prepared the same there, if it is certain that it is the same: its
columns are known and equal. Else it stays by itself, and a client is never told of columns it has not seen.

Bytes travel as Latin-1 text. What comes is not trusted more than it must be: it is looked at before it is used, and a
client that does not fit is declined; it then stays with the old process.
"""

from collections.abc import Callable
from hashlib import sha256
from typing import Any, Final

from protocol.parameters import ParameterSet
from protocol.prepared import Context, Names, Statement, find_meanings
from protocol.startup import MAX_KEY, MIN_KEY
from proxy.auth.parcel import pack_proof, unpack_proof
from proxy.batch import NOBODYS
from proxy.client import Client
from proxy.config.entries import CONSOLES
from proxy.config.reload import LOGIN, SECRETS
from proxy.holding import FAILED_BEGIN
from proxy.log import Address
from proxy.requests import TOO_LONG
from proxy.rewrite import read_prepared
from proxy.states import ACTIVE, BEGUN, GONE, LINED, WAITING
from proxy.tls import is_encrypted

Body = dict[str, Any]

_BUSY: Final = {
    ACTIVE: "with a server", WAITING: "waiting for a server", LINED: "waiting in a line", GONE: "leaving",
}  # fmt: skip


class Declined(Exception):
    """This client, or this text, is not for us; the sentence says why."""


def find_hindrance(client: Client) -> str:
    """Why `client` cannot travel now; empty when it can."""
    if client.state in _BUSY:
        return _BUSY[client.state]
    if client.carry or client.remain or client.held is not None or client.is_slicing or client.is_paced:
        return "in the middle of a request"
    if client.transport.is_closing():
        return "leaving"
    if is_encrypted(client.transport):
        return "encrypted"  # what OpenSSL keeps of a connection cannot leave its process
    if client.is_choked or client.transport.get_write_buffer_size():
        return "reading an answer"
    if client.stall is not None and not client.stall.is_over:
        return "about to listen"
    if client.session is not None and not client.session.is_at_ease:
        return "with something in its session"
    if client.schema or (client.statements is not None and client.statements.pending):
        return "preparing a statement"
    return ""


# Clients.


def pack_client(client: Client, number_of: Callable[[Statement, int], int]) -> Body:
    """`number_of` says under which number a statement has travelled; it is told the generation of today's schema."""
    names = client.statements
    now, today = client.pool.now(), client.pool.generation
    return {
        "number": client.number,
        "database": client.pool.database,
        "user": client.user,
        "key": _text(client.key),
        "address": [*client.address, getattr(client.address, "pid", 0)],
        "via": getattr(client.address, "via", ""),
        "followed": dict(client.followed),
        "origin": dict(client.origin),
        "names": [] if names is None else [[_text(name), number_of(names.get(name), today)] for name in names],
        "unnamed": [_text(client.unnamed), _text(client.unnamed_said), _text(client.unnamed_text)],
        "begun": _text(client.begun),
        "age": now - client.connected_at,
        "idle": now - client.ready_at,
        "asked": now - client.request_at,
        "proof": pack_proof(client.pool.world.proofs[client.pool]),
    }


def unpack_client(world: Any, body: Body, find_statement: Callable[[Client, int], Statement]) -> Client:
    """A client without a socket yet, in nobody's books. Declined."""
    try:
        return _unpack_client(world, body, find_statement)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Declined(f"it makes no sense: {type(error).__name__} {error}") from error


def _unpack_client(world: Any, body: Body, find_statement: Callable[[Client, int], Statement]) -> Client:
    name, user = str(body["database"]), str(body["user"])
    database = None if name in CONSOLES else world.find_database(name)
    if database is None:
        raise Declined(f"no such database here: {name}")
    pool = world.pools.find(database, user)
    key, (host, port, pid) = _bytes(body["key"]), body["address"]
    if not MIN_KEY <= len(key) <= MAX_KEY or world.cancels.find(key) is not None:
        raise Declined("its cancel key cannot be used")
    address = Address(str(host), int(port))
    address.pid, address.via = int(pid), str(body.get("via") or "")
    client = Client(pool, user, key, pool.intern(_set(body["followed"])), address)
    client.origin = pool.intern(_set(body["origin"]))
    pool.learnt.meet(client.followed)
    if client.origin == client.followed:
        client.origin = client.followed
    client.number = int(body["number"])
    now = pool.now()
    client.connected_at = now - float(body["age"])
    client.ready_at, client.request_at = now - float(body["idle"]), now - float(body["asked"])
    client.xact_at = client.request_at
    _unpack_words(client, body, find_statement)
    world.proofs.inherit(pool, unpack_proof(body.get("proof")))
    return client


def _unpack_words(client: Client, body: Body, find_statement: Callable[[Client, int], Statement]) -> None:
    unnamed, said, text = map(_bytes, body["unnamed"])
    client.unnamed = client.unnamed_said = unnamed if unnamed != TOO_LONG else TOO_LONG
    if said != unnamed:
        client.unnamed_said = said if said != TOO_LONG else TOO_LONG
    client.unnamed_text = text
    begun = _bytes(body["begun"])
    if begun:
        client.move(BEGUN)
        client.begun = FAILED_BEGIN if begun == FAILED_BEGIN else begun
    if body["names"]:
        if client.pool.is_private:
            raise Declined("its statements have names, and the pool does not share servers here")
        client.statements = Names()
        for name, number in body["names"]:
            client.statements.put(_bytes(name), find_statement(client, int(number)))


# Statements.


def pack_statement(number: int, statement: Statement, *, is_current: bool) -> Body:
    """With the context in which others may share it, if it `is_current`: of today's schema and not of one before."""
    context, description = statement.context if is_current else None, statement.description
    return {
        "number": number,
        "body": _text(statement.body),
        "said": _text(statement.said),
        "is_sql": statement.is_sql,
        "is_outdated": statement.is_outdated,
        "uses_names": bool(statement.needs),
        "description": None if description is None else _text(description),
        "meanings": None if context is None else dict(context.meanings),
    }


def unpack_statement(client: Client, body: Body) -> Statement:
    """The statement that `client` has a name for, read and ready to be given to servers."""
    text = _bytes(body["body"])
    description = None if body["description"] is None else _bytes(body["description"])
    statement = _find_shared(client, text, description, body)
    if statement is None:
        statement = client.pool.statements.make(text, is_sql=bool(body["is_sql"]))
        statement.description = description
        statement.is_outdated = bool(body["is_outdated"])
        statement.said = _bytes(body["said"])
        if body["uses_names"]:
            statement.needs = (NOBODYS,)  # it speaks of names of the old process: it is made anew before it is used
    if statement.reading is None:
        statement.reading = read_prepared(client, statement)
    return statement


def _find_shared(client: Client, text: bytes, description: bytes | None, body: Body) -> Statement | None:
    """One that others here may have too."""
    meanings = body.get("meanings")
    if meanings is None or body["is_outdated"] or description is None:
        return None
    context = Context(client.pool.generation, find_meanings(_set(meanings)))
    known: Statement | None = client.pool.statements.get(text, context)
    if known is None:
        fresh: Statement = client.pool.statements.find(text, context)
        fresh.description = description
        return fresh
    return known if known.description == description and not known.is_outdated else None


# Pools.


def pack_pool(pool: Any) -> Body:
    learnt = pool.learnt
    return {
        "database": pool.database,
        "user": pool.user,
        "leads_to": _describe_login(pool.world.find_database(pool.database)),
        "welcome": pool.welcome and dict(pool.welcome),
        "base": learnt.base,
        "customs": list(learnt.customs),
    }


def unpack_pool(world: Any, body: Body) -> None:
    """What a pool of that name knows here too, so that nobody who logs in waits for its first server; unless the file
    says by now that its servers are others."""
    database = world.find_database(str(body["database"]))
    if database is None or not body["welcome"] or body["leads_to"] != _describe_login(database):
        return
    pool = world.pools.find(database, str(body["user"]))
    if pool.welcome is None and pool.user == body["user"]:
        pool.welcome = _set(body["welcome"])
        pool.learnt.base = dict(_set(body["base"]))
        pool.learnt.meet(map(str, body["customs"]))


def _describe_login(database: Any) -> str:
    """Where servers are, and what is said to them first, but for the secret; to be compared and not to be read, as
    it is told before the other side has proven who it is."""
    said = [repr(getattr(database, name, None)) for name in LOGIN if name not in SECRETS]
    return sha256("\n".join(said).encode(errors="backslashreplace")).hexdigest()


# Values.


def _text(data: bytes) -> str:
    return data.decode("latin-1")


def _bytes(text: str) -> bytes:
    return text.encode("latin-1")


def _set(values: Any) -> ParameterSet:
    return {str(name): str(value) for name, value in values.items()}
