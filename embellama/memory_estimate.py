"""How much memory a model and its contexts will take on a CPU, told before anything is loaded.

llama.cpp keeps the logits of every token of a micro-batch, also when only embeddings are wanted:
``n_tokens × n_vocab × 4`` bytes in every context. For a vocabulary of 250,000 tokens that is 1 MB a
token and far more than everything else, so that the longest text decides.
Source: ``llama_context::output_reserve`` in llama-context.cpp.

The native kernels keep none, but hold the weights in an order of their own.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Protocol

from embellama.config import ModelConfig
from embellama.gguf import EMBEDDING_ARCHITECTURES, GGUFMetadata

PROCESS_BYTES = 76_000_000
"""A Python that has imported the engine, and what the first call adds before any model counts.

Source: resident memory with llama-cpp-python 0.3.36 for CPUs on Linux: 71 MB, and 4 MB of a call.
"""

CONTEXT_BYTES = 3_500_000
"""What a worker's thread, its heap and llama.cpp's graph add to the buffers. Source: as above."""

KERNEL_CONTEXT_BYTES = 1_000_000
"""What a worker's thread and its heap add to the kernels' workspace at most. Source: as above."""

VOCABULARY_BYTES_PER_TOKEN = {"bert": 350, "llama": 350, "gpt2": 500, "t5": 700}
"""Of one token in llama.cpp's tables, and its part of the header, by kind of vocabulary.

Source: resident memory before and after loading llama.cpp's own ggml-vocab-*.gguf.
"""

ACCURACY = 0.1
"""By how much the estimate may fall short. Source: tests/integration/test_memory_estimate.py."""

_OTHER_VOCABULARY = 500
_FLOAT = 4
_WITH_CACHE = {"llama-embed", "t5encoder"}


class ContextMemory(Protocol):
    """What knows the contexts of another backend than llama.cpp."""

    def context_bytes(self, n_tokens: int, n_threads: int = 1) -> int:
        """Return what a context takes for micro-batches of so many tokens on so many threads."""
        ...


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The widths of a model that decide about memory.

    Attributes:
        weights_bytes: Of all tensors, as they are in memory.
        n_vocab: Tokens of the vocabulary.
        vocab_kind: As in `GGUFMetadata`.
        n_layer: Layers.
        n_embd: Components of a token row.
        n_ff: Components inside a feed-forward block, of all experts at work together.
        n_head: Attention heads.
        n_query: Components of all queries of a token.
        n_key: Components of all keys of a token; as many for values.
        is_gated: Whether the feed-forward block has a gate.
        is_rotary: Whether queries and keys are rotated.
        n_masks: Attention masks: 2 where some layers look through a window.
        has_logits: Whether the graph computes a score for every token of the vocabulary.
        has_cache: Whether keys and values are cached.
        has_relative_bias: Whether attention gets a bias for every pair, which rules out the fused
            kernel.
        n_ctx: The longest text.
        kernel_memory: How the native kernels' contexts are, if those run the model.
    """

    weights_bytes: int
    n_vocab: int
    vocab_kind: str
    n_layer: int
    n_embd: int
    n_ff: int
    n_head: int
    n_query: int
    n_key: int
    is_gated: bool
    is_rotary: bool
    n_masks: int
    has_logits: bool
    has_cache: bool
    has_relative_bias: bool
    n_ctx: int
    kernel_memory: ContextMemory | None = None


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Expected resident memory, in bytes.

    Attributes:
        process: Python, this package and llama.cpp's code; what else your program holds is extra.
        weights: The tensors, shared by all contexts.
        vocabulary: llama.cpp's tables of tokens.
        outputs: Of all contexts: logits and rows of every token of the largest micro-batch; without
            logits on the native kernels.
        buffers: What the forward passes write, in all contexts.
        n_tokens: The largest micro-batch it was computed for.
    """

    process: int
    weights: int
    vocabulary: int
    outputs: int
    buffers: int
    n_tokens: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.process + self.weights + self.vocabulary + self.outputs + self.buffers

    def __str__(self) -> str:
        parts = {name: value for name, value in asdict(self).items() if name != "n_tokens"}
        listed = ", ".join(f"{name} {value / 1e6:.0f}" for name, value in parts.items())
        return f"{self.total / 1e6:.0f} MB ({listed})"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold."""
        return {**asdict(self), "total": self.total}


