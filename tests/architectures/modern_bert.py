"""modern-bert: pre-norm, GeGLU, every third layer global and the others local, two rotations."""

from gguf import MODEL_ARCH, GGUFWriter, PoolingType, TokenType

from tests.architectures.common import TEXTS, TinyModel, Weights, fill, in_gguf_names
from tests.architectures.vocabulary import byte_pairs

N_EMBD, N_FF, N_LAYER, N_HEAD, N_POSITIONS, EPSILON = 64, 96, 4, 4, 256, 1e-5
WINDOW = 12
"""A token in a local layer sees itself, 6 tokens to the left and 6 to the right."""

GLOBAL_EVERY = 3
GLOBAL_THETA, LOCAL_THETA = 160_000.0, 10_000.0
"""Source: ``default_theta`` of transformers' ModernBertConfig."""

SPECIAL = ("[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]")


SPACES = tuple(" " * n for n in range(24, 1, -1))
"""Added tokens of ModernBERT that are not special: runs of spaces, taken before any splitting."""


def vocabulary() -> list[str]:
    """List the tokens in ModernBERT's order: byte pairs, runs of spaces, special ones."""
    return [*byte_pairs()[0], *SPACES, *SPECIAL]


def _kind(token: str) -> TokenType:
    if token in SPECIAL:
        return TokenType.CONTROL
    return TokenType.USER_DEFINED if token in SPACES else TokenType.NORMAL


def weights() -> Weights:
    """Make every tensor of transformers' ModernBertModel."""
    shapes = {
        "embeddings.tok_embeddings.weight": (len(vocabulary()), N_EMBD),
        "embeddings.norm.weight": (N_EMBD,),
        "final_norm.weight": (N_EMBD,),
    }
    for layer in range(N_LAYER):
        at = f"layers.{layer}"
        shapes |= {
            f"{at}.attn.Wqkv.weight": (3 * N_EMBD, N_EMBD),
            f"{at}.attn.Wo.weight": (N_EMBD, N_EMBD),
            f"{at}.mlp_norm.weight": (N_EMBD,),
            f"{at}.mlp.Wi.weight": (2 * N_FF, N_EMBD),
            f"{at}.mlp.Wo.weight": (N_EMBD, N_FF),
        }
        if layer:  # the first has the embeddings' norm before it
            shapes[f"{at}.attn_norm.weight"] = (N_EMBD,)
    return fill(shapes)


def _describe(writer: GGUFWriter) -> None:
    writer.add_block_count(N_LAYER)
    writer.add_context_length(N_POSITIONS)
    writer.add_embedding_length(N_EMBD)
    writer.add_feed_forward_length(N_FF)
    writer.add_head_count(N_HEAD)
    writer.add_rope_freq_base(GLOBAL_THETA)
    writer.add_rope_freq_base_swa(LOCAL_THETA)
    writer.add_layer_norm_eps(EPSILON)
    writer.add_causal_attention(False)
    writer.add_pooling_type(PoolingType.MEAN)
    writer.add_sliding_window(WINDOW)
    writer.add_sliding_window_pattern(GLOBAL_EVERY)
    writer.add_vocab_size(len(vocabulary()))
    writer.add_string("modern-bert.hidden_activation", "gelu")
    _add_vocabulary(writer)


def _add_vocabulary(writer: GGUFWriter) -> None:
    tokens = vocabulary()
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("modern-bert")
    writer.add_token_list(tokens)
    writer.add_token_types([_kind(token) for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in byte_pairs()[1]])
    writer.add_bos_token_id(tokens.index("[CLS]"))
    writer.add_eos_token_id(tokens.index("[SEP]"))
    writer.add_unk_token_id(tokens.index("[UNK]"))
    writer.add_sep_token_id(tokens.index("[SEP]"))
    writer.add_pad_token_id(tokens.index("[PAD]"))
    writer.add_mask_token_id(tokens.index("[MASK]"))
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(True)
    writer.add_add_sep_token(True)


_MODEL = TinyModel(
    name="modern-bert",
    architecture=MODEL_ARCH.MODERN_BERT,
    describe=_describe,
    tensors=lambda: in_gguf_names(weights(), MODEL_ARCH.MODERN_BERT, N_LAYER),
    texts=(*TEXTS, f"a{' ' * 5}b{' ' * 30}c ", f"{' ' * 3}\n\n{' ' * 2}the end{' ' * 24}"),
)
MODELS = (_MODEL,)
WRONG = {
    "one token less to each side": _MODEL.with_value("attention.sliding_window", WINDOW - 2),
    "one token more to each side": _MODEL.with_value("attention.sliding_window", WINDOW + 2),
    "every second layer global": _MODEL.with_value("attention.sliding_window_pattern", 2),
    "the global rotation in local layers": _MODEL.with_value("rope.freq_base_swa", GLOBAL_THETA),
    "the local rotation in global layers": _MODEL.with_value("rope.freq_base", LOCAL_THETA),
    "SwiGLU": _MODEL.with_value("hidden_activation", "silu"),
}
"""Models that differ from the reference's in one thing."""
