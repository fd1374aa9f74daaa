"""Relatives of BERT on every kernel, against llama.cpp and NumPy, by models of random weights."""

from dataclasses import replace

import numpy as np
import pytest

from embellama._llama.model import LlamaBackend
from embellama._native.architectures import activation_of
from embellama._native.model import NativeModel
from embellama._native.support import fits, why_not
from embellama.backends import ChosenBackend
from embellama.config import ModelConfig
from embellama.errors import ModelLoadError
from embellama.gguf import read_metadata
from embellama.hub.quantize import quantize_file
from embellama.types import ContextOptions, MicroBatch
from tests.architectures import bert, jina_bert_v2, nomic_bert, xlm_roberta
from tests.architectures.common import norm, tensor
from tests.bert_reference import BertReference

LEAST_COSINE = {"f32": 0.999999, "bf16": 0.999, "int8": 0.997}
"""To double precision, for the worst token row. Seen of bytes: 0.9984."""

LEAST_COSINE_TO_LLAMA = 0.9999
"""llama.cpp's GELU is an approximation, in a table of half precision."""

LENGTHS = (1, 2, 7, 15, 16, 17, 33, 48, 64, 100)

JINA, NOMIC, XLM_ROBERTA = jina_bert_v2.MODELS[0], nomic_bert.MODELS[0], xlm_roberta.MODELS[1]


def with_parts(model, change):
    """Change a model's tensors as a whole."""
    return replace(model, tensors=lambda: change(dict(model.tensors())))


def with_qkv_apart(given):
    for layer in range(nomic_bert.N_LAYER):
        fused = given.pop(f"blk.{layer}.attn_qkv.weight")
        for part, rows in zip("qkv", np.split(fused, 3), strict=True):
            given[f"blk.{layer}.attn_{part}.weight"] = rows
    return given


def with_qkv_biases(given):
    for layer in range(nomic_bert.N_LAYER):
        name = f"blk.{layer}.attn_qkv.bias"
        given[name] = tensor(name, 3 * nomic_bert.N_EMBD)
    return given


def with_gate_apart(given):
    for layer in range(jina_bert_v2.N_LAYER):
        gate, up = np.split(given[f"blk.{layer}.ffn_up.weight"], 2)
        given |= {f"blk.{layer}.ffn_gate.weight": gate, f"blk.{layer}.ffn_up.weight": up}
    return given


def with_gated_biases(given):
    for layer in range(jina_bert_v2.N_LAYER):
        name = f"blk.{layer}.ffn_up.bias"
        given[name] = tensor(name, 2 * jina_bert_v2.N_FF)
    return given


def without_gate(given):
    for layer in range(jina_bert_v2.N_LAYER):
        given[f"blk.{layer}.ffn_up.weight"] = given[f"blk.{layer}.ffn_up.weight"][
            : jina_bert_v2.N_FF
        ]
    return given


def with_more_norms(given):
    """Add what the published model for code has: norms of queries and keys, a second one after."""
    for layer in range(jina_bert_v2.N_LAYER):
        for part in ("attn_q_norm", "attn_k_norm", "attn_norm_2"):
            name = f"blk.{layer}.{part}"
            given[f"{name}.weight"] = norm(f"{name}.weight", jina_bert_v2.N_EMBD)
            given[f"{name}.bias"] = tensor(f"{name}.bias", jina_bert_v2.N_EMBD)
    return given


def without_first_norms(given):
    return {
        name: value
        for name, value in with_more_norms(given).items()
        if not name.startswith(("blk.0.attn_q_norm", "blk.0.attn_k_norm"))
    }


MODELS = {
    "xlm-roberta": XLM_ROBERTA,
    "nomic": NOMIC,
    "nomic, heads of 32": NOMIC.with_value("attention.head_count", 2),
    "nomic, a head of 64": NOMIC.with_value("attention.head_count", 1),
    "nomic, half rotated": NOMIC.with_added(lambda writer: writer.add_rope_dimension_count(8)),
    "nomic, q k v apart": with_parts(NOMIC, with_qkv_apart),
    "nomic, biases": with_parts(NOMIC, with_qkv_biases),
    "jina": JINA,
    "jina, 2 heads": JINA.with_value("attention.head_count", 2),
    "jina, gate apart": with_parts(JINA, with_gate_apart),
    "jina, biases of the gate": with_parts(JINA, with_gated_biases),
    "jina, no gate": with_parts(JINA, without_gate),
    "jina, code": with_parts(JINA, with_more_norms),
}


