"""Texts through the engine, a block at a time, with what became of each said at the end."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any

from embellama.cli.errors import say
from embellama.cli.texts import NAMED, Texts, listed
from embellama.errors import (
    BatchError,
    EmbeddingGenerationError,
    EmbellamaError,
    InvalidInputError,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from embellama.cli.vector_options import VectorOptions
    from embellama.engine import EmbeddingEngine

_FIRST_BLOCK = 64
"""Texts of the first block, so that the first vectors come early; then it doubles."""

_BLOCK = 512
"""Texts of a block: as many as an engine sorts and packs together."""


class Cuts:
    """Counts the texts that were cut, and remembers the first of them."""

    def __init__(self) -> None:
        self._n_texts = self._n_cut = self._n_dropped = 0
        self._named: list[int] = []

    def note(self, n_dropped: int, texts: Texts) -> None:
        """Take down how many tokens the next text lost."""
        if n_dropped:
            self._n_cut += 1
            self._n_dropped += n_dropped
            if len(self._named) < NAMED:
                self._named.append(texts.numbered(self._n_texts)[0])
        self._n_texts += 1

    def tell(self, texts: Texts) -> None:
        """Say on standard error what was cut, if anything was."""
        if not self._n_cut:
            return
        say(
            f"warning: {self._n_cut} of {self._n_texts} texts cut, {self._n_dropped} tokens "
            f"dropped: {texts.kind} {listed(self._named, self._n_cut)}"
        )


@contextmanager
def embedded(
    engine: EmbeddingEngine,
    model: str,
    texts: Texts,
    options: VectorOptions,
    *,
    show_bar: bool = False,
) -> Iterator[Iterator[NDArray[Any]]]:
    """Give the vectors of the texts, in their order.

    Complaints name the texts as the user counts them. What was cut is said when all is done.
    """
    from tqdm import tqdm  # noqa: PLC0415

    cuts = Cuts()
    vectors = _vectors(engine, model, texts, options, cuts)
    bar = tqdm(
        vectors, total=texts.total, unit=" texts", disable=not show_bar, delay=1.0, leave=False
    )
    with closing(vectors), bar:
        yield iter(bar)
    cuts.tell(texts)


def _vectors(
    engine: EmbeddingEngine, model: str, texts: Texts, options: VectorOptions, cuts: Cuts
) -> Generator[NDArray[Any], None, None]:
    source, first, size = iter(texts), 0, _FIRST_BLOCK
    while block := list(islice(source, size)):
        try:
            done = engine.embed_detailed(model, block, **options)
        except EmbellamaError as exc:
            raise located(exc, texts, first, len(block)) from exc
        for report in done.texts:
            cuts.note(report.n_dropped, texts)
        yield from done.vectors
        first, size = first + len(block), min(2 * size, _BLOCK)


def located(exc: EmbellamaError, texts: Texts, first: int, n_texts: int) -> EmbellamaError:
    """Say an engine's complaint with the user's numbers.

    Args:
        exc: The complaint.
        texts: All texts.
        first: The index of the first that the engine was given.
        n_texts: How many it was given.
    """
    if isinstance(exc, InvalidInputError):
        return texts.explained(exc, first=first)
    if isinstance(exc, BatchError):
        failed = [first + index for index in exc.failed_indices]
        why = exc.__cause__ or exc
        return BatchError(f"{texts.named(failed)}: {why}", failed_indices=failed)
    if isinstance(exc, EmbeddingGenerationError):
        start, stop = (texts.numbered(index)[0] for index in (first, first + n_texts - 1))
        return EmbeddingGenerationError(f"{texts.kind} {start} to {stop}, counted from 0: {exc}")
    return exc
