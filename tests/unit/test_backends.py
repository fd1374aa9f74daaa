"""Which backend a model gets, and what happens where the native one cannot be had."""

from dataclasses import replace

import numpy as np
import pytest
from structlog.testing import capture_logs

from embellama import backends
from embellama._native import support
from embellama._native.context import NativeContext
from embellama.backends import ChosenBackend
from embellama.config import ModelConfig
from embellama.errors import ConfigurationError, EmbeddingGenerationError, ModelLoadError
from embellama.gguf import read_metadata
from embellama.types import ContextOptions, MicroBatch


@pytest.fixture
def metadata(tiny_path):
    return read_metadata(tiny_path)


@pytest.fixture
def native():
    if backends.open_library() is None:
        pytest.skip("needs the native kernels: install embellama where there is a C++ compiler")


def backend_of(metadata, **settings):
    model = ChosenBackend().load(metadata, ModelConfig(**settings), "mean")
    try:
        return model.info.backend
    finally:
        model.close()


def test_llama_where_it_is_asked_for(metadata):
    assert backend_of(metadata, backend="llama") == "llama.cpp"


@pytest.mark.parametrize("backend", ["auto", "native"])
def test_native_where_it_fits(metadata, native, backend):
    assert backend_of(metadata, backend=backend).startswith("native (")


def test_its_vectors_are_llamas(metadata, native):
    rows = []
    for backend in ("llama", "native"):
        model = ChosenBackend().load(metadata, ModelConfig(backend=backend), "mean")
        context = model.create_context(ContextOptions(16, 4, 1))
        rows.append(context.run(MicroBatch.pack([model.vocabulary.tokenize("a abc")])))
        context.close()
        model.close()
    np.testing.assert_allclose(rows[0], rows[1], atol=2e-3)


def test_what_does_not_fit_runs_on_llama_or_says_why(metadata, monkeypatch):
    odd = replace(metadata, architecture="another")
    monkeypatch.setattr(support, "open_library", lambda: pytest.fail("it is not needed"))
    assert backend_of(odd, backend="auto") == "llama.cpp"
    with pytest.raises(
        ConfigurationError, match="its architecture is 'another'.*'auto' or 'llama'"
    ):
        backend_of(odd, backend="native")
    with pytest.raises(ConfigurationError, match="it is meant for a GPU"):
        backend_of(metadata, backend="native", n_gpu_layers=2)


def test_a_gpu_that_is_there_goes_to_llama_unless_told_otherwise(metadata, native, monkeypatch):
    monkeypatch.setattr(backends, "gpus_among", lambda devices: ["a GPU"])
    assert backend_of(metadata, backend="auto") == "llama.cpp"
    for settings in ({"use_gpu": False}, {"n_gpu_layers": 0}):
        assert backend_of(metadata, backend="auto", **settings).startswith("native (")
    assert backend_of(metadata, backend="native").startswith("native (")


def test_without_a_compiler_all_runs_on_llama(metadata, monkeypatch):
    monkeypatch.setattr(support, "open_library", lambda: None)
    assert backend_of(metadata, backend="auto") == "llama.cpp"
    with pytest.raises(ConfigurationError, match="without a C\\+\\+ compiler"):
        backend_of(metadata, backend="native")


def test_vectors_that_differ_are_never_given(metadata, native, monkeypatch):
    right = NativeContext.run

    def wrong(self, batch):
        rows = right(self, batch)
        rows[:, :8] += 0.5
        return rows

    monkeypatch.setattr(NativeContext, "run", wrong)
    with pytest.raises(ModelLoadError, match="to a cosine of 0\\.[0-9]+, and should"):
        backend_of(metadata, backend="native")
    with capture_logs() as events:
        assert backend_of(metadata, backend="auto") == "llama.cpp"
    (event,) = [one for one in events if one["event"] == "embellama.native.refused"]
    assert event["log_level"] == "warning"
    assert "agree with llama.cpp's" in event["reason"]


def test_nan_does_not_agree(metadata, native, monkeypatch):
    def nan(self, batch):
        return np.full((batch.n_sequences, 64), np.nan, dtype=np.float32)

    monkeypatch.setattr(NativeContext, "run", nan)
    with pytest.raises(ModelLoadError, match="cosine of nan"):
        backend_of(metadata, backend="native")


def test_what_fails_in_the_comparison_is_told(metadata, native, monkeypatch):
    def fail(self, batch):
        raise EmbeddingGenerationError("scripted")

    monkeypatch.setattr(NativeContext, "run", fail)
    with pytest.raises(ModelLoadError, match="could not be compared: scripted"):
        backend_of(metadata, backend="native")