def shape_of(metadata: GGUFMetadata) -> ModelShape:
    """Take the widths of a model from what its header says."""
    is_encoder = metadata.architecture in EMBEDDING_ARCHITECTURES
    n_head = max(metadata.n_head, 1)
    return ModelShape(
        weights_bytes=metadata.tensor_bytes,
        n_vocab=metadata.n_vocab,
        vocab_kind=metadata.vocab_kind,
        n_layer=metadata.n_layer,
        n_embd=metadata.n_embd,
        n_ff=metadata.n_ff,
        n_head=n_head,
        n_query=n_head * metadata.head_size,
        n_key=max(metadata.n_head_kv, 1) * metadata.head_size,
        is_gated=metadata.is_gated,
        is_rotary=metadata.position_encoding == "rope",
        n_masks=2 if metadata.has_window else 1,
        has_logits=not is_encoder,
        has_cache=not is_encoder or metadata.architecture in _WITH_CACHE,
        has_relative_bias=metadata.position_encoding == "relative",
        n_ctx=metadata.n_ctx_train,
    )


def estimate_memory(
    shape: ModelShape, config: ModelConfig, *, longest_text: int | None = None
) -> MemoryEstimate:
    """Estimate the resident memory of a process that uses one model on a CPU.

    Every context is counted as if it had met its largest micro-batch: the longest text, or a full
    one of short texts. Falls short by `ACCURACY` at most where it was checked.

    Args:
        shape: The model's widths.
        config: Its settings: ``n_ctx``, ``n_contexts`` (one is counted where it is unset),
            ``max_batch_tokens``, ``flash_attn``…
        longest_text: Tokens of the longest text that will come; what the limit allows if None.
    """
    limit = config.n_ctx or shape.n_ctx
    n_tokens = max(config.max_batch_tokens, min(longest_text or limit, limit))
    outputs, buffers = _context_parts(shape, config, n_tokens)
    n_contexts = config.n_contexts or 1
    per_token = VOCABULARY_BYTES_PER_TOKEN.get(shape.vocab_kind, _OTHER_VOCABULARY)
    return MemoryEstimate(
        process=PROCESS_BYTES,
        weights=shape.weights_bytes,
        vocabulary=shape.n_vocab * per_token,
        outputs=n_contexts * outputs,
        buffers=n_contexts * buffers,
        n_tokens=n_tokens,
    )


def context_bytes(shape: ModelShape, config: ModelConfig, n_tokens: int) -> int:
    """Estimate what one context takes that has met a micro-batch of so many tokens."""
    return sum(_context_parts(shape, config, n_tokens))


def _context_parts(shape: ModelShape, config: ModelConfig, n_tokens: int) -> tuple[int, int]:
    """Bytes of a context's outputs, and of what its forward passes write."""
    n_outputs = max(n_tokens, config.max_batch_requests)
    if shape.kernel_memory is not None:
        workspace = shape.kernel_memory.context_bytes(n_tokens, config.n_threads or 1)
        return n_outputs * shape.n_embd * _FLOAT, KERNEL_CONTEXT_BYTES + workspace
    outputs = n_outputs * (shape.n_vocab + shape.n_embd) * _FLOAT
    fused = config.flash_attn is not False
    return outputs, CONTEXT_BYTES + _compute_bytes(shape, n_tokens, fused=fused)


def _compute_bytes(shape: ModelShape, n_tokens: int, *, fused: bool) -> int:
    """Bytes of the graph's tensors that live at the same time, and of the cache.

    Source: fitted to "compute buffer size" in llama.cpp's log for nine architectures.
    """
    feed_forward = shape.n_ff * (3 if shape.is_gated else 1) + 3 * shape.n_embd
    copies = 2 if shape.is_rotary else 1
    attention = (5 * shape.n_embd) // 2 + copies * shape.n_query + (copies + 1) * shape.n_key
    scores = shape.n_vocab + shape.n_embd if shape.has_logits else 0
    row = _FLOAT * max(feed_forward, attention, scores)
    if shape.has_relative_bias:
        pair = _FLOAT * (3 * shape.n_head + 2)
    elif fused:
        pair = 2 * shape.n_masks  # float16, and no scores are kept
    else:
        pair = _FLOAT * (shape.n_masks + shape.n_head)
    cached = 2 * 2 * shape.n_layer * shape.n_key if shape.has_cache else 0  # float16 both
    return n_tokens * n_tokens * pair + n_tokens * (row + cached)
