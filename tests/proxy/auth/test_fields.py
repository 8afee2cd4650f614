"""How files of rules are written: what PostgreSQL reads, read the same; where it would guess, a mistake."""

import contextlib
import os
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.auth.fields import MAX_DEPTH, MAX_LINE, MAX_LINES, BadLine, Reader, Word, split_fields


def shown(fields):
    """Words as text, those in quotes with them."""
    return [[f'"{word.text}"' if word.is_quoted else word.text for word in words] for words in fields]


def read(tmp_path: Path, text: str, name: str = "hba.conf"):
    file = tmp_path / name
    file.write_text(text)
    reader = Reader()
    lines = list(reader.lines(str(file)))
    found = [(os.path.basename(line.file), line.number, shown(line.fields)) for line in lines]
    return found, [str(mistake).replace(f"{tmp_path}/", "") for mistake in reader.mistakes]


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("", []),
        ("   # all of it is a comment", []),
        ("local all\tall trust", [["local"], ["all"], ["all"], ["trust"]]),
        ("host a,b c", [["host"], ["a", "b"], ["c"]]),
        ("host a, b,\tc d", [["host"], ["a", "b", "c"], ["d"]]),
        ('"all" all', [['"all"'], ["all"]]),
        ('"a b","c,d" "#e"', [['"a b"', '"c,d"'], ['"#e"']]),
        ('"say ""hello"""', [['"say "hello""']]),
        ('""', [['""']]),
        ("all#the rest", [["all"]]),
        ('map="two words"', [["map=two words"]]),
        ('a"b"c', [["abc"]]),
        ('/^x{1,2}$ "/^x{1,2}$"', None),
        ("trust\r", [["trust"]]),
        ("münchen größe", [["münchen"], ["größe"]]),
    ],
)
def test_a_line_becomes_fields(text, fields):
    if fields is None:  # a comma in an expression needs quotes, or it makes a list of two
        assert shown(split_fields(text)) == [["/^x{1", "2}$"], ['"/^x{1,2}$"']]
    else:
        assert shown(split_fields(text)) == fields


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('host "all', "a quote is never closed"),
        ('host a"b', "a quote is never closed"),
        ("host all, # and whom?", "nothing follows the comma"),
        ("host all,", "nothing follows the comma"),
        ("host a,,b", "nothing stands in front of the comma"),
        ("host a ,b", "nothing stands in front of the comma"),
        (", host", "nothing stands in front of the comma"),
        ("host a\vb", "the control character 0x0b stands in the line"),
    ],
)
def test_what_postgresql_would_guess_at_is_a_mistake(text, sentence):
    with pytest.raises(BadLine, match=sentence):
        split_fields(text)


def test_a_quoted_word_means_only_itself():
    assert Word("all").means("all")
    assert not Word("all", is_quoted=True).means("all")


def test_a_backslash_at_the_end_goes_on_in_the_next_line(tmp_path):
    lines, mistakes = read(tmp_path, "host all \\\n  all \\\r\n 10.0.0.0/8 trust\n# a comment \\\ngoes on\nlocal a b c")
    assert mistakes == []
    assert lines == [
        ("hba.conf", 1, [["host"], ["all"], ["all"], ["10.0.0.0/8"], ["trust"]]),
        ("hba.conf", 6, [["local"], ["a"], ["b"], ["c"]]),
    ]


def test_a_backslash_at_the_very_end_of_the_file_loses_nothing(tmp_path):
    assert read(tmp_path, "local all all \\\ntrust\\")[0] == [("hba.conf", 1, [["local"], ["all"], ["all"], ["trust"]])]


def test_an_at_file_stands_for_its_words_whatever_lines_they_are_on(tmp_path):
    (tmp_path / "names").write_text('anna, bob\n"two words" # and\n@more\n')
    (tmp_path / "more").write_text("zoe\n")
    lines, mistakes = read(tmp_path, 'local all x,@names,y trust\nlocal all "@names" trust')
    assert mistakes == []
    assert lines[0][2][2] == ["x", "anna", "bob", '"two words"', "zoe", "y"]
    assert lines[1][2][2] == ['"@names"']


def test_an_at_file_that_is_not_there_or_empty_is_a_mistake_of_the_line(tmp_path):
    (tmp_path / "empty").write_text("# nobody\n")
    lines, mistakes = read(tmp_path, "local all @nowhere trust\nlocal all @empty trust\nlocal all all trust")
    assert [number for _, number, _ in lines] == [3]
    assert mistakes == [
        "hba.conf:1: nowhere cannot be read: No such file or directory",
        "hba.conf:1: @nowhere cannot be used",
        "hba.conf:2: @empty holds no names",
    ]


