"""Loading, swapping, unloading, forking, interrupting."""

import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest

from embellama import (
    ConfigurationError,
    ContextError,
    EmbeddingEngine,
    EmptyInputError,
    EngineConfig,
    ModelConfig,
    ModelLoadError,
    ModelNotFoundError,
    OverloadedError,
)
from embellama.testing import FakeBackend, length_rows

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system with fork")
needs_signals = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")


def different(n):
    """Texts that differ: a repeated one is computed once."""
    return [f"a b {number}" for number in range(n)]


def run_python(code: str, *, timeout_s: float = 100) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_engine_without_arguments_and_the_life_of_a_model(tiny_path):
    engine = EmbeddingEngine()
    assert engine.list_models() == []
    info = engine.load_model(tiny_path)
    assert info.name == "tiny"
    assert engine.list_models() == ["tiny"]
    assert engine.is_loaded("tiny")
    assert engine.embed(None, "a").shape == (64,)
    engine.unload_model("tiny")
    assert not engine.is_loaded("tiny")
    with pytest.raises(ModelNotFoundError, match="0 are loaded"):
        engine.embed(None, "a")
    engine.close()
    engine.close()
    with pytest.raises(ContextError, match="closed"):
        engine.list_models()


def test_model_info_tells_what_was_decided(tiny_path):
    with EmbeddingEngine() as engine:
        info = engine.load_model(tiny_path, config=ModelConfig(n_ctx=12, pooling_type="cls"))
        assert (info.architecture, info.file_type, info.n_embd) == ("bert", "F32", 64)
        assert (info.n_ctx, info.n_ctx_train, info.n_special_tokens) == (12, 16, 2)
        assert (info.pooling_type, info.pooling_source) == ("cls", "explicit")
        assert "the file says 'mean'" in info.warnings[0]
        assert info.device == "CPU"
        assert info.config.sources["n_ctx"] == "explicit"
        assert set(info.load_s) == {"metadata", "weights", "tokenizer", "total"}
        assert info.context_bytes == 0
        warm = engine.warmup_model("tiny")
        assert warm.context_bytes > 0
        assert warm.memory_bytes == warm.weights_bytes + warm.context_bytes
        plain = warm.to_dict()
        assert plain["path"] == str(tiny_path)
        assert plain["config_sources"]["pooling_type"] == "explicit"


def test_pooling_changes_the_vectors(tiny_path):
    with EmbeddingEngine() as engine:
        vectors = []
        for pooling in ("mean", "cls", "last"):
            engine.load_model(tiny_path, name="m", config=ModelConfig(pooling_type=pooling))
            vectors.append(engine.embed("m", "a b c"))
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-3
    assert np.abs(vectors[1] - vectors[2]).max() > 1e-3


def test_without_normalization_the_rows_are_the_models_own(tiny_path):
    with EmbeddingEngine() as engine:
        engine.load_model(tiny_path, name="raw", config=ModelConfig(normalization="none"))
        engine.load_model(tiny_path, name="unit")
        raw, unit = engine.embed("raw", "a b c"), engine.embed("unit", "a b c")
    assert abs(np.linalg.norm(raw) - 1) > 1e-3
    np.testing.assert_allclose(raw / np.linalg.norm(raw), unit, atol=1e-6)


def test_the_short_form_loads_a_model_and_makes_it_the_default(tiny_path):
    config = EngineConfig(model_path=tiny_path, model_name="mine", context_size=8, use_gpu=False)
    with EmbeddingEngine(config) as engine:
        assert engine.list_models() == ["mine"]
        assert engine.get_model_info().n_ctx == 8
        engine.load_model(tiny_path, name="second")
        assert engine.get_model_info(None).name == "mine"


def test_with_two_models_and_no_default_one_has_to_be_named(tiny_path):
    with EmbeddingEngine() as engine:
        engine.load_model(tiny_path, name="a")
        engine.load_model(tiny_path, name="b")
        with pytest.raises(ModelNotFoundError, match="2 are loaded"):
            engine.embed(None, "a")


def test_a_configured_model_that_cannot_be_loaded_fails_the_constructor(tiny_path, tmp_path):
    models = (ModelConfig(model_path=tiny_path), ModelConfig(model_path=tmp_path / "no.gguf"))
    with pytest.raises(ModelNotFoundError):
        EmbeddingEngine(EngineConfig(models=models))


def test_lazy_models_are_loaded_when_first_asked_for(tiny_path):
    config = EngineConfig(lazy=True, models=(ModelConfig(model_path=tiny_path, model_name="t"),))
    with EmbeddingEngine(config) as engine:
        assert engine.list_models() == []
        assert engine.embed(None, "a").shape == (64,)
        assert engine.list_models() == ["t"]
        with pytest.raises(ModelNotFoundError):
            engine.embed("no-such-model", "a")


