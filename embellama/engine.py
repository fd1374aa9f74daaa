"""The engine: every verb, wired to the rooms that do the work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embellama.async_verbs import AsyncVerbs, task_id
from embellama.calls import Call
from embellama.chunks import Chunk, EmbeddedChunk, check_chunks
from embellama.embedding import embed_one, finished
from embellama.errors import ConfigurationError
from embellama.host import DEFAULT_MODEL
from embellama.inputs import check_inputs, check_text, check_texts
from embellama.model_info import ModelInfo
from embellama.precision.calibration import Calibration
from embellama.request import EmbedOptions
from embellama.rerank.scoring import RerankResult, check_top_n, rank, score_pairs
from embellama.results import TextToken, TokenEmbeddings
from embellama.text_tokens import tokens_of_texts
from embellama.text_verbs import Input, OnProgress
from embellama.tokens import embed_late, embed_tokens
from embellama.types import (
    IntArray,
    Kind,
    Normalization,
    Overflow,
    Precision,
    Priority,
    TruncateSide,
)

__all__ = ["DEFAULT_MODEL", "EmbeddingEngine"]


class EmbeddingEngine(AsyncVerbs):
    """Loads GGUF embedding models and embeds texts with them.

    Every method may be called from any thread. The engine belongs to the process that made it: in
    a forked child every call raises `ContextError` at once.

    What the embedding methods take in common (``kind``, ``overflow``, ``dimensions``…) is explained
    at `EmbedOptions`.

    Args:
        config: Settings; unset ones come from the environment, a TOML file, or the defaults.
        backend: What runs the models. llama.cpp unless given.
        cache: Where vectors are kept and looked up; none unless given. It stays the caller's to
            close, and several engines may share it.

    Raises:
        ConfigurationError: Settings that cannot be.
        ModelError: A configured model could not be loaded.
    """

    def warmup_model(self, model: str | None = None) -> ModelInfo:
        """Run one short text, so that the first real one finds memory mapped and buffers made."""
        with self._use(model) as loaded:
            plain, call = EmbedOptions(prompt=""), Call("interactive")
            if loaded.cross_encoder is not None:
                score_pairs(loaded, "warm-up", ["warm-up"], call=call)
            elif loaded.facts.pooling_type == "none":
                request = self._requested(loaded, plain, pooled=False)
                embed_tokens(loaded, ["warm-up"], request, call=call)
            else:
                embed_one(loaded, "warm-up", self._requested(loaded, plain), call=call)
            return loaded.info

    def embed_chunks(
        self,
        model: str | None,
        chunks: Sequence[Chunk],
        *,
        kind: Kind | None = None,
        prompt: str | None = None,
        prompt_name: str | None = None,
        overflow: Overflow = "error",
        max_tokens: int | None = None,
        dimensions: int | None = None,
        force_dimensions: bool = False,
        precision: Precision = "float32",
        calibration: Calibration | None = None,
        progress: OnProgress = False,
        priority: Priority = "bulk",
        timeout_s: float | None = None,
    ) -> list[EmbeddedChunk]:
        """Embed pieces of documents, so that what is known of each travels with its vector.

        Args:
            model: A loaded model's name; None means the only or the default one.
            chunks: The pieces.
            kind: Their role; ``"document"`` where the model has prompts and nothing is chosen.
            prompt: As in `embed`.
            prompt_name: As in `embed`.
            overflow: As in `embed`.
            max_tokens: As in `embed`.
            dimensions: As in `embed`.
            force_dimensions: As in `embed`.
            precision: As in `embed`.
            calibration: As in `embed`.
            progress: As in `embed_batch`.
            priority: As in `embed`.
            timeout_s: As in `embed`.

        Returns:
            The chunks with their vectors, in the order given.

        Raises:
            InvalidInputError: Something is no `Chunk`, two have one id, or a text cannot be used.
        """
        pieces = check_chunks(chunks)
        if kind is None and prompt is None and prompt_name is None:
            kind = "document" if self.get_model_info(model).prompts else None
        done = self.embed_detailed(
            model,
            [chunk.text for chunk in pieces],
            kind=kind,
            prompt=prompt,
            prompt_name=prompt_name,
            overflow=overflow,
            max_tokens=max_tokens,
            dimensions=dimensions,
            force_dimensions=force_dimensions,
            precision=precision,
            calibration=calibration,
            progress=progress,
            priority=priority,
            timeout_s=timeout_s,
        )
        return [
            EmbeddedChunk(chunk, vector.copy(), report, done.model, done.fingerprint)
            for chunk, vector, report in zip(pieces, done.vectors, done.texts, strict=True)
        ]

    def embed_tokens(
        self,
        model: str | None,
        texts: Sequence[Input],
        *,
        kind: Kind | None = None,
        prompt: str | None = None,
        prompt_name: str | None = None,
        overflow: Overflow = "error",
        truncate_side: TruncateSide = "right",
        max_tokens: int | None = None,
        normalization: Normalization = "none",
        priority: Priority = "bulk",
        timeout_s: float | None = None,
    ) -> list[TokenEmbeddings]:
        """Compute the vector of every token, without pooling.

        The first call makes a context of its own for this.

        Args:
            model: A loaded model's name; None means the only or the default one.
            texts: The texts, or the token ids of each.
            kind: Their role.
            prompt: What to put before each.
            prompt_name: Which of the model's prompts to put before each.
            overflow: ``"error"`` or ``"truncate"``.
            truncate_side: Which end a cut takes away.
            max_tokens: A lower limit than the model's.
            normalization: How each token's vector is scaled.
            priority: As in `embed`.
            timeout_s: As in `embed`.

        Returns:
            For each text float32 (n_tokens, n_embd), the ids, and which characters each token
            stands for.
        """
        options = _token_options(
            kind=kind,
            prompt=prompt,
            prompt_name=prompt_name,
            overflow=overflow,
            truncate_side=truncate_side,
            max_tokens=max_tokens,
            normalization=normalization,
        )
        return self._embed_tokens(model, texts, options, Call(priority, timeout_s))

    async def aembed_tokens(
        self,
        model: str | None,
        texts: Sequence[Input],
        *,
        kind: Kind | None = None,
        prompt: str | None = None,
        prompt_name: str | None = None,
        overflow: Overflow = "error",
        truncate_side: TruncateSide = "right",
        max_tokens: int | None = None,
        normalization: Normalization = "none",
        priority: Priority = "bulk",
        timeout_s: float | None = None,
    ) -> list[TokenEmbeddings]:
        """Compute token vectors as `embed_tokens` does, without blocking the event loop."""
        options = _token_options(
            kind=kind,
            prompt=prompt,
            prompt_name=prompt_name,
            overflow=overflow,
            truncate_side=truncate_side,
            max_tokens=max_tokens,
            normalization=normalization,
        )
        call = Call(priority, timeout_s, caller=task_id())
        return await self._on_thread(
            call, lambda: self._embed_tokens(model, texts, options, call, is_admitted=True)
        )

    def _embed_tokens(
        self,
        model: str | None,
        texts: Sequence[Input],
        options: EmbedOptions,
        call: Call,
        *,
        is_admitted: bool = False,
    ) -> list[TokenEmbeddings]:
        with self._use(model, is_admitted=is_admitted) as loaded:
            request = self._requested(loaded, options, pooled=False)
            items = check_inputs(texts, n_vocab=loaded.facts.n_vocab)
            return embed_tokens(loaded, items, request, call=call, n_jobs=self._n_jobs)

    def embed_late(
        self,
        model: str | None,
        chunks: Sequence[str],
        *,
        kind: Kind | None = None,
        prompt: str | None = None,
        prompt_name: str | None = None,
        normalization: Normalization | None = None,
        dimensions: int | None = None,
        force_dimensions: bool = False,
        precision: Precision = "float32",
        calibration: Calibration | None = None,
        priority: Priority = "bulk",
        timeout_s: float | None = None,
    ) -> NDArray[Any]:
        """Embed the chunks of one text in one pass, so that each vector knows its context.

        The chunks are tokenized one after the other and have to fit into the model's limit
        together, so this is for models with a long one. Known as late chunking.

        Args:
            model: A loaded model's name; None means the only or the default one.
            chunks: The pieces of the text, in order, with the spaces between them.
            kind: The role of the text.
            prompt: What to put before the text.
            prompt_name: Which of the model's prompts to put before it.
            normalization: Other than the model's configuration says.
            dimensions: As in `embed`.
            force_dimensions: As in `embed`.
            precision: As in `embed`.
            calibration: As in `embed`.
            priority: As in `embed`.
            timeout_s: As in `embed`.

        Returns:
            float32 (n_chunks, n_embd). A text in one chunk gets the vector that `embed` gives it.

        Raises:
            ConfigurationError: The model pools by its first token.
            InputTooLongError: The chunks are over the limit together.
        """
        options = EmbedOptions(
            kind=kind,
            prompt=prompt,
            prompt_name=prompt_name,
            normalization=normalization,
            dimensions=dimensions,
            force_dimensions=force_dimensions,
            precision=precision,
            calibration=calibration,
        )
        call = Call(priority, timeout_s)
        with self._use(model) as loaded:
            request = self._requested(loaded, options)
            pieces = check_texts(chunks)
            if not pieces:
                return finished(np.empty((0, loaded.facts.n_embd), dtype=np.float32), request)
            return finished(embed_late(loaded, pieces, request, call=call), request)

    def rerank(
        self,
        model: str | None,
        query: str,
        documents: Sequence[str],
        *,
        top_n: int | None = None,
        normalize: bool = True,
        overflow: Overflow = "error",
        priority: Priority = "interactive",
        timeout_s: float | None = None,
    ) -> list[RerankResult]:
        """Order documents by how well they answer a query. Needs a cross-encoder.

        Args:
            model: A loaded model's name; None means the only or the default one.
            query: What is asked.
            documents: What may answer it.
            top_n: Return only so many; all unless given.
            normalize: Scores from 0 to 1 by the logistic function; otherwise logits.
            overflow: A pair over the limit is refused (``"error"``), or its document is cut
                (``"truncate"``).
            priority: As in `embed`.
            timeout_s: As in `embed`.

        Returns:
            The best first by the model's logits, also where normalised scores are equal;
            documents of equal logits in the order given.

        Raises:
            ConfigurationError: The model is no cross-encoder.
            InvalidInputError: The query or documents cannot be used; all of them are named.
            EmbeddingGenerationError, BatchError: Inference failed.
        """
        return self._rerank(
            model,
            query,
            documents,
            call=Call(priority, timeout_s),
            top_n=top_n,
            normalize=normalize,
            overflow=overflow,
        )

    async def arerank(
        self,
        model: str | None,
        query: str,
        documents: Sequence[str],
        *,
        top_n: int | None = None,
        normalize: bool = True,
        overflow: Overflow = "error",
        priority: Priority = "interactive",
        timeout_s: float | None = None,
    ) -> list[RerankResult]:
        """Order documents as `rerank` does, without blocking the event loop."""
        call = Call(priority, timeout_s, caller=task_id())
        return await self._on_thread(
            call,
            lambda: self._rerank(
                model,
                query,
                documents,
                call=call,
                top_n=top_n,
                normalize=normalize,
                overflow=overflow,
                is_admitted=True,
            ),
        )

    def _rerank(
        self,
        model: str | None,
        query: str,
        documents: Sequence[str],
        *,
        call: Call,
        top_n: int | None,
        normalize: bool,
        overflow: Overflow,
        is_admitted: bool = False,
    ) -> list[RerankResult]:
        with self._use(model, is_admitted=is_admitted) as loaded:
            check_top_n(top_n)
            scored = score_pairs(
                loaded,
                check_text(query),
                checked := check_texts(documents),
                call=call,
                overflow=overflow,
                normalize=normalize,
                n_jobs=self._n_jobs,
            )
            loaded.statistics.record_texts(
                len(checked),
                n_truncated=sum(n_dropped > 0 for n_dropped in scored.n_dropped),
                n_dropped_tokens=sum(scored.n_dropped),
            )
            return rank(scored, checked, top_n=top_n)

    def tokenize(
        self, model: str | None, text: str, *, add_special_tokens: bool = True
    ) -> IntArray:
        """Return the token ids of a text as the model sees it.

        Returns:
            int32 (n_tokens,).
        """
        with self._use(model) as loaded:
            return loaded.tokenizer.encode(check_text(text), add_special=add_special_tokens)

    def tokenize_detailed(
        self,
        model: str | None,
        texts: Sequence[str],
        *,
        prompt_name: str | None = None,
        add_special_tokens: bool = True,
        priority: Priority = "bulk",
        timeout_s: float | None = None,
    ) -> list[list[TextToken]]:
        """Return the tokens of each text with the characters they stand for.

        Args:
            model: A loaded model's name; None means the only or the default one.
            texts: The texts, whole whatever their length.
            prompt_name: Which of the model's prompts to put before each.
            add_special_tokens: Whether to put the model's special tokens around each.
            priority: As in `embed`.
            timeout_s: As in `embed`.

        Raises:
            ConfigurationError: The model has no such prompt.
            InvalidInputError: A text cannot be tokenized.
            EmbeddingTimeoutError: It was not done in time.
        """
        call = Call(priority, timeout_s)
        return self._tokenize_detailed(model, texts, prompt_name, add_special_tokens, call)

    async def atokenize_detailed(
        self,
        model: str | None,
        texts: Sequence[str],
        *,
        prompt_name: str | None = None,
        add_special_tokens: bool = True,
        priority: Priority = "bulk",
        timeout_s: float | None = None,
    ) -> list[list[TextToken]]:
        """Tokenize as `tokenize_detailed` does, without blocking the event loop."""
        call = Call(priority, timeout_s, caller=task_id())
        return await self._on_thread(
            call,
            lambda: self._tokenize_detailed(
                model, texts, prompt_name, add_special_tokens, call, is_admitted=True
            ),
        )

    def _tokenize_detailed(
        self,
        model: str | None,
        texts: Sequence[str],
        prompt_name: str | None,
        add_special_tokens: bool,
        call: Call,
        *,
        is_admitted: bool = False,
    ) -> list[list[TextToken]]:
        with self._use(model, is_admitted=is_admitted) as loaded:
            request = loaded.request_for(EmbedOptions(prompt_name=prompt_name))
            return tokens_of_texts(
                loaded,
                check_texts(texts),
                prompt=request.encoder.prompt,
                add_special_tokens=add_special_tokens,
                call=call,
            )

    def count_tokens(self, model: str | None, text: str) -> int:
        """Count a text's tokens, special tokens included, to compare with ``ModelInfo.n_ctx``."""
        return len(self.tokenize(model, text))


def _token_options(
    *,
    kind: Kind | None,
    prompt: str | None,
    prompt_name: str | None,
    overflow: Overflow,
    truncate_side: TruncateSide,
    max_tokens: int | None,
    normalization: Normalization,
) -> EmbedOptions:
    if overflow == "window":
        raise ConfigurationError(
            "overflow = 'window' averages windows, and token vectors are not averaged; choose "
            "'error' or 'truncate'"
        )
    return EmbedOptions(
        kind=kind,
        prompt=prompt,
        prompt_name=prompt_name,
        overflow=overflow,
        truncate_side=truncate_side,
        max_tokens=max_tokens,
        normalization=normalization,
    )
