"""
What is sent to hurt costs no more than its length: instructions are counted, on a thing and on four times as much.

Theory. 4 is linear, 16 is quadratic; LINEAR leaves room for what is not the same for every message (a dict that grows,
a memo that is full). What regular expressions do inside is counted by test_backtracking.py.
"""

import pytest

from protocol import backend, frontend
from protocol.body import build_message
from protocol.effects import Reader
from protocol.errors import ProtocolError, Refused
from protocol.fingerprints import fingerprint
from protocol.frontend import Bind, build_bind, build_execute, build_parse, build_query
from protocol.prepared import digest_description
from protocol.startup import parse_options
from protocol.statements import classify
from proxy.auth.users import BadUserFile, parse_users
from proxy.config.ini import BadConfig
from tests.fakes import FakeWorld
from tests.fuzz.files import read_config
from tests.fuzz.steps import count_steps, growth
from tests.play import asked, said

LINEAR = 5.0  # times, for four times as much
TRACKED = {"session_state": "track", "max_prepared_statements": 100}


def stream_steps(say, count, **limits):
    """Instructions until all is heard: `say` lets a client and a server talk, `count` times."""
    world = FakeWorld(pool_size=1, **limits)
    with world.loop.running():
        client, server = world.new_client(), world.new_server()
        return count_steps(lambda: (say(client.transport, server.transport, count), world.loop.turn()))


def stream_growth(say, size=30, **limits):
    stream_steps(say, 10, **limits)  # what is made once is not counted
    return stream_steps(say, 4 * size, **limits) / stream_steps(say, size, **limits)


# Streams.


@pytest.mark.parametrize(
    ("before", "word"),
    [("Q:begin", "S"), ("Q:x", "H"), ("Q:x", "Q:x"), ("Q:x", "P B E S"), ("Q:x", "P B E"), ("Q:x", "d:x")],
)
@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "one by one"])
def test_a_flood_of_tiny_messages(before, word, at_once):
    def say(client, server, count):
        client.peer_sends(asked(before))
        for _ in range(1 if at_once else count):
            if client.reads:
                client.peer_sends(asked(word) * (count if at_once else 1))

    assert stream_growth(say) < LINEAR


def test_a_million_tiny_messages_are_taken_a_slice_at_a_time():
    """However many lie there, one turn of the loop takes as many of them as it takes of fewer."""

    def first_slice(count):
        world = FakeWorld(pool_size=1)
        with world.loop.running():
            client = world.new_client()
            world.new_server()
            client.transport.peer_sends(asked("Q:begin"))
            return count_steps(lambda: client.transport.peer_sends(asked("S") * count))

    first_slice(10)
    assert first_slice(1_000_000) < 1.01 * first_slice(10_000)


@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "one by one"])
def test_as_many_answers(at_once):
    def say(client, server, count):
        client.peer_sends(asked("P B E S") * count)
        for _ in range(1 if at_once else count):
            server.peer_sends(said("1 2 D:x C Z:I") * (count if at_once else 1))

    assert stream_growth(say) < LINEAR


@pytest.mark.parametrize("end", ["", "S"])
@pytest.mark.parametrize("kept", [1, 100, 10_000])
def test_ten_thousand_named_statements(end, kept):
    def say(client, server, count):
        for number in range(count):
            name = b"s%d" % number
            bind = build_bind(Bind(b"", name)) + build_execute(b"")
            client.peer_sends(build_parse(name, b"select %d" % number) + bind + asked(end))

    assert stream_growth(say, session_state="track", max_prepared_statements=kept) < LINEAR


@pytest.mark.parametrize(
    "text",
    [
        "prepare s%d as select 1",
        "prepare t%d as select 1; execute t%d",
        "prepare u%d as select 1; execute u%d; deallocate u%d",
        "set a.b%d = 1",
        "select set_config('a.b%d', 'x', false)",
    ],
)
@pytest.mark.parametrize("at_once", [True, False], ids=["in one text", "one by one"])
def test_statements_by_the_hundred(text, at_once):
    """A server that has room for ten must give room for each: that is not looked for among all that came before."""

    def say(client, server, count):
        texts = [text.replace("%d", str(number)).encode() for number in range(count)]
        for each in [b";".join(texts)] if at_once else texts:
            client.peer_sends(build_query(each))

    # 60 of them are too long to be remembered as they were read, as 240 are.
    assert stream_growth(say, 60, session_state="track", max_prepared_statements=10) < LINEAR


