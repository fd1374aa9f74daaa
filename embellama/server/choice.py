"""Which model a request means that names none, where not every model can answer it."""

from __future__ import annotations

from typing import Literal

from embellama.model_info import ModelInfo
from embellama.server.exchange import Exchange
from embellama.server.problems import Problem
from embellama.server.served import Served
from embellama.server.service import Service

Ability = Literal["vectors", "scores"]

_DOES = {"vectors": "makes vectors of texts", "scores": "scores pairs of texts"}


async def able_model(
    service: Service, exchange: Exchange, name: str | None, ability: Ability
) -> Served:
    """Return the model that a request means: the one it names, or the first that can do it.

    What a model can do is known once it was loaded, so one that never was is loaded first: the
    choice is the same whatever is loaded at the time. One that cannot be loaded is passed over.

    Args:
        service: The server.
        exchange: The request, which waits for loads no longer than it has time.
        name: What the client calls it.
        ability: What it has to be able to do.

    Raises:
        Problem: There is no such model, it is still being loaded or could not be, or it cannot do
            that.
    """
    first = service.models.find(name)
    failed = None
    for served in [first] if name else service.models.all():
        info = served.info
        if info is None:
            try:
                async with service.models.use(
                    served, within_s=exchange.remaining_s, cost=exchange.n_body_bytes
                ) as loaded:
                    info = loaded
            except Problem as problem:
                if name or problem.code != "model_load_failed":
                    raise
                failed = failed or problem  # another one may be able
                continue
        if is_able(info, ability):
            return served
    if failed is not None:
        raise failed
    if name:
        other: Ability = "scores" if ability == "vectors" else "vectors"
        message = (
            f"the model {first.name!r} {_DOES[other]}, and this needs one that {_DOES[ability]}"
        )
    else:
        message = f"no model that {_DOES[ability]} is served here, and this needs one"
    raise Problem(400, "wrong_model", message, param="model")


def is_able(info: ModelInfo, ability: Ability) -> bool:
    """Tell whether a model makes vectors, or scores pairs."""
    return (info.pooling_type == "rank") == (ability == "scores")
