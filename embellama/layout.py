"""How a model's contexts share the cores: as its settings say, or by the work and the memory."""

from __future__ import annotations

from dataclasses import dataclass

from embellama._parallel import available_cores
from embellama.config import ModelConfig
from embellama.memory_estimate import ModelShape, context_bytes
from embellama.tuning import default_layouts
from embellama.types import Layout, Layouts

SIDE_BYTES = 512_000_000
"""Memory that all contexts beside the first may take together, where the weights take less."""


@dataclass(frozen=True, slots=True)
class CoreShare:
    """What was chosen for a model.

    Attributes:
        layouts: By kind of work.
        side_tokens: Most tokens of a micro-batch in all contexts but the first; None: any.
        source: Who said so: ``"explicit"``, ``"tuned"`` or ``"default"``.
    """

    layouts: Layouts
    side_tokens: int | None
    source: str

    @property
    def alone(self) -> CoreShare:
        """One context with the threads of a single text."""
        one = Layout(1, self.layouts.single.n_threads, self.layouts.max_batch_tokens)
        return CoreShare(Layouts.of_one(one), None, self.source)


def threads_for(config: ModelConfig) -> int:
    """Return the threads that a model's contexts share: those that are set, or the cores."""
    return config.n_threads or available_cores(physical=True)


def share_cores(
    config: ModelConfig, shape: ModelShape, *, tuned: Layouts | None, on_gpu: bool = False
) -> CoreShare:
    """Choose contexts and threads.

    What the settings say is done. Where they leave it open, what was measured on this machine
    is taken, if it was; or else contexts of one thread for many texts and all threads for one.

    Args:
        config: The settings.
        shape: The model's widths.
        tuned: What was measured for this model with as many threads on this machine.
        on_gpu: Whether a GPU computes; then one context keeps it busy.
    """
    budget = threads_for(config)
    tokens = config.max_batch_tokens
    if config.n_contexts is not None:
        n_threads = config.n_threads or max(1, budget // config.n_contexts)
        many = Layout(config.n_contexts, n_threads, tokens)
        single = many if config.n_threads else Layout(1, budget, tokens)
        return CoreShare(Layouts(short=many, long=many, single=single), None, "explicit")
    if tuned is not None and config.sources["max_batch_tokens"] == "default":
        share, source = tuned, "tuned"
    elif on_gpu:
        share, source = Layouts.of_one(Layout(1, budget, tokens)), "default"
    else:
        share, source = default_layouts(budget, tokens), "default"
    affordable = _affordable_contexts(config, shape, share)
    share = Layouts(
        short=_within(share.short, affordable),
        long=_within(share.long, affordable),
        single=_within(share.single, affordable),
    )
    return CoreShare(share, _side_tokens(config, shape, share), source)


def _within(layout: Layout, n_contexts: int) -> Layout:
    """Give the threads of contexts that memory is too short for to the others."""
    if layout.n_contexts <= n_contexts:
        return layout
    n_threads = max(layout.n_threads, layout.n_contexts * layout.n_threads // n_contexts)
    return Layout(n_contexts, n_threads, layout.max_batch_tokens)


def _room_beside_the_first(shape: ModelShape) -> int:
    return max(SIDE_BYTES, shape.weights_bytes)


def _affordable_contexts(config: ModelConfig, shape: ModelShape, share: Layouts) -> int:
    return 1 + _room_beside_the_first(shape) // context_bytes(shape, config, share.max_batch_tokens)


def _side_tokens(config: ModelConfig, shape: ModelShape, share: Layouts) -> int:
    """Return up to which length of a text all contexts may grow."""
    n_side, tokens = share.n_contexts - 1, share.max_batch_tokens
    room = _room_beside_the_first(shape)
    while tokens < shape.n_ctx:
        longer = min(2 * tokens, shape.n_ctx)
        if n_side * context_bytes(shape, config, longer) > room:
            break
        tokens = longer
    return tokens
