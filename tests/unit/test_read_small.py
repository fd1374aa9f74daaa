"""Small files of ours: read whole, or refused."""

import pytest

from embellama.files import read_small


def test_a_file_is_read_up_to_the_limit_and_refused_beyond(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"1234")
    assert read_small(path, 4) == b"1234"
    with pytest.raises(ValueError, match="more than 3 bytes"):
        read_small(path, 3)
    with pytest.raises(FileNotFoundError):
        read_small(tmp_path / "none", 4)
