"""From a model's file to a model that can embed: each decision made once, and recorded."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from embellama._native.memory import expected_shape, shape_on
from embellama._native.model import NativeModel
from embellama.config import ModelConfig
from embellama.errors import ConfigurationError, ModelLoadError, ModelNotFoundError
from embellama.gguf import GGUFMetadata, read_metadata
from embellama.hub.catalog import CatalogEntry
from embellama.hub.resolve import ResolvedModel
from embellama.identity import ContentDigests, file_state, model_fingerprint
from embellama.layout import CoreShare, share_cores, threads_for
from embellama.loaded_model import LoadedModel
from embellama.logs import log
from embellama.model_info import ModelInfo
from embellama.pooling import PoolingDecision, decide_pooling
from embellama.rerank.cross_encoder import cross_encoder_for
from embellama.tokenization import Tokenizer
from embellama.tuning import Tuning, build_for, stored_tuning
from embellama.types import Backend, BackendInfo, Layouts, PoolingType


def open_model(
    resolved: ResolvedModel,
    *,
    name: str,
    config: ModelConfig,
    backend: Backend,
    reference: str,
    digests: ContentDigests,
    tuning: Tuning | None = None,
) -> LoadedModel:
    """Load a model file and make it ready to embed. Its content is digested meanwhile.

    ``tuning`` is what `find_tuning` found for it.

    Raises:
        ConfigurationError: The settings do not fit the model or the machine.
        GGUFFormatError, ModelNotFoundError, ModelLoadError: The file cannot be used.
    """
    clock = _Clock()
    before = _states(resolved)
    metadata = read_metadata(resolved.path)
    pooling = pooling_for(metadata, resolved.entry, config)
    config = with_exact_scores(_tuned(config, tuning), metadata, pooling.pooling_type)
    n_ctx, limit_warnings = _text_limit(metadata, config)
    clock.mark("metadata")
    content = _digested(metadata, digests)
    model = backend.load(metadata, config, pooling.pooling_type)
    clock.mark("weights")
    try:
        fingerprint = model_fingerprint(
            metadata,
            content.result(),
            pooling.pooling_type,
            fused_attention=config.flash_attn is not False,
        )
        _check_unchanged(resolved, before)
        tokenizer = Tokenizer(model.vocabulary, metadata)
        is_reranker = pooling.pooling_type == "rank"
        cross_encoder = (
            cross_encoder_for(metadata, tokenizer, model.control_tokens) if is_reranker else None
        )
        clock.mark("tokenizer")
        kernel = model.kernel if isinstance(model, NativeModel) else None
        cores = share_cores(
            config,
            shape_on(metadata, kernel),
            tuned=_layouts_on(tuning, model.info.device),
            on_gpu=model.info.n_layers_offloaded > 0,
        )
        info = ModelInfo(
            name=name,
            reference=reference,
            fingerprint=fingerprint,
            n_ctx=n_ctx,
            n_special_tokens=tokenizer.n_special,
            pooling_type=pooling.pooling_type,
            pooling_source=pooling.source,
            load_s=clock.phases(),
            warnings=(
                *(*pooling.warnings, *limit_warnings, *_kind_warnings(metadata)),
                *(cross_encoder.warnings if cross_encoder is not None else ()),
                *model.info.warnings,
            ),
            config=config,
            normalization=config.normalization,
            context_bytes=0,
            **_facts_of_the_cores(cores),
            **_facts_of_the_file(metadata),
            **_facts_of_the_row(resolved.entry, config),
            **_facts_of_the_backend(model.info),
        )
        loaded = LoadedModel(tokenizer, cross_encoder, info, model, cores)
    except BaseException:
        model.close()
        raise
    for warning in info.warnings:
        log.warning("embellama.model.doubted", model=name, warning=warning)
    log.info("embellama.model.loaded", model=name, load_s=info.load_s["total"])
    return loaded


_EXACT_SCORES_TO = 1024
"""Positions up to which a cross-encoder's attention is exact: beyond, it takes too much memory."""


def with_exact_scores(
    config: ModelConfig, metadata: GGUFMetadata, pooling_type: PoolingType
) -> ModelConfig:
    """Leave fused attention out where its rounding shows: in a score that is not normalised.

    The logits of the tests' cross-encoders are 3e-4 off with it, and 3e-5 without.
    """
    scores_pairs = pooling_type == "rank" and metadata.n_ctx_train <= _EXACT_SCORES_TO
    if scores_pairs and config.flash_attn == "auto":
        return config.model_copy(update={"flash_attn": False})
    return config


