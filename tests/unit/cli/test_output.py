import io
import json
import os
import sys

import numpy as np
import pytest

from embellama.cli.output import VectorFormat, check_destination, open_output, write_vectors
from embellama.errors import InvalidInputError

AWKWARD = np.array(
    [[0.1, -1e-30, 1e-45, 3.4028235e38], [1 / 3, 16777216.0, -0.0, 1e-5]], dtype=np.float32
)


def written(vectors, kind, *, flat=False):
    out = io.BytesIO()
    write_vectors(out, iter(vectors), VectorFormat(kind), none_yet=vectors[:0], flat=flat)
    return out.getvalue()


def test_json_of_one_text_is_one_array():
    numbers = json.loads(written(AWKWARD[:1], "json", flat=True))
    assert np.array_equal(np.array(numbers, dtype=np.float32), AWKWARD[0])


@pytest.mark.parametrize("n_texts", [0, 1, 2])
def test_json_of_a_list_is_a_list_of_arrays(n_texts):
    rows = json.loads(written(AWKWARD[:n_texts], "json"))
    assert len(rows) == n_texts
    assert np.array_equal(np.array(rows, dtype=np.float32).reshape(-1, 4), AWKWARD[:n_texts])


def test_jsonl_has_an_array_on_each_line():
    rows = [json.loads(line) for line in written(AWKWARD, "jsonl").splitlines()]
    assert np.array_equal(np.array(rows, dtype=np.float32), AWKWARD)


def test_csv_has_numbers_only():
    table = np.loadtxt(io.BytesIO(written(AWKWARD, "csv")), delimiter=",", dtype=np.float32)
    assert np.array_equal(table, AWKWARD)


def test_numbers_are_as_short_as_a_float32_allows():
    assert written(AWKWARD[1:], "csv") == b"0.33333334,1.6777216e+07,-0.0,1e-05\n"


@pytest.mark.parametrize("n_texts", [0, 1, 2])
def test_npy_is_a_matrix_of_float32(n_texts):
    data = written(AWKWARD[:n_texts], "npy")
    array = np.load(io.BytesIO(data), allow_pickle=False)
    assert array.dtype == np.float32
    assert np.array_equal(array, AWKWARD[:n_texts])
    assert array.shape == (n_texts, 4)


CODES = [
    np.array([[-128, 0, 127], [1, 2, 3]], dtype=np.int8),
    np.array([[0, 128, 255], [1, 2, 3]], dtype=np.uint8),
    np.array([[0.1, -65504, 6e-8], [1, 2, 3]], dtype=np.float16),
]


@pytest.mark.parametrize("rows", CODES, ids=lambda rows: rows.dtype.name)
def test_other_types_come_back_from_every_format(rows):
    array = np.load(io.BytesIO(written(rows, "npy")), allow_pickle=False)
    assert array.dtype == rows.dtype
    assert np.load(io.BytesIO(written(rows[:0], "npy"))).dtype == rows.dtype
    as_json = json.loads(written(rows, "json"))
    lines = [json.loads(line) for line in written(rows, "jsonl").splitlines()]
    table = [line.split(b",") for line in written(rows, "csv").splitlines()]
    for read in (array, np.array(as_json), np.array(lines), np.array(table, dtype=np.float64)):
        assert np.array_equal(read.astype(rows.dtype), rows)


def test_integers_are_written_as_integers():
    assert written(CODES[0], "csv") == b"-128,0,127\n1,2,3\n"
    assert all(isinstance(number, int) for number in json.loads(written(CODES[1], "json"))[0])


def test_a_file_appears_only_when_it_is_complete(tmp_path):
    target = tmp_path / "out.json"
    target.write_text("before")
    with open_output(target) as out:
        out.write(b"after")
        out.flush()
        assert target.read_text() == "before"
    assert target.read_text() == "after"
    assert os.listdir(tmp_path) == ["out.json"]


@pytest.mark.parametrize("end", [KeyboardInterrupt, InvalidInputError])
def test_what_is_broken_off_leaves_nothing(tmp_path, end):
    def broken_off():
        with open_output(tmp_path / "out.json") as out:
            out.write(b"half")
            raise end("")

    with pytest.raises(end):
        broken_off()
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX links and permissions")
def test_a_link_stays_a_link_and_permissions_stay(tmp_path):
    real, link = tmp_path / "real", tmp_path / "link"
    real.write_text("before")
    real.chmod(0o640)
    link.symlink_to(real)
    with open_output(link) as out:
        out.write(b"after")
    assert link.is_symlink()
    assert real.read_text() == "after"
    assert real.stat().st_mode & 0o777 == 0o640


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_device_is_written_and_not_replaced(tmp_path):
    link = tmp_path / "full"
    link.symlink_to("/dev/full")
    with (
        pytest.raises(OSError, match=r"cannot be written: No space left.*full"),
        open_output(link) as out,
    ):
        out.write(b"x")
    assert not os.path.isfile("/dev/full")


def test_a_failure_has_the_name_the_user_knows(tmp_path):
    target = tmp_path / "folder" / "out.npy"
    with pytest.raises(OSError, match=r"cannot be written.*out\.npy'"), open_output(target):
        pass


def test_where_it_goes_is_checked_before_the_work(tmp_path):
    check_destination(tmp_path / "new", VectorFormat.JSON)
    with pytest.raises(InvalidInputError, match="is a directory"):
        check_destination(tmp_path, VectorFormat.JSON)
    with pytest.raises(InvalidInputError, match="does not exist"):
        check_destination(tmp_path / "no" / "out", VectorFormat.JSON)


def test_npy_is_not_for_a_terminal(monkeypatch, tmp_path):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stdout", Terminal())
    with pytest.raises(InvalidInputError, match="name a file with -o"):
        check_destination(None, VectorFormat.NPY)
    check_destination(None, VectorFormat.JSON)
    check_destination(tmp_path / "x.npy", VectorFormat.NPY)


def test_a_closed_standard_output_is_said(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(InvalidInputError, match="standard output is closed"):
        check_destination(None, VectorFormat.JSON)
