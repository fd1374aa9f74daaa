"""Which models are served, what they are called, when they are loaded and unloaded."""

import asyncio

import pytest

from embellama import EmbeddingEngine, EngineConfig, ModelConfig
from embellama.errors import ConfigurationError, ModelLoadError, ModelNotFoundError
from embellama.server.models import ServedModels, served_references
from embellama.server.problems import Problem

CONFIG = ModelConfig(n_threads=1, n_contexts=1, backend="llama")


def tiny(engine, path, **options):
    return ServedModels(engine, {"tiny": str(path)}, configs={"tiny": CONFIG}, **options)


@pytest.fixture
def engine():
    with EmbeddingEngine() as engine:
        yield engine


# ── names ────────────────────────────────────────────────────────────────────────────────────


def test_without_anything_the_default_model_is_served():
    references, configs = served_references((), EngineConfig())
    assert references == {"minilm": "minilm"}
    assert configs == {"minilm": ModelConfig()}


def test_names_come_from_the_catalogue_a_file_or_the_user():
    given = ("minilm:Q8_0", "models/some.gguf", "docs=minilm")
    references, _ = served_references(given, EngineConfig())
    assert references == {
        "minilm": "minilm:Q8_0",
        "some": "models/some.gguf",
        "docs": "minilm",
    }


def test_configured_models_are_served_by_themselves_and_by_name():
    configured = EngineConfig(
        models=(
            ModelConfig(model_name="a", model_path="x.gguf", n_ctx=64),
            ModelConfig(model_path="minilm"),
        )
    )
    references, configs = served_references((), configured)
    assert references == {"a": "x.gguf", "minilm": "minilm"}
    assert configs["a"].n_ctx == 64
    references, configs = served_references(("a",), configured, {"n_threads": 3})
    assert references == {"a": "x.gguf"}
    assert (configs["a"].n_ctx, configs["a"].n_threads) == (64, 3)


def test_two_models_of_one_name_are_refused():
    with pytest.raises(ConfigurationError, match="two models would be called 'minilm'"):
        served_references(("minilm", "minilm:Q8_0"), EngineConfig())


def test_models_are_found_by_name_alias_and_tag(engine):
    models = ServedModels(engine, {"a": "x", "b": "y"}, aliases={"text-embedding-3-small": "b"})
    assert models.find(None).name == models.find("").name == "a"
    assert models.find("b").name == models.find("b:latest").name == "b"
    assert models.find("text-embedding-3-small").name == "b"
    with pytest.raises(Problem, match="no model 'c' is served here; there are: a, b, text-") as exc:
        models.find("c")
    assert (exc.value.status, exc.value.param) == (404, "model")


@pytest.mark.parametrize(
    ("aliases", "message"),
    [({"x": "c"}, "stands for 'c', which is not served"), ({"a": "b"}, "name of a model itself")],
)
def test_aliases_that_mean_nothing_are_refused(engine, aliases, message):
    with pytest.raises(ConfigurationError, match=message):
        ServedModels(engine, {"a": "x", "b": "y"}, aliases=aliases)


def test_nothing_served_is_said(engine):
    with pytest.raises(Problem, match="no model is served yet") as exc:
        ServedModels(engine, {}).find(None)
    assert exc.value.status == 503


# ── loading ──────────────────────────────────────────────────────────────────────────────────


def test_a_model_is_loaded_once_for_all_who_ask(engine, tiny_path):
    async def ask():
        models = tiny(engine, tiny_path)
        served = models.find("tiny")
        assert models.state(served) == "unloaded"

        async def use():
            async with models.use(served) as info:
                return info

        first, *others = await asyncio.gather(*(use() for _ in range(5)))
        assert all(other is first for other in others)
        assert models.state(served) == "loaded"
        assert served.n_users == 0

    asyncio.run(ask())


def test_a_model_that_is_loaded_at_start_is_not_waited_for(engine, tiny_path):
    async def ask():
        models = tiny(engine, tiny_path)
        served = models.find("tiny")
        starting = asyncio.ensure_future(models.start())
        await asyncio.sleep(0)
        assert models.state(served) == "loading"
        with pytest.raises(Problem, match="is being loaded") as exc:
            async with models.use(served):
                pass
        assert (exc.value.status, exc.value.retry_after_s) == (503, 2.0)
        await starting
        async with models.use(served) as info:
            assert info.n_embd == 64

    asyncio.run(ask())


