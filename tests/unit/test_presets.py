import time

import numpy as np
import pytest

from embellama._native.binding import open_library
from embellama.config import MAX_CONTEXTS
from embellama.errors import ConfigurationError, ModelNotFoundError
from embellama.presets.choice import Choice
from embellama.presets.constraints import Limits, _within_speed, choose
from embellama.presets.engine_config import EngineConfig
from embellama.presets.speed import Speed
from embellama.testing import FakeBackend
from tests.tiny_gguf import write_gguf

PASS_S = 0.01


@pytest.fixture
def path(tmp_path):
    return write_gguf(tmp_path / "tiny.gguf")


def limits(**given) -> Limits:
    unset = {"max_memory_bytes": None, "target_texts_per_s": None, "max_latency_s": None}
    return Limits(**{**unset, "mean_tokens": 8, **given})


def slow_backend() -> FakeBackend:
    """A backend whose every pass takes `PASS_S`, whatever is in it."""

    def compute(batch):
        time.sleep(PASS_S)
        return np.ones((batch.n_sequences, 2), np.float32)

    return FakeBackend(compute)


def only_model(config):
    (model,) = config.all_models
    return model


def test_throughput_is_a_context_on_every_core():
    config = EngineConfig.high_throughput(model="minilm", n_cores=8)
    model = only_model(config)
    assert (model.n_contexts, model.n_threads) == (8, 1)
    assert "8 contexts" in config.rationale[0]


def test_no_more_contexts_than_there_may_be():
    model = only_model(EngineConfig.high_throughput(model="minilm", n_cores=200))
    assert model.n_contexts == MAX_CONTEXTS


def test_latency_keeps_a_context_to_spare():
    model = only_model(EngineConfig.low_latency(model="minilm", n_cores=8, n_callers=4))
    assert (model.n_contexts, model.n_threads) == (5, 2)


def test_a_single_caller_gets_all_cores():
    model = only_model(EngineConfig.low_latency(model="minilm", n_cores=8, n_callers=1))
    assert (model.n_contexts, model.n_threads) == (1, 8)


def test_memory_is_one_small_context():
    config = EngineConfig.low_memory(model="minilm:Q8_0")
    model = only_model(config)
    assert (model.n_contexts, model.max_batch_tokens, model.max_batch_requests) == (1, 64, 8)
    assert (config.n_jobs, model.use_mmap) == (1, True)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: EngineConfig.high_throughput(model="m", n_cores=0), "n_cores = 0"),
        (lambda: EngineConfig.low_latency(model="m", n_callers=0), "n_callers = 0"),
        (lambda: EngineConfig.low_latency(model="m", n_callers=64), "it has to be 1 to 63"),
        (lambda: EngineConfig.low_memory(model="m", n_ctx=-1), "n_ctx = -1"),
        (lambda: EngineConfig.for_constraints(model="m"), "there is nothing to keep to"),
        (lambda: EngineConfig.for_constraints(model="m", max_latency_s=0), "max_latency_s = 0"),
    ],
)
def test_a_number_that_cannot_be_is_refused(make, said):
    with pytest.raises(ConfigurationError, match=said):
        make()


def test_what_is_chosen_wins_over_the_environment_and_what_is_left_open_does_not(monkeypatch):
    monkeypatch.setenv("EMBELLAMA_N_THREADS", "7")
    monkeypatch.setenv("EMBELLAMA_CONTEXT_SIZE", "128")
    monkeypatch.setenv("EMBELLAMA_USE_GPU", "false")
    monkeypatch.setenv("EMBELLAMA_CACHE_PATH", "somewhere")
    config = EngineConfig.high_throughput(model="minilm", n_cores=2)
    model = only_model(config)
    assert (model.n_threads, model.n_ctx, model.use_gpu) == (1, 128, False)
    assert model.sources["n_threads"] == "explicit"
    assert model.sources["n_ctx"] == "environment: EMBELLAMA_CONTEXT_SIZE"
    assert str(config.cache_path) == "somewhere"


def test_no_model_comes_beside_the_one_that_is_named(monkeypatch):
    monkeypatch.setenv("EMBELLAMA_MODEL_PATH", "other.gguf")
    monkeypatch.setenv("EMBELLAMA_N_THREADS", "7")
    config = EngineConfig.low_memory(model="mine.gguf", model_name="mine")
    assert (only_model(config).model_path, only_model(config).model_name) == ("mine.gguf", "mine")
    assert config.sources["model_path"] == "default"


def test_settings_that_nobody_chose_have_no_rationale():
    assert EngineConfig(model_path="a.gguf").rationale == ()


