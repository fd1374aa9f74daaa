"""The fastest settings of a model on this machine: measured, told, and kept for later loads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import psutil

from embellama._native.memory import expected_shape
from embellama.bench.tune_findings import TuneFindings
from embellama.bench.tune_layouts import candidate_layouts
from embellama.bench.tune_search import Found, Search, VariantFindings
from embellama.bench.tune_speed import SpeedMeter, Texts
from embellama.bench.tune_variants import MEMORY_SHARE, TYPES, Variants
from embellama.config import ModelConfig
from embellama.cpu import describe_cpu
from embellama.errors import ConfigurationError
from embellama.gguf import GGUFMetadata, read_metadata
from embellama.hub.resolve import ResolvedModel, resolve_model
from embellama.hub.store import cache_directory, storing_in, work_directory
from embellama.identity import ContentDigests
from embellama.layout import threads_for
from embellama.loading import pooling_for, with_exact_scores
from embellama.logs import log
from embellama.memory_estimate import estimate_memory
from embellama.tuning import (
    FOLDER,
    WORKS,
    Tuning,
    build_for,
    default_layouts,
    tuning_key,
    write_tuning,
)
from embellama.types import Backend, Layout, Layouts

MIN_BUDGET_S, MAX_BUDGET_S = 1.0, 86_400.0

BUSY_PERCENT = 25.0
"""Load by others from which a figure is doubtful."""


@dataclass(frozen=True, slots=True)
class TuneOptions:
    """What a search may spend and keep.

    Attributes:
        budget_s: Seconds of measuring, 1 to 86,400; other file types are made on top of it.
        allow_types: Whether another file type or attention, which change the vectors, may be kept.
        least_cosine: Worst cosine to the model's own vectors that these may have then.
    """

    budget_s: float = 60.0
    allow_types: bool = False
    least_cosine: float = 0.999

    def check(self) -> None:
        """Raise ConfigurationError where a value is out of range."""
        if not MIN_BUDGET_S <= self.budget_s <= MAX_BUDGET_S:
            raise ConfigurationError(
                f"budget_s = {self.budget_s:g}; it has to be {MIN_BUDGET_S:g} to "
                f"{MAX_BUDGET_S:,.0f} seconds"
            )
        if not -1 <= self.least_cosine <= 1:
            raise ConfigurationError(
                f"least_cosine = {self.least_cosine:g}; a cosine is between -1 and 1"
            )


@dataclass(frozen=True, slots=True)
class Place:
    """Where models and tunings are kept.

    Attributes:
        cache_path: The cache directory, where it is not the usual one.
        offline: Use only what is stored.
    """

    cache_path: Path | None = None
    offline: bool = False


def tune_model(
    resolved: ResolvedModel,
    config: ModelConfig,
    options: TuneOptions,
    *,
    backend: Backend,
    place: Place,
    on_step: Callable[[str], None] = lambda _: None,
) -> TuneFindings:
    """Find the fastest settings of a model on this machine, and keep them for later loads.

    Blocks for the budget, and for making and loading other file types on top of it.

    Args:
        resolved: The model's file.
        config: Its settings; ``n_threads`` are the cores to share out.
        options: What may be spent and kept.
        backend: What runs it.
        place: Where models and tunings are kept.
        on_step: Told what is being done.

    Raises:
        ConfigurationError: An option is out of range.
        ModelError: The model cannot be loaded, or what was found cannot be kept.
        EmbeddingGenerationError: The model does not run with its default settings.
    """
    options.check()
    _refuse_what_loads_overrule(config)
    _warn_if_busy(on_step)
    cache = cache_directory(place.cache_path)
    metadata = read_metadata(resolved.path)
    takeable = takeable_types(resolved)
    n_cores = threads_for(config)
    with storing_in(cache), work_directory(cache) as folder:
        variants = _variants(metadata, resolved, config, backend, folder)
        try:
            found = _search(variants, metadata, config, options, takeable, n_cores, on_step)
            tuning = _tuning_of(found, variants)
            ran_on = variants.model(found.variant).info.backend
        finally:
            variants.close()
    build = build_for(backend.build, config)
    path = _keep(resolved, tuning, place, (describe_cpu(n_cores), build), on_step)
    log.info("embellama.model.tuned", model=resolved.name, spent_s=found.spent_s)
    return TuneFindings(
        model=resolved.name,
        file_type=metadata.file_type,
        cpu=describe_cpu(n_cores),
        build=build,
        backend=ran_on,
        found=found,
        tuning=tuning,
        path=path,
        takeable=takeable,
    )


def _refuse_what_loads_overrule(config: ModelConfig) -> None:
    """Raise ConfigurationError where a load with the same settings would not take what is found."""
    values = {"n_contexts": None, "max_batch_tokens": 256, "tuning": "auto"}
    for name, usual in values.items():
        source = config.sources[name]
        if source != "default" and getattr(config, name) != usual:
            raise ConfigurationError(
                f"{name} = {getattr(config, name)!r} ({source}) goes before anything that is "
                "tuned; leave it unset to tune, and when the model is loaded"
            )


def _warn_if_busy(on_step: Callable[[str], None]) -> None:
    busy = psutil.cpu_percent(interval=0.2)
    if busy > BUSY_PERCENT:
        on_step(
            f"warning: other programs keep the CPU {busy:.0f} % busy; what is found now may not "
            "hold when they are done"
        )


def takeable_types(resolved: ResolvedModel) -> tuple[str, ...]:
    """List the file types that a load can get instead: those of a model of the catalogue."""
    if resolved.entry is None:
        return ()
    return TYPES if resolved.entry.convertible else tuple(resolved.entry.gguf_file_types)


def _variants(
    metadata: GGUFMetadata,
    resolved: ResolvedModel,
    config: ModelConfig,
    backend: Backend,
    folder: Path,
) -> Variants:
    pooling = pooling_for(metadata, resolved.entry, config)
    config = with_exact_scores(config, metadata, pooling.pooling_type)
    return Variants(metadata, config, pooling.pooling_type, backend=backend, folder=folder)


def _search(
    variants: Variants,
    metadata: GGUFMetadata,
    config: ModelConfig,
    options: TuneOptions,
    takeable: tuple[str, ...],
    n_cores: int,
    on_step: Callable[[str], None],
) -> Found:
    """Prepare what is measured, and measure it."""
    on_step(f"loading {metadata.path.name}")
    trained = metadata.n_ctx_train
    texts = Texts(
        n_vocab=variants.model(variants.own).info.n_vocab,
        limit=min(config.n_ctx or trained, trained),
        max_batch_requests=config.max_batch_requests,
    )
    on_step("making other file types, to see how fast they would be")
    others, missing = variants.ready(variants.others())
    defaults = default_layouts(n_cores, config.max_batch_tokens)
    fits = _memory_check(metadata, config, texts)
    layouts = {
        work: candidate_layouts(
            work,
            getattr(defaults, work),
            texts,
            n_cores=n_cores,
            fits=fits,
        )
        for work in WORKS
    }
    room = int(MEMORY_SHARE * psutil.virtual_memory().available)
    meter = SpeedMeter(variants.model, texts, allowed_bytes=room)

    def may_take(one: VariantFindings) -> bool:
        known = one.variant.file_type is None or one.variant.file_type in takeable
        near = one.least_cosine is not None and one.least_cosine >= options.least_cosine
        return options.allow_types and known and near

    search = Search(
        layouts,
        variants.own,
        meter.measure,
        budget_s=options.budget_s,
        on_step=on_step,
        after_race=meter.close,
    )
    try:
        return search.run(
            others, missing=missing, least_cosine=variants.least_cosine, may_take=may_take
        )
    finally:
        meter.close()


def _memory_check(
    metadata: GGUFMetadata, config: ModelConfig, texts: Texts
) -> Callable[[Layout], bool]:
    """Return what tells whether the buffers of a layout fit well into the memory that is free."""
    shape = expected_shape(metadata, config, metadata.pooling_type or "mean")
    longest = max(texts.lengths("long"))
    room = MEMORY_SHARE * psutil.virtual_memory().available

    def fits(layout: Layout) -> bool:
        sizes = {"n_contexts": layout.n_contexts, "max_batch_tokens": layout.max_batch_tokens}
        memory = estimate_memory(shape, config.model_copy(update=sizes), longest_text=longest)
        return bool(memory.outputs + memory.buffers <= room)

    return fits


def _tuning_of(found: Found, variants: Variants) -> Tuning:
    attention = found.variant.flash_attn
    return Tuning(
        layouts=Layouts(**{work: found.works[work].best for work in WORKS}),
        flash_attn=attention if attention != variants.own.flash_attn else "auto",
        file_type=found.variant.file_type,
        device=variants.model(variants.own).info.device,
        measured={work: found.works[work].measured for work in WORKS},
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _keep(
    resolved: ResolvedModel,
    tuning: Tuning,
    place: Place,
    machine: tuple[str, str],
    on_step: Callable[[str], None],
) -> Path:
    """Write the tuning under the model's key, and under that of the file that replaces it."""
    cache = cache_directory(place.cache_path)
    files = [(resolved, tuning)]
    if tuning.file_type is not None and resolved.entry is not None:
        other = resolve_model(
            f"{resolved.entry.name}:{tuning.file_type}",
            cache_path=place.cache_path,
            offline=place.offline,
            progress=on_step,
        )
        files.insert(0, (other, replace(tuning, file_type=None)))
    digests = ContentDigests(cache / "digests")
    with storing_in(cache):
        for file, kept in files:
            key = tuning_key(*machine, *[digests.digest(part) for part in file.paths])
            path = write_tuning(cache / FOLDER, key, kept)
    return path
