"""What is counted, as Prometheus reads it. The only importer of prometheus_client.

What a request did is counted when it is answered; what the engine, the queue and the process are
like is read when somebody asks. Counts of a model's micro-batches and cache begin again when it is
loaded again, which Prometheus' ``rate()`` takes into account.

Every label has few values: paths are patterns, models are what the server calls them, codes are
those of `Problem`; nothing that a client makes up is one.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import TypeVar

import psutil
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from embellama.engine import EmbeddingEngine
from embellama.errors import ModelNotFoundError
from embellama.server.exchange import Exchange
from embellama.server.limits import Room
from embellama.server.models import ServedModels

T = TypeVar("T")

MEDIA_TYPE = b"text/plain; version=0.0.4; charset=utf-8"

SECONDS = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)
"""Bounds of all histograms: a cached vector takes less than the first, a time-out is the last."""

OTHER = "other"
"""The method of requests whose method is not one of the path's."""

REJECTED = (429, 503)
"""Statuses of requests that may succeed later."""

_LE = (*map(str, SECONDS), "+Inf")


class _Durations:
    """A histogram. The client library's own takes ten times as long for each duration."""

    __slots__ = ("counts", "total_s")

    def __init__(self) -> None:
        self.counts = [0] * len(_LE)
        self.total_s = 0.0

    def observe(self, duration_s: float) -> None:
        self.counts[bisect_left(SECONDS, duration_s)] += 1
        self.total_s += duration_s

    def buckets(self) -> Iterator[tuple[str, float]]:
        total = 0
        for bound, count in zip(_LE, self.counts, strict=True):
            total += count
            yield bound, total


class _OfModel:
    """What the requests were that a model answered."""

    __slots__ = ("inference_s", "n_texts", "n_tokens", "n_truncated", "queue_s", "tokenize_s")

    def __init__(self) -> None:
        self.n_texts = self.n_tokens = self.n_truncated = 0
        self.queue_s, self.tokenize_s, self.inference_s = _Durations(), _Durations(), _Durations()


