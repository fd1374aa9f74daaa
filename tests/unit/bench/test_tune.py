import json
from functools import partial

import psutil
import pytest

from embellama.bench import tune
from embellama.bench.tune import Place, TuneOptions, takeable_types, tune_model
from embellama.bench.tune_search import Search
from embellama.bench.tune_variants import TYPES
from embellama.config import ModelConfig
from embellama.errors import ConfigurationError, ContextError, DownloadError
from embellama.hub.catalog import find, load_catalog
from embellama.hub.quantize import quantize_file
from embellama.hub.resolve import ResolvedModel
from embellama.hub.store import cache_directory
from embellama.identity import ContentDigests
from embellama.testing import FakeBackend, FakeModel
from embellama.tuning import build_for, stored_tuning

BUILD = build_for(FakeBackend.build, ModelConfig())
N_CORES = 2


class Meter:
    """Stands in for the real one: speeds by variant, and time that passes by being measured."""

    def __init__(self, speed_of=lambda variant: 1.0):
        self.now = 0.0
        self.texts = None
        self._speed_of = speed_of

    def measure(self, work, setting, seconds):
        self.now += seconds
        return 1000.0 * setting.layout.n_contexts**0.1 * self._speed_of(setting.variant)

    def close(self):
        pass

    def install(self, monkeypatch):
        def make(model_of, texts, *, allowed_bytes):
            assert allowed_bytes > 0
            self.texts = texts
            return self

        monkeypatch.setattr(tune, "SpeedMeter", make)
        monkeypatch.setattr(tune, "Search", partial(Search, clock=lambda: self.now))


def bf16_is_fast(variant):
    return {"BF16": 1.5, "F16": 1.2}.get(variant.file_type, 1.0)


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("EMBELLAMA_CACHE_PATH", str(tmp_path / "elsewhere"))
    return Place(tmp_path / "cache")


def tuned(resolved, place, *, backend=None, on_step=lambda step: None, **options):
    return tune_model(
        resolved,
        ModelConfig(n_threads=N_CORES),
        TuneOptions(**options),
        backend=backend or FakeBackend(),
        place=place,
        on_step=on_step,
    )


def kept(place, path):
    content = ContentDigests().digest(path)
    folder = cache_directory(place.cache_path) / "tuning"
    return stored_tuning(folder, n_cores=N_CORES, build=BUILD, content=[content])


def test_what_is_found_is_kept_for_the_model(tiny_path, place):
    backend = FakeBackend()
    resolved = ResolvedModel(tiny_path, "tiny")
    findings = tuned(resolved, place, backend=backend, budget_s=2)
    assert kept(place, tiny_path) == findings.tuning
    assert findings.path.parent == place.cache_path / "tuning"
    assert findings.tuning.device == "fake"
    assert (findings.tuning.flash_attn, findings.tuning.file_type) == ("auto", None)
    assert 0 < findings.found.spent_s < 4
    assert len(backend.models) == 7
    assert all(model.closed for model in backend.models)
    assert list((place.cache_path / "work").iterdir()) == []


def test_findings_are_plain_values(tiny_path, place, monkeypatch):
    meter = Meter()
    meter.install(monkeypatch)
    values = tuned(ResolvedModel(tiny_path, "tiny"), place).to_dict()
    assert json.loads(json.dumps(values)) == values
    assert values["works"]["short"]["default"] == {
        "n_contexts": 2,
        "n_threads": 1,
        "max_batch_tokens": 256,
    }
    assert values["works"]["short"]["default_texts_per_s"] == pytest.approx(1000 * 2**0.1)
    assert {one["file_type"] for one in values["variants"]} == {None, *TYPES} - {"F32"}
    assert values["tuning"]["file_type"] is None
    assert (meter.texts.n_vocab, meter.texts.limit) == (1000, 16)


def test_other_attention_is_kept_only_if_it_may_be(tiny_path, place, monkeypatch):
    Meter(lambda variant: 1.4 if variant.flash_attn is False else 1.0).install(monkeypatch)
    resolved = ResolvedModel(tiny_path, "tiny")
    findings = tuned(resolved, place)
    assert findings.tuning.flash_attn == "auto"
    exact = next(one for one in findings.found.variants if one.variant.flash_attn is False)
    assert exact.gain == pytest.approx(1.4)
    findings = tuned(resolved, place, allow_types=True)
    assert findings.tuning.flash_attn is False
    assert findings.tuning.measured["short"].gain == pytest.approx(1.4)
    assert kept(place, tiny_path).flash_attn is False


