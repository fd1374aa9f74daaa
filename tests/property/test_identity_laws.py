"""Fingerprints: each thing that changes vectors changes them, and nothing else does."""

import dataclasses
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from embellama import EmbeddingEngine, ModelConfig, identity
from embellama.embedding import BATCH_TOLERANCE
from embellama.errors import ConfigurationError
from embellama.gguf import read_metadata
from embellama.identity import digest_parts, model_fingerprint
from embellama.precision.calibration import Calibration
from embellama.request import EmbedOptions, resolve_request
from embellama.testing import FakeVocabulary
from embellama.tokenization import Tokenizer
from tests.conftest import QUIET

N_EMBD = 64
PROMPTS = {"query": "q: ", "document": "", "other": "o: "}


def calibrations(width):
    """Two with the same ranges and one with others."""
    return [Calibration(np.stack([np.full(width, -x), np.full(width, x)])) for x in (1, 1, 0.5)]


@pytest.fixture(scope="module")
def metadata(tiny_path):
    return read_metadata(tiny_path)


@pytest.fixture(scope="module")
def info(tiny_path):
    with EmbeddingEngine() as engine:
        loaded = engine.load_model(tiny_path, name="tiny", config=QUIET)
    return replace(loaded, prompts=PROMPTS, matryoshka_dims=(32, 16))


@pytest.fixture(scope="module")
def tokenizer(metadata):
    return Tokenizer(FakeVocabulary(), metadata)


# ── of a model ──────────────────────────────────────────────────────────────────────────────

flags = st.sampled_from([None, True, False])
words = st.sampled_from([None, "default", "None", ""]) | st.text(max_size=3)
models = st.fixed_dictionaries(
    {
        "vocab_kind": st.sampled_from(["bert", "t5", "gpt2"]),
        "pre_tokenizer": words,
        "add_bos": flags,
        "add_eos": flags,
        "add_sep": flags,
        "lowercase": flags,
        "strip_accents": flags,
        "pooling_type": st.sampled_from(["mean", "cls", "last", "max", "none"]),
        "content": st.lists(st.text("01", max_size=2), min_size=1, max_size=3),
    }
)


def of_model(metadata, parts):
    rest = {name: part for name, part in parts.items() if name not in ("content", "pooling_type")}
    changed = dataclasses.replace(metadata, **rest)
    return model_fingerprint(changed, parts["content"], parts["pooling_type"])


@given(models, st.data())
def test_each_input_of_a_model_changes_its_fingerprint(metadata, parts, data):
    name = data.draw(st.sampled_from(sorted(parts)))
    other = {**parts, name: data.draw(models)[name]}
    same = of_model(metadata, parts) == of_model(metadata, other)
    assert same == (parts == other)


@given(models, models)
def test_two_models_share_a_fingerprint_only_if_they_are_equal(metadata, one, other):
    assert (of_model(metadata, one) == of_model(metadata, other)) == (one == other)


def test_the_version_of_our_vectors_counts(metadata, monkeypatch):
    before = model_fingerprint(metadata, ["a"], "mean")
    monkeypatch.setattr(identity, "VECTOR_VERSION", identity.VECTOR_VERSION + 1)
    assert model_fingerprint(metadata, ["a"], "mean") != before


@given(models)
def test_where_a_file_is_and_what_it_is_called_do_not_count(metadata, parts):
    elsewhere = dataclasses.replace(
        metadata, path=metadata.path.with_name("other"), paths=(metadata.path.with_name("other"),)
    )
    assert of_model(metadata, parts) == of_model(elsewhere, parts)


@given(st.lists(st.text(max_size=4), max_size=4), st.lists(st.text(max_size=4), max_size=4))
def test_digests_of_different_parts_differ(one, other):
    assert (digest_parts(one) == digest_parts(other)) == (one == other)


# ── of a result ─────────────────────────────────────────────────────────────────────────────


@st.composite
def options(draw):
    """Draw options that fit together."""
    chosen = {"overflow": draw(st.sampled_from(["error", "truncate", "window"]))}
    chosen |= draw(
        st.sampled_from(
            [
                {},
                {"kind": "query"},
                {"kind": "document"},
                *({"prompt_name": name} for name in PROMPTS),
                *({"prompt": text} for text in ("", "q: ", "o: ", "p ")),
            ]
        )
    )
    if chosen["overflow"] == "window":
        chosen["window_overlap"] = draw(st.sampled_from([None, 0, 1, 2]))
    if draw(st.booleans()):
        chosen["dimensions"] = draw(st.sampled_from([N_EMBD, 32, 16, 17]))
    chosen["truncate_side"] = draw(st.sampled_from(["left", "right"]))
    chosen["max_tokens"] = draw(st.sampled_from([None, 16, 15, 8]))
    chosen["normalization"] = draw(st.sampled_from([None, "l2", 2, 1, 3, "none", "max_abs"]))
    chosen["precision"] = draw(st.sampled_from(["float32", "float16", "int8", "uint8", "ubinary"]))
    if chosen["precision"] in ("int8", "uint8"):
        chosen["calibration"] = draw(
            st.sampled_from(calibrations(chosen.get("dimensions", N_EMBD)))
        )
    return EmbedOptions(**chosen, force_dimensions=True)


