import json
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from embellama import EngineConfig, ModelConfig
from embellama.bench import advisor
from embellama.bench.advisor import BenchPlan, backends_of, compare_types
from embellama.bench.data import BenchData
from embellama.bench.measuring import Effort
from embellama.bench.reading import Pairs
from embellama.errors import (
    ConfigurationError,
    DecodeError,
    InvalidInputError,
    ModelError,
    ModelLoadError,
)
from tests.unit.bench.findings_made_up import type_findings

LEAST = Effort(n_rounds=1, round_s=0.001, n_singles=2, n_probes=1, max_texts=10)
TEXTS = ("a", "b c", "c c a", "a b a")


@pytest.fixture
def plan(tiny_path, tmp_path):
    """A plan for a model of a few kilobytes; its processes are left out, see `test_probe`."""
    return BenchPlan(
        model=tiny_path,
        file_types=("Q8_0", "F32"),
        data=BenchData(texts=TEXTS, texts_from="four texts", own=True),
        effort=LEAST,
        config=ModelConfig(n_threads=1, n_contexts=1),
        engine=EngineConfig(cache_path=tmp_path, lazy=True),
    )


@pytest.fixture
def probed(monkeypatch):
    """Answer for the fresh processes; a type that is named in the list fails there."""
    failing = []

    def answer(model, *, config, engine):
        assert config.tuning == "off"
        if any(name in str(model) for name in failing):
            raise ModelLoadError("killed")
        return advisor.Footprint(1000, 0.5)

    monkeypatch.setattr(advisor, "probe", answer)
    return failing


def test_types_are_compared_from_file_to_advice(plan, probed, tiny_path):
    told = []
    with capture_logs() as logs:
        found = compare_types(plan, report=lambda *step: told.append(step))
    assert [one.file_type for one in found.types] == ["F32", "Q8_0"]
    assert (found.model, found.reference_type, found.failed) == (str(tiny_path), "F32", {})
    assert (found.n_texts, found.texts_from, found.tolerance) == (4, "four texts", 0.999)
    whole, small = found.types
    assert (whole.rss_bytes, whole.load_s) == (1000, 0.5)
    assert whole.fidelity.cosines == (1.0,) * 4
    assert 0.9 < small.fidelity.cosine_worst < 1
    assert small.fidelity.worst_text in TEXTS
    assert small.file_bytes < whole.file_bytes
    assert all(set(one.speed) == {"short", "long", "own"} for one in found.types)
    assert all(one.speed["short"].texts_per_s > 0 for one in found.types)
    assert len(whole.latency.samples) == 2
    assert [one.goal for one in found.recommendations] == ["smallest", "fastest", "best"]
    assert json.loads(json.dumps(found.to_dict()))["types"][1]["tensor_types"] == dict(
        small.tensor_types
    )
    stages = list(dict.fromkeys(what for what, _, _ in told))
    assert stages == [
        "making F32", "making Q8_0", "embedding with F32", "embedding with Q8_0",
        "loading each type in a process of its own", "measuring speed", "measuring single texts",
    ]  # fmt: skip
    done = [event for event in logs if event["event"] == "embellama.bench.finished"]
    assert [event["n_types"] for event in done] == [2]


def test_built_in_texts_have_no_kind_of_their_own_and_cuts_are_told(plan, probed):
    data = BenchData(texts=("a", "b " * 40), texts_from="texts", own=False)
    found = compare_types(replace(plan, data=data, name="mine"))
    assert found.model == "mine"
    assert set(found.types[0].speed) == {"short", "long"}
    assert found.texts_from == "texts (1 cut at the model's limit)"


def test_pairs_are_scored_and_set_the_tolerance(plan, probed):
    pairs = Pairs(("a", "b", "c"), ("a", "c", "a b"), (5.0, 1.0, 2.0))
    found = compare_types(replace(plan, data=replace(plan.data, pairs=pairs)))
    assert found.tolerance == 0.005
    assert all(-1 <= one.spearman <= 1 for one in found.types)


def test_what_fails_is_told_and_the_rest_goes_on(plan, probed):
    probed.append("Q8_0")
    found = compare_types(replace(plan, file_types=("F32", "Q8_0", "IQ1_S", "F16")))
    assert [one.file_type for one in found.types] == ["F32", "F16"]
    assert found.failed["Q8_0"] == "killed"
    assert "importance matrix" in found.failed["IQ1_S"]