def test_a_type_is_kept_for_both_files(tiny_path, place, tmp_path, monkeypatch):
    other = quantize_file(tiny_path, tmp_path / "bf16.gguf", "BF16").path
    asked = []

    def resolve(reference, **options):
        asked.append(reference)
        return ResolvedModel(other, "minilm")

    Meter(bf16_is_fast).install(monkeypatch)
    monkeypatch.setattr(tune, "resolve_model", resolve)
    resolved = ResolvedModel(tiny_path, "minilm", find("minilm"))
    findings = tuned(resolved, place, allow_types=True)
    assert asked == ["minilm:BF16"]
    assert kept(place, tiny_path) == findings.tuning
    assert findings.tuning.file_type == "BF16"
    assert kept(place, other).file_type is None
    assert kept(place, other).layouts == findings.tuning.layouts


def test_a_type_that_no_load_can_get_is_only_told(tiny_path, place, monkeypatch):
    Meter(bf16_is_fast).install(monkeypatch)
    findings = tuned(ResolvedModel(tiny_path, "tiny"), place, allow_types=True)
    assert findings.tuning.file_type is None
    assert max(findings.found.variants, key=lambda one: one.gain).variant.file_type == "BF16"


def test_a_type_too_far_from_the_models_own_is_only_told(tiny_path, place, monkeypatch):
    Meter(bf16_is_fast).install(monkeypatch)
    monkeypatch.setattr(tune.Variants, "least_cosine", lambda self, variant: 0.998)
    resolved = ResolvedModel(tiny_path, "minilm", find("minilm"))
    findings = tuned(resolved, place, allow_types=True)
    assert findings.tuning.file_type is None
    monkeypatch.setattr(tune.Variants, "least_cosine", lambda self, variant: None)
    assert tuned(resolved, place, allow_types=True).tuning.file_type is None


def test_a_type_that_cannot_be_fetched_keeps_nothing(tiny_path, place, monkeypatch):
    def resolve(reference, **options):
        raise DownloadError("offline")

    Meter(bf16_is_fast).install(monkeypatch)
    monkeypatch.setattr(tune, "resolve_model", resolve)
    resolved = ResolvedModel(tiny_path, "minilm", find("minilm"))
    with pytest.raises(DownloadError):
        tuned(resolved, place, allow_types=True)
    assert kept(place, tiny_path) is None


def test_a_cache_that_cannot_be_written_is_told(tiny_path, place):
    place.cache_path.write_text("a file")
    with pytest.raises(DownloadError, match="cache"):
        tuned(ResolvedModel(tiny_path, "tiny"), place)


def test_a_busy_machine_is_told(tiny_path, place, monkeypatch):
    Meter().install(monkeypatch)
    steps = []
    for busy in (90.0, 5.0):
        monkeypatch.setattr(psutil, "cpu_percent", lambda interval, busy=busy: busy)
        tuned(ResolvedModel(tiny_path, "tiny"), place, on_step=steps.append)
    assert [step for step in steps if "90 % busy" in step] == steps[:1]


def test_which_types_a_load_can_get(tiny_path):
    assert takeable_types(ResolvedModel(tiny_path, "tiny")) == ()
    assert takeable_types(ResolvedModel(tiny_path, "minilm", find("minilm"))) == TYPES
    published = next(row for row in load_catalog().values() if row.gguf_file_types)
    found = takeable_types(ResolvedModel(tiny_path, published.name, published))
    assert set(found) >= {published.default_file_type} or published.convertible


def test_a_model_that_does_not_run_is_an_error_and_closed(tiny_path, place, monkeypatch):
    def refuse(self, options):
        raise ContextError("no memory")

    monkeypatch.setattr(FakeModel, "create_context", refuse)
    monkeypatch.setattr(tune.Variants, "least_cosine", lambda self, variant: 1.0)
    backend = FakeBackend()
    with pytest.raises(ContextError, match="no memory"):
        tuned(ResolvedModel(tiny_path, "tiny"), place, backend=backend)
    assert all(model.closed for model in backend.models)
    assert kept(place, tiny_path) is None


@pytest.mark.parametrize(
    "options",
    [{"budget_s": 0.5}, {"budget_s": 1e6}, {"budget_s": float("nan")}, {"least_cosine": 2}],
)
def test_options_have_limits(options):
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        TuneOptions(**options).check()


@pytest.mark.parametrize(
    "settings", [{"n_contexts": 2}, {"max_batch_tokens": 128}, {"tuning": "off"}]
)
def test_what_a_load_would_not_take_is_not_measured(tiny_path, place, settings):
    backend = FakeBackend()
    (name,) = settings
    with pytest.raises(ConfigurationError, match=rf"{name} = .* \(explicit\) goes before anything"):
        tune_model(
            ResolvedModel(tiny_path, "tiny"),
            ModelConfig(**settings),
            TuneOptions(budget_s=1),
            backend=backend,
            place=place,
        )
    assert not backend.models
