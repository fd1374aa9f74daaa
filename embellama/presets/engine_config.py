"""`EngineConfig` as applications use it: the settings, and ways to have them chosen."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import PrivateAttr

from embellama import config
from embellama.presets import aims, constraints
from embellama.presets.choice import Choice

_SHORT_FORM = ("model_path", "model_name", "context_size", "n_threads", "use_gpu")


class EngineConfig(config.EngineConfig):
    """Settings of an engine. The fields are those of `embellama.config.EngineConfig`.

    The class methods choose settings for one model, MiniLM unless another is named. What they
    choose counts as given explicitly: it wins over environment variables and the configuration
    file. What they leave open, such as ``cache_path``, still comes from there. `rationale` says why
    each value was chosen.
    """

    _rationale: tuple[str, ...] = PrivateAttr(default=())

    @property
    def rationale(self) -> tuple[str, ...]:
        """Why each value was chosen, in sentences; empty where nothing was."""
        return self._rationale

    @classmethod
    def high_throughput(
        cls,
        *,
        model: str | Path = "minilm",
        model_name: str | None = None,
        n_ctx: int | None = None,
        use_gpu: bool | Literal["auto"] | None = None,
        n_cores: int | None = None,
    ) -> Self:
        """Choose settings for long batches on a CPU: one pass on every core.

        Args:
            model: Anything `EmbeddingEngine.load_model` takes.
            model_name: The name to call it by.
            n_ctx: Its per-text limit in tokens.
            use_gpu: Whether it runs on a GPU, for which these values are not made.
            n_cores: Cores it may take; all physical ones this process may use if None.
        """
        chosen = aims.high_throughput(n_cores=n_cores)
        return cls._of(chosen, model, model_name, n_ctx, use_gpu)

    @classmethod
    def low_latency(
        cls,
        *,
        model: str | Path = "minilm",
        model_name: str | None = None,
        n_ctx: int | None = None,
        use_gpu: bool | Literal["auto"] | None = None,
        n_cores: int | None = None,
        n_callers: int = 2,
    ) -> Self:
        """Choose settings for single texts: one need not wait until a long one is computed.

        What was queued before it still comes first.

        Args:
            model: Anything `EmbeddingEngine.load_model` takes.
            model_name: The name to call it by.
            n_ctx: Its per-text limit in tokens.
            use_gpu: Whether it runs on a GPU, for which these values are not made.
            n_cores: Cores it may take; all physical ones this process may use if None.
            n_callers: Calls that come at the same time as a rule. For 1, the whole machine
                computes one text at a time.
        """
        chosen = aims.low_latency(n_cores=n_cores, n_callers=n_callers)
        return cls._of(chosen, model, model_name, n_ctx, use_gpu)

    @classmethod
    def low_memory(
        cls,
        *,
        model: str | Path = "minilm",
        model_name: str | None = None,
        n_ctx: int | None = None,
        use_gpu: bool | Literal["auto"] | None = None,
    ) -> Self:
        """Choose settings for the least memory that still computes several texts at a time.

        Args:
            model: Anything `EmbeddingEngine.load_model` takes.
            model_name: The name to call it by.
            n_ctx: Its per-text limit in tokens. A single long text takes as much memory as a
                micro-batch of its length: give what you need and no more.
            use_gpu: Whether it runs on a GPU, for which these values are not made.
        """
        return cls._of(aims.low_memory(), model, model_name, n_ctx, use_gpu)

    @classmethod
    def for_constraints(
        cls,
        *,
        model: str | Path = "minilm",
        max_memory_bytes: int | None = None,
        target_texts_per_s: float | None = None,
        max_latency_s: float | None = None,
        mean_tokens: int = 64,
        model_name: str | None = None,
        n_ctx: int | None = None,
        n_cores: int | None = None,
        cache_path: Path | None = None,
    ) -> Self:
        """Choose settings that keep within limits on this machine's CPU, and say why.

        Memory is estimated from the model's header. Speed is measured with the model itself, in
        about a third of a second beside the time to load it, and counted 25 % worse than measured.
        Blocks meanwhile.

        Args:
            model: A model whose file is on this machine.
            max_memory_bytes: Most resident memory of a process that does nothing else.
            target_texts_per_s: Texts per second, in long batches.
            max_latency_s: Seconds for one text, when a context is free.
            mean_tokens: Tokens of an ordinary text, special tokens included.
            model_name: The name to call it by.
            n_ctx: Tokens of the longest text; the model's own limit if None.
            n_cores: Cores it may take; all physical ones this process may use if None.
            cache_path: Where downloads and conversions are kept, where it is not the usual place.

        Raises:
            ConfigurationError: A limit cannot be kept: it says by how much, and what would help.
                Or the model's file is not here yet, so that its size is not known.
            ModelError: The model cannot be used.
        """
        limits = constraints.Limits(
            max_memory_bytes=max_memory_bytes,
            target_texts_per_s=target_texts_per_s,
            max_latency_s=max_latency_s,
            mean_tokens=mean_tokens,
        )
        chosen = constraints.choose(
            model, limits, n_ctx=n_ctx, n_cores=n_cores, cache_path=cache_path
        )
        return cls._of(chosen, model, model_name, n_ctx, use_gpu=False, cache_path=cache_path)

    @classmethod
    def _of(
        cls,
        chosen: Choice,
        model: str | Path,
        model_name: str | None,
        n_ctx: int | None,
        use_gpu: bool | Literal["auto"] | None,
        cache_path: Path | None = None,
    ) -> Self:
        values: dict[str, Any] = {
            "model_path": model,
            "model_name": model_name,
            "n_ctx": n_ctx,
            "use_gpu": use_gpu,
            "n_threads": chosen.n_threads,
            "n_contexts": chosen.n_contexts,
            "max_batch_tokens": chosen.max_batch_tokens,
            "max_batch_requests": chosen.max_batch_requests,
        }
        # what is not given is left out, so that the environment may say it
        given = {name: value for name, value in values.items() if value is not None}
        settings = config.ModelConfig(**given)
        made = cls(models=(settings,), n_jobs=chosen.n_jobs, cache_path=cache_path)
        # a model that the environment or the file names would be loaded beside the one meant here
        alone = made.model_copy(update=dict.fromkeys(_SHORT_FORM))
        alone._sources = {
            name: value for name, value in made._sources.items() if name not in _SHORT_FORM
        }
        alone._rationale = chosen.rationale
        return alone