class Metrics(Collector):
    """The counts of one server, for its event loop.

    Attributes:
        n_in_flight: Requests under way, those of monitoring aside.
    """

    def __init__(self) -> None:
        self.n_in_flight = 0
        self._registry = CollectorRegistry()
        self._registry.register(self)
        self._answers: Counter[tuple[str, str, str, str]] = Counter()
        self._durations: dict[tuple[str, str], _Durations] = {}
        self._errors: Counter[tuple[str, str]] = Counter()
        self._rejected: Counter[tuple[str, str]] = Counter()
        self._of_model: dict[str, _OfModel] = {}

    def watch(self, engine: EmbeddingEngine, models: ServedModels, room: Room) -> None:
        """Read also what these are like, whenever somebody asks."""
        self._registry.register(_Moment(engine, models, room))

    def answered(
        self, method: str, path: str, status: int, exchange: Exchange, total_s: float
    ) -> None:
        """Count an answer.

        Args:
            method: One of the path's, or `OTHER`.
            path: The pattern of its path.
            status: Its HTTP status.
            exchange: What was noted of the request.
            total_s: How long it took.
        """
        self._answers[method, path, str(status), exchange.model or ""] += 1
        durations = self._durations.get((method, path))
        if durations is None:
            durations = self._durations[method, path] = _Durations()
        durations.observe(total_s)
        if exchange.model is None or status >= 400:
            return
        of_model = self._of_model.get(exchange.model)
        if of_model is None:
            of_model = self._of_model[exchange.model] = _OfModel()
        of_model.n_texts += exchange.n_texts
        of_model.n_tokens += exchange.n_tokens
        of_model.n_truncated += exchange.n_truncated
        if exchange.tokenize_s:
            of_model.tokenize_s.observe(exchange.tokenize_s)
        if exchange.inference_s:  # what was cached did not wait
            of_model.queue_s.observe(exchange.queue_s)
            of_model.inference_s.observe(exchange.inference_s)

    def refused(self, status: int, code: str, model: str | None = None) -> None:
        """Count an error, beside its answer.

        Args:
            status: Of the `Problem`; some APIs answer with another one.
            code: Of the `Problem`.
            model: The model that was asked for, as far as it was known.
        """
        self._errors[code, model or ""] += 1
        if status in REJECTED:
            self._rejected[code, model or ""] += 1

    def page(self) -> bytes:
        """Return all counts in Prometheus' text format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterable[Metric]:
        """Return what was counted, as the client library asks for it."""
        path = ("method", "path")
        yield GaugeMetricFamily(
            "embellama_requests_in_flight",
            "Requests under way, those of monitoring aside.",
            self.n_in_flight,
        )
        answers = self._answers.items()
        yield _counts("requests", "Requests answered.", (*path, "status", "model"), answers)
        yield _histogram(
            "request_duration",
            "From a request's headers to its answer.",
            path,
            self._durations.items(),
        )
        errors, rejected = self._errors.items(), self._rejected.items()
        yield _counts("errors", "Requests answered with an error.", ("code", "model"), errors)
        yield _counts(
            "requests_rejected",
            "Requests told to come later: 429, 503.",
            ("reason", "model"),
            rejected,
        )
        yield from self._by_model()

    def _by_model(self) -> Iterator[Metric]:
        def all_of(attribute: Callable[[_OfModel], T]) -> list[tuple[tuple[str], T]]:
            return [((name,), attribute(found)) for name, found in self._of_model.items()]

        model = ("model",)
        texts, tokens = all_of(lambda of: of.n_texts), all_of(lambda of: of.n_tokens)
        yield _counts("texts", "Texts of answered requests.", model, texts)
        yield _counts("tokens", "Tokens of answered requests.", model, tokens)
        cut = all_of(lambda of: of.n_truncated)
        yield _counts("texts_truncated", "Texts that were cut.", model, cut)
        for name, what, durations in (
            (
                "queue_wait",
                "From a request's admission to its first text's inference.",
                all_of(lambda of: of.queue_s),
            ),
            (
                "tokenization",
                "Tokenization of a request's texts.",
                all_of(lambda of: of.tokenize_s),
            ),
            (
                "inference",
                "Inference of a request's texts, added up over workers.",
                all_of(lambda of: of.inference_s),
            ),
        ):
            yield _histogram(name, what, model, durations)


def _counts(
    name: str,
    what: str,
    labels: Sequence[str],
    counts: Iterable[tuple[Sequence[str], float]],
) -> Metric:
    family = CounterMetricFamily(f"embellama_{name}", what, labels=labels)
    for values, count in counts:
        family.add_metric(values, count)
    return family


def _histogram(
    name: str,
    what: str,
    labels: Sequence[str],
    durations: Iterable[tuple[Sequence[str], _Durations]],
) -> Metric:
    family = HistogramMetricFamily(f"embellama_{name}_seconds", what, labels=labels)
    for values, found in durations:
        family.add_metric(values, list(found.buckets()), found.total_s)
    return family


class _Moment(Collector):
    """What the parts of a server are like at the moment somebody asks."""

    def __init__(self, engine: EmbeddingEngine, models: ServedModels, room: Room) -> None:
        self._engine = engine
        self._models = models
        self._room = room
        self._process = psutil.Process()

    def collect(self) -> Iterable[Metric]:
        yield from self._queue()
        yield from self._loaded()
        yield from self._computed()
        yield from self._of_process()

    def _queue(self) -> Iterator[Metric]:
        room = self._room
        requests, texts = (
            GaugeMetricFamily(
                f"embellama_queue_{what}",
                f"{what.title()} that wait or compute.",
                labels=("model",),
            )
            for what in ("requests", "texts")
        )
        for served in self._models.all():
            n_requests, n_texts = room.of_model(served.name)
            requests.add_metric((served.name,), n_requests)
            texts.add_metric((served.name,), n_texts)
        yield requests
        yield texts
        wait = GaugeMetricFamily(
            "embellama_queue_estimated_wait_seconds",
            "How long a request that comes now would wait.",
            labels=("priority",),
        )
        wait.add_metric(("interactive",), room.wait_s("interactive"))
        wait.add_metric(("bulk",), room.wait_s("bulk"))
        yield wait

    def _loaded(self) -> Iterator[Metric]:
        loaded = GaugeMetricFamily(
            "embellama_model_loaded", "Whether a model is loaded.", labels=("model",)
        )
        memory = GaugeMetricFamily(
            "embellama_model_memory_bytes", "Weights and contexts.", labels=("model",)
        )
        for served in self._models.all():
            name = served.name
            loaded.add_metric((name,), float(self._engine.is_loaded(name)))
            with suppress(ModelNotFoundError):  # it takes none
                memory.add_metric((name,), self._engine.get_model_info(name).memory_bytes)
        yield loaded
        yield memory

    def _computed(self) -> Iterator[Metric]:
        found = self._engine.stats()
        for attribute, name, what in (
            ("n_batches", "microbatches", "Micro-batches computed."),
            ("n_tokens", "microbatch_tokens", "Tokens of micro-batches."),
            ("n_slots", "microbatch_slots", "Tokens that micro-batches had room for."),
            ("computed_s", "microbatch_seconds", "Inference of micro-batches."),
            ("cache_hits", "cache_hits", "Texts whose vectors were in the cache."),
            ("cache_misses", "cache_misses", "Texts whose vectors were not in the cache."),
        ):
            counts = [((model,), getattr(done, attribute)) for model, done in found.items()]
            yield _counts(name, what, ("model",), counts)
        fill = GaugeMetricFamily(
            "embellama_microbatch_fill_ratio",
            "Tokens of micro-batches to their room, since the model was loaded.",
            labels=("model",),
        )
        for model, statistics in found.items():
            if statistics.n_slots:
                fill.add_metric((model,), statistics.n_tokens / statistics.n_slots)
        yield fill

    def _of_process(self) -> Iterator[Metric]:
        """Give what Prometheus' own client libraries call so, on every system."""
        with self._process.oneshot():
            times = self._process.cpu_times()
            yield GaugeMetricFamily(
                "process_resident_memory_bytes",
                "Resident memory size.",
                self._process.memory_info().rss,
            )
            yield CounterMetricFamily(
                "process_cpu_seconds", "User and system CPU time.", times.user + times.system
            )
            yield GaugeMetricFamily(
                "process_start_time_seconds",
                "Start time since the epoch.",
                self._process.create_time(),
            )
