from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from embellama.cli.model_check import (
    TEXTS,
    check_file,
    check_offload,
    check_ranking,
    check_special_tokens,
    check_speed,
    check_vectors,
)
from embellama.config import ModelConfig
from embellama.gguf import read_metadata
from embellama.hub.catalog import find
from embellama.hub.resolve import ResolvedModel
from embellama.rerank.scoring import RerankResult
from tests.tiny_gguf import write_gguf


@pytest.fixture
def metadata(tmp_path):
    return read_metadata(write_gguf(tmp_path / "tiny.gguf"))


def by_level(findings):
    return {finding.level: finding.text for finding in findings}


@pytest.mark.parametrize(
    ("pooling", "name", "level", "words"),
    [
        ("mean", None, "ok", "mean, in the file"),
        (None, None, "note", "does not say"),
        (None, "minilm", "ok", "mean, from the catalogue"),
        ("cls", "minilm", "FAIL", "cls in the file, mean in the model's card"),
    ],
)
def test_pooling_of_the_file_is_held_against_the_catalogue(metadata, pooling, name, level, words):
    resolved = ResolvedModel(metadata.path, "tiny", find(name) if name else None)
    *_, finding = check_file(replace(metadata, pooling_type=pooling), resolved)
    assert finding.level == level
    assert words in finding.text


def test_a_model_that_generates_text_is_noted(metadata):
    resolved = ResolvedModel(metadata.path, "tiny")
    assert (
        "generates text"
        in by_level(check_file(replace(metadata, is_embedder=False), resolved))["note"]
    )


@pytest.mark.parametrize(
    ("ids", "kind", "last_pooling", "level"),
    [
        ([2, 4, 3], "bert", False, "ok"),
        ([2, 4], "bert", False, "FAIL"),
        ([4, 3], "bert", False, "FAIL"),
        ([4, 3], "gpt2", True, "ok"),
        ([4, 5], "gpt2", True, "FAIL"),
        ([4, 5], "gpt2", False, "ok"),
    ],
)
def test_special_tokens_are_where_the_model_needs_them(metadata, ids, kind, last_pooling, level):
    described = replace(metadata, vocab_kind=kind)
    (finding,) = check_special_tokens(ids, described, last_pooling=last_pooling)
    assert finding.level == level


def vectors():
    rows = np.eye(len(TEXTS), 8, dtype=np.float32)
    rows[1] = rows[0]
    return rows


def levels_of(singles, batch, **options):
    return [finding.level for finding in check_vectors(singles, batch, file_type="F32", **options)]


def test_sound_vectors_are_ok():
    assert levels_of(vectors(), vectors()) == ["ok", "ok", "ok"]


def test_a_wrong_length_fails_only_where_length_one_is_meant():
    assert levels_of(vectors() * 2, vectors() * 2) == ["FAIL", "ok", "ok"]
    assert levels_of(vectors() * 2, vectors() * 2, normalized=False) == ["ok", "ok", "ok"]


@pytest.mark.parametrize(("on_gpu", "level"), [(False, "FAIL"), (True, "ok")])
def test_a_gpu_may_round_more(on_gpu, level):
    batch = vectors()
    batch[0, 3] = 2e-3
    assert levels_of(vectors(), batch, on_gpu=on_gpu)[1] == level
    batch[0, 3] = 2e-2
    assert levels_of(vectors(), batch, on_gpu=on_gpu)[1] == "FAIL"


def test_a_batch_in_another_order_fails():
    assert levels_of(vectors(), vectors()[::-1].copy())[1] == "FAIL"


def test_vectors_without_sense_fail():
    unrelated = vectors()[[0, 2, 1, 3, 4, 5]]
    assert levels_of(unrelated, unrelated) == ["ok", "ok", "FAIL"]


@pytest.mark.parametrize(
    ("file_type", "has_bf16", "words"),
    [
        ("F16", True, "minilm:BF16"),
        ("Q8_0", True, "minilm:BF16"),
        ("BF16", True, "BF16 suits"),
        ("BF16", False, "minilm:Q8_0"),
        ("F32", False, "minilm:Q8_0"),
        ("Q8_0", False, "Q8_0 suits"),
    ],
)
def test_a_faster_file_type_is_named(tmp_path, file_type, has_bf16, words):
    info = SimpleNamespace(n_layers_offloaded=0, file_type=file_type)
    resolved = ResolvedModel(tmp_path, "minilm", find("minilm"))
    (finding,) = check_speed(resolved, info, {"AVX512_BF16": has_bf16})
    assert words in finding.text


def test_a_file_outside_the_catalogue_is_told_to_quantize(tmp_path):
    info = SimpleNamespace(n_layers_offloaded=0, file_type="F32")
    (finding,) = check_speed(ResolvedModel(tmp_path, "mine"), info, {})
    assert "quantize IN.gguf OUT.gguf Q8_0" in finding.text


def test_a_gpu_needs_no_hint_about_the_cpu(tmp_path):
    info = SimpleNamespace(n_layers_offloaded=7, file_type="F32")
    assert not list(check_speed(ResolvedModel(tmp_path, "mine"), info, {}))


@pytest.mark.parametrize(
    ("settings", "n_offloaded", "words"),
    [
        ({"use_gpu": False}, 0, "it runs on the CPU, for use_gpu = False; there is CUDA0"),
        ({"n_gpu_layers": 0}, 0, "it runs on the CPU, for n_gpu_layers = 0"),
        ({"n_gpu_layers": 3}, 3, "part of it runs on the CPU, for n_gpu_layers = 3"),
    ],
)
def test_what_is_kept_off_a_gpu_is_told_with_the_setting(settings, n_offloaded, words):
    info = SimpleNamespace(
        n_layers_offloaded=n_offloaded, n_layers_offloadable=7, config=ModelConfig(**settings)
    )
    (finding,) = check_offload(info, ["CUDA0"])
    assert finding.level == "note"
    assert words in finding.text


@pytest.mark.parametrize(("n_offloaded", "gpus"), [(7, ["CUDA0"]), (0, [])])
def test_nothing_is_told_of_a_gpu_that_is_used_or_absent(n_offloaded, gpus):
    info = SimpleNamespace(
        n_layers_offloaded=n_offloaded, n_layers_offloadable=7, config=ModelConfig()
    )
    assert not list(check_offload(info, gpus))


@pytest.mark.parametrize(("order", "level"), [([0, 1, 2], "ok"), ([1, 0, 2], "FAIL")])
def test_a_cross_encoder_should_put_the_same_meaning_first(order, level):
    results = [
        RerankResult(index=index, score=0.9 - place / 4, document=TEXTS[1 + index], n_tokens=5)
        for place, index in enumerate(order)
    ]
    finding = check_ranking(results)
    assert finding.level == level
    assert "scores 0.90, 0.65, 0.40" in finding.text
