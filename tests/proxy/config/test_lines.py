"""The file format, line by line."""

import os
from pathlib import Path

import pytest

from proxy.config.lines import MAX_DEPTH, MAX_FILES, MAX_LINE, MAX_MISTAKES, Mistake, Reader


class Folder:
    """Files in a temporary folder, read with it as working directory; `read` gives (section, key, value) triples."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, name: str, text: str | bytes) -> str:
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(text if isinstance(text, bytes) else text.encode())
        return name

    def read(self, name: str) -> tuple[list[tuple[str, str, str]], list[str]]:
        self.reader = Reader()
        triples = [(line.section, line.key, line.value) for line in self.reader.lines(name)]
        return triples, [str(mistake) for mistake in self.reader.mistakes]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    monkeypatch.chdir(tmp_path)
    return Folder(tmp_path)


def test_a_value_is_the_rest_of_the_line_with_its_quotes_and_semicolons(folder: Folder) -> None:
    folder.write("a.ini", "[proxy]\nx = 1 ; not a comment\n  y=\t'a' #b \r\nz =\n")
    assert folder.read("a.ini") == (
        [("proxy", "x", "1 ; not a comment"), ("proxy", "y", "'a' #b"), ("proxy", "z", "")],
        [],
    )


def test_comments_and_empty_lines_say_nothing(folder: Folder) -> None:
    folder.write("a.ini", "; one\n# two\n   ; three\n\n[proxy] ; four\n;x = 1\n")
    assert folder.read("a.ini") == ([], [])
    assert list(folder.reader.sections) == ["proxy"]


def test_names_with_other_characters_stand_in_double_quotes(folder: Folder) -> None:
    folder.write("a.ini", '[databases]\n"my ""db"" = x" = host=a\nplain-name_1.2 =\n* =\n')
    assert [key for _, key, _ in folder.read("a.ini")[0]] == ['my "db" = x', "plain-name_1.2", "*"]


def test_a_section_may_come_again_and_share_its_line(folder: Folder) -> None:
    folder.write("a.ini", "[a] x = 1\n[b]\n[a]\ny = 2\n")
    assert folder.read("a.ini")[0] == [("a", "x", "1"), ("a", "y", "2")]


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("[proxy", "no closing ]"),
        ("just words", "neither a [section] nor key = value"),
        ("my db = 1", "double quotes"),
        ("größe = 1", "double quotes"),
        ("= 1", "double quotes"),
        ('"open = 1', "never closed"),
        ("%includ x", "only %include"),
        ("%include", "only %include"),
    ],
)
def test_a_line_that_is_nothing_is_a_mistake_and_its_value_is_not_shown(
    folder: Folder, line: str, sentence: str
) -> None:
    folder.write("a.ini", f"[proxy]\n{line}\nx = 1\n")
    triples, mistakes = folder.read("a.ini")
    assert triples == [("proxy", "x", "1")]
    (mistake,) = mistakes
    assert mistake.startswith("a.ini:2: ")
    assert sentence in mistake


def test_a_key_before_the_first_section_is_a_mistake(folder: Folder) -> None:
    folder.write("a.ini", "x = 1\n[proxy]\n")
    assert folder.read("a.ini") == ([], ["a.ini:1: 'x' stands before the first section"])


def test_an_included_file_stands_where_its_line_stands(folder: Folder) -> None:
    folder.write("a.ini", "[proxy]\na = 1\n%include sub/b.ini\nd = 4\n")
    folder.write("sub/b.ini", "b = 2\n[databases]\nc = 3\n")
    assert folder.read("a.ini") == (
        [("proxy", "a", "1"), ("proxy", "b", "2"), ("databases", "c", "3"), ("databases", "d", "4")],
        [],
    )
    assert folder.reader.files == ["a.ini", "sub/b.ini"]


def test_an_include_is_looked_for_here_first_and_then_beside_its_file(folder: Folder) -> None:
    folder.write("etc/a.ini", "[proxy]\n%include b.ini\n%include c.ini\n")
    folder.write("etc/b.ini", "from = beside")
    folder.write("etc/c.ini", "from = beside")
    folder.write("c.ini", "from = here")
    assert [value for _, _, value in folder.read("etc/a.ini")[0]] == ["beside", "here"]


def test_a_mistake_in_an_included_file_names_that_file(folder: Folder) -> None:
    folder.write("a.ini", "[proxy]\n%include b.ini\n")
    folder.write("b.ini", "\noops\n")
    assert folder.read("a.ini")[1] == ["b.ini:2: this is neither a [section] nor key = value"]


def test_a_missing_include_is_a_mistake_of_its_line(folder: Folder) -> None:
    folder.write("a.ini", "[proxy]\n%include b.ini\nx = 1\n")
    triples, mistakes = folder.read("a.ini")
    assert mistakes == ["a.ini:2: b.ini cannot be read: No such file or directory"]
    assert triples == [("proxy", "x", "1")]


def test_ten_levels_of_include_are_read_and_the_eleventh_is_not(folder: Folder) -> None:
    for level in range(MAX_DEPTH + 2):
        folder.write(f"{level}.ini", f"[proxy]\nx = {level}\n%include {level + 1}.ini\n")
    triples, mistakes = folder.read("0.ini")
    assert len(triples) == MAX_DEPTH + 1
    assert mistakes == ["10.ini:3: 11.ini is included more than 10 levels deep"]


def test_a_file_that_includes_itself_is_noticed(folder: Folder) -> None:
    folder.write("a.ini", "%include b.ini\n")
    folder.write("b.ini", "%include ./a.ini\n")
    assert folder.read("a.ini")[1] == ["b.ini:1: ./a.ini includes itself"]


def test_files_that_fan_out_come_to_an_end(folder: Folder) -> None:
    folder.write("leaf.ini", "")
    folder.write("a.ini", "%include b.ini\n" * 40)
    folder.write("b.ini", "%include leaf.ini\n" * 40)
    mistakes = folder.read("a.ini")[1]
    assert len(folder.reader.files) == MAX_FILES
    assert "one file too many" in mistakes[0]
    assert len(mistakes) <= MAX_MISTAKES + MAX_DEPTH


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"[proxy]\nx = \0\n", "line 2 holds a zero byte"),
        (b"[proxy]\n\nx = \xff\n", "a.ini:3: this is not UTF-8 text: the byte 0xff"),
        (b"[proxy]\n\xfc = 1\n", "a.ini:2: this is not UTF-8 text: the byte 0xfc"),
        (os.urandom(1000) + b"\0", "not a text file"),
    ],
)
def test_a_binary_file_is_one_mistake(folder: Folder, data: bytes, sentence: str) -> None:
    folder.write("a.ini", data)
    triples, mistakes = folder.read("a.ini")
    assert triples == []
    assert len(mistakes) == 1
    assert sentence in mistakes[0]


def test_a_comment_may_be_in_any_encoding(folder: Folder) -> None:
    folder.write("a.ini", b"[proxy]\n; gr\xfcn\n  # \xff\nx = 1\n")
    assert folder.read("a.ini") == ([("proxy", "x", "1")], [])


def test_a_missing_file_and_a_folder_are_one_mistake_each(folder: Folder) -> None:
    assert folder.read("none.ini")[1] == ["none.ini: cannot be read: No such file or directory"]
    assert folder.read(".")[1] == [".: is a folder, not a file"]


def test_a_file_without_end_is_not_read_to_its_end(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.config.lines.MAX_SIZE", 1 << 20)
    assert folder.read("/dev/zero")[1] == ["/dev/zero: is larger than 1 MB"]


def test_all_files_together_have_a_size(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.config.lines.MAX_SIZE", 1000)
    folder.write("a.ini", "[proxy]\n" + "%include b.ini\n" * 3)
    folder.write("b.ini", "x = 1\n" * 70)
    assert [mistake.partition(": ")[2] for mistake in folder.read("a.ini")[1]] == ["b.ini is larger than 107 bytes"]


def test_a_line_without_end_is_a_mistake(folder: Folder) -> None:
    folder.write("a.ini", "[proxy]\nx = " + "1" * MAX_LINE + "\n" + "[]" * 100_000 + "\n[proxy]y = 2")
    triples, mistakes = folder.read("a.ini")
    assert mistakes == [f"a.ini:2: the line is longer than {MAX_LINE} characters"]
    assert triples == [("proxy", "y", "2")]


def test_mistakes_come_to_an_end(folder: Folder) -> None:
    folder.write("a.ini", "[proxy]\n" + "nonsense\n" * 100_000)
    assert len(folder.read("a.ini")[1]) == MAX_MISTAKES


def test_a_byte_order_mark_is_no_part_of_the_first_line(folder: Folder) -> None:
    folder.write("a.ini", b"\xef\xbb\xbf[proxy]\nx = 1\n")
    assert folder.read("a.ini")[0] == [("proxy", "x", "1")]


def test_a_mistake_is_one_printable_line() -> None:
    assert str(Mistake("a.ini", 3, "bad \x1b[31m\n name")) == "a.ini:3: bad \\x1b[31m\\n name"
