"""xlm-roberta: a BERT whose positions begin at 2, with SentencePiece's Unigram vocabulary."""

from dataclasses import replace

from gguf import MODEL_ARCH, GGUFWriter, PoolingType

from tests.architectures.common import TEXTS, TinyModel, Weights, fill, in_gguf_names
from tests.architectures.trained_vocabulary import add_xlm_roberta, xlm_roberta_pieces

N_EMBD, N_FF, N_LAYER, N_HEAD, N_POSITIONS, EPSILON = 64, 128, 3, 4, 256, 1e-5
POSITION_OFFSET = 2
"""Rows before the first position's: that of the padding token, whose id is 1, is the last."""


def weights() -> Weights:
    """Make every tensor of transformers' XLMRobertaModel without its pooler."""
    linear: dict[str, tuple[int, ...]] = {"embeddings.LayerNorm": (N_EMBD,)}
    for layer in range(N_LAYER):
        for name, shape in {
            "attention.self.query": (N_EMBD, N_EMBD),
            "attention.self.key": (N_EMBD, N_EMBD),
            "attention.self.value": (N_EMBD, N_EMBD),
            "attention.output.dense": (N_EMBD, N_EMBD),
            "attention.output.LayerNorm": (N_EMBD,),
            "intermediate.dense": (N_FF, N_EMBD),
            "output.dense": (N_EMBD, N_FF),
            "output.LayerNorm": (N_EMBD,),
        }.items():
            linear[f"encoder.layer.{layer}.{name}"] = shape
    return fill(
        {
            "embeddings.word_embeddings.weight": (len(xlm_roberta_pieces()), N_EMBD),
            "embeddings.position_embeddings.weight": (N_POSITIONS + POSITION_OFFSET, N_EMBD),
            "embeddings.token_type_embeddings.weight": (1, N_EMBD),
        }
        | {f"{name}.weight": shape for name, shape in linear.items()}
        | {f"{name}.bias": shape[:1] for name, shape in linear.items()}
    )


def _tensors(first_row: int = POSITION_OFFSET) -> Weights:
    """Rename the tensors and drop the rows before the first position, as the converter does."""
    made = dict(weights())
    name = "embeddings.position_embeddings.weight"
    made[name] = made[name][first_row : first_row + N_POSITIONS]
    return in_gguf_names(made, MODEL_ARCH.BERT, N_LAYER)


def _describe(writer: GGUFWriter, pooling: PoolingType) -> None:
    writer.add_block_count(N_LAYER)
    writer.add_context_length(N_POSITIONS)
    writer.add_embedding_length(N_EMBD)
    writer.add_feed_forward_length(N_FF)
    writer.add_head_count(N_HEAD)
    writer.add_layer_norm_eps(EPSILON)
    writer.add_causal_attention(False)
    writer.add_pooling_type(pooling)
    add_xlm_roberta(writer)


UNIGRAM_TEXTS = (
    *TEXTS,
    "ﬁne ⅔ of ＦＵＬＬ width, №\u00a07,\u3000Ⅳ ㎏\u200band  trailing   ",
    "สวัสดี 漢字 tab\x02le",
    " ".join(TEXTS) + " the end",
)
"""More: what the normalizer changes; unknown characters in a row, and one that is dropped; and what
is longer than the farthest distance that T5 tells apart."""

_CLS = TinyModel(
    name="xlm-roberta-cls",
    architecture=MODEL_ARCH.BERT,
    describe=lambda writer: _describe(writer, PoolingType.CLS),
    tensors=_tensors,
    pooling_type="cls",
    texts=UNIGRAM_TEXTS[:-1],
)

MODELS = (
    _CLS,
    replace(
        _CLS,
        name="xlm-roberta-mean",
        describe=lambda writer: _describe(writer, PoolingType.MEAN),
        pooling_type="mean",
    ),
)
"""bge-m3 pools the first token, multilingual-e5 the mean."""

WRONG = {
    "positions from 0": replace(_CLS, tensors=lambda: _tensors(0)),
    "positions from 1": replace(_CLS, tensors=lambda: _tensors(1)),
    "mean for cls": _CLS.with_value("pooling_type", int(PoolingType.MEAN)),
    "no <s>": _CLS.with_value("tokenizer.ggml.add_bos_token", False),
    "no normalizer": _CLS.with_added(
        lambda writer: writer.kv_data[0].pop("tokenizer.ggml.precompiled_charsmap")
    ),
}
"""Models that differ from the reference's in one thing."""
