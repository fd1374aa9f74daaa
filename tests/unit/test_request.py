from dataclasses import replace

import numpy as np
import pytest

from embellama import EmbeddingEngine, ModelConfig
from embellama.errors import ConfigurationError
from embellama.gguf import read_metadata
from embellama.precision.calibration import Calibration
from embellama.request import (
    EmbedOptions,
    check_choices,
    check_makes_vectors,
    missing_prompt,
    resolve_request,
)
from embellama.testing import FakeVocabulary
from embellama.tokenization import Tokenizer

PROMPTS = {"query": "query: ", "title": "a title: "}


@pytest.fixture(scope="module")
def tokenizer(tiny_path):
    return Tokenizer(FakeVocabulary(), read_metadata(tiny_path))


@pytest.fixture(scope="module")
def info(tiny_path):
    config = ModelConfig(n_threads=1, prompts=PROMPTS, normalization="max_abs")
    with EmbeddingEngine() as engine:
        return engine.load_model(tiny_path, name="tiny", config=config)


@pytest.fixture
def resolve(info, tokenizer):
    def resolve(**options):
        return resolve_request(options.pop("info", info), tokenizer, EmbedOptions(**options))

    return resolve


def calibration(width=64, fingerprint=None):
    return Calibration(np.array([[-1.0] * width, [1.0] * width]), fingerprint)


def test_what_is_left_open_comes_from_the_model(resolve):
    request = resolve()
    encoder = request.encoder
    assert (encoder.prompt, encoder.limit, encoder.overflow) == ("", 16, "error")
    assert (request.normalization, request.dimensions, request.precision) == (
        "max_abs",
        64,
        "float32",
    )
    assert request.calibration is None


@pytest.mark.parametrize(
    ("options", "prompt"),
    [
        ({}, ""),
        ({"kind": "query"}, "query: "),
        ({"kind": "document"}, ""),
        ({"prompt_name": "title"}, "a title: "),
        ({"prompt": "mine: "}, "mine: "),
        ({"prompt": ""}, ""),
    ],
)
def test_which_prompt_goes_in_front(resolve, options, prompt):
    request = resolve(**options)
    assert request.encoder.prompt == prompt
    assert request.prompt_is_missing is (not options)


def test_no_prompt_is_missed_where_there_is_none(resolve, info):
    assert not resolve(info=replace(info, prompts={})).prompt_is_missing
    assert not resolve(info=replace(info, prompts={"query": ""})).prompt_is_missing


def test_what_is_said_of_a_missing_prompt_names_them(info):
    said = missing_prompt(info)
    assert "query: 'query: ', title: 'a title: '" in said
    assert "prompt=''" in said


@pytest.mark.parametrize(
    ("options", "overlap"),
    [
        ({}, 1),  # a tenth of the 14 tokens beside the special ones
        ({"kind": "query", "max_tokens": 14}, 1),
        ({"max_tokens": 11}, 0),
        ({"window_overlap": 0}, 0),
        ({"window_overlap": 13}, 13),
    ],
)
def test_the_overlap_is_a_tenth_unless_given(resolve, options, overlap):
    encoder = resolve(overflow="window", **options).encoder
    assert (encoder.overflow, encoder.window_overlap) == ("window", overlap)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"overflow": "cut"}, "overflow = 'cut'; it has to be one of 'error', 'truncate'"),
        ({"overflow": None}, "overflow = None"),
        ({"truncate_side": "both"}, "truncate_side = 'both'; .* 'right', 'left'"),
        ({"precision": "int4"}, "precision = 'int4'; .* 'ubinary'"),
        ({"kind": "passage"}, "kind = 'passage'; .* 'query', 'document', None"),
        ({"kind": "query", "prompt": ""}, "kind and prompt each choose"),
        ({"kind": "query", "prompt_name": "title"}, "kind and prompt_name each choose"),
        ({"prompt": "a", "prompt_name": "title"}, "prompt and prompt_name each choose"),
        ({"window_overlap": 0}, "window_overlap = 0 means nothing with overflow = 'error'"),
        ({"window_overlap": 3, "overflow": "truncate"}, "means nothing with .* 'truncate'"),
    ],
)
def test_options_that_no_model_could_fulfil(resolve, options, message):
    with pytest.raises(ConfigurationError, match=message):
        check_choices(EmbedOptions(**options))
    with pytest.raises(ConfigurationError, match=message):
        resolve(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt": b"query"}, "prompt has to be a str, not bytes"),
        ({"prompt_name": "quary"}, "prompt_name = 'quary'; .* are: 'query', 'title'; name one"),
        *(
            ({"max_tokens": wrong}, "max_tokens = .*; it has to be (1 to 16|a whole number)")
            for wrong in (0, -1, 17, 8.0, "8", True)
        ),
        ({"max_tokens": 2}, "leaves no room for text .* raise max_tokens.* to more than 2"),
        ({"max_tokens": 4, "prompt": "two words "}, "more than 4"),
        *(
            ({"normalization": wrong}, "normalization = .*; it has to be 'l2', .* from 1 to 64")
            for wrong in (0, -1, 65, 2.0, True, "L2", [])
        ),
        *(
            (
                {"dimensions": wrong},
                "dimensions = .*; (.* has vectors of 1 to 64|it has to be a whole number)",
            )
            for wrong in (0, -1, 65, 32.0, True, "32")
        ),
        ({"dimensions": 32}, "does not declare any shorter length; .* force_dimensions=True"),
        *(
            ({"overflow": "window", "window_overlap": wrong}, "window_overlap = ")
            for wrong in (-1, 14, 1.5, True, "1")
        ),
        ({"precision": "int8"}, "precision = 'int8' needs the range"),
        ({"precision": "uint8"}, "precision = 'uint8' needs the range"),
        ({"calibration": calibration()}, "means nothing with precision = 'float32'"),
        ({"precision": "binary", "calibration": calibration()}, "means nothing"),
        ({"precision": "int8", "calibration": calibration(32)}, "for 32 components .* have 64"),
        (
            {"precision": "int8", "calibration": calibration(fingerprint="another")},
            "made for the model another",
        ),
    ],
)
def test_options_that_the_model_cannot_fulfil(resolve, options, message):
    with pytest.raises(ConfigurationError, match=message):
        resolve(**options)


