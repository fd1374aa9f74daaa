"""Models that are served without a server."""

import pytest

from embellama import ModelConfig
from embellama.server.models import ServedModels
from embellama.server.problems import Problem

CONFIG = ModelConfig(n_threads=1, n_contexts=1, backend="llama")


def tiny(engine, path, **options):
    return ServedModels(engine, {"tiny": str(path)}, configs={"tiny": CONFIG}, **options)


async def use(models, name, **options):
    async with models.use(models.find(name), **options) as info:
        return info


async def refused(awaitable):
    with pytest.raises(Problem) as exc:
        await awaitable
    return exc.value
