"""Which models are served, what they are called, when they are loaded and unloaded."""

import asyncio

import pytest
from structlog.testing import capture_logs

from embellama import EmbeddingEngine, EngineConfig, ModelConfig
from embellama.errors import (
    ConfigurationError,
    ModelLoadError,
    ModelNotFoundError,
)
from embellama.server.models import ServedModels
from embellama.server.problems import Problem
from embellama.server.references import check_references, served_references
from tests.unit.server.served import CONFIG, tiny


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
        with pytest.raises(Problem, match="the server's log says why") as exc:
            async with models.use(served):
                pass
        assert (exc.value.status, exc.value.code) == (503, "model_load_failed")
        assert "later.gguf" not in exc.value.message
        path.write_bytes(tiny_path.read_bytes())
        with pytest.raises(Problem):  # it is not tried again at once
            async with models.use(served):
                pass
        models.failure_pause_s = 0.0
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


def test_a_replacement_that_fails_leaves_no_failed_model(engine, tiny_path, tmp_path):
    async def ask():
        models = tiny(engine, tiny_path)
        served = models.find("tiny")
        await models.load(served)
        with pytest.raises(ModelNotFoundError):
            await models.load(served, reference=str(tmp_path / "none.gguf"))
        assert models.state(served) == "loaded"
        await models.unload(served)
        assert models.state(served) == "unloaded"

    asyncio.run(ask())


def test_a_model_is_also_called_what_it_is_loaded_from_now(engine, tiny_path, tmp_path):
    other = tmp_path / "other.gguf"
    other.write_bytes(tiny_path.read_bytes())

    async def ask():
        models = tiny(engine, tiny_path)
        served = models.find("tiny")
        assert models.find(str(tiny_path)) is served
        await models.load(served, reference=str(other))
        assert models.find(str(other)) is served
        with pytest.raises(Problem, match="no model"):
            models.find(str(tiny_path))

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
        with pytest.raises(ModelNotFoundError):
            await models.place("more", str(tmp_path / "none.gguf"))
        with pytest.raises(Problem):
            models.find("more")
        with pytest.raises(Problem):
            await models.place("more", None)
        with pytest.raises(ModelNotFoundError):
            await models.place("tiny", str(tmp_path / "none.gguf"))
        assert models.find("tiny").name == "tiny"
        added = await models.place("more", str(tiny_path), keep_alive_s=7.0)
        assert models.find("more") is added
        assert added.keep_alive_s == 7.0

    asyncio.run(ask())


def test_a_memory_limit_is_told_as_it_is(tiny_path):
    with EmbeddingEngine(EngineConfig(memory_limit_bytes=1000)) as engine:

        async def ask():
            models = tiny(engine, tiny_path)
            with pytest.raises(ModelLoadError, match="memory limit is 1,000"):
                await models.load(models.find("tiny"))

        asyncio.run(ask())


def test_models_that_do_not_fit_together_are_said_at_the_start(tiny_path):
    room_for_one = EngineConfig(memory_limit_bytes=tiny_path.stat().st_size * 3 // 2)

    async def start(engine, names):
        references = dict.fromkeys(names, str(tiny_path))
        models = ServedModels(engine, references, configs=dict.fromkeys(references, CONFIG))
        with capture_logs() as events:
            await models.start()
        return [each for each in events if each["event"] == "embellama.server.memory_short"]

    with EmbeddingEngine(room_for_one) as engine:
        assert asyncio.run(start(engine, ["a"])) == []
        (said,) = asyncio.run(start(engine, ["b", "c"]))
        assert said["unloaded"] == ["b"]
        assert "--memory-limit" in said["why"]


# ── other names ──────────────────────────────────────────────────────────────────────────────


def test_what_the_user_wrote_is_a_name_and_so_is_its_repository(engine):
    references, _ = served_references(("BAAI/bge-small-en-v1.5", "minilm:Q8_0"), EngineConfig())
    models = ServedModels(engine, references)
    first, second = models.all()
    for called in ("BAAI/bge-small-en-v1.5", first.name, "BAAI/bge-small-en-v1.5:latest"):
        assert models.find(called) is first
    for called in ("minilm:Q8_0", "sentence-transformers/all-MiniLM-L6-v2"):
        assert models.find(called) is second


def test_what_two_models_are_called_is_neither_of_them(engine):
    models = ServedModels(engine, {"a": "minilm:Q8_0", "b": "minilm:F16"})
    assert models.find("minilm:F16").name == "b"
    with pytest.raises(Problem, match="there are: a, b"):
        models.find("minilm")


def test_a_path_with_a_sign_of_equality_is_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a=b.gguf").write_bytes(b"")
    given = ("a=b.gguf", "/x=y.gguf", "./z=1.gguf", "n=p=q.gguf")
    references, _ = served_references(given, EngineConfig())
    assert list(references.values()) == ["a=b.gguf", "/x=y.gguf", "./z=1.gguf", "p=q.gguf"]


@pytest.mark.parametrize(("given", "lacks"), [("=minilm", "name"), ("docs=", "model")])
def test_half_a_name_is_refused(given, lacks):
    with pytest.raises(ConfigurationError, match=f"lacks the {lacks}"):
        served_references((given,), EngineConfig())


@pytest.mark.parametrize("path", ["/none/x.gguf", "/tmp/" + "x" * 300 + ".gguf", "/a\0b.gguf"])
def test_files_that_are_not_there_are_refused(path, tiny_path):
    check_references({"tiny": str(tiny_path), "minilm": "minilm"})
    with pytest.raises(ConfigurationError, match="there is no such file"):
        check_references({"tiny": str(tiny_path), "x": path})


def test_names_that_mean_nothing_are_refused():
    with pytest.raises(ModelNotFoundError, match="no model named 'nonsense'"):
        check_references({"docs": "nonsense"})