def test_what_cannot_be_loaded_is_said_and_tried_again(engine, tmp_path, tiny_path):
    path = tmp_path / "later.gguf"

    async def ask():
        models = tiny(engine, path)
        served = models.find("tiny")
        await models.start()
        assert models.state(served) == "failed"
        assert "later.gguf" in served.error
        with pytest.raises(ModelNotFoundError):
            async with models.use(served):
                pass
        path.write_bytes(tiny_path.read_bytes())
        async with models.use(served):
            assert models.state(served) == "loaded"
        assert served.error is None

    asyncio.run(ask())


def test_a_client_that_goes_away_does_not_end_the_load(engine, tiny_path):
    async def ask():
        models = tiny(engine, tiny_path)
        served = models.find("tiny")

        async def use():
            async with models.use(served):
                pass

        task = asyncio.ensure_future(use())
        await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with models.use(served) as info:
            assert info.name == "tiny"

    asyncio.run(ask())


def test_a_model_is_replaced_under_its_name_and_a_bad_one_replaces_nothing(
    engine, tiny_path, tmp_path
):
    other = tmp_path / "other.gguf"
    other.write_bytes(tiny_path.read_bytes())

    async def ask():
        models = tiny(engine, tiny_path)
        served = models.find("tiny")
        first = await models.load(served)
        assert await models.load(served) is first
        second = await models.load(served, reference=str(other))
        assert (second.path, served.reference) == (other, str(other))
        bad = tmp_path / "bad.gguf"
        bad.write_bytes(b"GGUF" + bytes(100))
        with pytest.raises(Exception, match="bad.gguf"):
            await models.load(served, reference=str(bad))
        assert served.reference == str(other)
        async with models.use(served) as info:
            assert info.path == other

    asyncio.run(ask())


# ── unloading ────────────────────────────────────────────────────────────────────────────────


def test_an_idle_model_is_unloaded_and_one_in_use_is_not(engine, tiny_path):
    async def ask():
        models = tiny(engine, tiny_path, keep_alive_s=0.05)
        served = models.find("tiny")
        watching = asyncio.ensure_future(models.unload_when_idle(every_s=0.01))
        async with models.use(served):
            await asyncio.sleep(0.2)
            assert models.state(served) == "loaded"
            assert served.expires_in_s == 0.05
        await asyncio.sleep(0.3)
        assert models.state(served) == "unloaded"
        assert not engine.is_loaded("tiny")
        async with models.use(served):
            assert engine.is_loaded("tiny")
        watching.cancel()

    asyncio.run(ask())


def test_keep_alive_0_unloads_at_once(engine, tiny_path):
    async def ask():
        models = tiny(engine, tiny_path, keep_alive_s=0.0)
        served = models.find("tiny")
        async with models.use(served):
            pass
        for _ in range(500):
            if not engine.is_loaded("tiny"):
                break
            await asyncio.sleep(0.01)
        assert models.state(served) == "unloaded"

    asyncio.run(ask())


def test_a_model_that_stays_does_not_expire(engine, tiny_path):
    async def ask():
        models = tiny(engine, tiny_path)
        served = models.find("tiny")
        async with models.use(served):
            assert served.expires_in_s is None
        assert await models.unload(served) is True
        assert await models.unload(served) is False

    asyncio.run(ask())


def test_another_model_is_added_and_forgotten_if_it_cannot_be_loaded(engine, tmp_path, tiny_path):
    async def ask():
        models = tiny(engine, tiny_path)
        served = models.add("more", str(tmp_path / "none.gguf"))
        with pytest.raises(ModelNotFoundError):
            await models.load(served)
        models.forget(served)
        with pytest.raises(Problem):
            models.find("more")
        await models.load(models.find("tiny"))
        models.forget(models.find("tiny"))
        assert models.find("tiny").name == "tiny"

    asyncio.run(ask())


def test_a_memory_limit_is_told_as_it_is(tiny_path):
    with EmbeddingEngine(EngineConfig(memory_limit_bytes=1000)) as engine:

        async def ask():
            models = tiny(engine, tiny_path)
            with pytest.raises(ModelLoadError, match="memory limit is 1,000"):
                async with models.use(models.find("tiny")):
                    pass

        asyncio.run(ask())