def test_plenty_of_memory_gives_every_core_a_context(path):
    config = EngineConfig.for_constraints(
        model=path, max_memory_bytes=10**9, n_cores=4, mean_tokens=8
    )
    model = only_model(config)
    assert (model.n_contexts, model.n_threads, model.max_batch_tokens) == (4, 1, 256)
    assert model.use_gpu is False
    assert "1000 MB are allowed" in config.rationale[1]


def test_less_memory_gives_fewer_contexts_that_share_the_cores(path):
    chosen = choose(path, limits(max_memory_bytes=94_000_000), n_cores=8)
    assert (chosen.n_contexts, chosen.n_threads) == (2, 4)


def test_too_little_memory_says_how_much_is_missing(path):
    with pytest.raises(ConfigurationError) as caught:
        choose(path, limits(max_memory_bytes=50_000_000))
    assert "max_memory_bytes = 50,000,000, and the least this model runs with is about" in str(
        caught.value
    )
    assert "a smaller model" in str(caught.value)


def test_the_more_texts_per_second_are_chosen(path):
    backend = slow_backend()
    chosen = choose(path, limits(target_texts_per_s=100), n_cores=3, backend=backend)
    assert chosen.n_contexts == 3  # as slow as one, and three of them
    (model,) = backend.models
    assert model.closed
    assert model.contexts
    assert all(context.closed for context in model.contexts)


def test_a_rate_that_cannot_be_reached_says_what_can(path):
    with pytest.raises(ConfigurationError) as caught:
        choose(path, limits(target_texts_per_s=1e9), n_cores=2, backend=slow_backend())
    assert "target_texts_per_s = 1e+09, and " in str(caught.value)
    assert "too few (measured just now, counted 25% worse)" in str(caught.value)


def test_a_time_that_cannot_be_kept_says_what_can(path):
    with pytest.raises(ConfigurationError) as caught:
        choose(path, limits(max_latency_s=PASS_S), n_cores=2, backend=slow_backend())
    said = float(str(caught.value).partition(", and ")[2].split()[0])
    assert said >= 1.25 * PASS_S


def test_limits_that_exclude_each_other_say_so():
    choices = [Choice(n_threads=1, n_contexts=2), Choice(n_threads=2, n_contexts=1)]
    speeds = [Speed(texts_per_s=100, latency_s=1.0), Speed(texts_per_s=50, latency_s=0.1)]
    with pytest.raises(ConfigurationError, match="cannot both be kept"):
        _within_speed(choices, speeds, limits(target_texts_per_s=70, max_latency_s=0.5))
    assert _within_speed(choices, speeds, limits(target_texts_per_s=70)) == 0
    assert _within_speed(choices, speeds, limits(max_latency_s=0.5)) == 1


def test_the_real_model_is_measured(tiny_path):
    config = EngineConfig.for_constraints(model=tiny_path, target_texts_per_s=1, mean_tokens=8)
    assert "texts/s" in config.rationale[2]


def test_too_little_memory_says_what_would_help(minilm_path, monkeypatch):
    monkeypatch.setenv("EMBELLAMA_BACKEND", "llama")
    with pytest.raises(ConfigurationError) as caught:
        choose(minilm_path, limits(max_memory_bytes=10**8))
    said = str(caught.value)
    assert "a lower n_ctx (texts of up to 8 tokens instead of 512 need" in said
    assert "a smaller file type" in said


def test_too_little_memory_for_the_kernels_offers_what_takes_less(minilm_path, monkeypatch):
    if open_library() is None:
        pytest.skip("needs the native kernels: install embellama where there is a C++ compiler")
    monkeypatch.setenv("EMBELLAMA_BACKEND", "native")
    with pytest.raises(ConfigurationError) as caught:
        choose(minilm_path, limits(max_memory_bytes=10**8))
    said = str(caught.value)
    assert "a lower n_ctx" not in said  # without logits a long text takes little
    assert "EMBELLAMA_BACKEND=llama and a smaller file type" in said


def test_a_failure_while_it_is_measured_frees_the_model(path):
    def compute(batch):
        raise MemoryError

    backend = FakeBackend(compute)
    with pytest.raises(MemoryError):
        choose(path, limits(max_latency_s=1.0), n_cores=2, backend=backend)
    assert backend.models[0].closed


def test_texts_longer_than_any_may_be_are_refused(path):
    with pytest.raises(ConfigurationError, match="mean_tokens = 64, but no text may have more"):
        choose(path, limits(max_memory_bytes=10**9, mean_tokens=64))


def test_a_model_that_is_not_here_has_no_size(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ConfigurationError, match="embellama pull bge-m3"):
        EngineConfig.for_constraints(
            model="bge-m3", max_memory_bytes=10**9, cache_path=tmp_path / "cache"
        )


def test_a_file_that_is_not_there_is_said_so(tmp_path):
    with pytest.raises(ModelNotFoundError):
        EngineConfig.for_constraints(model=tmp_path / "none.gguf", max_memory_bytes=10**9)
