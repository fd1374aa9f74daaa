"""gemma-embedding: windows of attention in five layers of six, and two dense layers at the end."""

from dataclasses import replace

from gguf import MODEL_ARCH, GGUFWriter, PoolingType

from tests.architectures.common import TinyModel, Weights, in_gguf_names, tensor
from tests.architectures.trained_vocabulary import add_gemma, trained

N_EMBD, N_FF, N_LAYER, N_POSITIONS, EPSILON = 48, 64, 6, 512, 1e-6
"""Six layers, because the files do not say which of them see all tokens: it is every sixth."""

N_HEAD, N_HEAD_KV, HEAD = 3, 1, 16
WINDOW = 16
"""A token sees half of it on either side."""

ROPE_BASE, ROPE_BASE_IN_WINDOW = 1_000_000.0, 10_000.0
N_DENSE = 4 * N_EMBD


def weights() -> Weights:
    """Make every tensor of transformers' Gemma3TextModel, whose norms add 1 to their weights."""
    shapes: dict[str, tuple[int, ...]] = {
        "embed_tokens": (len(trained("spm")["pieces"]), N_EMBD),
        "norm": (N_EMBD,),
    }
    for layer in range(N_LAYER):
        for name, shape in {
            "input_layernorm": (N_EMBD,),
            "self_attn.q_proj": (N_HEAD * HEAD, N_EMBD),
            "self_attn.k_proj": (N_HEAD_KV * HEAD, N_EMBD),
            "self_attn.v_proj": (N_HEAD_KV * HEAD, N_EMBD),
            "self_attn.o_proj": (N_EMBD, N_HEAD * HEAD),
            "self_attn.q_norm": (HEAD,),
            "self_attn.k_norm": (HEAD,),
            "post_attention_layernorm": (N_EMBD,),
            "pre_feedforward_layernorm": (N_EMBD,),
            "mlp.gate_proj": (N_FF, N_EMBD),
            "mlp.up_proj": (N_FF, N_EMBD),
            "mlp.down_proj": (N_EMBD, N_FF),
            "post_feedforward_layernorm": (N_EMBD,),
        }.items():
            shapes[f"layers.{layer}.{name}"] = shape
    return {f"{name}.weight": tensor(name, *shape) for name, shape in shapes.items()}


def dense_weights() -> Weights:
    """Make the two modules that sentence-transformers puts behind the pooling, without biases."""
    return {
        "dense_2.weight": tensor("dense_2", N_DENSE, N_EMBD),
        "dense_3.weight": tensor("dense_3", N_EMBD, N_DENSE),
    }


def _tensors(*, dense: bool = True) -> Weights:
    """Rename the tensors and add the 1 to the norms, as the converter does."""
    named = {
        f"model.{name}": values + 1 if name.endswith("norm.weight") else values
        for name, values in weights().items()
    }
    renamed = in_gguf_names(named, MODEL_ARCH.GEMMA_EMBEDDING, N_LAYER)
    return {**renamed, **(dense_weights() if dense else {})}


def _describe(writer: GGUFWriter) -> None:
    writer.add_block_count(N_LAYER)
    writer.add_context_length(N_POSITIONS)
    writer.add_embedding_length(N_EMBD)
    writer.add_feed_forward_length(N_FF)
    writer.add_head_count(N_HEAD)
    writer.add_head_count_kv(N_HEAD_KV)
    writer.add_key_length(HEAD)
    writer.add_value_length(HEAD)
    writer.add_layer_norm_rms_eps(EPSILON)
    writer.add_rope_freq_base(ROPE_BASE)
    writer.add_sliding_window(WINDOW)
    writer.add_dense_features_dims("dense_2", N_EMBD, N_DENSE)
    writer.add_dense_features_dims("dense_3", N_DENSE, N_EMBD)
    writer.add_pooling_type(PoolingType.MEAN)
    add_gemma(writer)


_MODEL = TinyModel(
    name="gemma-embedding",
    architecture=MODEL_ARCH.GEMMA_EMBEDDING,
    describe=_describe,
    tensors=_tensors,
)

MODELS = (_MODEL,)

WRONG = {
    "one token less to each side": _MODEL.with_value("attention.sliding_window", WINDOW - 2),
    "one token more to each side": _MODEL.with_value("attention.sliding_window", WINDOW + 2),
    "the local rotation in global layers": _MODEL.with_value("rope.freq_base", ROPE_BASE_IN_WINDOW),
    "the global rotation in local layers": _MODEL.with_added(
        lambda writer: writer.add_rope_freq_base_swa(ROPE_BASE)
    ),
    "every third layer global": _MODEL.with_added(
        lambda writer: writer.add_sliding_window_pattern(3)
    ),
    "no dense layers": replace(_MODEL, tensors=lambda: _tensors(dense=False)),
    "no EOS": _MODEL.with_value("tokenizer.ggml.add_eos_token", False),
    "a space in front": _MODEL.with_value("tokenizer.ggml.add_space_prefix", True),
    "norms without the 1": _MODEL.with_tensors("blk.5.attn_norm.weight", lambda row: row - 1),
}
"""Models that differ from the reference's in one thing."""
