"""Requests that wait for loads, and what goes wrong with these."""

import asyncio
import time

import pytest

from embellama import EmbeddingEngine, EngineConfig
from embellama.errors import DownloadError, OverloadedError
from embellama.server.models import ServedModels
from tests.unit.server.served import CONFIG, refused, tiny, use


@pytest.fixture
def engine():
    with EmbeddingEngine() as engine:
        yield engine


class Loads:
    """Stands in for an engine's ``load_model``: counts, waits, and fails where it is told to."""

    def __init__(self, engine, path, *errors, takes_s=0.0):
        self.real = engine.load_model
        self.path, self.errors, self.takes_s, self.n = path, list(errors), takes_s, 0
        engine.load_model = self

    def __call__(self, reference, **options):
        self.n += 1
        time.sleep(self.takes_s)
        if self.errors and (error := self.errors.pop(0)) is not None:
            raise error
        return self.real(self.path, **options)


def test_a_request_waits_for_a_load_no_longer_than_it_may(engine, tiny_path):
    async def ask():
        loads = Loads(engine, tiny_path, takes_s=0.5)
        models = tiny(engine, tiny_path)
        problem = await refused(use(models, "tiny", within_s=0.05))
        assert (problem.status, problem.code, problem.retry_after_s) == (503, "loading", 2.0)
        assert (await use(models, "tiny")).n_embd == 64  # the same load goes on
        assert loads.n == 1

    asyncio.run(ask())


def test_no_more_wait_for_loads_than_may_and_who_needs_none_goes_on(engine, tiny_path):
    async def ask():
        models = ServedModels(
            engine,
            {"a": str(tiny_path), "b": str(tiny_path)},
            configs={"a": CONFIG, "b": CONFIG},
            max_waiting=2,
        )
        await use(models, "a")
        Loads(engine, tiny_path, takes_s=0.3)
        waiting = [asyncio.ensure_future(use(models, "b", cost=1 << 27)) for _ in range(2)]
        await asyncio.sleep(0.05)
        problem = await refused(use(models, "b"))
        assert (problem.code, problem.retry_after_s) == ("loading", 2.0)
        assert "2 requests wait for loads already" in problem.message
        assert (await use(models, "a")).name == "a"
        assert [info.name for info in await asyncio.gather(*waiting)] == ["b", "b"]

    asyncio.run(ask())


def test_the_bytes_that_wait_for_loads_are_bounded(engine, tiny_path):
    async def ask():
        Loads(engine, tiny_path, takes_s=0.2)
        models = tiny(engine, tiny_path)
        waiting = asyncio.ensure_future(use(models, "tiny", cost=1 << 28))
        await asyncio.sleep(0.05)
        assert (await refused(use(models, "tiny", cost=1))).code == "loading"
        await waiting

    asyncio.run(ask())


def test_all_who_wait_for_a_load_that_fails_share_it(engine, tiny_path):
    async def ask():
        loads = Loads(engine, tiny_path, DownloadError("no hub at /home/me"), takes_s=0.05)
        models = tiny(engine, tiny_path)
        problems = await asyncio.gather(*(refused(use(models, "tiny")) for _ in range(5)))
        problems.append(await refused(use(models, "tiny")))
        assert {problem.code for problem in problems} == {"model_load_failed"}
        assert not any("/home" in problem.message for problem in problems)
        assert 0 < problems[-1].retry_after_s <= 5
        assert models.find("tiny").error == "no hub at /home/me"
        assert loads.n == 1

    asyncio.run(ask())


@pytest.mark.parametrize("error", [MemoryError("no memory"), OSError("no disk")])
def test_an_error_that_is_not_ours_ends_neither_the_start_nor_the_model(engine, tiny_path, error):
    async def ask():
        Loads(engine, tiny_path, error)
        models = ServedModels(
            engine,
            {"x": str(tiny_path), "tiny": str(tiny_path)},
            configs={"x": CONFIG, "tiny": CONFIG},
        )
        await models.start()
        bad = models.find("x")
        assert (models.state(bad), bad.is_starting) == ("failed", False)
        assert repr(error) in bad.error
        assert models.state(models.find("tiny")) == "loaded"

    asyncio.run(ask())


def test_what_follows_a_load_may_fail_and_the_start_goes_on(engine, tiny_path):
    async def ask():
        def fail():
            raise RuntimeError("not now")

        models = tiny(engine, tiny_path, on_loaded=fail)
        await models.start()
        assert models.find("tiny").error == "RuntimeError('not now')"
        assert not models.find("tiny").is_starting

    asyncio.run(ask())


