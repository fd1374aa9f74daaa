"""Every kernel against NumPy in double precision, on models of a few kilobytes."""

from dataclasses import replace

import numpy as np
import pytest

from embellama._llama.model import LlamaBackend
from embellama._native.model import NativeModel
from embellama._native.support import fits
from embellama.config import ModelConfig
from embellama.errors import ContextError, InvalidInputError, ModelLoadError
from embellama.gguf import read_metadata
from embellama.hub.convert import convert_folder
from embellama.types import ContextOptions, MicroBatch
from tests.bert_reference import BertReference
from tests.tiny_bert import WORDS, write_folder

N_POSITIONS = 128

TOLERANCE = {"f32": 3e-5, "bf16": 6e-2, "int8": 1.5e-2}
"""Most by which a component of a token row differs, the rows' norms being about 0.8: bfloat16 has 8
bits, and the activations of every product are rounded to it. To bytes they are rounded by up to
1/254 of the largest of 32, of which 4e-3 was seen to come."""

LEAST_COSINE = {"f32": 0.9999999, "bf16": 0.9995, "int8": 0.99995}
"""Seen of bytes: 0.999987."""


@pytest.fixture(
    scope="module",
    params=[("F32", 4), ("F16", 4), ("BF16", 4), ("Q8_0", 4), ("Q8_0", 2)],
    ids=lambda given: f"{given[0]}, {given[1]} heads",
)
def path(request, tmp_path_factory):
    """64 wide; of the last one's heads of 32 kernels of bytes take whole blocks."""
    file_type, n_heads = request.param
    folder = tmp_path_factory.mktemp("native")
    write_folder(
        folder,
        max_position_embeddings=N_POSITIONS,
        intermediate_size=160,
        num_attention_heads=n_heads,
    )
    return convert_folder(folder, folder / "m.gguf", file_type=file_type).path


@pytest.fixture(scope="module")
def reference(path):
    return BertReference(path)


@pytest.fixture
def load(library):
    """Load a file for a kernel; freed at the end."""
    loaded = []

    def load(path, kernel, pooling_type="none"):
        metadata = read_metadata(path)
        words = LlamaBackend().load_vocabulary(metadata, ModelConfig(), pooling_type)
        loaded.append(NativeModel(library, kernel, metadata, pooling_type, words))
        return loaded[-1]

    yield load
    for model in loaded:
        model.close()


@pytest.fixture
def kernels(library, path):
    """Those that take the file: of bytes, they take Q8_0 with heads of whole blocks alone."""
    metadata = read_metadata(path)
    fitting = [one for one in library.kernels if fits(metadata, one)]
    has_bytes = metadata.file_type == "Q8_0" and metadata.head_size == 32
    expected = [one for one in library.kernels if has_bytes or one.compute_type != "int8"]
    assert fitting == expected
    return fitting


def sequences(*lengths, seed=0):
    chooser = np.random.default_rng(seed)
    return [chooser.integers(0, len(WORDS), n, dtype=np.int32) for n in lengths]


def run(model, ids, types=None, n_tokens=512):
    context = model.create_context(ContextOptions(n_tokens, 64, 1))
    try:
        return context.run(MicroBatch.pack(ids, types))
    finally:
        context.close()


LENGTHS = (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 48, 49, 63, 97, N_POSITIONS)
"""Around the sizes of vectors, tiles and panels."""


def test_rows_are_those_of_double_precision(path, reference, load, kernels):
    ids = sequences(*LENGTHS)
    expected = np.concatenate([reference.rows(one.tolist()) for one in ids])
    for kernel in kernels:
        rows = run(load(path, kernel), ids).astype(np.float64)
        assert rows.shape == expected.shape
        kind = kernel.compute_type
        np.testing.assert_allclose(rows, expected, atol=TOLERANCE[kind], err_msg=str(kernel))
        norms = np.linalg.norm(rows, axis=1) * np.linalg.norm(expected, axis=1)
        assert ((rows * expected).sum(axis=1) / norms).min() >= LEAST_COSINE[kind], kernel


def test_a_text_alone_is_the_same_to_the_last_bit(path, load, kernels):
    ids = sequences(5, 40, 1, 18, 33, seed=1)
    for kernel in kernels:
        model = load(path, kernel)
        together = run(model, ids)
        alone = np.concatenate([run(model, [one]) for one in ids])
        np.testing.assert_array_equal(together, alone, err_msg=str(kernel))


@pytest.mark.parametrize("n_threads", [2, 3, 8])
def test_threads_that_share_a_micro_batch_change_no_bit(path, load, kernels, n_threads):
    texts = sequences(1, 40, 7, 100, 16)
    for kernel in kernels:
        model = load(path, kernel)
        alone = run(model, texts)
        context = model.create_context(ContextOptions(512, 64, n_threads))
        for threads in (n_threads, 1, n_threads + 2):
            context.set_n_threads(threads)
            assert np.array_equal(context.run(MicroBatch.pack(texts)), alone), kernel
        context.close()


def test_no_threads_and_too_many_are_refused(tiny_path, load, library):
    context = load(tiny_path, library.kernels[0]).create_context(ContextOptions(16, 4, 1))
    for n_threads in (0, 1025):
        context.set_n_threads(n_threads)
        with pytest.raises(InvalidInputError, match=f"{n_threads} threads; 1 to 1024 can be"):
            context.run(MicroBatch.pack(sequences(3)))
    context.close()


