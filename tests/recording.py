"""The real backend with a note taken of every sequence, and calls at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import islice, product
from pathlib import Path
from typing import Any

import numpy as np

from embellama import EmbeddingEngine, ModelConfig
from embellama.backends import ChosenBackend
from embellama.cache import EmbeddingCache
from embellama.config import ModelConfig as Config
from embellama.gguf import GGUFMetadata
from embellama.types import (
    Backend,
    BackendContext,
    BackendInfo,
    BackendModel,
    ContextOptions,
    FloatArray,
    MicroBatch,
    PoolingType,
    VectorCache,
    Vocabulary,
)

Before = Callable[[MicroBatch], None]
After = Callable[[FloatArray], FloatArray]


class RecordingBackend:
    """What an engine has by itself, or another backend, that remembers what it was given.

    ``before`` may be set at any time: it is called with each micro-batch before it is computed,
    and may block or raise. ``after`` may change the rows.
    """

    def __init__(self, inner: Backend | None = None) -> None:
        self._inner = inner if inner is not None else ChosenBackend()
        self.sequences: list[list[int]] = []
        self.contexts: list[ContextOptions] = []
        self.before: Before = lambda batch: None
        self.after: After = lambda rows: rows

    @property
    def times(self) -> Counter[tuple[int, ...]]:
        """How many times each sequence was computed."""
        return Counter(map(tuple, self.sequences))

    @property
    def build(self) -> str:
        return self._inner.build

    def load(
        self, metadata: GGUFMetadata, config: Config, pooling_type: PoolingType
    ) -> BackendModel:
        return _Model(self, self._inner.load(metadata, config, pooling_type))


class _Model:
    def __init__(self, owner: RecordingBackend, inner: BackendModel) -> None:
        self._owner = owner
        self._inner = inner

    @property
    def info(self) -> BackendInfo:
        return self._inner.info

    @property
    def vocabulary(self) -> Vocabulary:
        return self._inner.vocabulary

    def control_tokens(self, text: str) -> Mapping[str, int]:
        return self._inner.control_tokens(text)

    def create_context(self, options: ContextOptions) -> BackendContext:
        self._owner.contexts.append(options)
        return _Context(self._owner, self._inner.create_context(options))

    def close(self) -> None:
        self._inner.close()


class _Context:
    def __init__(self, owner: RecordingBackend, inner: BackendContext) -> None:
        self._owner = owner
        self._inner = inner

    @property
    def size_bytes(self) -> int:
        return self._inner.size_bytes

    def set_n_threads(self, n_threads: int) -> None:
        self._inner.set_n_threads(n_threads)

    def run(self, batch: MicroBatch) -> FloatArray:
        self._owner.before(batch)
        parts = np.split(batch.input_ids, batch.offsets[1:-1])
        self._owner.sequences += [part.tolist() for part in parts]
        return self._owner.after(self._inner.run(batch))

    def close(self) -> None:
        self._inner.close()


def recording_engine(
    path: Path,
    *,
    config: ModelConfig | None = None,
    cache: VectorCache | None = None,
    inner: Backend | None = None,
) -> tuple[EmbeddingEngine, RecordingBackend]:
    """Make an engine with a model under the name "m", and what takes notes of it.

    The cache is one in memory unless given; it is of use only to texts that are repeated in
    another call.
    """
    backend = RecordingBackend(inner)
    engine = EmbeddingEngine(
        backend=backend, cache=cache if cache is not None else EmbeddingCache.in_memory()
    )
    engine.load_model(path, name="m", config=config or ModelConfig(n_threads=1))
    return engine, backend


def tiny_texts(n: int, start: int = 0) -> list[str]:
    """Make up to 6,561 texts of the tiny vocabulary's words, no two with the same ids."""
    words = product(["a", "c", "ab"], repeat=8)
    return [" ".join(each) for each in islice(words, start, start + n)]


def in_threads(*functions: Callable[[], Any], timeout_s: float = 30.0) -> list[Any]:
    """Run functions at once; return what each returned or raised."""

    def caught(function: Callable[[], Any]) -> Any:
        try:
            return function()
        except Exception as exc:  # noqa: BLE001  # the caller looks at it
            return exc

    with ThreadPoolExecutor(len(functions)) as pool:
        futures = [pool.submit(caught, function) for function in functions]
        return [future.result(timeout_s) for future in futures]