def calmer(given):
    """Make attention less of a choice of one token, where bfloat16 would take another at times."""
    return {name: value * 0.5 if ".attn_" in name else value for name, value in given.items()}


@pytest.fixture(scope="module", params=MODELS)
def path(request, tmp_path_factory):
    model = with_parts(MODELS[request.param], calmer)
    return model.write(tmp_path_factory.mktemp("architecture") / "m.gguf")


def sequences(n_vocab, seed=0):
    chooser = np.random.default_rng(seed)
    return [chooser.integers(0, n_vocab, n, dtype=np.int32) for n in LENGTHS]


def rows_of(model, ids):
    context = model.create_context(ContextOptions(512, len(ids), 1))
    try:
        return context.run(MicroBatch.pack(ids)).astype(np.float64)
    finally:
        context.close()


def native_rows(library, kernel, metadata, ids):
    words = LlamaBackend().load_vocabulary(metadata, ModelConfig(), "none")
    model = NativeModel(library, kernel, metadata, "none", words)
    try:
        return rows_of(model, ids)
    finally:
        model.close()


def cosines(ours, theirs):
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    return (ours * theirs).sum(axis=1) / lengths


def test_token_rows_are_those_of_llama_cpp_and_of_numpy(library, path):
    metadata = read_metadata(path)
    assert why_not(metadata, "mean") is None
    ids = sequences(metadata.n_vocab)
    reference = BertReference(path)
    exact = np.concatenate([reference.rows(one.tolist()) for one in ids])
    llama = LlamaBackend().load(metadata, ModelConfig(n_gpu_layers=0), "none")
    try:
        theirs = np.concatenate([rows_of(llama, [one]) for one in ids])
    finally:
        llama.close()
    for kernel in [one for one in library.kernels if fits(metadata, one)]:
        ours = native_rows(library, kernel, metadata, ids)
        assert ours.shape == (sum(LENGTHS), metadata.n_embd)
        assert cosines(ours, exact).min() >= LEAST_COSINE[kernel.compute_type], kernel
        if kernel.compute_type == "f32":
            assert cosines(ours, theirs).min() >= LEAST_COSINE_TO_LLAMA, kernel


@pytest.mark.parametrize("file_type", ["F16", "BF16", "Q8_0"])
@pytest.mark.parametrize("model", [NOMIC, JINA], ids=lambda model: model.name)
def test_fused_tensors_are_divided_in_every_type(library, tmp_path, model, file_type):
    whole = with_parts(model, calmer).write(tmp_path / "whole.gguf")
    path = quantize_file(whole, tmp_path / "m.gguf", file_type=file_type).path
    metadata = read_metadata(path)
    assert metadata.tensors["blk.0.ffn_up.weight"].type_name == file_type
    ids = sequences(metadata.n_vocab)
    exact = np.concatenate([BertReference(path).rows(one.tolist()) for one in ids])
    kernel = next(one for one in library.kernels if one.compute_type == "f32")
    ours = native_rows(library, kernel, metadata, ids)
    assert cosines(ours, exact).min() >= LEAST_COSINE["f32"]


def with_heads(model, n_heads):
    return model.with_value("attention.head_count", n_heads)


OF_WHOLE_BLOCKS = {
    "bert": with_heads(bert.MODELS[0], 2),
    "nomic": MODELS["nomic, heads of 32"],
    "nomic, a head of 64": MODELS["nomic, a head of 64"],
    "nomic, biases": with_heads(MODELS["nomic, biases"], 2),
    "jina": with_heads(JINA, 3),
    "jina, a head of 96": with_heads(JINA, 1),
    "jina, biases of the gate": with_heads(MODELS["jina, biases of the gate"], 3),
    "jina, no gate": with_heads(MODELS["jina, no gate"], 3),
    "jina, code": with_heads(MODELS["jina, code"], 3),
}
"""Whose heads kernels of bytes take."""