def test_token_types_are_added(path, reference, load, kernels):
    (ids,) = sequences(12)
    types = np.array([0] * 5 + [1] * 7, dtype=np.int32)
    expected = reference.rows(ids.tolist(), types.tolist())
    for kernel in kernels:
        rows = run(load(path, kernel), [ids], [types])
        np.testing.assert_allclose(rows, expected, atol=TOLERANCE[kernel.compute_type])
        assert not np.allclose(rows, run(load(path, kernel), [ids]), atol=1e-3)


@pytest.mark.parametrize(
    ("pooling_type", "pooled"),
    [
        ("mean", lambda rows: rows.mean(axis=0)),
        ("cls", lambda rows: rows[0]),
        ("last", lambda rows: rows[-1]),
    ],
)
def test_rows_are_pooled(path, reference, load, kernels, pooling_type, pooled):
    ids = sequences(1, 5, 16)
    expected = [pooled(reference.rows(one.tolist())) for one in ids]
    for kernel in kernels:
        rows = run(load(path, kernel, pooling_type), ids)
        assert rows.shape == (3, 64)
        np.testing.assert_allclose(rows, expected, atol=TOLERANCE[kernel.compute_type])


@pytest.mark.parametrize(
    ("ids", "types", "said"),
    [
        ([[2] * 17], None, "sequence 0 has 17 tokens; it has to have 1 to 16"),
        ([[2] * 10] * 3, None, "more tokens than the context's 24"),
        ([[2], [len(WORDS)]], None, "token id 11; the vocabulary has 0 to 10"),
        ([[-1]], None, "token id -1"),
        ([[2, 3]], [[0, 2]], "token type 2; there are 0 to 1"),
        ([[2, 3]], [[0]], "token types of shape (1,) for 2 tokens"),
        ([[2]] * 65, None, "65 sequences in a micro-batch; this context takes 1 to 64"),
        ([[2], []], None, "sequence 1 has 0 tokens"),
    ],
)
def test_what_would_read_beyond_is_refused(tiny_path, load, library, ids, types, said):
    model = load(tiny_path, library.kernels[0])
    arrays = [np.array(one, dtype=np.int32) for one in ids]
    kinds = None if types is None else [np.array(one, dtype=np.int32) for one in types]
    with pytest.raises(InvalidInputError) as caught:
        run(model, arrays, kinds, n_tokens=24)
    assert said in str(caught.value)


@pytest.mark.parametrize("name", ["attn_q", "ffn_down"])
def test_nan_in_the_weights_is_never_made_to_vanish(path, tmp_path, load, kernels, name):
    place = read_metadata(path).tensors[f"blk.1.{name}.weight"]
    data = bytearray(path.read_bytes())
    # bits that are all 1 are NaN in every type, of Q8_0 the scale of a block
    data[place.offset : place.offset + place.size_bytes] = b"\xff" * place.size_bytes
    damaged = tmp_path / "nan.gguf"
    damaged.write_bytes(data)
    for kernel in kernels:
        rows = run(load(damaged, kernel, "mean"), sequences(3, 16))
        assert np.isnan(rows).all(axis=1).all(), kernel


def test_what_is_closed_says_so(tiny_path, load, library):
    model = load(tiny_path, library.kernels[0])
    context = model.create_context(ContextOptions(16, 4, 1))
    assert context.size_bytes > 16 * 64 * 4
    context.close()
    context.close()
    with pytest.raises(ContextError, match="the context is closed"):
        context.run(MicroBatch.pack(sequences(3)))
    model.close()
    model.close()
    with pytest.raises(ContextError, match="the model is closed"):
        model.create_context(ContextOptions(16, 4, 1))


def test_no_context_of_a_size_beyond_all_memory(tiny_path, load, library):
    with pytest.raises(ContextError, match="n_tokens out of range"):
        load(tiny_path, library.kernels[0]).create_context(ContextOptions(1 << 30, 4, 1))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"n_ff": 80}, "has to be 1 x 80"),
        ({"n_head": 3}, "n_embd 64 is no multiple of n_heads 3"),
        ({"n_head": 8}, "a width of 8 is no multiple of 16"),
        ({"norm_eps": 0.0}, "norm_eps is not above 0"),
        ({"n_layer": 0}, "a size of the model is 0"),
    ],
)
def test_tensors_that_do_not_fit_together_are_refused(library, tiny_path, change, said):
    kernel = library.kernels[0]
    if kernel.lanes != 16:
        pytest.skip("needs a kernel of 16 lanes: AVX-512")
    metadata = replace(read_metadata(tiny_path), **change)
    words = LlamaBackend().load_vocabulary(metadata, ModelConfig(), "mean")
    with pytest.raises(ModelLoadError) as caught:
        NativeModel(library, kernel, metadata, "mean", words)
    words.close()
    assert said in str(caught.value)
    assert "backend='llama'" in str(caught.value)


def test_bytes_of_a_file_without_any_are_refused(library, tiny_path):
    kernel = next(one for one in library.kernels if one.compute_type == "int8")
    metadata = replace(read_metadata(tiny_path), n_head=2)
    words = LlamaBackend().load_vocabulary(metadata, ModelConfig(), "mean")
    with pytest.raises(ModelLoadError, match="a layer's weight is not Q8_0"):
        NativeModel(library, kernel, metadata, "mean", words)
    words.close()
