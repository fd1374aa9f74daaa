from types import SimpleNamespace
from typing import get_args

import numpy as np
import pytest
import typer

from embellama.cli.vector_options import (
    KindChoice,
    OverflowChoice,
    PrecisionChoice,
    SideChoice,
    VectorOptions,
    fitted,
    input_options,
    output_options,
)
from embellama.errors import ConfigurationError
from embellama.precision.calibration import Calibration
from embellama.request import EmbedOptions
from embellama.types import Kind, Overflow, Precision, TruncateSide


@pytest.mark.parametrize(
    ("choices", "literal"),
    [
        (KindChoice, Kind),
        (OverflowChoice, Overflow),
        (SideChoice, TruncateSide),
        (PrecisionChoice, Precision),
    ],
)
def test_the_choices_are_the_engines(choices, literal):
    assert tuple(choice.value for choice in choices) == get_args(literal)


def test_every_option_is_one_of_the_engines():
    assert VectorOptions.__optional_keys__ <= set(EmbedOptions.__slots__)


def inputs(kind=None, prompt=None, prompt_name=None):
    return input_options(kind, prompt, prompt_name, OverflowChoice.ERROR, SideChoice.LEFT, 7)


def test_what_is_not_given_is_left_to_the_model():
    assert inputs() == {
        "kind": None,
        "prompt": None,
        "prompt_name": None,
        "overflow": "error",
        "truncate_side": "left",
        "max_tokens": 7,
    }
    assert output_options(None, PrecisionChoice.FLOAT32, None) == {
        "normalization": None,
        "precision": "float32",
        "calibration": None,
    }


@pytest.mark.parametrize(
    "given",
    [
        {"kind": KindChoice.QUERY, "prompt": ""},
        {"prompt": "x", "prompt_name": "y"},
        {"kind": KindChoice.DOCUMENT, "prompt_name": "y"},
    ],
)
def test_two_ways_to_choose_a_prompt_contradict_each_other(given):
    with pytest.raises(typer.BadParameter, match="give one of them"):
        inputs(**given)


@pytest.mark.parametrize(
    ("given", "expected"), [("l2", "l2"), ("none", "none"), ("max_abs", "max_abs"), ("3", 3)]
)
def test_a_scaling_is_a_name_or_a_number(given, expected):
    assert output_options(given, PrecisionChoice.FLOAT32, None)["normalization"] == expected


@pytest.mark.parametrize("given", ["L2", "", "-1", "2.5", "٣"])
def test_no_other_scaling_is_taken(given):
    with pytest.raises(typer.BadParameter, match="none of l2, none, max_abs"):
        output_options(given, PrecisionChoice.FLOAT32, None)


@pytest.fixture
def ranges(tmp_path):
    path = tmp_path / "ranges.json"
    rows = np.arange(400, dtype=np.float32).reshape(100, 4)
    Calibration.from_vectors(rows, fingerprint="made for this").save(path)
    return path


def test_a_calibration_is_read(ranges):
    options = output_options(None, PrecisionChoice.INT8, ranges)
    assert options["calibration"] == Calibration.load(ranges)


@pytest.mark.parametrize("precision", ["int8", "uint8"])
def test_integers_need_a_calibration(precision):
    with pytest.raises(typer.BadParameter, match=f"{precision} needs a file"):
        output_options(None, PrecisionChoice(precision), None)


@pytest.mark.parametrize("precision", ["float32", "float16", "binary", "ubinary"])
def test_nothing_else_takes_one(precision, ranges):
    with pytest.raises(typer.BadParameter, match=f"means nothing with {precision}"):
        output_options(None, PrecisionChoice(precision), ranges)


def test_what_is_no_calibration_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match=r"missing\.json"):
        output_options(None, PrecisionChoice.INT8, tmp_path / "missing.json")


def model(prompts, fingerprint="made for this"):
    return SimpleNamespace(name="m", prompts=prompts, fingerprint=fingerprint)


def test_a_calibration_of_another_model_is_refused(ranges):
    options = output_options(None, PrecisionChoice.INT8, ranges)
    assert fitted(options, model({})) == options
    with pytest.raises(ConfigurationError, match="made for the model made for this, not for other"):
        fitted(options, model({}, fingerprint="other"))


def test_prompts_left_out_are_said_in_one_line(capsys):
    left_out = fitted(inputs(), model({"query": "ask\nthis: ", "document": ""}))
    assert left_out == {**inputs(), "prompt": ""}
    err = capsys.readouterr().err
    assert err.startswith("embellama: warning: model 'm' was trained with prompts (query: 'ask\\n")
    assert "--kind query" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("given", "prompts"),
    [
        ({"kind": KindChoice.QUERY}, {"query": "q: "}),
        ({"prompt": ""}, {"query": "q: "}),
        ({"prompt_name": "query"}, {"query": "q: "}),
        ({}, {}),
        ({}, {"query": "", "document": ""}),
    ],
)
def test_nothing_is_said_where_nothing_is_left_out(given, prompts, capsys):
    assert fitted(inputs(**given), model(prompts)) == inputs(**given)
    assert capsys.readouterr().err == ""
