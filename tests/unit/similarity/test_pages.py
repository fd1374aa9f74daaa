import ctypes
import mmap

import numpy as np
import psutil
import pytest

from embellama.similarity.pages import let_go

pytestmark = pytest.mark.skipif(
    not (psutil.LINUX and hasattr(mmap, "MADV_DONTNEED")), reason="needs Linux's madvise and RSS"
)

N_ROWS = 200_000  # of 400 bytes: 80 MB, which no noise hides


@pytest.fixture
def path(tmp_path):
    rows = np.arange(N_ROWS * 100, dtype=np.float32)
    rows.tofile(tmp_path / "rows")
    return tmp_path / "rows"


def freed_bytes(read, released) -> int:
    read.sum()
    before = psutil.Process().memory_info().rss
    let_go(released)
    return before - psutil.Process().memory_info().rss


@pytest.mark.parametrize("mode", ["r", "r+"])
def test_pages_of_a_mapped_file_are_given_back(path, mode):
    rows = np.memmap(path, np.float32, mode, shape=(N_ROWS, 100))
    assert freed_bytes(rows, np.asarray(rows)[5:]) > 60e6
    assert rows[1234, 7] == 123407


def test_what_was_written_to_a_shared_mapping_stays(path):
    rows = np.memmap(path, np.float32, "r+", shape=(N_ROWS, 100))
    rows[:] = -1
    let_go(rows)
    assert (rows == -1).all()


def test_private_changes_and_plain_memory_are_left_alone(path):
    private = np.memmap(path, np.float32, "c", shape=(N_ROWS, 100))
    private[:] = -1
    let_go(private[10:])
    assert (private == -1).all()
    plain = np.ones((100, 100), np.float32)
    let_go(plain)
    assert (plain == 1).all()


def test_a_part_that_is_not_contiguous_is_left_alone(path):
    rows = np.memmap(path, np.float32, "r", shape=(N_ROWS, 100))
    assert freed_bytes(rows, rows[:, :50]) < 10e6


def test_locked_pages_are_left_alone(path):
    """Pages that are locked refuse the advice, and the search goes on."""
    rows = np.memmap(path, np.float32, "r", shape=(N_ROWS, 100))[:10]
    libc = ctypes.CDLL(None)
    if libc.mlock(ctypes.c_void_p(rows.ctypes.data), ctypes.c_size_t(4096)):
        pytest.skip("needs the right to lock a page of memory")
    let_go(rows)
    assert rows[0, 1] == 1
