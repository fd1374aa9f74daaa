"""One vector a text: the verbs of the engine that most programs need, and their options."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Generator, Iterable, Sequence
from contextvars import ContextVar
from typing import Any

from numpy.typing import NDArray

from embellama.cache import EmbeddingCache
from embellama.cache.flight import Flights
from embellama.calls import Call
from embellama.config import EngineConfig
from embellama.embedding import Embedded, detailed, embed_many, embed_one
from embellama.errors import EmbellamaWarning
from embellama.host import ModelHost
from embellama.inputs import check_input, check_inputs, check_not_one_text
from embellama.loaded_model import LoadedModel
from embellama.lookup import CacheAccess
from embellama.precision.calibration import Calibration
from embellama.progress import reporting
from embellama.request import (
    EmbedOptions,
    EmbedRequest,
    check_choices,
    check_makes_vectors,
    missing_prompt,
    unknown_prompt,
)
from embellama.results import EmbeddingResult
from embellama.streaming import embed_iterable
from embellama.types import (
    Backend,
    IntArray,
    Kind,
    Normalization,
    Overflow,
    Precision,
    Priority,
    TruncateSide,
    VectorCache,
)

OnProgress = bool | Callable[[int, int], None]
Input = str | Sequence[int] | IntArray
"""A text, or the token ids of one, special tokens included."""


CALLED_FROM: ContextVar[tuple[str, int] | None] = ContextVar("embellama_called_from", default=None)
"""The `caller_site` of an awaited verb, which runs on a thread where its caller cannot be seen."""


class TextVerbs(ModelHost):
    """The part of an engine that makes one vector of each text."""

    def __init__(
        self,
        config: EngineConfig | None = None,
        *,
        backend: Backend | None = None,
        cache: VectorCache | None = None,
    ) -> None:
        self._cache = cache
        # engines that share a cache compute a text once between them
        self._flights = cache.flights if isinstance(cache, EmbeddingCache) else Flights()
        super().__init__(config, backend)

    def embed(
        self,
        model: str | None,
        text: Input,
        *,
        kind: Kind | None = None,
        prompt: str | None = None,
        prompt_name: str | None = None,
        overflow: Overflow = "error",
        truncate_side: TruncateSide = "right",
        max_tokens: int | None = None,
        window_overlap: int | None = None,
        normalization: Normalization | None = None,
        dimensions: int | None = None,
        force_dimensions: bool = False,
        precision: Precision = "float32",
        calibration: Calibration | None = None,
        priority: Priority = "interactive",
        timeout_s: float | None = None,
    ) -> NDArray[Any]:
        """Embed one text. Blocks until it is done.

        Args:
            model: A loaded model's name; None means the only or the default one.
            text: The text, or its token ids. Special tokens written inside a text are text.
            kind: Its role, ``"query"`` or ``"document"``, which chooses the prompt.
            prompt: What to put in front instead.
            prompt_name: Which of the model's prompts to put in front instead.
            overflow: What happens to a text over the limit: ``"error"`` refuses it, ``"truncate"``
                cuts it, ``"window"`` averages overlapping windows.
            truncate_side: Which end a cut takes away.
            max_tokens: A lower limit than the model's.
            window_overlap: Tokens that neighbouring windows share.
            normalization: Other than the model's configuration says.
            dimensions: Cut the vector to its first components and normalise again.
            force_dimensions: Also where the model was not trained for that.
            precision: The type of the components.
            calibration: Their ranges, for ``"int8"`` and ``"uint8"``.
            priority: ``"interactive"`` goes ahead of ``"bulk"``, which still gets its turns.
            timeout_s: Seconds after which the answer is of no use.

        Returns:
            float32 (n_embd,), of length 1 unless told otherwise; of ``dimensions`` components in
            ``precision`` where those are given.

        Raises:
            ModelNotFoundError: Nothing of this name is loaded.
            ConfigurationError: An option has no such value, or the model cannot do it.
            InvalidInputError: The text is no str, empty, too long, or not valid Unicode.
            EmbeddingGenerationError: Inference failed.
            EmbeddingTimeoutError: It was not done within ``timeout_s``.
            OverloadedError: More calls are waiting than the engine is configured for.
        """
        options = EmbedOptions(
            kind=kind,
            prompt=prompt,
            prompt_name=prompt_name,
            overflow=overflow,
            truncate_side=truncate_side,
            max_tokens=max_tokens,
            window_overlap=window_overlap,
            normalization=normalization,
            dimensions=dimensions,
            force_dimensions=force_dimensions,
            precision=precision,
            calibration=calibration,
        )
        return self._embed(model, text, options, Call(priority, timeout_s))

    def embed_query(
        self,
        model: str | None,
        text: str,
        *,
        overflow: Overflow = "error",
        max_tokens: int | None = None,
        dimensions: int | None = None,
        force_dimensions: bool = False,
        precision: Precision = "float32",
        calibration: Calibration | None = None,
        priority: Priority = "interactive",
        timeout_s: float | None = None,
    ) -> NDArray[Any]:
        """Embed what is searched for: `embed` with ``kind="query"``."""
        return self.embed(
            model,
            text,
            kind="query",
            overflow=overflow,
            max_tokens=max_tokens,
            dimensions=dimensions,
            force_dimensions=force_dimensions,
            precision=precision,
            calibration=calibration,
            priority=priority,
            timeout_s=timeout_s,
        )

    def embed_documents(
        self,
        model: str | None,
        texts: Sequence[str],
        *,
        progress: OnProgress = False,
        overflow: Overflow = "error",
        max_tokens: int | None = None,
        dimensions: int | None = None,
        force_dimensions: bool = False,
        precision: Precision = "float32",
        calibration: Calibration | None = None,
        priority: Priority = "bulk",
        timeout_s: float | None = None,
    ) -> NDArray[Any]:
        """Embed what is searched in: `embed_batch` with ``kind="document"``."""
        return self.embed_batch(
            model,
            texts,
            progress=progress,
            kind="document",
            overflow=overflow,
            max_tokens=max_tokens,
            dimensions=dimensions,
            force_dimensions=force_dimensions,
            precision=precision,
            calibration=calibration,
            priority=priority,
            timeout_s=timeout_s,
        )

    def embed_batch(
        self,
        model: str | None,
        texts: Sequence[Input],
        *,
        progress: OnProgress = False,
        kind: Kind | None = None,
        prompt: str | None = None,
        prompt_name: str | None = None,
        overflow: Overflow = "error",
        truncate_side: TruncateSide = "right",
        max_tokens: int | None = None,
        window_overlap: int | None = None,
        normalization: Normalization | None = None,
        dimensions: int | None = None,
        force_dimensions: bool = False,
        precision: Precision = "float32",
        calibration: Calibration | None = None,
        priority: Priority = "bulk",
        timeout_s: float | None = None,
    ) -> NDArray[Any]:
        """Embed many texts. Blocks until they are done; Ctrl-C ends it within a micro-batch.

        A text that is repeated is computed once. ``progress=True`` shows a bar on standard error; a
        callable is told (done, total) on this thread after each micro-batch. All other arguments
        are those of `embed`.

        Returns:
            float32 (n_texts, n_embd), C-contiguous, in the order of the texts; (0, n_embd) for
            none. Of ``dimensions`` columns in ``precision`` where those are given; binary ones are
            packed, eight components in a byte.

        Raises:
            ModelNotFoundError: Nothing of this name is loaded.
            ConfigurationError: An option has no such value, or the model cannot do it.
            InvalidInputError: Before any inference, naming every offending text.
            BatchError: Inference failed for some texts, which it names.
        """
        options = EmbedOptions(
            kind=kind,
            prompt=prompt,
            prompt_name=prompt_name,
            overflow=overflow,
            truncate_side=truncate_side,
            max_tokens=max_tokens,
            window_overlap=window_overlap,
            normalization=normalization,
            dimensions=dimensions,
            force_dimensions=force_dimensions,
            precision=precision,
            calibration=calibration,
        )
        return self._embed_batch(model, texts, options, Call(priority, timeout_s), progress)

    def embed_detailed(
        self,
        model: str | None,
        texts: Sequence[Input],
        *,
        progress: OnProgress = False,
        kind: Kind | None = None,
        prompt: str | None = None,
        prompt_name: str | None = None,
        overflow: Overflow = "error",
        truncate_side: TruncateSide = "right",
        max_tokens: int | None = None,
        window_overlap: int | None = None,
        normalization: Normalization | None = None,
        dimensions: int | None = None,
        force_dimensions: bool = False,
        precision: Precision = "float32",
        calibration: Calibration | None = None,
        priority: Priority = "bulk",
        timeout_s: float | None = None,
    ) -> EmbeddingResult:
        """Embed many texts as `embed_batch` does, and say what became of each.

        Returns:
            The vectors, and for each text its tokens, cuts and windows; for the call its usage, the
            fingerprint of what made the vectors, and where the time went.
        """
        options = EmbedOptions(
            kind=kind,
            prompt=prompt,
            prompt_name=prompt_name,
            overflow=overflow,
            truncate_side=truncate_side,
            max_tokens=max_tokens,
            window_overlap=window_overlap,
            normalization=normalization,
            dimensions=dimensions,
            force_dimensions=force_dimensions,
            precision=precision,
            calibration=calibration,
        )
        return self._embed_detailed(model, texts, options, Call(priority, timeout_s), progress)

    def embed_stream(
        self,
        model: str | None,
        texts: Iterable[Input],
        *,
        kind: Kind | None = None,
        prompt: str | None = None,
        prompt_name: str | None = None,
        overflow: Overflow = "error",
        truncate_side: TruncateSide = "right",
        max_tokens: int | None = None,
        window_overlap: int | None = None,
        normalization: Normalization | None = None,
        dimensions: int | None = None,
        force_dimensions: bool = False,
        precision: Precision = "float32",
        calibration: Calibration | None = None,
        priority: Priority = "bulk",
    ) -> Generator[NDArray[Any], None, None]:
        """Embed texts as they come, in bounded memory. The arguments are those of `embed`.

        The texts may be any iterable, also an endless one. It is read ahead, at first by up to 192
        texts and later by up to 1,024.

        The model is held from the first vector to the last, or until the iterator is closed: close
        one that you leave early and keep, or unloading will wait for it.

        Returns:
            An iterator of vectors as `embed` returns them, one for each text, in order.

        Raises:
            InvalidInputError: A window of texts has offending ones; all of them are named by
                their position in the stream, after the vectors of the windows before.
        """
        options = EmbedOptions(
            kind=kind,
            prompt=prompt,
            prompt_name=prompt_name,
            overflow=overflow,
            truncate_side=truncate_side,
            max_tokens=max_tokens,
            window_overlap=window_overlap,
            normalization=normalization,
            dimensions=dimensions,
            force_dimensions=force_dimensions,
            precision=precision,
            calibration=calibration,
        )
        check_choices(options)
        check_not_one_text(texts)
        self._check_usable()
        return self._stream(model, texts, options, Call(priority))

    # ── inside ──────────────────────────────────────────────────────────────────────────────

    def _requested(
        self, loaded: LoadedModel, options: EmbedOptions, *, pooled: bool = True
    ) -> EmbedRequest:
        """Check options against the model; warn once where its prompts are left out."""
        check_makes_vectors(loaded.facts, pooled=pooled)
        request = loaded.request_for(options)
        doubtful = request.prompt_is_missing or request.prompt_is_unknown
        if doubtful and not loaded.warned_of_prompts:
            loaded.warned_of_prompts = True
            say = missing_prompt if request.prompt_is_missing else unknown_prompt
            path, line = CALLED_FROM.get() or caller_site()
            warnings.warn_explicit(say(loaded.facts), EmbellamaWarning, path, line)
        return request

    @property
    def cache(self) -> VectorCache | None:
        """Where vectors are kept and looked up."""
        return self._cache

    def _access(self, loaded: LoadedModel, request: EmbedRequest) -> CacheAccess | None:
        if self._cache is None:
            return None
        return CacheAccess(
            self._cache,
            self._flights,
            model_fingerprint=loaded.facts.fingerprint,
            request=request,
            n_embd=loaded.facts.n_embd,
        )

    def _embed(
        self,
        model: str | None,
        text: Input,
        options: EmbedOptions,
        call: Call,
        *,
        is_admitted: bool = False,
    ) -> NDArray[Any]:
        with self._lease(model, is_admitted=is_admitted) as lease:
            loaded = lease.model
            item = check_input(text, n_vocab=loaded.facts.n_vocab)
            request = self._requested(loaded, options)
            access = self._access(loaded, request)
            vector: NDArray[Any] = embed_one(
                loaded, item, request, call=call, cache=access
            ).vectors[0]
            return vector

    def _embed_batch(
        self,
        model: str | None,
        texts: Sequence[Input],
        options: EmbedOptions,
        call: Call,
        progress: OnProgress = False,
        *,
        is_admitted: bool = False,
    ) -> NDArray[Any]:
        with self._use(model, is_admitted=is_admitted) as loaded:
            request = self._requested(loaded, options)
            return self._embed_many(loaded, texts, request, call, progress).vectors

    def _embed_detailed(
        self,
        model: str | None,
        texts: Sequence[Input],
        options: EmbedOptions,
        call: Call,
        progress: OnProgress = False,
        *,
        is_admitted: bool = False,
    ) -> EmbeddingResult:
        with self._use(model, is_admitted=is_admitted) as loaded:
            request = self._requested(loaded, options)
            done = self._embed_many(loaded, texts, request, call, progress)
            return detailed(loaded, request, done, call)

    def _embed_many(
        self,
        loaded: LoadedModel,
        texts: object,
        request: EmbedRequest,
        call: Call,
        progress: OnProgress,
    ) -> Embedded:
        items = check_inputs(texts, n_vocab=loaded.facts.n_vocab)
        with reporting(progress, total=len(items)) as on_progress:
            return embed_many(
                loaded,
                items,
                request,
                call=call,
                cache=self._access(loaded, request),
                n_jobs=self._n_jobs,
                on_progress=on_progress,
            )

    def _stream(
        self, model: str | None, texts: Iterable[Input], options: EmbedOptions, call: Call
    ) -> Generator[NDArray[Any], None, None]:
        self._check_usable()
        self._admission.enter()
        is_counted = True
        try:
            with self._lease(model, is_admitted=True) as lease:
                request = self._requested(lease.model, options)
                access = self._access(lease.model, request)
                vectors = embed_iterable(
                    lease.model, texts, request, call=call, cache=access, n_jobs=self._n_jobs
                )
                for vector in vectors:
                    lease.suspend()
                    # a stream that nobody reads on is no call that runs or waits
                    self._admission.leave()
                    is_counted = False
                    yield vector
                    self._check_usable()  # closed or forked while the caller had the vector
                    self._admission.rejoin()
                    is_counted = True
                    lease.resume()
        finally:
            if is_counted:
                self._admission.leave()


def caller_site() -> tuple[str, int]:
    """Return file and line of who called this package, so that a warning points there."""
    frame = sys._getframe(1)
    while frame.f_back is not None and _is_ours(frame.f_globals.get("__package__")):
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno


def _is_ours(package: str | None) -> bool:
    return (package or "").partition(".")[0] == __package__
