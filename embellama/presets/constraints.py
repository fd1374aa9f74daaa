"""Settings within limits of memory and speed, or the reason why there are none."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path

from embellama._native.memory import expected_shape
from embellama.config import MAX_CONTEXTS, ModelConfig
from embellama.errors import ConfigurationError, DownloadError
from embellama.gguf import GGUFMetadata, read_metadata
from embellama.hub.resolve import resolve_model
from embellama.memory_estimate import (
    ACCURACY,
    MemoryEstimate,
    ModelShape,
    estimate_memory,
)
from embellama.presets.aims import cores_to_use
from embellama.presets.choice import Choice
from embellama.presets.speed import Speed, measure
from embellama.types import Backend, PoolingType

SPEED_MARGIN = 0.25
"""By how much a machine may be slower than it was while it was measured."""

_BATCH_TOKENS = (256, 128, 64, 32)
_TOKENS_A_REQUEST = 4


@dataclass(frozen=True, slots=True)
class Limits:
    """What has to be kept; None where there is no limit.

    Attributes:
        max_memory_bytes: Most resident memory.
        target_texts_per_s: Least texts per second.
        max_latency_s: Most seconds for one text.
        mean_tokens: Tokens of an ordinary text.
    """

    max_memory_bytes: int | None
    target_texts_per_s: float | None
    max_latency_s: float | None
    mean_tokens: int

    def check(self) -> None:
        """Raise ConfigurationError where there is no limit at all, or one is no positive number."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        for name, value in given.items():
            if value is not None and not value > 0:
                raise ConfigurationError(f"{name} = {value!r}; it has to be above 0")
        if all(value is None for name, value in given.items() if name != "mean_tokens"):
            raise ConfigurationError(
                "there is nothing to keep to: give max_memory_bytes, target_texts_per_s or "
                "max_latency_s"
            )

    @property
    def about_speed(self) -> bool:
        """Whether anything has to be measured."""
        return self.target_texts_per_s is not None or self.max_latency_s is not None


def choose(
    model: str | Path,
    limits: Limits,
    *,
    n_ctx: int | None = None,
    n_cores: int | None = None,
    cache_path: Path | None = None,
    backend: Backend | None = None,
) -> Choice:
    """Choose settings that keep to the limits; the fastest of those.

    Raises:
        ConfigurationError: There are none, or the model's file is not on this machine.
    """
    limits.check()
    cores = min(cores_to_use(n_cores), MAX_CONTEXTS)
    metadata = _metadata_of(model, cache_path)
    longest = n_ctx or ModelConfig().n_ctx or metadata.n_ctx_train
    if limits.mean_tokens > min(longest, metadata.n_ctx_train):
        raise ConfigurationError(
            f"mean_tokens = {limits.mean_tokens}, but no text may have more than "
            f"{min(longest, metadata.n_ctx_train)} tokens; lower mean_tokens"
        )
    shape = expected_shape(metadata, ModelConfig(use_gpu=False), _pooling_of(metadata))
    fitting = _within_memory(shape, limits, cores, longest)
    if not limits.about_speed:
        return _explained(fitting[0], shape, limits, longest)
    speeds = _measured(metadata, fitting, limits.mean_tokens, backend)
    chosen = _within_speed(fitting, speeds, limits)
    return _explained(fitting[chosen], shape, limits, longest, speeds[chosen])


def _metadata_of(model: str | Path, cache_path: Path | None) -> GGUFMetadata:
    try:
        return read_metadata(resolve_model(model, cache_path=cache_path, offline=True).path)
    except DownloadError as exc:
        raise ConfigurationError(
            f"{str(model)!r} is not on this machine, so neither its size nor its speed is known; "
            f"fetch it first: `embellama pull {model}`"
        ) from exc


def _pooling_of(metadata: GGUFMetadata) -> PoolingType:
    return metadata.pooling_type or "mean"


def _within_memory(shape: ModelShape, limits: Limits, cores: int, longest: int) -> list[Choice]:
    """List the two ends of what fits into memory: the most contexts, and one with all cores."""
    counts = range(cores, 0, -1)
    most = next((fit for n in counts if (fit := _fitting(shape, limits, cores, n, longest))), None)
    if most is None:
        raise ConfigurationError(_too_little_memory(shape, limits, longest))
    one = _fitting(shape, limits, cores, 1, longest)
    return [most] if one is None or one == most else [most, one]