def test_included_files_stand_where_they_are_asked_for(tmp_path):
    (tmp_path / "conf.d").mkdir()
    for name in ("b.conf", "a.conf", ".hidden.conf", "other.txt"):
        (tmp_path / "conf.d" / name).write_text(f"{name}\n")
    (tmp_path / "one").write_text("before\ninclude conf.d/b.conf\n")
    text = "include one\ninclude_dir conf.d\ninclude_if_exists nowhere\ninclude_if_exists one\nlast\n"
    lines, mistakes = read(tmp_path, text)
    assert mistakes == []
    assert [(name, number) for name, number, _ in lines] == [
        ("one", 1),
        ("b.conf", 1),
        ("a.conf", 1),
        ("b.conf", 1),
        ("one", 1),
        ("b.conf", 1),
        ("hba.conf", 5),
    ]


def test_three_words_that_begin_with_include_are_an_ordinary_line(tmp_path):
    assert read(tmp_path, "include system user")[0] == [("hba.conf", 1, [["include"], ["system"], ["user"]])]


def test_files_that_include_each_other_are_a_mistake_and_not_a_loop(tmp_path):
    (tmp_path / "other").write_text("include hba.conf\n")
    lines, mistakes = read(tmp_path, "include other\nlast")
    assert mistakes == ["other:1: hba.conf includes itself"]
    assert len(lines) == 1


def test_files_nest_ten_deep_and_no_deeper(tmp_path):
    for number in range(MAX_DEPTH + 2):
        (tmp_path / f"{number}").write_text(f"include {number + 1}\n")
    (tmp_path / f"{MAX_DEPTH + 2}").write_text("deep\n")
    lines, mistakes = read(tmp_path, "include 0")
    assert (lines, mistakes) == ([], [f"{MAX_DEPTH - 1}:1: {MAX_DEPTH} is included more than {MAX_DEPTH} levels deep"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("include nowhere", "hba.conf:1: nowhere cannot be read: No such file or directory"),
        ("include_dir nowhere", "hba.conf:1: nowhere cannot be read: No such file or directory"),
        ("include .", "hba.conf:1: . is a folder, not a file"),
        ("include_if_exists .", "hba.conf:1: . is a folder, not a file"),
    ],
)
def test_a_file_that_cannot_be_had_is_told_with_the_line_that_asks_for_it(tmp_path, text, said):
    assert read(tmp_path, text)[1] == [said]


def test_a_missing_file_is_named_alone():
    reader = Reader()
    assert list(reader.lines("/nowhere/hba.conf")) == []
    assert [str(each) for each in reader.mistakes] == ["/nowhere/hba.conf: cannot be read: No such file or directory"]


def test_a_file_included_again_and_again_ends_at_the_bounds(tmp_path):
    (tmp_path / "more").write_text("x\n" * 100)
    lines, mistakes = read(tmp_path, "include more\n" * 2000)
    assert len(lines) <= MAX_LINES
    assert len(mistakes) <= 201


def test_there_are_not_more_than_so_many_lines(tmp_path):
    lines, mistakes = read(tmp_path, "x\n" * (MAX_LINES + 5))
    assert len(lines) == MAX_LINES
    assert mistakes == [f"hba.conf:{MAX_LINES + 1}: more than {MAX_LINES} lines: the rest is not read"]


def test_a_line_has_an_end(tmp_path):
    lines, mistakes = read(tmp_path, "x\\\n" * (MAX_LINE + 1) + "\nlast\n")
    assert [words for _, _, words in lines] == [[["last"]]]
    assert mistakes == [f"hba.conf:1: the line is longer than {MAX_LINE} characters"]


LETTERS = st.text(alphabet='ab ,"#\\@/\t\n\r=.*\x00\x0b\udc80é', max_size=80)


@given(LETTERS)
def test_any_text_is_fields_or_a_mistake(text):
    for line in text.split("\n"):
        with contextlib.suppress(BadLine):
            assert all(split_fields(line))


@settings(max_examples=50)
@given(st.lists(st.lists(st.text(alphabet='ab ,"#/@+=', min_size=1, max_size=8), min_size=1, max_size=3), max_size=5))
def test_what_is_written_in_quotes_is_read_as_it_was(fields):
    text = " ".join(", ".join('"' + word.replace('"', '""') + '"' for word in words) for words in fields)
    assert [[word.text for word in words] for words in split_fields(text)] == fields


@pytest.mark.parametrize("piece", ['"', '""', ",", "a,", '"a', "a b ", "# ", '"" '])
def test_the_work_grows_with_the_text_and_no_faster(piece):
    """Each expression runs forwards only, so what must be counted are the calls."""
    calls = 0

    def count(frame, event, argument):
        nonlocal calls
        calls += 1

    text = piece * 2_000
    sys.setprofile(count)
    try:
        with contextlib.suppress(BadLine):
            split_fields(text)
    finally:
        sys.setprofile(None)
    assert calls < 20 * len(text)