def test_dimensions_are_those_declared_or_forced(resolve, info):
    declared = replace(info, matryoshka_dims=(32, 16))
    assert resolve(info=declared, dimensions=32).dimensions == 32
    assert resolve(dimensions=64).dimensions == 64
    assert resolve(dimensions=7, force_dimensions=True).dimensions == 7
    with pytest.raises(ConfigurationError, match="was trained for 32, 16;"):
        resolve(info=declared, dimensions=17)


def test_a_calibration_of_this_model_or_of_an_unknown_one_is_taken(resolve, info):
    for fingerprint in (info.fingerprint, None):
        given = calibration(fingerprint=fingerprint)
        assert resolve(precision="int8", calibration=given).calibration is given
    shorter = calibration(32)
    request = resolve(precision="uint8", dimensions=32, force_dimensions=True, calibration=shorter)
    assert request.calibration is shorter


def test_a_text_kept_under_one_limit_is_not_found_under_a_lower_one(resolve):
    """Otherwise a text over the lower limit would be found, and not refused."""
    assert resolve(max_tokens=8).cache_policy != resolve().cache_policy
    assert resolve(dimensions=64).cache_policy == resolve().cache_policy


@pytest.mark.parametrize("pooling_type", ["mean", "cls", "last", "max", "mean_sqrt_len"])
def test_models_that_make_vectors(info, pooling_type):
    check_makes_vectors(replace(info, pooling_type=pooling_type))


def test_models_that_do_not(info):
    ranking = replace(info, pooling_type="rank", pooling_source="file")
    for pooled in (True, False):
        with pytest.raises(ConfigurationError, match=r"scores pairs .*'rank', file.* call rerank"):
            check_makes_vectors(ranking, pooled=pooled)
    apart = replace(info, pooling_type="none")
    with pytest.raises(ConfigurationError, match="call embed_tokens, or set pooling_type"):
        check_makes_vectors(apart)
    check_makes_vectors(apart, pooled=False)


def fingerprint(resolve, **options):
    return resolve(**options).fingerprint("model")


RANGED = {"precision": "int8", "calibration": calibration()}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({}, {"prompt": ""}),
        ({}, {"kind": "document"}),  # which has no prompt here
        ({"kind": "query"}, {"prompt": "query: "}),
        ({"kind": "query"}, {"prompt_name": "query"}),
        ({}, {"dimensions": 64}),
        ({}, {"normalization": "max_abs"}),  # the configured one
        ({"normalization": "l2"}, {"normalization": 2}),
        ({}, {"max_tokens": 9}),
        ({}, {"truncate_side": "left"}),
        ({"overflow": "truncate"}, {"overflow": "truncate", "max_tokens": 16}),
        ({"overflow": "window"}, {"overflow": "window", "window_overlap": 1}),
        ({"overflow": "window"}, {"overflow": "window", "truncate_side": "left"}),
        (RANGED, {**RANGED, "calibration": calibration()}),
        ({}, {"force_dimensions": True}),
    ],
    ids=str,
)
def test_what_gives_the_same_vectors_has_one_fingerprint(resolve, one, other):
    assert fingerprint(resolve, **one) == fingerprint(resolve, **other)


def test_what_gives_others_has_another(resolve):
    cut, window = {"overflow": "truncate"}, {"overflow": "window"}
    short = {"dimensions": 32, "force_dimensions": True}
    half = Calibration(calibration().ranges * np.float32(0.5))
    different = [
        {},
        {"kind": "query"},
        {"prompt_name": "title"},
        {"prompt": " "},
        cut,
        {**cut, "truncate_side": "left"},
        {**cut, "max_tokens": 9},
        window,
        {**window, "max_tokens": 9},
        {**window, "window_overlap": 2},
        short,
        {**short, "dimensions": 33},
        {"normalization": "l2"},
        {"normalization": "none"},
        {"normalization": 1},
        {"normalization": 3},
        *({"precision": precision} for precision in ("float16", "binary", "ubinary")),
        RANGED,
        {**RANGED, "precision": "uint8"},
        {**RANGED, "calibration": half},
    ]
    found = {fingerprint(resolve, **options) for options in different}
    assert len(found) == len(different)
    assert resolve().fingerprint("another model") not in found


def test_numpys_whole_numbers_are_numbers_and_what_equals_one_is_not(resolve, info):
    declared = replace(info, matryoshka_dims=(1, 32))
    assert resolve(info=declared, dimensions=np.int64(32)).dimensions == 32
    for odd in (32.0, True, np.float32(32)):
        with pytest.raises(ConfigurationError, match="whole number"):
            EmbedOptions(dimensions=odd)


def test_a_role_of_a_model_whose_prompts_nobody_knows_is_doubtful(resolve, info):
    assert resolve(info=replace(info, prompts={}), kind="query").prompt_is_unknown
    assert not resolve(info=replace(info, prompts={})).prompt_is_unknown
    assert not resolve(
        info=replace(info, prompts={"query": "q "}), kind="document"
    ).prompt_is_unknown
