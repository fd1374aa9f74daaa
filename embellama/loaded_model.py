"""A model that can embed, or score pairs: its parts, and what it does."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace

from embellama.layout import CoreShare
from embellama.model_info import ModelInfo
from embellama.request import EmbedOptions, EmbedRequest, resolve_request
from embellama.rerank.cross_encoder import CrossEncoder
from embellama.scheduler import Scheduler
from embellama.statistics import ModelStatistics
from embellama.tokenization import Tokenizer
from embellama.types import BackendModel, ContextOptions, PoolingType
from embellama.worker import Computed

_REMEMBERED = 128
"""Options of earlier calls that are kept checked: checking takes longer than a cached vector.

The last ones of so many, and up to twice as many."""

_REMEMBERED_CHARS = 1000
"""Longest prompt of options that are kept: those of callers may be of any length."""


class LoadedModel:
    """The parts of a model that can embed, or score pairs.

    Attributes:
        tokenizer: Texts to ids.
        cross_encoder: How pairs are scored, if that is what the model does.
        scheduler: Ids to rows.
        statistics: Counts what it does.
        warned_of_prompts: Whether a caller was told that it has prompts.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        cross_encoder: CrossEncoder | None,
        info: ModelInfo,
        backend_model: BackendModel,
        cores: CoreShare,
    ) -> None:
        self.tokenizer = tokenizer
        self.cross_encoder = cross_encoder
        self.statistics = ModelStatistics(info.name)
        self.warned_of_prompts = False
        self._requests: dict[EmbedOptions, EmbedRequest] = {}
        self._older_requests: dict[EmbedOptions, EmbedRequest] = {}
        self._info = info
        self._cores = cores
        self._backend_model = backend_model
        self._making = threading.Lock()
        self.scheduler = self._make_scheduler(info.name, info.pooling_type, cores)
        self._schedulers = [self.scheduler]

    def _make_scheduler(self, name: str, pooling_type: PoolingType, cores: CoreShare) -> Scheduler:
        config, statistics = self._info.config, self.statistics

        def record(computed: Computed) -> None:
            statistics.record_batch(
                n_tokens=computed.n_tokens,
                n_slots=computed.n_slots,
                queue_s=computed.queue_s,
                inference_s=computed.inference_s,
            )

        return Scheduler(
            self._backend_model,
            name=name,
            options=ContextOptions(
                n_tokens=max(self._info.n_ctx, cores.layouts.max_batch_tokens),
                n_sequences=config.max_batch_requests,
                n_threads=self._info.n_threads,
                pooling_type=pooling_type,
            ),
            layouts=cores.layouts,
            side_tokens=cores.side_tokens,
            on_done=record,
        )

    @property
    def token_scheduler(self) -> Scheduler:
        """Ids to the rows of every token; its worker and context are made at its first use."""
        if self._info.pooling_type == "none":
            return self.scheduler
        with self._making:
            if len(self._schedulers) == 1:
                name = f"{self._info.name}-tokens"
                self._schedulers.append(self._make_scheduler(name, "none", self._cores.alone))
            return self._schedulers[1]

    def request_for(self, options: EmbedOptions) -> EmbedRequest:
        """Check options against the model; those of the last calls are kept checked.

        Raises:
            ConfigurationError: See `resolve_request`.
        """
        try:
            known = self._requests.get(options)
        except TypeError:  # an option with a value that cannot be hashed: the check says which
            known = None
        if known is not None:
            return known
        return self._remembered(options)

    def _remembered(self, options: EmbedOptions) -> EmbedRequest:
        """Find what was known before the last ones, or check it; either way it is known now."""
        try:
            request = self._older_requests.get(options)
        except TypeError:
            request = None
        if request is None:
            request = resolve_request(self._info, self.tokenizer, options)
        if len(options.prompt or "") <= _REMEMBERED_CHARS:
            if len(self._requests) >= _REMEMBERED:
                self._older_requests, self._requests = self._requests, {}
            self._requests[options] = request
        return request

    def control_tokens(self, text: str) -> Mapping[str, int]:
        """Return the control tokens that a trusted text spells, and their ids."""
        return self._backend_model.control_tokens(text)

    @property
    def info(self) -> ModelInfo:
        """What it is, with the memory it takes now."""
        return replace(self._info, context_bytes=self._context_bytes)

    @property
    def memory_bytes(self) -> int:
        """Bytes of weights and contexts."""
        return self._info.weights_bytes + self._context_bytes

    @property
    def _context_bytes(self) -> int:
        return sum(scheduler.context_bytes for scheduler in self._schedulers)

    @property
    def facts(self) -> ModelInfo:
        """What does not change while it is loaded; cheap, for the hot path."""
        return self._info

    def close(self) -> None:
        """Stop the workers and free contexts and weights. Blocks until running work is done.

        On a worker's own thread, where a dropped stream may be collected, another thread does it.
        """
        if any(scheduler.runs_this_thread for scheduler in self._schedulers):
            threading.Thread(target=self._close, name="embellama-closing").start()
        else:
            self._close()

    def _close(self) -> None:
        for scheduler in self._schedulers:
            scheduler.close()
        self._backend_model.close()