def vector_inputs(wanted: EmbedOptions):
    """Say in plain values what the vectors of a call depend on, besides model and text."""
    named = PROMPTS.get(wanted.prompt_name or wanted.kind, "")
    prompt = named if wanted.prompt is None else wanted.prompt
    limit = wanted.max_tokens or 16
    room = limit - 2 - len(prompt.split())
    policy = {
        "error": (),
        "truncate": (wanted.truncate_side, limit),
        "window": (
            limit,
            wanted.window_overlap if wanted.window_overlap is not None else room // 10,
        ),
    }[wanted.overflow]
    norm = {None: "l2", 2: "l2"}.get(wanted.normalization, wanted.normalization)
    ranges = wanted.calibration.ranges.tobytes() if wanted.calibration else None
    dimensions = wanted.dimensions or N_EMBD
    return prompt, wanted.overflow, policy, norm, dimensions, wanted.precision, ranges


def of_result(info, tokenizer, wanted, model="m"):
    return resolve_request(info, tokenizer, wanted).fingerprint(model)


@given(options(), options())
@settings(max_examples=300, deadline=None)
def test_two_results_share_a_fingerprint_only_if_their_vectors_do(info, tokenizer, one, other):
    same = of_result(info, tokenizer, one) == of_result(info, tokenizer, other)
    assert same == (vector_inputs(one) == vector_inputs(other))


@given(options(), options(), st.data())
@settings(max_examples=500, deadline=None)
def test_each_option_counts_where_it_matters_and_only_there(info, tokenizer, one, other, data):
    name = data.draw(st.sampled_from([field.name for field in dataclasses.fields(EmbedOptions)]))
    changed = replace(one, **{name: getattr(other, name)})
    try:
        found = of_result(info, tokenizer, changed)
    except ConfigurationError:
        assume(False)
    same = of_result(info, tokenizer, one) == found
    assert same == (vector_inputs(one) == vector_inputs(changed))


@given(options())
def test_the_model_counts(info, tokenizer, wanted):
    assert of_result(info, tokenizer, wanted, "m") != of_result(info, tokenizer, wanted, "n")


@given(options(), options())
def test_what_is_cached_under_one_policy_is_the_same_vector(info, tokenizer, one, other):
    """Whole float32 vectors are kept, so that dimensions and precision are no part of it."""
    requests = [resolve_request(info, tokenizer, wanted) for wanted in (one, other)]
    keys = [(request.encoder.prompt, request.cache_policy) for request in requests]
    if keys[0] == keys[1]:
        assert vector_inputs(one)[:4] == vector_inputs(other)[:4]
        # nor is a text over the limit found that was within another one
        assert requests[0].encoder.limit == requests[1].encoder.limit


# ── equal fingerprints, equal vectors ───────────────────────────────────────────────────────

TEXTS = ["a", "ab c", "c abing é ab", "abing " * 4, "a ☃ c", "c " * 14]


@pytest.fixture(scope="module")
def plain(tiny_path):
    with EmbeddingEngine() as engine:
        engine.load_model(tiny_path, name="m", config=ModelConfig(n_threads=1))
        yield engine.embed_detailed("m", TEXTS)


@given(
    st.fixed_dictionaries(
        {
            "n_threads": st.integers(1, 3),
            "n_contexts": st.integers(1, 2),
            "max_batch_tokens": st.sampled_from([1, 7, 16, 40, 512]),
            "max_batch_requests": st.sampled_from([1, 3, 64]),
            "flash_attn": st.sampled_from([True, "auto"]),
            "use_mmap": st.booleans(),
        }
    )
)
@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_vectors_of_one_fingerprint_agree(tiny_path, plain, values):
    with EmbeddingEngine() as engine:
        engine.load_model(tiny_path, name="m", config=ModelConfig(**values))
        found = engine.embed_detailed("m", TEXTS)
    assert found.fingerprint == plain.fingerprint
    assert np.abs(found.vectors - plain.vectors).max() <= BATCH_TOLERANCE["F32"]
