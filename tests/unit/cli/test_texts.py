import io
import sys

import pytest
import typer

from embellama.cli.texts import Texts, listed, numbered_lines, open_texts
from embellama.errors import EmptyInputError, InputTooLongError, InvalidInputError


def lines(data, *, skip_blank=False):
    return list(numbered_lines(io.BytesIO(data), skip_blank=skip_blank))


def test_lines_are_numbered_from_one_and_lose_their_ends():
    assert lines(b"a\nb\r\n\xc3\xa9") == [(1, "a"), (2, "b"), (3, "é")]


def test_a_byte_order_mark_is_no_part_of_the_first_line():
    assert lines(b"\xef\xbb\xbfa\nb\n") == [(1, "a"), (2, "b")]


def test_nothing_gives_nothing():
    assert lines(b"") == []


def test_blank_lines_are_all_named():
    with pytest.raises(EmptyInputError, match=r"line 2, 4: blank.*--skip-blank"):
        lines(b"a\n\nb\n \t\n")


def test_skipped_blank_lines_still_count():
    assert lines(b"\na\n\n\nb\n", skip_blank=True) == [(2, "a"), (5, "b")]


def test_many_blank_lines_are_counted_and_not_listed():
    with pytest.raises(EmptyInputError, match="10 and 15 more"):
        lines(b"\n" * 25)


def test_bytes_that_are_no_text_are_located():
    with pytest.raises(InvalidInputError, match=r"line 2 is not UTF-8 \(byte 0xe9 at 4"):
        lines(b"ok\ncaf\xe9\n")


def test_lines_are_read_a_block_at_a_time():
    def endless():
        while True:
            yield b"x\n"

    source = numbered_lines(endless(), skip_blank=False)
    assert [next(source)[0] for _ in range(2000)][-1] == 2000


def test_a_terminal_is_not_read_again_behind_its_end():
    class Terminal:
        reads = iter([b"typed\n", b""])

        def __iter__(self):
            return iter(lambda: next(self.reads), b"")

    assert list(numbered_lines(Terminal(), skip_blank=False)) == [(1, "typed")]


def given(n, *, kind="line"):
    texts = Texts([(10 * i, f"t{i}") for i in range(1, n + 1)], kind=kind, total=n)
    assert len(list(texts)) == n
    return texts


def test_a_text_is_found_by_its_index_among_the_latest():
    assert given(10_000).numbered(9_999) == (100_000, "t10000")
    assert given(3).numbered(0) == (10, "t1")


def test_a_complaint_about_length_uses_the_users_numbers():
    exc = InputTooLongError("engine's", indices=[0, 2], n_tokens=[600, 700], limit=512)
    message = str(given(3).explained(exc))
    assert message.startswith("line 10 (600 tokens), 30 (700 tokens): over the limit of 512 tokens")


def test_a_complaint_about_a_later_block_counts_from_its_first_text():
    exc = EmptyInputError("engine's", indices=[1])
    assert str(given(600).explained(exc, first=512)).startswith("line 5140: nothing to embed")


def test_all_texts_at_once_are_all_remembered():
    texts = Texts([(i, f"t{i}") for i in range(1, 10_001)], kind="line", total=None)
    assert len(texts.all()) == 10_000
    assert texts.numbered(0) == (1, "t1")
    assert texts.named([0, 9_999]) == "line 1, 10000"


def test_a_list_says_how_many_more_there_are():
    assert listed(["a", "b"]) == "a, b"
    assert listed(range(12)) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more"
    assert listed(range(10), 500) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 490 more"


def test_a_complaint_about_emptiness_uses_the_users_numbers():
    exc = EmptyInputError("engine's", indices=[1])
    assert str(given(3, kind="TEXT").explained(exc)).startswith("TEXT 20: nothing to embed")


def test_a_complaint_about_several_faults_names_every_text():
    explained = given(3).explained(InvalidInputError("engine's", indices=[0, 1]))
    assert str(explained) == "line 10, 20: blank, over the model's limit, or not valid Unicode"


def test_a_complaint_of_ours_has_the_users_numbers_already():
    texts = Texts(numbered_lines(io.BytesIO(b"a\n\n"), skip_blank=False), kind="line", total=None)
    with pytest.raises(EmptyInputError) as caught:
        list(texts)
    assert texts.explained(caught.value) is caught.value


def test_a_complaint_about_no_text_stays_as_it_is():
    exc = InvalidInputError("the engine's own")
    assert given(1).explained(exc) is exc


def test_arguments_come_before_standard_input(monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    with open_texts(["a", "b"], None, skip_blank=False) as texts:
        assert (list(texts), texts.total) == (["a", "b"], 2)


def test_blank_arguments_are_named_or_skipped():
    with (
        pytest.raises(EmptyInputError, match="TEXT 2: blank"),
        open_texts(["a", " "], None, skip_blank=False),
    ):
        pass
    with open_texts(["a", " ", "b"], None, skip_blank=True) as texts:
        assert list(texts) == ["a", "b"]
        assert texts.numbered(1) == (3, "b")


def test_an_argument_that_is_no_text_is_named():
    with (
        pytest.raises(InvalidInputError, match="TEXT 2 is not UTF-8"),
        open_texts(["é", "\udcff"], None, skip_blank=False),
    ):
        pass


def test_arguments_and_a_file_contradict_each_other(tmp_path):
    with pytest.raises(typer.BadParameter), open_texts(["a"], tmp_path, skip_blank=False):
        pass


def test_a_file_is_counted_and_checked_to_its_end_before_the_first_text(tmp_path):
    path = tmp_path / "lines.txt"
    path.write_bytes(b"a\n" * 3000)
    with open_texts(None, path, skip_blank=False) as texts:
        assert texts.total == 3000
        assert len(list(texts)) == 3000
    path.write_bytes(b"a\n" * 3000 + b"\n")
    with (
        pytest.raises(EmptyInputError, match="line 3001"),
        open_texts(None, path, skip_blank=False),
    ):
        pass


@pytest.mark.parametrize("name", ["missing.txt", "."])
def test_what_cannot_be_read_is_named(tmp_path, name):
    with (
        pytest.raises(InvalidInputError, match="cannot read"),
        open_texts(None, tmp_path / name, skip_blank=False),
    ):
        pass


def test_a_closed_standard_input_is_said(monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    with (
        pytest.raises(InvalidInputError, match="standard input is closed"),
        open_texts(None, None, skip_blank=False),
    ):
        pass


def test_a_terminal_is_told_what_is_waited_for(monkeypatch, capsys):
    class Terminal(io.TextIOWrapper):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stdin", Terminal(io.BytesIO(b"typed\n")))
    with open_texts(None, None, skip_blank=False) as texts:
        assert list(texts) == ["typed"]
    assert "one a line" in capsys.readouterr().err