def test_thousands_of_parameters_end_with_a_closed_server():
    told = [backend.build_parameter_status(f"p{number}", "x") for number in range(5_000)]
    data = {count: b"".join(told[:count]) for count in (1_000, 5_000)}

    def say(client, server, count):
        client.peer_sends(asked("Q:x"))
        server.peer_sends(data[count])

    assert stream_steps(say, 5_000) < 1.1 * stream_steps(say, 1_000)


# Messages.


@pytest.mark.parametrize(
    ("parse", "build"),
    [
        (frontend.parse_bind, lambda count: build_bind(Bind(b"", b"", (0,) * count, (b"x",) * count, (1,) * count))),
        (frontend.parse_parse, lambda count: build_parse(b"", b"x", [25] * count)),
        (backend.parse_row_description, lambda count: backend.build_row_description([("a", 25, -1)] * count)),
        (backend.parse_data_row, lambda count: backend.build_data_row(["x"] * count)),
        (backend.parse_parameter_description, lambda count: backend.build_parameter_description([25] * count)),
        (backend.parse_negotiate, lambda count: backend.build_negotiate(0, ["_pq_.x"] * count)),
        (backend.parse_error, lambda count: build_message(69, b"Mx\0" * count)),
    ],
)
def test_sixty_four_thousand_of_what_a_message_may_count(parse, build):
    assert len(build(65_535)) > 65_535
    assert growth(lambda count: parse(build(count)[5:]), 150) < LINEAR


def test_sixty_four_thousand_columns_of_a_statement():
    def digest(count):
        return digest_description(b"t", backend.build_row_description([("a", 25, -1)] * count))

    assert growth(digest, 150) < LINEAR


@pytest.mark.parametrize(
    ("parse", "body"),
    [
        (frontend.parse_bind, b"\0\0\xff\xff"),
        (frontend.parse_bind, b"\0\0\0\0\xff\xff\x7f\xff\xff\xff"),
        (frontend.parse_parse, b"\0\0\xff\xff"),
        (frontend.parse_function_call, b"\0\0\0\1\xff\xff"),
        (backend.parse_row_description, b"\xff\xff"),
        (backend.parse_data_row, b"\xff\xff"),
        (backend.parse_negotiate, b"\0\0\0\0\xff\xff\xff\xff"),
    ],
)
def test_a_count_that_lies_costs_nothing(parse, body):
    with pytest.raises(ProtocolError):
        parse(body)
    assert count_steps(lambda: parse(body), ProtocolError) < 500


# Texts.

NESTED = [
    "(", "((a)", "/*", "/* ", "/**/", "'", "'' ", "'a'\n", '"', '"a"(', "$a$ ", "$a$b$a$", "$", ";", "a;", "--\n",
    "--a;\n", "for ", "for update ", "into ", "insert into a ", "set_config(", "set_config('a','b',true),", "E'\\",
    "pg_advisory_lock(", 'U&"\\0041"(', "create table a (", "execute p;", "with a as (", "begin;", "[", "a.b", "1e5 ",
    "declare c cursor ", "explain (", "a b c d ", "1,", "(1,2),", "- 1 ",
]  # fmt: skip


@pytest.mark.parametrize("piece", NESTED)
@pytest.mark.parametrize("end", ["", ")", "select 1"])
def test_a_text_that_is_nested_deeply_or_never_ends(piece, end):
    def text(count):
        return b"select 1;create " + piece.encode() * count + end.encode()

    for read in (classify, fingerprint, lambda text: Reader().read(text)):
        short, long = (count_steps(lambda count=count, read=read: read(text(count))) for count in (50, 200))
        assert long < LINEAR * short + 5_000, (read, short, long)


@pytest.mark.parametrize("piece", ["-c a=b ", "\\", "\\ ", "a", " "])
def test_options_of_a_startup_packet(piece):
    assert growth(lambda count: parse_options(piece * count), 500, Refused) < LINEAR


# Files.


@pytest.mark.parametrize(
    "line", [b"x = 1\n", b"[a]\n", b"[a][b]", b"%include it.ini\n", b"a = host=b c='d'\n", b'"', b"=", b"\n", b"  ;\n"]
)
def test_a_configuration(line):
    assert growth(lambda count: read_config(b"[databases]\n" + line * count), 100, BadConfig) < LINEAR


def test_a_file_that_includes_itself_again_and_again_is_not_read_for_ever():
    once = count_steps(lambda: read_config(b"%include it.ini\n"), BadConfig)
    assert count_steps(lambda: read_config(b"%include it.ini\n" * 10_000), BadConfig) < 300 * once


@pytest.mark.parametrize("line", ['"a" "b"\n', '"a', '"" ', "\n", '"a" "' + '""' * 20])
def test_a_user_list(line):
    assert growth(lambda count: parse_users(line * count, "users.txt"), 100, BadUserFile) < LINEAR