def test_loading_the_same_again_keeps_it_and_another_file_swaps_it(tiny_path, tmp_path):
    backend = FakeBackend()
    with EmbeddingEngine(backend=backend) as engine:
        engine.load_model(tiny_path, name="m")
        engine.load_model(tiny_path, name="m")
        assert len(backend.models) == 1
        engine.load_model(tiny_path, name="m", config=ModelConfig(n_ctx=8))
        assert [model.closed for model in backend.models] == [True, False]
        copy = tmp_path / "copy.gguf"
        copy.write_bytes(tiny_path.read_bytes())
        engine.load_model(copy, name="m")
        assert [model.closed for model in backend.models] == [True, True, False]
    assert all(model.closed for model in backend.models)


def test_a_racing_double_load_loads_once(tiny_path):
    backend = FakeBackend()
    with EmbeddingEngine(backend=backend) as engine:
        threads = [threading.Thread(target=engine.load_model, args=(tiny_path,)) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(backend.models) == 1


def test_unloading_while_another_thread_embeds_waits_for_it(tiny_path):
    running, release = threading.Event(), threading.Event()

    def slowly(batch):
        running.set()
        release.wait(10)
        return length_rows(batch)

    backend, results = FakeBackend(slowly), []
    with EmbeddingEngine(backend=backend) as engine:
        engine.load_model(tiny_path, name="m")
        embedding = threading.Thread(target=lambda: results.append(engine.embed("m", "a c")))
        embedding.start()
        running.wait(10)
        with pytest.raises(OverloadedError, match="still in use by 1"):
            engine.unload_model("m", timeout_s=0.05)
        unloading = threading.Thread(target=engine.unload_model, args=("m",))
        unloading.start()
        time.sleep(0.05)
        assert not backend.models[0].closed
        release.set()
        embedding.join(10)
        unloading.join(10)
        assert len(results) == 1
        assert backend.models[0].closed


def test_a_memory_limit_evicts_the_idle_or_refuses_with_the_numbers(tiny_path):
    size = tiny_path.stat().st_size
    with EmbeddingEngine(EngineConfig(memory_limit_bytes=int(size * 1.5))) as engine:
        engine.load_model(tiny_path, name="a")
        engine.load_model(tiny_path, name="b")
        assert engine.list_models() == ["b"]
    with (
        EmbeddingEngine(EngineConfig(memory_limit_bytes=100)) as engine,
        pytest.raises(ModelLoadError, match="memory limit is 100"),
    ):
        engine.load_model(tiny_path)


@needs_fork
def test_a_forked_child_is_told_at_once(tiny_path):
    output = run_python(f"""
        import os, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        from embellama import ContextError, EmbeddingEngine
        engine = EmbeddingEngine()
        engine.load_model({str(tiny_path)!r}, name="m")
        engine.embed("m", "a")
        child = os.fork()
        if child == 0:
            try:
                engine.embed("m", "a")
            except ContextError as exc:
                print("refused:", "forked child" in str(exc), flush=True)
            engine.close()
            os._exit(0)
        _, status = os.waitpid(child, 0)
        print("child", status, "parent", engine.embed("m", "a").shape)
        engine.close()
    """)
    assert output.split("\n")[:2] == ["refused: True", "child 0 parent (64,)"]


@needs_signals
def test_ctrl_c_in_a_long_batch_returns_promptly_and_the_engine_stays_usable(engine):
    if threading.current_thread() is not threading.main_thread():
        pytest.skip("needs the main thread, where Python delivers signals")
    texts = [
        f"the quick brown fox jumps over the lazy dog {n}, again and again" for n in range(20_000)
    ]
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        engine.embed_batch("minilm", texts)
    assert time.monotonic() - start < 5
    assert engine.embed("minilm", "still here").shape == (384,)


def test_a_progress_callback_is_told_and_may_stop_the_batch(tiny_path):
    told = []

    def stop_at_half(done, total):
        told.append((done, total))
        if done >= total / 2:
            raise ValueError("enough")

    with EmbeddingEngine() as engine:
        engine.load_model(tiny_path, name="m")
        engine.embed_batch("m", different(100), progress=lambda d, t: told.append((d, t)))
        assert told[-1] == (100, 100)
        assert [done for done, _ in told] == sorted({done for done, _ in told})
        with pytest.raises(ValueError, match="enough"):
            engine.embed_batch("m", different(2000), progress=stop_at_half)
        assert engine.embed("m", "a").shape == (64,)


def test_a_progress_bar_goes_to_standard_error(tiny_path, capsys):
    with EmbeddingEngine() as engine:
        engine.load_model(tiny_path, name="m")
        engine.embed_batch("m", ["a b"] * 10, progress=True)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "embed" in captured.err


def test_a_stream_reads_no_further_than_two_windows_ahead(tiny_path):
    read = 0

    def source():
        nonlocal read
        for _ in range(10_000):
            read += 1
            yield "a b"

    with EmbeddingEngine() as engine:
        engine.load_model(tiny_path, name="m")
        stream = engine.embed_stream("m", source())
        assert read == 0
        first = next(stream)
        assert first.shape == (64,)
        assert read <= 1024
        stream.close()
        engine.unload_model("m", timeout_s=1)  # the closed stream holds it no longer


def test_nothing_is_printed(tiny_path):
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from embellama import EmbeddingEngine, ModelNotFoundError\n"
            f"with EmbeddingEngine() as e:\n e.load_model({str(tiny_path)!r}, name='m')\n"
            " e.embed_batch('m', [f'a {n}' for n in range(200)])\n"
            " try: e.load_model('none.gguf')\n"
            " except ModelNotFoundError as error: assert 'none.gguf' in str(error)\n"
            " else: raise SystemExit('it was found')\n",
        ],
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert (done.stdout, done.stderr) == (b"", b"")


