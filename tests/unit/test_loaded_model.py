"""What a loaded model remembers of the options that callers give."""

import pytest

from embellama import ConfigurationError, EmbeddingEngine, EngineConfig, ModelConfig
from embellama.loaded_model import _REMEMBERED, _REMEMBERED_CHARS
from embellama.request import EmbedOptions
from embellama.testing import FakeBackend
from tests.gated import Gate
from tests.tiny_gguf import write_gguf

SMALL = ModelConfig(n_contexts=1, n_threads=1)


@pytest.fixture
def engine(tmp_path):
    config = EngineConfig(cache_path=tmp_path)
    with EmbeddingEngine(config, backend=FakeBackend(Gate())) as engine:
        for name in ("m", "other"):
            engine.load_model(write_gguf(tmp_path / f"{name}.gguf"), name=name, config=SMALL)
        yield engine


@pytest.fixture
def loaded(engine):
    with engine._use("m") as loaded:
        yield loaded


def n_remembered(loaded):
    return len({*loaded._requests, *loaded._older_requests})


def test_options_in_use_stay_known_whatever_others_give(loaded):
    mine = EmbedOptions(dimensions=1, force_dimensions=True)
    request = loaded.request_for(mine)
    for number in range(5 * _REMEMBERED):
        loaded.request_for(EmbedOptions(prompt=f"p{number}"))
        if number % (_REMEMBERED // 2) == 0:
            assert loaded.request_for(mine) is request
    assert n_remembered(loaded) <= 2 * _REMEMBERED


def test_new_options_are_remembered_after_many_others(loaded):
    for number in range(3 * _REMEMBERED):
        loaded.request_for(EmbedOptions(prompt=f"p{number}"))
    options = EmbedOptions(precision="binary")
    assert loaded.request_for(options) is loaded.request_for(options)


def test_options_nobody_gave_for_long_are_forgotten(loaded):
    options = EmbedOptions(precision="binary")
    request = loaded.request_for(options)
    for number in range(2 * _REMEMBERED):
        loaded.request_for(EmbedOptions(prompt=f"p{number}"))
    assert loaded.request_for(options) is not request


def test_a_long_prompt_is_not_remembered(loaded):
    longest = EmbedOptions(prompt=" " * _REMEMBERED_CHARS)
    assert loaded.request_for(longest) is loaded.request_for(longest)
    before = n_remembered(loaded)
    too_long = EmbedOptions(prompt=" " * (_REMEMBERED_CHARS + 1))
    assert loaded.request_for(too_long) == loaded.request_for(too_long)
    assert n_remembered(loaded) == before


def test_options_that_cannot_be_hashed_are_refused_by_the_check(loaded):
    with pytest.raises(ConfigurationError, match="prompt has to be a str"):
        loaded.request_for(EmbedOptions(prompt=["a"]))
    assert n_remembered(loaded) == 0


def test_looking_leaves_the_order_of_eviction(engine):
    """Else whoever scrapes metrics makes the first model loaded the first to go."""

    def order():
        entries = engine._registry._entries
        return sorted(entries, key=lambda name: entries[name].last_used)

    engine.embed("m", "a")
    assert order() == ["other", "m"]
    engine.stats()
    engine.get_model_info("other")
    assert order() == ["other", "m"]
    engine.embed("other", "a")
    assert order() == ["m", "other"]
