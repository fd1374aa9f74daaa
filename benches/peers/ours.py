"""embellama on either backend, with the settings it chooses by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from numpy.typing import NDArray

from benches.peers.peer import Peer, versions_of
from embellama import EmbeddingEngine, EngineConfig, ModelConfig


class Embellama(Peer):
    """One engine with one model in one file type, on llama.cpp."""

    backend: Literal["llama", "native"] = "llama"
    compute_type: Literal["auto", "int8"] = "auto"

    def __init__(self, settings: dict[str, Any]) -> None:
        self.versions = versions_of("embellama", "llama-cpp-python")
        # as many threads as the others have, and the CPU that they run on
        self._engine = EmbeddingEngine(EngineConfig(n_jobs=settings["n_threads"]))
        info = self._engine.load_model(
            f"{settings['model']}:{settings['variant']}",
            name="m",
            config=ModelConfig(
                tuning="off",
                n_threads=settings["n_threads"],
                use_gpu=False,
                backend=self.backend,
                compute_type=self.compute_type,
            ),
        )
        self._n_contexts = info.n_contexts
        layouts = f"many short texts {info.layouts.short}, long {info.layouts.long}"
        self.how = f"{info.backend}; defaults: {layouts}"

    def embed(self, texts: Sequence[str]) -> NDArray[Any]:
        return self._engine.embed_batch("m", texts)

    def embed_one(self, text: str) -> NDArray[Any]:
        return self._engine.embed("m", text)

    def count_tokens(self, texts: Sequence[str]) -> int:
        return self._engine.embed_detailed("m", texts).usage.n_tokens

    def profile(self, texts: Sequence[str]) -> dict[str, float]:
        """Return parts of the call's wall-clock time; those that overlap add up to more than 1."""
        timings = self._engine.embed_detailed("m", texts).timings
        return {
            "computing, of one context (they overlap)": (
                timings.inference_s / self._n_contexts / timings.total_s
            ),
            "tokenizing, overlapped": timings.tokenize_s / timings.total_s,
            "before the first micro-batch": timings.queue_s / timings.total_s,
        }

    def close(self) -> None:
        self._engine.close()


class Native(Embellama):
    """The same on the native kernels; absent where they do not fit."""

    backend = "native"


class NativeInt8(Native):
    """The kernels that multiply bytes; absent where the CPU has no products of bytes."""

    compute_type = "int8"
