"""pytest-benchmark figures to compare before and after a change, on one machine.

pytest benches --benchmark-autosave
pytest benches --benchmark-compare
"""

import pytest

from embellama import EmbeddingEngine
from embellama.bench.texts import long_texts, short_texts


@pytest.fixture(scope="module")
def engine():
    with EmbeddingEngine() as engine:
        engine.load_model("minilm", name="m")
        engine.warmup_model("m")
        yield engine


def test_single(benchmark, engine):
    vector = benchmark(engine.embed, "m", "a man is holding a red bicycle near the station")
    assert vector.shape == (384,)


@pytest.mark.parametrize(("kind", "count"), [("short", 32), ("short", 512), ("passages", 16)])
def test_batch(benchmark, engine, kind, count):
    texts = short_texts(count) if kind == "short" else long_texts(count)
    vectors = benchmark.pedantic(engine.embed_batch, ("m", texts), rounds=5, warmup_rounds=1)
    assert vectors.shape == (count, 384)


def test_tokenization(benchmark, engine):
    texts = short_texts(1000)
    counts = benchmark(lambda: [engine.count_tokens("m", text) for text in texts])
    assert min(counts) > 8


def test_load_and_unload(benchmark, engine):
    def cycle():
        engine.load_model("minilm", name="again")
        engine.unload_model("again")

    benchmark.pedantic(cycle, rounds=10, warmup_rounds=1)
    assert not engine.is_loaded("again")


def test_memory_of_a_loaded_model(benchmark, engine):
    info = benchmark(engine.get_model_info, "m")
    benchmark.extra_info["memory_bytes"] = info.memory_bytes
    assert info.memory_bytes < 200e6
