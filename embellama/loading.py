"""From a model's name to a model that can embed: each decision made once, and recorded."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace
from typing import Any

from embellama._parallel import available_cores
from embellama.config import ModelConfig
from embellama.errors import ConfigurationError
from embellama.gguf import GGUFMetadata, read_metadata
from embellama.hub.catalog import CatalogEntry
from embellama.hub.resolve import ResolvedModel
from embellama.logs import log
from embellama.model_info import ModelInfo
from embellama.pooling import PoolingDecision, decide_pooling
from embellama.scheduler import Scheduler
from embellama.tokenization import Tokenizer
from embellama.types import Backend, BackendInfo, BackendModel, ContextOptions, PoolingType


@dataclass(frozen=True)
class LoadedModel:
    """The parts of a model that can embed.

    Attributes:
        tokenizer: Texts to ids.
        scheduler: Ids to rows.
    """

    tokenizer: Tokenizer
    scheduler: Scheduler
    _backend_model: BackendModel
    _info: ModelInfo

    @property
    def info(self) -> ModelInfo:
        """What it is, with the memory it takes now."""
        return replace(self._info, context_bytes=self.scheduler.context_bytes)

    @property
    def memory_bytes(self) -> int:
        """Bytes of weights and contexts."""
        return self._info.weights_bytes + self.scheduler.context_bytes

    @property
    def facts(self) -> ModelInfo:
        """What does not change while it is loaded; cheap, for the hot path."""
        return self._info

    def close(self) -> None:
        """Stop the workers and free contexts and weights. Blocks until running work is done.

        On a worker's own thread, where a dropped stream may be collected, another thread does it.
        """
        if self.scheduler.runs_this_thread:
            threading.Thread(target=self._close, name="embellama-closing").start()
        else:
            self._close()

    def _close(self) -> None:
        self.scheduler.close()
        self._backend_model.close()


def open_model(
    resolved: ResolvedModel, *, name: str, config: ModelConfig, backend: Backend, reference: str
) -> LoadedModel:
    """Load a model file and make it ready to embed.

    Raises:
        ConfigurationError: The settings do not fit the model or the machine.
        GGUFFormatError, ModelNotFoundError, ModelLoadError: The file cannot be used.
    """
    clock = _Clock()
    metadata = read_metadata(resolved.path)
    pooling = _pooling_for(metadata, resolved, config)
    n_ctx, limit_warnings = _text_limit(metadata, config)
    clock.mark("metadata")
    model = backend.load(metadata, config, pooling.pooling_type)
    clock.mark("weights")
    try:
        tokenizer = Tokenizer(model.vocabulary, metadata)
        n_threads = config.n_threads or available_cores(physical=True)
        scheduler = Scheduler(
            model,
            name=name,
            options=ContextOptions(
                n_tokens=max(n_ctx, config.max_batch_tokens),
                n_sequences=config.max_batch_requests,
                n_threads=n_threads,
            ),
            max_batch_tokens=config.max_batch_tokens,
            n_contexts=config.n_contexts,
        )
    except BaseException:
        model.close()
        raise
    clock.mark("tokenizer")
    notes = (*pooling.warnings, *limit_warnings, *_kind_warnings(metadata), *model.info.warnings)
    info = ModelInfo(
        name=name,
        reference=reference,
        n_ctx=n_ctx,
        n_threads=n_threads,
        n_special_tokens=tokenizer.n_special,
        pooling_type=pooling.pooling_type,
        pooling_source=pooling.source,
        load_s=clock.phases(),
        warnings=notes,
        config=config,
        normalization=config.normalization,
        n_contexts=config.n_contexts,
        context_bytes=0,
        **_facts_of_the_file(metadata),
        **_facts_of_the_row(resolved.entry),
        **_facts_of_the_backend(model.info),
    )
    for warning in info.warnings:
        log.warning("embellama.model.doubted", model=name, warning=warning)
    log.info("embellama.model.loaded", model=name, load_s=info.load_s["total"])
    return LoadedModel(tokenizer, scheduler, model, info)


class _Clock:
    """Seconds by phase."""

    def __init__(self) -> None:
        self._start = self._last = time.perf_counter()
        self._phases: dict[str, float] = {}

    def mark(self, phase: str) -> None:
        now = time.perf_counter()
        self._phases[phase], self._last = now - self._last, now

    def phases(self) -> dict[str, float]:
        return {**self._phases, "total": self._last - self._start}


def _pooling_for(
    metadata: GGUFMetadata, resolved: ResolvedModel, config: ModelConfig
) -> PoolingDecision:
    entry = resolved.entry
    decision = decide_pooling(
        explicit=config.pooling_type,
        file=metadata.pooling_type,
        catalogue=entry.pooling_type if entry else None,
        architecture=metadata.architecture,
    )
    unusable: dict[PoolingType, str] = {
        "none": "keeps token rows apart; choose mean, cls or last",
        "rank": "scores pairs of texts and makes no vectors; load an embedding model",
    }
    if (why := unusable.get(decision.pooling_type)) is not None:
        raise ConfigurationError(
            f"pooling {decision.pooling_type!r} ({decision.source}) of {str(resolved.path)!r} {why}"
        )
    return decision


def _text_limit(metadata: GGUFMetadata, config: ModelConfig) -> tuple[int, tuple[str, ...]]:
    trained = metadata.n_ctx_train
    n_ctx = config.n_ctx or trained
    if n_ctx <= trained:
        return n_ctx, ()
    if metadata.position_encoding == "absolute":
        raise ConfigurationError(
            f"n_ctx = {n_ctx}, but the model has {trained} positions and no way beyond them; "
            f"set n_ctx to {trained} or less"
        )
    note = f"n_ctx = {n_ctx} is beyond the {trained} positions the model was trained for"
    return n_ctx, (note,)


def _kind_warnings(metadata: GGUFMetadata) -> tuple[str, ...]:
    if metadata.is_embedder:
        return ()
    return (
        f"architecture {metadata.architecture!r} is made to generate text, not for embeddings; "
        "expect weak vectors",
    )


def _facts_of_the_file(metadata: GGUFMetadata) -> dict[str, Any]:
    return {
        "path": metadata.path,
        "architecture": metadata.architecture,
        "file_type": metadata.file_type,
        "tensor_types": metadata.tensor_types,
        "n_ctx_train": metadata.n_ctx_train,
        "n_layer": metadata.n_layer,
        "n_head": metadata.n_head,
        "vocab_kind": metadata.vocab_kind,
        "add_bos": metadata.add_bos,
        "add_eos": metadata.add_eos,
        "add_sep": metadata.add_sep,
        "causal": metadata.causal,
        "size_bytes": metadata.size_bytes,
    }


def _facts_of_the_row(entry: CatalogEntry | None) -> dict[str, Any]:
    return {
        "n_ctx_recommended": entry.n_ctx_recommended if entry else None,
        "prompts": entry.prompts if entry else {},
        "matryoshka_dims": entry.matryoshka_dims if entry else (),
        "license": entry.license if entry else None,
    }


def _facts_of_the_backend(backend: BackendInfo) -> dict[str, Any]:
    return {
        "n_embd": backend.n_embd,
        "n_vocab": backend.n_vocab,
        "device": backend.device,
        "n_layers_offloaded": backend.n_layers_offloaded,
        "n_layers_offloadable": backend.n_layers,
        "weights_bytes": backend.size_bytes,
    }
