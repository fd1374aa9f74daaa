"""Whatever the bytes: a GGUFFormatError or metadata, quickly and in little memory."""

import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embellama.errors import GGUFFormatError
from embellama.gguf import GGUFMetadata, read_metadata
from tests.tiny_gguf import write_gguf

MEMORY_LIMIT = 4 << 20
DEADLINE_MS = 500

SIZES = st.sampled_from([0, 1, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1])


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_gguf(tmp_path_factory.mktemp("sound") / "m.gguf").read_bytes()


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("damaged") / "m.gguf"


def read_bounded(path: Path, data: bytes) -> GGUFMetadata | None:
    path.write_bytes(data)
    tracemalloc.start()
    try:
        return read_metadata(path)
    except GGUFFormatError:
        return None
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < MEMORY_LIMIT


def test_the_sound_file_is_read(sound, path):
    found = read_bounded(path, sound)
    assert found is not None
    assert found.n_embd == 8


@given(data=st.data())
@settings(max_examples=300, deadline=DEADLINE_MS)
def test_flipped_bits(sound, path, data):
    damaged = bytearray(sound)
    for _ in range(data.draw(st.integers(1, 4))):
        bit = data.draw(st.integers(0, len(damaged) * 8 - 1))
        damaged[bit // 8] ^= 1 << bit % 8
    read_bounded(path, bytes(damaged))


@given(data=st.data())
@settings(max_examples=200, deadline=DEADLINE_MS)
def test_overwritten_sizes(sound, path, data):
    width = data.draw(st.sampled_from([4, 8]))
    start = data.draw(st.integers(4, len(sound) - width))
    size = data.draw(SIZES) % (1 << 8 * width)
    read_bounded(path, sound[:start] + size.to_bytes(width, "little") + sound[start + width :])


@given(data=st.data())
@settings(max_examples=200, deadline=DEADLINE_MS)
def test_removed_and_inserted_bytes(sound, path, data):
    start = data.draw(st.integers(0, len(sound)))
    stop = data.draw(st.integers(start, len(sound)))
    read_bounded(path, sound[:start] + data.draw(st.binary(max_size=64)) + sound[stop:])


@given(length=st.integers(0, 4096))
@settings(max_examples=200, deadline=DEADLINE_MS)
def test_truncation_is_always_found(sound, path, length):
    # The last tensor is padded, and nothing is lost with the padding.
    assert read_bounded(path, sound[: min(length, len(sound) - 33)]) is None


@given(tail=st.binary(max_size=2048), header=st.booleans())
@settings(max_examples=200, deadline=DEADLINE_MS)
def test_random_bytes(path, tail, header):
    assert read_bounded(path, (b"GGUF\x03\0\0\0" if header else b"") + tail) is None
