"""Which backend a model gets, and what happens where the native one cannot be had."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from structlog.testing import capture_logs

from embellama import EmbeddingEngine, EngineConfig, backends
from embellama._llama.model import LlamaBackend
from embellama._native import binding, support
from embellama._native.context import NativeContext
from embellama.backends import ChosenBackend
from embellama.config import ModelConfig
from embellama.errors import ConfigurationError, EmbeddingGenerationError, ModelLoadError
from embellama.gguf import read_metadata
from embellama.hub.quantize import quantize_file
from embellama.types import ContextOptions, MicroBatch
from tests.architectures import bert


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


def warnings_of(events):
    """Name the warnings of ours; llama.cpp has its own."""
    return [
        one["event"]
        for one in events
        if one["log_level"] == "warning" and one["event"] != "embellama.llama.logged"
    ]


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


def test_bytes_are_multiplied_where_the_file_has_them(tiny_path, metadata, native, tmp_path):
    with pytest.raises(
        ConfigurationError, match="no kernel with compute_type 'int8'.*in a file of F32 tensors"
    ):
        backend_of(metadata, backend="native", compute_type="int8")
    assert backend_of(metadata, backend="auto", compute_type="int8") == "llama.cpp"
    model = bert.MODELS[0].with_value("attention.head_count", 2)  # heads of whole blocks
    whole = model.write(tmp_path / "whole.gguf")
    path = quantize_file(whole, tmp_path / "m.gguf", file_type="Q8_0").path
    said = backend_of(read_metadata(path), backend="native", compute_type="int8")
    assert said.startswith("native (")
    assert said.endswith(", int8)")


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


# ── agreement is remembered ─────────────────────────────────────────────────────────────────


@pytest.fixture
def llama_loads(monkeypatch):
    """Record the models whose weights llama.cpp loads."""
    right, loads = LlamaBackend.load, []

    def load(self, metadata, config, pooling_type):
        loads.append(metadata.name)
        return right(self, metadata, config, pooling_type)

    monkeypatch.setattr(LlamaBackend, "load", load)
    return loads


def load_again(metadata, folder, *, pooling_type="mean", **settings):
    """Load with a backend of its own, as another process would; return what computes."""
    model = ChosenBackend(folder=folder).load(metadata, ModelConfig(**settings), pooling_type)
    try:
        return model.info.backend
    finally:
        model.close()


@pytest.mark.parametrize("backend", ["auto", "native"])
def test_what_agreed_once_loads_without_llamas_weights(
    metadata, native, llama_loads, tmp_path, backend
):
    assert load_again(metadata, tmp_path, backend=backend).startswith("native (")
    assert len(llama_loads) == 1
    assert load_again(metadata, tmp_path, backend=backend).startswith("native (")
    assert len(llama_loads) == 1


def test_an_engine_remembers_in_its_cache_directory(tiny_path, native, llama_loads, tmp_path):
    for _ in range(2):
        with EmbeddingEngine(EngineConfig(cache_path=tmp_path)) as engine:
            assert engine.load_model(tiny_path, name="m").backend.startswith("native (")
    assert len(llama_loads) == 1
    assert len(list((tmp_path / "agreements").iterdir())) == 1


def test_another_pooling_or_kernel_is_compared_by_itself(metadata, native, llama_loads, tmp_path):
    load_again(metadata, tmp_path)
    load_again(metadata, tmp_path, pooling_type="cls")
    assert len(llama_loads) == 2


def test_a_file_of_other_content_is_compared_by_itself(tiny_path, native, llama_loads, tmp_path):
    path = tmp_path / "m.gguf"
    shutil.copy(tiny_path, path)
    load_again(read_metadata(path), tmp_path / "kept")
    place = read_metadata(path).tensors["blk.0.ffn_up.weight"]
    with path.open("r+b") as file:
        file.seek(place.offset)
        file.write(np.full(4, 0.25, dtype=np.float32).tobytes())
    load_again(read_metadata(path), tmp_path / "kept")
    assert len(llama_loads) == 2


def test_what_differed_is_compared_again(metadata, native, llama_loads, tmp_path, monkeypatch):
    def nan(self, batch):
        return np.full((batch.n_sequences, 64), np.nan, dtype=np.float32)

    with monkeypatch.context() as patched:
        patched.setattr(NativeContext, "run", nan)
        for _ in range(2):
            with pytest.raises(ModelLoadError, match="cosine of nan"):
                load_again(metadata, tmp_path, backend="native")
    assert len(llama_loads) == 2
    assert load_again(metadata, tmp_path, backend="native").startswith("native (")
    assert len(llama_loads) == 3


def test_a_damaged_memory_is_replaced(metadata, native, llama_loads, tmp_path):
    load_again(metadata, tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_bytes(b"{")
    with capture_logs() as events:
        load_again(metadata, tmp_path)
    assert warnings_of(events) == ["embellama.agreement.refused"]
    load_again(metadata, tmp_path)
    assert len(llama_loads) == 2


def test_a_folder_that_cannot_be_written_keeps_nothing_and_hinders_nothing(
    metadata, native, llama_loads, tmp_path
):
    (tmp_path / "file").write_text("no folder")
    for _ in range(2):
        assert load_again(metadata, tmp_path / "file").startswith("native (")
    assert len(llama_loads) == 2


def test_kernels_that_were_removed_since_they_were_loaded_are_compared_each_time(
    metadata, native, llama_loads, tmp_path, monkeypatch
):
    monkeypatch.setattr(backends.open_library(), "path", tmp_path / "gone.so")
    for _ in range(2):
        assert load_again(metadata, tmp_path / "kept").startswith("native (")
    assert len(llama_loads) == 2


# ── kernels that are there and of no use ────────────────────────────────────────────────────


def test_a_damaged_library_leaves_auto_to_llama(metadata, monkeypatch, tmp_path):
    path = tmp_path / "libembellama_native.so"
    path.write_bytes(b"not a library")
    monkeypatch.setattr(binding, "library_path", lambda: path)
    monkeypatch.setattr(binding, "_loaded", [])
    with capture_logs() as events:
        assert backend_of(metadata, backend="auto") == "llama.cpp"
    assert warnings_of(events) == ["embellama.native.unusable"]
    assert any(str(path) in one.get("reason", "") for one in events)
    with pytest.raises(ConfigurationError, match="cannot be loaded"):
        backend_of(metadata, backend="native")


# ── what lies in the file ───────────────────────────────────────────────────────────────────


def test_without_mmap_the_file_is_of_no_further_use(tiny_path, native, tmp_path):
    path = tmp_path / "m.gguf"
    shutil.copy(tiny_path, path)
    metadata = read_metadata(path)
    rows = []
    for use_mmap in (True, False):
        config = ModelConfig(backend="native", use_mmap=use_mmap)
        model = ChosenBackend().load(metadata, config, "mean")
        if not use_mmap:
            path.write_bytes(b"")  # a mapped file that is cut short ends the process
        context = model.create_context(ContextOptions(16, 4, 1))
        rows.append(context.run(MicroBatch.pack([model.vocabulary.tokenize("a abc")])))
        context.close()
        model.close()
    np.testing.assert_array_equal(*rows)


def test_settings_of_gpus_are_left_to_llama(metadata, native):
    for settings in ({"main_gpu": 0}, {"split_mode": "layer"}):
        kernel = support.find_kernel(metadata, ModelConfig(**settings), "mean")
        assert kernel == "it is meant for a GPU"


def test_a_compute_type_that_llama_does_not_know_is_not_ignored_in_silence(metadata):
    with capture_logs() as events:
        assert backend_of(metadata, compute_type="int8").startswith("llama.cpp")
    assert warnings_of(events) == ["embellama.native.refused"]
    assert any("compute_type 'int8'" in str(event.get("reason")) for event in events)


def test_memory_that_is_short_for_the_kernels_leaves_auto_to_llama(metadata, native, monkeypatch):
    def no_room(*args, **kwargs):
        raise MemoryError("a token table")

    monkeypatch.setattr("embellama.backends.NativeModel", no_room)
    assert backend_of(metadata).startswith("llama.cpp")
    with pytest.raises(MemoryError):
        backend_of(metadata, backend="native")


def test_texts_that_depend_on_each_other_are_never_given(metadata, native, monkeypatch):
    run = NativeContext.run

    def leaky(self, batch):
        rows = run(self, batch)
        return rows + 1e-6 if batch.n_sequences > 1 else rows

    monkeypatch.setattr(NativeContext, "run", leaky)
    with pytest.raises(ModelLoadError, match="depend on what they are computed with"):
        backend_of(metadata, backend="native")
