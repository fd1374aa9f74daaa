import hashlib

import pytest

from embellama.files import replacing, sha256_of


@pytest.fixture
def target(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    return path


def test_the_new_file_takes_the_old_ones_place_when_the_block_ends(target):
    with replacing(target) as partial:
        partial.write_text("new")
        assert target.read_text() == "old"
        assert partial.parent == target.parent
    assert target.read_text() == "new"
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError, ValueError])
def test_whatever_ends_the_block_leaves_the_old_file_alone(target, error):
    with pytest.raises(error), replacing(target) as partial:
        partial.write_text("half")
        raise error
    assert target.read_text() == "old"
    assert list(target.parent.iterdir()) == [target]


def test_a_block_that_writes_nothing_is_an_error(target):
    with pytest.raises(FileNotFoundError), replacing(target):
        pass
    assert target.read_text() == "old"


def test_two_writers_do_not_meet(target):
    with replacing(target) as one, replacing(target) as other:
        assert one != other
        one.write_text("one")
        other.write_text("other")
    assert target.read_text() == "one"


@pytest.mark.parametrize("data", [b"", b"content" * 300_000])
def test_the_digest_is_that_of_the_whole_content(tmp_path, data):
    path = tmp_path / "file"
    path.write_bytes(data)
    assert sha256_of(path) == hashlib.sha256(data).hexdigest()
