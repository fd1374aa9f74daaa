"""What a loaded model is, where it came from, and what was decided about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from embellama.config import ModelConfig
from embellama.types import Layouts, Normalization, PoolingType


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """A loaded model, described.

    Attributes:
        name: What the engine calls it.
        reference: What was asked for: a path, a catalogue name or a hub reference.
        fingerprint: What its vectors come from, in 32 hexadecimal digits: the file's content,
            tokenizer and pooling. Equal for the same file at another place, on another machine.
        path: The GGUF that was loaded; the first part of a split one.
        architecture: As llama.cpp names it, e.g. ``"bert"``.
        file_type: What the file is called, e.g. ``"Q8_0"``.
        tensor_types: How many tensors have which type.
        n_embd: Components of a vector.
        n_ctx: Per-text limit in tokens, special tokens included.
        n_ctx_train: Positions the model was trained for.
        n_ctx_recommended: What the model's card recommends as the longest text, where it does.
        n_layer: Layers.
        n_head: Attention heads of a layer.
        n_vocab: Size of the vocabulary.
        vocab_kind: ``"bert"`` (WordPiece), ``"t5"``, ``"gpt2"``, ``"llama"``…
        n_special_tokens: Tokens the model puts around every text.
        add_bos: Whether a text begins with the bos token; None: llama.cpp's default for the kind.
        add_eos: Whether it ends with the eos token.
        add_sep: Whether it ends with the sep token.
        causal: Whether a token sees only those before it; None if the file does not say.
        pooling_type: How token rows become one vector.
        pooling_source: Who said so: explicit, file, catalogue or architecture.
        normalization: How a vector is scaled.
        prompts: What to put before a text, by role or name; from configuration and catalogue.
        matryoshka_dims: Shorter lengths the model was trained for.
        license: The licence its card states.
        backend: What computes: ``"llama.cpp"``, or ``"native"`` with its kernels.
        device: Where it runs.
        n_layers_offloaded: Layers that really are on a GPU.
        n_layers_offloadable: Layers that could be.
        n_threads: CPU threads of a single text's forward pass.
        n_contexts: Most contexts that compute at the same time.
        layouts: Contexts, threads and micro-batches by kind of work.
        layouts_from: Who chose them: ``"explicit"``, ``"tuned"`` or ``"default"``.
        size_bytes: Bytes of the file.
        weights_bytes: Bytes of the weights in memory.
        context_bytes: Bytes of the contexts made so far.
        load_s: Seconds the load took, by phase, and ``"total"``.
        warnings: What the user should know.
        config: The settings it was loaded with.
    """

    name: str
    reference: str
    fingerprint: str
    path: Path
    architecture: str
    file_type: str
    tensor_types: Mapping[str, int]
    n_embd: int
    n_ctx: int
    n_ctx_train: int
    n_ctx_recommended: int | None
    n_layer: int
    n_head: int
    n_vocab: int
    vocab_kind: str
    n_special_tokens: int
    add_bos: bool | None
    add_eos: bool | None
    add_sep: bool | None
    causal: bool | None
    pooling_type: PoolingType
    pooling_source: str
    normalization: Normalization
    prompts: Mapping[str, str]
    matryoshka_dims: tuple[int, ...]
    license: str | None
    backend: str
    device: str
    n_layers_offloaded: int
    n_layers_offloadable: int
    n_threads: int
    n_contexts: int
    layouts: Layouts
    layouts_from: str
    size_bytes: int
    weights_bytes: int
    context_bytes: int
    load_s: Mapping[str, float]
    warnings: tuple[str, ...]
    config: ModelConfig

    @property
    def memory_bytes(self) -> int:
        """Bytes of the weights and of the contexts made so far."""
        return self.weights_bytes + self.context_bytes

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return {
            **values,
            "path": str(self.path),
            "tensor_types": dict(self.tensor_types),
            "prompts": dict(self.prompts),
            "matryoshka_dims": list(self.matryoshka_dims),
            "layouts": asdict(self.layouts),
            "load_s": dict(self.load_s),
            "warnings": list(self.warnings),
            "memory_bytes": self.memory_bytes,
            "config": self.config.model_dump(mode="json"),
            "config_sources": self.config.sources,
        }