def _fitting(
    shape: ModelShape, limits: Limits, cores: int, n_contexts: int, longest: int
) -> Choice | None:
    """Return so many contexts with the largest micro-batches that fit; None where none do."""
    for tokens in _BATCH_TOKENS:
        choice = Choice(
            n_threads=max(1, cores // n_contexts),
            n_contexts=n_contexts,
            max_batch_tokens=tokens,
            max_batch_requests=tokens // _TOKENS_A_REQUEST,
        )
        if _fits(_memory(shape, choice, longest), limits):
            return choice
    return None


def _memory(shape: ModelShape, choice: Choice, longest: int) -> MemoryEstimate:
    config = ModelConfig(
        n_ctx=longest,
        n_contexts=choice.n_contexts,
        max_batch_tokens=choice.max_batch_tokens,
        max_batch_requests=choice.max_batch_requests,
    )
    return estimate_memory(shape, config)


def _fits(memory: MemoryEstimate, limits: Limits) -> bool:
    limit = limits.max_memory_bytes
    return limit is None or memory.total * (1 + ACCURACY) <= limit


def _too_little_memory(shape: ModelShape, limits: Limits, longest: int) -> str:
    assert limits.max_memory_bytes is not None
    smallest = Choice(
        n_threads=1,
        n_contexts=1,
        max_batch_tokens=_BATCH_TOKENS[-1],
        max_batch_requests=_BATCH_TOKENS[-1] // _TOKENS_A_REQUEST,
    )
    memory = _memory(shape, smallest, longest)
    needed = int(memory.total * (1 + ACCURACY))
    ways = []
    shorter = _memory(shape, smallest, limits.mean_tokens)
    if longest > limits.mean_tokens and shorter.total < 0.95 * memory.total:
        ways.append(
            f"a lower n_ctx (texts of up to {limits.mean_tokens} tokens instead of {longest} need "
            f"{(memory.total - shorter.total) / 1e6:.0f} MB less)"
        )
    if memory.weights > memory.total // 10:
        smaller = "a smaller file type (Q8_0 takes half of F16)"
        # the native kernels unpack Q8_0 into what they multiply
        ways.append(f"EMBELLAMA_BACKEND=llama and {smaller}" if shape.kernel_memory else smaller)
    ways.append("a smaller model")
    return (
        f"max_memory_bytes = {limits.max_memory_bytes:,}, and the least this model runs with is "
        f"about {needed:,}, {needed - limits.max_memory_bytes:,} more: {memory}, and "
        f"{ACCURACY:.0%} to be safe; what would help: {', or '.join(ways)}"
    )


def _measured(
    metadata: GGUFMetadata, choices: list[Choice], mean_tokens: int, backend: Backend | None
) -> list[Speed]:
    """Load the model, measure it with each of the choices, and free it."""
    if backend is None:
        # imported here so that choosing by memory alone does not load the native library
        from embellama.backends import ChosenBackend  # noqa: PLC0415

        backend = ChosenBackend()
    model = backend.load(metadata, ModelConfig(use_gpu=False), _pooling_of(metadata))
    try:
        return measure(model, metadata, choices, mean_tokens=mean_tokens)
    finally:
        model.close()


def _within_speed(choices: list[Choice], speeds: list[Speed], limits: Limits) -> int:
    """Return the position of the fastest choice that keeps to the limits."""
    target, most = limits.target_texts_per_s or 0.0, limits.max_latency_s or float("inf")
    expected = [_careful(speed) for speed in speeds]
    kept = [
        index
        for index, speed in enumerate(expected)
        if speed.texts_per_s >= target and speed.latency_s <= most
    ]
    if kept:
        return max(kept, key=lambda index: expected[index].texts_per_s)
    problems = []
    if (best := max(speed.texts_per_s for speed in expected)) < target:
        problems.append(
            f"target_texts_per_s = {target:g}, and {best:.0f} texts of {limits.mean_tokens} tokens "
            f"a second are to be expected, {target - best:.0f} too few"
        )
    if (quickest := min(speed.latency_s for speed in expected)) > most:
        problems.append(
            f"max_latency_s = {most:g}, and {quickest:.4f} is to be expected for a text of "
            f"{limits.mean_tokens} tokens, {quickest - most:.4f} too much"
        )
    if not problems:
        problems.append(
            f"target_texts_per_s = {target:g} and max_latency_s = {most:g} cannot both be kept: "
            + "; ".join(
                f"{choice}: {speed.texts_per_s:.0f} texts/s and {speed.latency_s:.4f} s"
                for choice, speed in zip(choices, expected, strict=True)
            )
        )
    raise ConfigurationError(
        f"{'; '.join(problems)} (measured just now, counted {SPEED_MARGIN:.0%} worse); "
        "what would help: more cores or none that other programs use, shorter texts, "
        "a smaller model, a GPU"
    )


def _careful(speed: Speed) -> Speed:
    return Speed(
        texts_per_s=speed.texts_per_s * (1 - SPEED_MARGIN),
        latency_s=speed.latency_s * (1 + SPEED_MARGIN),
    )


def _explained(
    choice: Choice, shape: ModelShape, limits: Limits, longest: int, speed: Speed | None = None
) -> Choice:
    reasons = [f"{choice}: the most texts per second that the limits allow"]
    memory = _memory(shape, choice, longest)
    said = f"memory: about {memory}, with texts of up to {longest} tokens"
    if limits.max_memory_bytes is not None:
        said += f"; {limits.max_memory_bytes / 1e6:.0f} MB are allowed"
    reasons.append(said)
    if speed is not None:
        expected = _careful(speed)
        reasons.append(
            f"speed: {expected.texts_per_s:.0f} texts/s and {expected.latency_s:.4f} s for one of "
            f"{limits.mean_tokens} tokens are to be expected ({speed.texts_per_s:.0f} and "
            f"{speed.latency_s:.4f} measured, {SPEED_MARGIN:.0%} worse to be safe)"
        )
    return replace(choice, rationale=tuple(reasons))