@pytest.mark.parametrize("name", OF_WHOLE_BLOCKS)
def test_bytes_are_multiplied_in_every_architecture(library, tmp_path, name):
    whole = with_parts(OF_WHOLE_BLOCKS[name], calmer).write(tmp_path / "whole.gguf")
    path = quantize_file(whole, tmp_path / "m.gguf", file_type="Q8_0").path
    metadata = read_metadata(path)
    ids = sequences(metadata.n_vocab)
    exact = np.concatenate([BertReference(path).rows(one.tolist()) for one in ids])
    for kernel in library.kernels:
        assert fits(metadata, kernel), kernel
        ours = native_rows(library, kernel, metadata, ids)
        assert cosines(ours, exact).min() >= LEAST_COSINE[kernel.compute_type], kernel


@pytest.mark.parametrize("model", [XLM_ROBERTA, NOMIC, JINA], ids=lambda model: model.name)
def test_it_is_chosen_after_it_agreed_with_llama_cpp(library, model, tmp_path):
    metadata = read_metadata(model.write(tmp_path / "m.gguf"))
    loaded = ChosenBackend().load(metadata, ModelConfig(backend="native"), "mean")
    backend = loaded.info.backend
    loaded.close()
    assert backend.startswith("native (")


def test_sequences_may_be_longer_than_the_model_was_trained_for(library, tmp_path):
    """Without a table of positions only the context's size ends them, as with llama.cpp."""
    for model in (NOMIC, JINA):
        short = model.with_value("context_length", 16)
        path = short.write(tmp_path / f"{model.name}.gguf")
        metadata = read_metadata(path)
        (ids,) = sequences(metadata.n_vocab)[-1:]
        kernel = next(one for one in library.kernels if one.compute_type == "f32")
        ours = native_rows(library, kernel, metadata, [ids])
        exact = BertReference(path).rows(ids.tolist())
        assert cosines(ours, exact).min() >= LEAST_COSINE["f32"]


@pytest.mark.parametrize("missing", ["ffn_gate.weight", "attn_qkv.weight", "ffn_down.weight"])
def test_what_nomic_lacks_is_named(tmp_path, missing):
    def cut(given):
        return {name: value for name, value in given.items() if not name.endswith(missing)}

    metadata = read_metadata(with_parts(NOMIC, cut).write(tmp_path / "m.gguf"))
    named = missing.replace("qkv", "q")
    assert why_not(metadata, "mean") == f"it has no tensor 'blk.0.{named}'"


def test_stretched_rotation_is_left_to_llama_cpp(tmp_path):
    stretched = NOMIC.with_added(lambda writer: writer.add_rope_scaling_factor(2.0))
    metadata = read_metadata(stretched.write(tmp_path / "m.gguf"))
    assert why_not(metadata, "mean") == "it stretches its rotary positions"


def test_a_jina_without_gate_is_no_geglu(tmp_path):
    metadata = read_metadata(with_parts(JINA, without_gate).write(tmp_path / "m.gguf"))
    assert activation_of(metadata) == "gelu"
    assert activation_of(read_metadata(JINA.write(tmp_path / "n.gguf"))) == "geglu"


@pytest.mark.parametrize(
    ("model", "change", "said"),
    [
        (with_parts(JINA, without_first_norms), {}, "some layers have norms that the first has"),
        (NOMIC, {"n_rotated": 18}, "of a head's 16 components 18 are rotated"),
        (NOMIC, {"n_rotated": 7}, "of a head's 16 components 7 are rotated"),
        (NOMIC, {"rope_freq_base": -1.0}, "rotary_base is not above 0"),
        (NOMIC, {"n_ff": 48}, "has to be 48 x 64"),
        (JINA, {"n_ff": 64}, "is missing"),
    ],
)
def test_what_does_not_fit_together_is_refused(library, tmp_path, model, change, said):
    metadata = replace(read_metadata(model.write(tmp_path / "m.gguf")), **change)
    words = LlamaBackend().load_vocabulary(metadata, ModelConfig(), "mean")
    try:
        with pytest.raises(ModelLoadError) as caught:
            NativeModel(library, library.kernels[0], metadata, "mean", words)
    finally:
        words.close()
    assert said in str(caught.value)