def test_memory_is_given_back_after_load_embed_unload(minilm_path):
    output = run_python(f"""
        import gc, psutil
        from embellama import EmbeddingEngine, ModelConfig
        process = psutil.Process()
        engine = EmbeddingEngine()
        def cycle():
            engine.load_model({str(minilm_path)!r}, name="m",
                              config=ModelConfig(n_threads=1, use_mmap=False))
            engine.embed_batch("m", ["a longer text " * n for n in range(1, 41)])
            held = process.memory_info().rss
            engine.unload_model("m")
            gc.collect()
            return held, process.memory_info().rss
        cycle()
        held, after_first = cycle()
        for _ in range(3):
            _, after = cycle()
        print(held, after_first, after)
    """)
    held, after_first, after = map(int, output.split())
    assert held - after_first > 40e6, "the weights were not given back"
    assert abs(after - after_first) < 0.05 * after_first


def test_two_configured_models_of_one_name_are_refused(tiny_path):
    models = (ModelConfig(model_path=tiny_path), ModelConfig(model_path=tiny_path, n_ctx=8))
    with pytest.raises(ConfigurationError, match="under the name 'tiny'"):
        EmbeddingEngine(EngineConfig(models=models))


def test_loading_a_configured_model_by_hand_takes_its_settings(tiny_path):
    backend = FakeBackend()
    config = EngineConfig(models=(ModelConfig(model_path=tiny_path, n_ctx=8),))
    with EmbeddingEngine(config, backend=backend) as engine:
        assert engine.load_model(tiny_path).n_ctx == 8
        assert len(backend.models) == 1


def test_an_open_stream_does_not_keep_an_engine_from_closing(tiny_path):
    backend = FakeBackend()
    start = time.monotonic()
    with (
        pytest.raises(ValueError, match="the caller's own"),
        EmbeddingEngine(backend=backend) as engine,
    ):
        engine.load_model(tiny_path, name="m")
        engine.load_model(tiny_path, name="other")
        stream = engine.embed_stream("m", different(1000))
        for _ in stream:
            raise ValueError("the caller's own")
    assert time.monotonic() - start < 10
    assert [model.closed for model in backend.models] == [False, True]
    with pytest.raises(ContextError, match="closed"):
        next(stream)
    assert backend.models[0].closed


def test_a_stream_yields_what_came_before_a_bad_text_or_a_failing_source(tiny_path):
    def source():
        yield from different(700)
        raise OSError("the file is gone")

    with EmbeddingEngine() as engine:
        engine.load_model(tiny_path, name="m")
        seen = 0
        with pytest.raises(OSError, match="the file is gone"):
            for _ in engine.embed_stream("m", source()):
                seen += 1
        assert seen == 64 + 128 + 256
        seen = 0
        with pytest.raises(EmptyInputError):
            for _ in engine.embed_stream("m", [*different(600), ""]):
                seen += 1
        assert seen == 64 + 128 + 256


def test_an_engine_that_is_dropped_gives_its_models_back(tiny_path):
    backend = FakeBackend()
    engine = EmbeddingEngine(backend=backend)
    engine.load_model(tiny_path, name="m")
    del engine
    gc.collect()
    assert backend.models[0].closed


@needs_fork
def test_a_stream_begun_before_a_fork_is_refused_in_the_child(tiny_path):
    output = run_python(f"""
        import os, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        from embellama import ContextError, EmbeddingEngine
        engine = EmbeddingEngine()
        engine.load_model({str(tiny_path)!r}, name="m")
        stream = engine.embed_stream("m", [f"a {{n}}" for n in range(1000)])
        next(stream)
        child = os.fork()
        if child == 0:
            try:
                next(stream)
            except ContextError as exc:
                print("refused:", "forked child" in str(exc), flush=True)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        print("child", status, "rest", len(list(stream)))
        engine.close()
    """)
    assert output.split("\n")[:2] == ["refused: True", "child 0 rest 999"]


@pytest.mark.parametrize("wait_s", [-1, "5", float("nan"), None, True])
def test_a_load_waits_a_number_of_seconds(tiny_path, wait_s):
    with (
        EmbeddingEngine(backend=FakeBackend()) as engine,
        pytest.raises(ConfigurationError, match="wait_s = .* a number of seconds from 0"),
    ):
        engine.load_model(tiny_path, wait_s=wait_s)


@pytest.mark.parametrize("timeout_s", [-1, "5", float("nan")])
def test_a_time_out_that_is_none(tiny_path, timeout_s):
    with EmbeddingEngine() as engine:
        engine.load_model(tiny_path, name="m")
        with pytest.raises(ConfigurationError, match="timeout_s"):
            engine.unload_model("m", timeout_s=timeout_s)
        assert engine.is_loaded("m")