def test_a_load_waits_a_moment_for_memory_that_is_in_use(tiny_path, monkeypatch):
    monkeypatch.setattr("embellama.server.models.MEMORY_WAIT_S", 60.0)
    room_for_one = EngineConfig(memory_limit_bytes=tiny_path.stat().st_size * 3 // 2)

    async def ask(engine):
        references = dict.fromkeys(("a", "b"), str(tiny_path))
        models = ServedModels(engine, references, configs=dict.fromkeys(references, CONFIG))
        async with models.use(models.find("a")):
            with engine._registry.lease("a"):
                waiting = asyncio.ensure_future(use(models, "b"))
                await asyncio.sleep(0.3)
                assert not waiting.done()
                assert models.state(models.find("b")) == "loading"
        assert (await waiting).n_embd == 64
        assert engine.list_models() == ["b"]
        monkeypatch.setattr("embellama.server.models.MEMORY_WAIT_S", 0.0)
        with engine._registry.lease("b"), pytest.raises(OverloadedError):
            await use(models, "a")
        assert models.state(models.find("a")) == "unloaded"  # which is not the model's fault
        assert (await use(models, "a")).n_embd == 64

    with EmbeddingEngine(room_for_one) as engine:
        asyncio.run(ask(engine))


def test_two_loads_of_a_new_name_leave_what_was_loaded_under_its_name(engine, tiny_path):
    async def ask():
        Loads(engine, tiny_path, DownloadError("no hub"), takes_s=0.1)
        models = tiny(engine, tiny_path)
        first, second = await asyncio.gather(
            models.place("new", "minilm:Q4_0"), models.place("new", "x"), return_exceptions=True
        )
        assert isinstance(first, DownloadError)
        assert models.find("new") is second
        assert engine.is_loaded("new")

    asyncio.run(ask())


def test_who_stops_waiting_for_a_new_model_leaves_it_under_its_name(engine, tiny_path):
    async def ask():
        Loads(engine, tiny_path, takes_s=0.2)
        models = tiny(engine, tiny_path)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(models.place("new", "x"), 0.05)
        assert (await use(models, "new")).name == "new"
        assert engine.list_models() == ["new"]

    asyncio.run(ask())


def test_a_request_for_a_new_model_that_is_given_up_loads_nothing(engine, tiny_path):
    async def ask():
        Loads(engine, tiny_path, DownloadError("no hub"), takes_s=0.1)
        models = tiny(engine, tiny_path)
        placing = asyncio.ensure_future(models.place("new", "x"))
        await asyncio.sleep(0.02)
        problem = await refused(use(models, "new"))
        assert (problem.status, problem.code) == (404, "model_not_found")
        with pytest.raises(DownloadError):
            await placing
        assert engine.list_models() == []

    asyncio.run(ask())


def test_what_was_just_replaced_is_not_idle_and_others_are_unloaded_meanwhile(engine, tiny_path):
    async def ask():
        models = ServedModels(
            engine,
            {"a": str(tiny_path), "b": str(tiny_path)},
            configs={"a": CONFIG, "b": CONFIG},
            keep_alive_s=0.2,
        )
        await models.start()
        loads = Loads(engine, tiny_path, takes_s=0.6)
        watching = asyncio.ensure_future(models.unload_when_idle(every_s=0.02))
        await models.load(models.find("a"), reference="other")
        assert not engine.is_loaded("b")
        await asyncio.sleep(0.1)
        assert engine.is_loaded("a")
        assert loads.n == 1
        watching.cancel()

    asyncio.run(ask())


def test_one_that_cannot_be_unloaded_does_not_keep_the_others(engine, tiny_path):
    async def ask():
        models = ServedModels(
            engine,
            {"a": str(tiny_path), "b": str(tiny_path)},
            configs={"a": CONFIG, "b": CONFIG},
            keep_alive_s=0.05,
        )
        await models.start()
        real = engine.unload_model

        def unload(name, **options):
            if name == "a":
                raise MemoryError("no memory")
            real(name, **options)

        engine.unload_model = unload
        watching = asyncio.ensure_future(models.unload_when_idle(every_s=0.02))
        await asyncio.sleep(0.5)
        assert engine.list_models() == ["a"]
        assert not watching.done()
        watching.cancel()

    asyncio.run(ask())
