"""What was tuned on this machine is taken by a load, and only by the one it is meant for."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from embellama import EmbeddingEngine, EngineConfig, ModelConfig
from embellama._llama.model import LlamaBackend
from embellama.cpu import describe_cpu
from embellama.identity import ContentDigests
from embellama.tuning import Measured, Tuning, build_for, tuning_key, write_tuning
from embellama.types import Layout, Layouts
from tests.conftest import model_file

N_THREADS = 2
FOUND = Layouts(short=Layout(2, 1, 128), long=Layout(1, 2, 512), single=Layout(1, 1, 64))
TUNING = Tuning(
    layouts=FOUND,
    flash_attn="auto",
    file_type=None,
    device="CPU",
    measured={work: Measured(100.0, 120.0, 1.2) for work in ("short", "long", "single")},
    created="2026-01-02T03:04:05+00:00",
)


@pytest.fixture
def folder(tmp_path):
    """A cache of its own with MiniLM in two types."""
    converted = tmp_path / "cache" / "converted"
    converted.mkdir(parents=True)
    for path in (model_file("F16"), model_file("Q8_0")):
        for file in path.parent.glob(f"{path.name}*"):
            shutil.copy2(file, converted / file.name)
    return tmp_path / "cache"


@pytest.fixture
def engine(folder):
    with EmbeddingEngine(EngineConfig(cache_path=folder, offline=True)) as engine:
        yield engine


def keep(folder, file_type, tuning):
    content = ContentDigests().digest(model_file(file_type))
    build = build_for(LlamaBackend().build, config())
    key = tuning_key(describe_cpu(N_THREADS), build, content)
    write_tuning(folder / "tuning", key, tuning)


def config(**settings):
    return ModelConfig(n_threads=N_THREADS, use_gpu=False, **settings)


def test_a_load_takes_what_was_tuned(folder, engine):
    before = engine.load_model("minilm", config=config())
    assert before.layouts_from == "default"
    keep(folder, "F16", TUNING)
    info = engine.load_model("minilm", name="tuned", config=config())
    assert (info.layouts, info.layouts_from) == (FOUND, "tuned")
    assert (info.n_contexts, info.n_threads, info.file_type) == (2, 1, "F16")
    assert info.fingerprint == before.fingerprint
    texts = [f"{'word ' * (number % 90)}{number}" for number in range(60)]
    np.testing.assert_allclose(
        engine.embed_batch("tuned", texts), engine.embed_batch("minilm", texts), atol=5e-4
    )


@pytest.mark.parametrize(
    "settings",
    [
        {"tuning": "off"},
        {"n_contexts": 1},
        {"max_batch_tokens": 256},
    ],
)
def test_what_was_set_is_not_overruled(folder, engine, settings):
    keep(folder, "F16", TUNING)
    info = engine.load_model("minilm", config=config(**settings))
    assert info.layouts_from != "tuned"
    assert info.layouts.max_batch_tokens == 256


def test_a_tuning_of_another_device_or_number_of_threads_is_not_taken(folder, engine):
    keep(folder, "F16", replace(TUNING, device="CUDA0"))
    assert engine.load_model("minilm", config=config()).layouts_from == "default"
    keep(folder, "F16", TUNING)
    other = ModelConfig(n_threads=1, use_gpu=False)
    assert engine.load_model("minilm", name="one", config=other).layouts_from == "default"


def test_a_damaged_tuning_is_left_alone(folder, engine):
    keep(folder, "F16", TUNING)
    (path,) = (folder / "tuning").glob("*.json")
    path.write_text("{")
    assert engine.load_model("minilm", config=config()).layouts_from == "default"


def test_another_type_is_taken_only_where_none_was_named(folder, engine):
    """The user has allowed it: a file says so only then."""
    keep(folder, "F16", replace(TUNING, file_type="Q8_0"))
    keep(folder, "Q8_0", TUNING)
    info = engine.load_model("minilm", config=config())
    assert (info.file_type, info.layouts_from) == ("Q8_0", "tuned")
    named = engine.load_model("minilm:F16", name="named", config=config())
    assert (named.file_type, named.layouts_from) == ("F16", "default")
    off = engine.load_model("minilm", name="off", config=config(tuning="off"))
    assert off.file_type == "F16"
    assert off.fingerprint == named.fingerprint != info.fingerprint


def test_attention_that_was_allowed_is_taken_and_told_by_the_fingerprint(folder, engine):
    plain = engine.load_model("minilm", config=config())
    keep(folder, "F16", replace(TUNING, flash_attn=False))
    info = engine.load_model("minilm", name="exact", config=config())
    assert info.config.flash_attn is False
    assert info.fingerprint != plain.fingerprint
    said = engine.load_model("minilm", name="said", config=config(flash_attn=True))
    assert said.config.flash_attn is True
