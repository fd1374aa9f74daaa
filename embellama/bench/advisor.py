"""File types of a model compared: size, speed and fidelity side by side, and which to take."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil

from embellama.bench.candidates import (
    Candidate,
    Report,
    Source,
    by_precision,
    make_candidates,
)
from embellama.bench.data import BenchData
from embellama.bench.findings import BenchFindings, TypeFindings
from embellama.bench.machine import describe_machine
from embellama.bench.measuring import (
    FULL,
    Contest,
    Effort,
    Embedder,
    measure_latencies,
    measure_speeds,
)
from embellama.bench.probe import Footprint, probe
from embellama.bench.quality import Quality, fidelities, judge
from embellama.bench.recommend import checked_tolerance, recommend
from embellama.bench.texts import long_texts, short_texts
from embellama.config import EngineConfig, ModelConfig
from embellama.engine import EmbeddingEngine
from embellama.errors import ConfigurationError, ModelError, ModelLoadError
from embellama.logs import log
from embellama.memory_estimate import estimate_memory

_TOKEN_BYTES = 3
"""Bytes of UTF-8 that make a token at the least, in ordinary text of any script."""

_SHORT = 1024
_LONG = 128
_OWN = 2048
"""Texts of each kind that there are to measure speed with; most machines take fewer in a round."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchPlan:
    """What to compare.

    Attributes:
        model: Anything `EmbeddingEngine.load_model` takes.
        name: What to call it in the report; the same if not given.
        file_types: Which types.
        data: What vectors are computed of.
        tolerance: What still counts as good; see `checked_tolerance`.
        effort: How much is measured.
        config: Settings of the model.
        engine: Settings of the engine, of which ``cache_path`` and ``offline`` count.
    """

    model: str | Path
    name: str | None = None
    file_types: tuple[str, ...]
    data: BenchData
    tolerance: float | None = None
    effort: Effort = FULL
    config: ModelConfig
    engine: EngineConfig


def backends_of(types: Sequence[TypeFindings]) -> str:
    """Say what computed: once where it was the same for all types, or else with each."""
    by_backend: dict[str, list[str]] = {}
    for one in types:
        by_backend.setdefault(one.backend, []).append(one.file_type)
    if len(by_backend) == 1:
        return next(iter(by_backend))
    return "; ".join(f"{backend}: {', '.join(names)}" for backend, names in by_backend.items())


def silent(what: str, done: int, total: int) -> None:
    """Report to nobody."""


def compare_types(plan: BenchPlan, *, report: Report = silent) -> BenchFindings:
    """Compare the file types of a model on this machine. Blocks for a minute or several.

    All types are in memory together and take turns. One that cannot be made or run is left out
    with the reason.

    Args:
        plan: What to compare.
        report: Told what is being done, how many steps of it are done, and how many there are
            (0: unknown). Called on this thread.

    Raises:
        InvalidInputError: The tolerance is out of range, the model's name is malformed, or a text
            cannot be embedded.
        ConfigurationError: The settings do not fit the machine, the types do not fit into its
            memory together, or the model makes no vectors.
        ModelNotFoundError: There is no such model.
        GGUFFormatError: The file named is no sound GGUF.
        ModelError: None of the types could be measured; the reasons are named.
    """
    judged = plan.data.pairs is not None or plan.data.relevance is not None
    tolerance = checked_tolerance(plan.tolerance, judged=judged)
    with tempfile.TemporaryDirectory(prefix="embellama-bench-") as folder:
        source = Source(Path(folder), plan.engine.cache_path, plan.engine.offline)
        made, failed = make_candidates(plan.model, plan.file_types, source, report)
        _check_memory(made, plan)
        # what is to be loaded is here now, and the network is of no more use
        settings = EngineConfig(cache_path=plan.engine.cache_path, lazy=True, offline=True)
        with EmbeddingEngine(settings) as engine:
            run = _Run(plan, engine, made, failed, report)
            types, n_cut = run.measure()
    if not types:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in failed.items())
        raise ModelError(f"no file type of {str(plan.model)!r} could be measured. {reasons}")
    reference_type = by_precision([one.file_type for one in types])[0]
    log.info("embellama.bench.finished", model=str(plan.model), n_types=len(types))
    return BenchFindings(
        model=plan.name or str(plan.model),
        reference_type=reference_type,
        created=datetime.now(UTC).astimezone().isoformat(timespec="seconds"),
        machine={**describe_machine(), "backend": backends_of(types)},
        n_texts=len(plan.data.texts),
        texts_from=plan.data.texts_from + (f" ({n_cut} cut at the model's limit)" if n_cut else ""),
        tolerance=tolerance,
        types=tuple(sorted(types, key=lambda one: -one.file_bytes)),
        failed=failed,
        recommendations=recommend(types, reference_type, tolerance),
    )