def test_another_type_is_the_reference_when_the_best_one_fails(plan, probed, tiny_path):
    probed.append(tiny_path.name)
    found = compare_types(replace(plan, file_types=("F32", "F16", "Q8_0")))
    assert found.reference_type == "F16"
    assert found.types[0].fidelity.cosine_worst == 1


def test_when_all_fail_the_reasons_are_in_the_error(plan, probed):
    probed.append("tiny")
    with pytest.raises(ModelError, match=r"no file type of .* F32: killed; Q8_0: killed"):
        compare_types(plan)


def test_a_type_that_breaks_while_it_embeds_is_left_out(plan, probed, monkeypatch):
    judge = advisor.judge

    def judged(embedder, file_type, data):
        if file_type == "F32":
            raise DecodeError("status -3", status=-3)
        return judge(embedder, file_type, data)

    monkeypatch.setattr(advisor, "judge", judged)
    found = compare_types(plan)
    assert (found.reference_type, found.failed) == ("Q8_0", {"F32": "status -3"})
    monkeypatch.setattr(advisor, "judge", lambda *given: judged(given[0], "F32", given[2]))
    with pytest.raises(ModelError, match="no file type"):
        compare_types(plan)


def test_bad_input_shows_before_anything_is_made(plan, probed):
    told = []
    with pytest.raises(InvalidInputError, match="the tolerance is 0.005"):
        compare_types(replace(plan, tolerance=0.005), report=lambda *step: told.append(step))
    assert told == []
    data = replace(plan.data, texts=("a", "\u200b"))
    with pytest.raises(InvalidInputError, match="1 of the texts cannot be embedded"):
        compare_types(replace(plan, data=data), report=lambda *step: told.append(step))
    assert not any("process" in what for what, _, _ in told)


def test_types_that_do_not_fit_into_memory_together_are_refused(plan, probed, monkeypatch):
    class Memory:
        available = 1_000_000

    monkeypatch.setattr(advisor.psutil, "virtual_memory", Memory)
    long = replace(plan.data, texts=("a " * 300, "b"))
    with pytest.raises(ConfigurationError) as caught:
        compare_types(replace(plan, data=long))
    message = str(caught.value)
    assert message.startswith("the 2 file types are in memory together")
    assert "a text of 200 tokens, and 0.0 GB are free; name fewer types" in message


def test_a_model_that_makes_no_vectors_is_refused(plan, probed, tmp_path):
    from tests.tiny_cross_encoder import write_cross_encoder

    model = write_cross_encoder(tmp_path / "cross-encoder.gguf")
    with pytest.raises(ConfigurationError):
        compare_types(replace(plan, model=model, file_types=("F32", "F16", "BF16", "Q8_0")))


def test_settings_of_the_user_hold_but_for_names_and_tuning(plan, probed, monkeypatch):
    seen = []
    answer = advisor.probe

    def remembering(model, *, config, engine):
        seen.append(config)
        return answer(model, config=config, engine=engine)

    monkeypatch.setattr(advisor, "probe", remembering)
    config = ModelConfig(model_name="mine", model_path="elsewhere", n_threads=1, n_ctx=8)
    compare_types(replace(plan, config=config))
    assert {(one.n_threads, one.n_ctx, one.tuning, one.model_name) for one in seen} == {
        (1, 8, "off", None)
    }


def test_findings_name_the_backend_of_each_type(plan, probed, native_kernels):
    config = ModelConfig(n_threads=1, n_contexts=1, backend="native")
    types = ("F32", "BF16", "Q4_0")
    found = compare_types(replace(plan, file_types=types, config=config))
    assert [one.file_type for one in found.types] == ["F32", "BF16"]
    assert all(one.backend.startswith("native (") for one in found.types)
    assert "Q4_0" in found.failed["Q4_0"]
    llama = replace(plan, config=ModelConfig(n_threads=1, n_contexts=1, backend="llama"))
    assert compare_types(llama).machine["backend"] == "llama.cpp"


def test_backends_are_told_once_where_all_have_the_same():
    types = [type_findings(name, backend="b") for name in ("F32", "F16")]
    assert backends_of(types) == "b"
    assert backends_of([*types, type_findings("Q4_0", backend="c")]) == "b: F32, F16; c: Q4_0"