def expected_bytes(resolved: ResolvedModel, config: ModelConfig) -> int:
    """Tell what a model's weights will take in memory, before it is loaded.

    Raises:
        ConfigurationError: See `find_kernel`.
        GGUFFormatError, ModelNotFoundError: The file cannot be used.
    """
    # imported here so that `import embellama` does not load the native library
    from embellama.backends import has_gpu  # noqa: PLC0415

    if config.backend == "llama" or (config.backend == "auto" and has_gpu(config)):
        return resolved.size_bytes
    metadata = read_metadata(resolved.path)
    pooling = pooling_for(metadata, resolved.entry, config)
    shape = expected_shape(metadata, config, pooling.pooling_type)
    return resolved.size_bytes if shape.kernel_memory is None else shape.weights_bytes


def find_tuning(
    resolved: ResolvedModel,
    config: ModelConfig,
    *,
    backend: Backend,
    digests: ContentDigests,
    folder: Path,
) -> Tuning | None:
    """Return what was found for a model on this machine. Nothing is measured.

    Args:
        resolved: The model's file.
        config: Its settings.
        backend: What will run it.
        digests: Of files' content.
        folder: Where tunings are kept.

    Raises:
        ModelLoadError: The file cannot be read.
    """
    if config.tuning == "off" or not any(folder.glob("*.json")):
        return None
    return stored_tuning(
        folder,
        n_cores=threads_for(config),
        build=build_for(backend.build, config),
        content=[digests.digest(path) for path in resolved.paths],
    )


def _tuned(config: ModelConfig, tuning: Tuning | None) -> ModelConfig:
    """Take the attention that the user let tuning choose, where the settings leave it open."""
    if tuning is None or config.flash_attn != "auto":
        return config
    return config.model_copy(update={"flash_attn": tuning.flash_attn})


def _layouts_on(tuning: Tuning | None, device: str) -> Layouts | None:
    return tuning.layouts if tuning is not None and tuning.device == device else None


def _digested(metadata: GGUFMetadata, digests: ContentDigests) -> Future[list[str]]:
    """Digest all parts of a file on a thread of its own.

    Not on an executor's: freeing one runs Python code in a place where Ctrl-C would be lost.
    """
    content: Future[list[str]] = Future()

    def read() -> None:
        try:
            content.set_result([digests.digest(path) for path in metadata.paths])
        except BaseException as exc:  # noqa: BLE001  # whatever it is, the load waits for it
            content.set_exception(exc)

    threading.Thread(target=read, name="embellama-digest", daemon=True).start()
    return content


def _states(resolved: ResolvedModel) -> list[str]:
    try:
        return [file_state(path) for path in resolved.paths]
    except OSError as exc:
        raise ModelNotFoundError(
            f"{str(resolved.path)!r} cannot be read ({exc.strerror or exc}); check the path and "
            "its rights"
        ) from exc


def _check_unchanged(resolved: ResolvedModel, before: list[str]) -> None:
    """Raise ModelLoadError if the weights in memory may not be those that were digested."""
    if _states(resolved) != before:
        raise ModelLoadError(
            f"{str(resolved.path)!r} changed while it was loaded; load it again when it is complete"
        )


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


def pooling_for(
    metadata: GGUFMetadata, entry: CatalogEntry | None, config: ModelConfig
) -> PoolingDecision:
    """Decide how token rows become one vector; ``entry`` is the model's row of the catalogue."""
    return decide_pooling(
        explicit=config.pooling_type,
        file=metadata.pooling_type,
        catalogue=entry.pooling_type if entry else None,
        architecture=metadata.architecture,
    )


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
    if metadata.architecture == "t5encoder":
        return (
            "if this is sentence-t5, its last layer (a Dense module) is not in the file, for "
            "llama.cpp has none for T5: vectors differ from the published ones, and come into "
            "their space only when that layer's matrix is applied to them",
        )
    if metadata.is_embedder:
        return ()
    return (
        f"architecture {metadata.architecture!r} is made to generate text, not for embeddings; "
        "expect weak vectors",
    )


def _facts_of_the_cores(cores: CoreShare) -> dict[str, Any]:
    return {
        "n_threads": cores.layouts.single.n_threads,
        "n_contexts": cores.layouts.n_contexts,
        "layouts": cores.layouts,
        "layouts_from": cores.source,
    }


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


def _facts_of_the_row(entry: CatalogEntry | None, config: ModelConfig) -> dict[str, Any]:
    return {
        "n_ctx_recommended": entry.n_ctx_recommended if entry else None,
        "prompts": {**(entry.prompts if entry else {}), **(config.prompts or {})},
        "matryoshka_dims": config.matryoshka_dims or (entry.matryoshka_dims if entry else ()),
        "license": entry.license if entry else None,
    }


def _facts_of_the_backend(backend: BackendInfo) -> dict[str, Any]:
    return {
        "n_embd": backend.n_embd,
        "n_vocab": backend.n_vocab,
        "backend": backend.backend,
        "device": backend.device,
        "n_layers_offloaded": backend.n_layers_offloaded,
        "n_layers_offloadable": backend.n_layers,
        "weights_bytes": backend.size_bytes,
    }
