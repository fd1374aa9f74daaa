"""Whatever happens to the bytes of a cache file: right vectors or none, and it works afterwards."""

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embellama.cache.disk import DiskCache
from embellama.cache.key import cache_key, cache_keys
from tests.unit.cache.vectors import found_in, items_of

COUNT = 60
WIDTH = 96

damage = st.lists(
    st.one_of(
        st.tuples(st.just("flip"), st.floats(0, 1, exclude_max=True), st.integers(0, 7)),
        # the first pages: header, schema, roots of the tables
        st.tuples(st.just("flip"), st.floats(0, 0.08), st.integers(0, 7)),
        st.tuples(st.just("fill"), st.floats(0, 1, exclude_max=True), st.integers(0, 255)),
        st.tuples(st.just("cut"), st.floats(0, 1), st.just(0)),
        st.tuples(st.just("swap"), st.floats(0, 1, exclude_max=True), st.integers(0, 255)),
    ),
    min_size=1,
    max_size=3,
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A file with everything in it, and one whose last half is still in the log."""
    folder = tmp_path_factory.mktemp("whole")
    for name in ("closed", "open"):
        cache = DiskCache(folder / name, max_bytes=None)
        cache.put_many(items_of(range(COUNT // 2), WIDTH))
        if name == "open":
            cache.close()
            cache = DiskCache(folder / name, max_bytes=None)
        cache.put_many(items_of(range(COUNT // 2, COUNT), WIDTH))
        if name == "open":
            for suffix in ("", "-wal", "-shm"):
                shutil.copy(f"{folder / name}{suffix}", f"{folder}/copied{suffix}")
        cache.close()
    return folder


def apply(content: bytearray, kind: str, where: float, what: int) -> None:
    position = int(where * len(content))
    if not content:
        return
    if kind == "flip":
        content[min(position, len(content) - 1)] ^= 1 << what
    elif kind == "fill":
        content[position : position + 40] = bytes([what]) * len(content[position : position + 40])
    elif kind == "cut":
        del content[position:]
    else:
        page, other = position // 4096 * 4096, what * 4096 % max(len(content), 1) // 4096 * 4096
        if len(content) >= max(page, other) + 4096:
            first, second = content[page : page + 4096], content[other : other + 4096]
            content[page : page + 4096], content[other : other + 4096] = second, first


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["closed", "copied", "copied-wal"]), damage)
def test_a_damaged_file_gives_right_vectors_or_none(whole, victim, changes):
    with tempfile.TemporaryDirectory() as name:
        path = Path(name, "cache.db")
        for source in whole.glob(f"{victim.removesuffix('-wal')}*"):
            suffix = source.name[len(victim.removesuffix("-wal")) :]
            if suffix in ("", "-wal", "-shm"):
                shutil.copy(source, f"{path}{suffix}")
        hurt = Path(f"{path}{'-wal' if victim.endswith('-wal') else ''}")
        content = bytearray(hurt.read_bytes())
        for change in changes:
            apply(content, *change)
        hurt.write_bytes(content)
        cache = DiskCache(path, max_bytes=4 << 20)
        found_in(cache, range(COUNT + 10))  # checks every vector that it gives
        cache.put_many(items_of(range(COUNT, COUNT + 40), WIDTH))
        found_in(cache, range(COUNT + 50))
        cache.put_many(items_of(range(100, 110), WIDTH))
        assert found_in(cache, range(100, 110)) == list(range(100, 110))
        assert cache.stats().failures == 0
        cache.close()


parts = st.fixed_dictionaries(
    {name: st.text(st.characters(exclude_categories=["Cs"])) for name in ("fingerprint", "prompt")}
    | {"overflow": st.sampled_from(["error", "truncate", "window"])}
    | {"text": st.text(st.characters(exclude_categories=["Cs"]))}
)


@given(parts, parts)
def test_keys_are_equal_only_where_all_parts_are(one, other):
    assert (cache_key(**one) == cache_key(**other)) == (one == other)
    shared = {name: part for name, part in one.items() if name != "text"}
    assert cache_keys(**shared, texts=[one["text"], other["text"]])[0] == cache_key(**one)
