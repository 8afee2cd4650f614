"""How a line looks: PgBouncer's text, and JSON with the same facts."""

import json
import os
import re
import time

import pytest

from proxy.log.lines import NO_FACTS, TAG_LIMIT, TEXT_LIMIT, Level, Writer, join_tag, printable
from proxy.log.tags import Address, Tag

MOMENT = 1770000000.0625
TAG = Tag("C", 0x55D0C8, "shop", "web", Address("10.0.0.7", 51234))


@pytest.fixture(name="writer")
def _writer(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield Writer(lambda: MOMENT)
    monkeypatch.undo()
    time.tzset()


def test_a_line_of_text(writer):
    line = writer.build_text(Level.LOG, str(TAG), "login attempt: db=shop").decode()
    head = f"2026-02-02 02:40:00.062 UTC [{os.getpid()}] LOG "
    assert line == head + "C-0x55d0c8: shop/web@10.0.0.7:51234 login attempt: db=shop\n"
    assert writer.build_text(Level.ERROR, "", "x").decode().endswith("] ERROR x\n")


def test_a_line_of_json_has_the_same_facts(writer):
    facts = {"reason": "client close request", "age": 7}
    line = json.loads(writer.build_json(Level.LOG, TAG, "closing because: client close request (age=7s)", facts))
    assert line == {
        "time": "2026-02-02T02:40:00.062+00:00", "pid": os.getpid(), "level": "LOG", "kind": "client",
        "ptr": "0x55d0c8", "database": "shop", "user": "web", "host": "10.0.0.7", "port": 51234,
        "text": "closing because: client close request (age=7s)", "reason": "client close request", "age": 7,
    }  # fmt: skip


def test_the_offset_of_json_is_that_of_the_place(monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Kolkata" if os.path.exists("/usr/share/zoneinfo/Asia/Kolkata") else "IST-5:30")
    time.tzset()
    line = json.loads(Writer(lambda: MOMENT).build_json(Level.LOG, "", "x", NO_FACTS))
    monkeypatch.undo()
    time.tzset()
    assert line["time"] == "2026-02-02T08:10:00.062+05:30"


def test_a_line_about_no_socket_has_no_fields_of_one(writer):
    line = json.loads(writer.build_json(Level.WARNING, "", "x", NO_FACTS))
    assert set(line) == {"time", "pid", "level", "text"}
    assert json.loads(writer.build_json(Level.LOG, "E-0x1: shop/web", "x", NO_FACTS))["about"] == "E-0x1: shop/web"


@pytest.mark.parametrize("hostile", ["a\nb", "\x1b[2J", "\u2028", "\u202e", '"}\n{"level":"FATAL"', "\udcff", "\0"])
def test_json_is_one_line_whatever_a_client_calls_itself_and_reads_as_the_text_does(writer, hostile):
    tag = TAG._replace(user=hostile)
    data = writer.build_json(Level.LOG, tag, hostile, {"reason": hostile})
    assert data.count(b"\n") == 1
    assert data.endswith(b"}\n")
    line = json.loads(data)
    assert line["text"] == line["user"] == line["reason"] == printable(hostile)
    assert writer.build_text(Level.LOG, "", hostile).decode().endswith(f" LOG {line['text']}\n")


def test_json_is_bounded(writer):
    tag = TAG._replace(user="u" * 100_000)
    line = json.loads(writer.build_json(Level.LOG, tag, "x" * 100_000, {"reason": "r" * 100_000}))
    assert len(line["user"]) < TAG_LIMIT + 50
    assert len(line["text"]) < TEXT_LIMIT + 50
    assert len(line["reason"]) < TEXT_LIMIT + 50


def test_a_tag_without_end_leaves_room_for_the_text():
    assert join_tag("u" * 10_000, "what happened").endswith("uuu what happened")
    assert join_tag("", "what happened") == "what happened"
    assert re.fullmatch(r"u{256} x", join_tag("u" * 300, "x"))
