from hashlib import blake2b

import numpy as np
import pytest

from embellama.cache import cache_key, cache_keys

BASE = {"fingerprint": "f", "prompt": "query: ", "overflow": "error", "text": "a"}


def test_a_key_is_the_digest_of_its_parts_behind_their_lengths():
    parts = [b"f", b"query: ", b"error"]
    content = b"".join(len(part).to_bytes(8, "little") + part for part in parts)
    content += b"text" + (1).to_bytes(8, "little") + b"a"
    right = blake2b(content, digest_size=32, person=b"embellama.key.1").digest()
    assert cache_key(**BASE) == right


@pytest.mark.parametrize(
    "change",
    [
        {"fingerprint": "g"},
        {"prompt": ""},
        {"overflow": "truncate"},
        {"text": "b"},
        {"text": "a "},
        {"text": np.array([97], dtype=np.int32)},
        {"fingerprint": "fq", "prompt": "uery: "},
        {"prompt": "query: a", "text": ""},
        {"prompt": "", "text": "query: a"},
    ],
)
def test_every_part_matters_and_so_does_where_one_ends(change):
    assert cache_key(**{**BASE, **change}) != cache_key(**BASE)


def test_a_text_and_ids_with_the_same_bytes_differ():
    ids = np.array([1, 2, 3], dtype=np.int32)
    assert cache_key(**{**BASE, "text": ids.tobytes().decode()}) != cache_key(
        **BASE | {"text": ids}
    )


def test_ids_are_what_counts_and_not_how_they_lie_in_memory():
    ids = np.arange(10, dtype=np.int32)
    apart = np.repeat(ids, 2)[::2]
    assert not apart.flags.c_contiguous
    assert cache_key(**BASE | {"text": apart}) == cache_key(**BASE | {"text": ids})


def test_unicode_that_looks_the_same_is_not():
    texts = ["é", "e\u0301", "\0", "", "𝔘\U0010ffff\ufffe"]
    shared = {name: part for name, part in BASE.items() if name != "text"}
    keys = cache_keys(**shared, texts=texts)
    assert len(set(keys)) == len(texts)
    assert keys == [cache_key(**shared, text=text) for text in texts]
    assert all(len(key) == 32 for key in keys)