def _check_memory(made: Sequence[Candidate], plan: BenchPlan) -> None:
    """Refuse types that do not fit into memory together: they take turns, and all are there."""
    longest = max(len(text.encode(errors="replace")) for text in plan.data.texts) // _TOKEN_BYTES
    config = _untuned(plan.config)
    estimates = [estimate_memory(one.shape, config, longest_text=longest) for one in made]
    needed = sum(one.total - one.process for one in estimates)
    free = psutil.virtual_memory().available
    if needed > free:
        raise ConfigurationError(
            f"the {len(made)} file types are in memory together, which takes about "
            f"{needed / 1e9:.1f} GB with a text of {longest:,} tokens, and {free / 1e9:.1f} GB are "
            "free; name fewer types, leave long texts out, or set n_ctx to cut them"
        )


class _Run:
    """The types that were made, measured in one engine."""

    def __init__(
        self,
        plan: BenchPlan,
        engine: EmbeddingEngine,
        made: Sequence[Candidate],
        failed: dict[str, str],
        report: Report,
    ) -> None:
        self._plan = plan
        self._engine = engine
        self._embedder = Embedder(engine)
        self._candidates = {one.file_type: one for one in made}
        self._contest = Contest(list(self._candidates), failed)
        self._config = _untuned(plan.config)
        self._report = report

    def measure(self) -> tuple[list[TypeFindings], int]:
        """Return what was found of each type that came to the end, and how many texts were cut."""
        contest, effort, data = self._contest, self._plan.effort, self._plan.data
        contest.each(self._load)
        # before anything that takes long: a text that no model takes shows here
        qualities = self._qualities()
        if not contest.running:
            return [], 0
        n_cut = self._embedder.count_tokens(contest.running[0], data.texts)[1]
        footprints = self._footprints()
        works = {"short": short_texts(_SHORT), "long": long_texts(_LONG)}
        if data.own:
            works["own"] = list(data.texts[:_OWN])
        speeds = measure_speeds(self._embedder, contest, works, effort, self._report)
        singles = works["own" if data.own else "short"]
        latencies = measure_latencies(self._embedder, contest, singles, effort, self._report)
        left = contest.running
        near = fidelities(qualities, by_precision(left)[0], left, data.texts) if left else {}
        return [
            TypeFindings(
                file_type=one,
                reference=self._candidates[one].reference,
                backend=self._engine.get_model_info(one).backend,
                tensor_types=self._candidates[one].tensor_types,
                file_bytes=self._candidates[one].file_bytes,
                rss_bytes=footprints[one].rss_bytes,
                load_s=footprints[one].load_s,
                speed=speeds[one],
                latency=latencies[one],
                fidelity=near[one],
                spearman=qualities[one].spearman,
                ndcg_10=qualities[one].ndcg_10,
            )
            for one in left
        ], n_cut

    def _load(self, file_type: str) -> None:
        model = self._candidates[file_type].model
        try:
            self._engine.load_model(model, name=file_type, config=self._config)
        except ConfigurationError as exc:
            if self._config.backend != "native":
                raise
            raise ModelLoadError(str(exc)) from exc  # others may be of a type that the kernels read

    def _qualities(self) -> dict[str, Quality]:
        types = list(self._contest.running)

        def judged(file_type: str) -> Quality:
            self._report(f"embedding with {file_type}", types.index(file_type), len(types))
            return judge(self._embedder, file_type, self._plan.data)

        return self._contest.each(judged)

    def _footprints(self) -> Mapping[str, Footprint]:
        """Load each type in processes of its own, in turns; medians."""
        what, n_probes = "loading each type in a process of its own", self._plan.effort.n_probes
        found: dict[str, list[Footprint]] = {}
        for turn in range(n_probes):
            self._report(what, turn, n_probes)
            for file_type, footprint in self._contest.each(self._probe, turn=turn).items():
                found.setdefault(file_type, []).append(footprint)
        self._report(what, n_probes, n_probes)
        return {
            name: Footprint(
                int(statistics.median(one.rss_bytes for one in several)),
                statistics.median(one.load_s for one in several),
            )
            for name, several in found.items()
        }

    def _probe(self, file_type: str) -> Footprint:
        model = self._candidates[file_type].model
        return probe(model, config=self._config, engine=self._plan.engine)


def _untuned(config: ModelConfig) -> ModelConfig:
    """Return the settings without a name, and without what a tuning found for one of the types."""
    given = config.model_dump(exclude_unset=True, exclude_none=True)
    kept = {name: value for name, value in given.items() if not name.startswith("model_")}
    return ModelConfig(**{**kept, "tuning": "off"})
