import shutil

import pytest

from embellama.errors import ConversionError
from embellama.gguf import read_metadata
from embellama.hub.convert import convert_folder
from tests.tiny_bert import modules, value_of, write_json


@pytest.mark.parametrize("name", ["x" * 300, "a\0b"])
def test_a_folder_that_no_folder_can_be(tmp_path, target, name):
    with pytest.raises(ConversionError, match="is not there"):
        convert_folder(tmp_path / name, target)


@pytest.mark.parametrize(
    ("config", "pooling_type"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_max_tokens": False}, "cls"),
        ({"pooling_mode_lasttoken": True}, "last"),
        ({"pooling_mode": "mean"}, "mean"),
        ({"word_embedding_dimension": 64}, None),
    ],
)
def test_pooling(folder, target, config, pooling_type):
    write_json(folder / "1_Pooling" / "config.json", config)
    convert_folder(folder, target)
    assert read_metadata(target).pooling_type == pooling_type


def test_a_transformers_folder_says_nothing_of_pooling(folder, target):
    (folder / "modules.json").unlink()
    shutil.rmtree(folder / "1_Pooling")
    convert_folder(folder, target)
    assert value_of(target, "bert.pooling_type") is None


def test_a_folder_without_modules_may_have_pooling(folder, target):
    (folder / "modules.json").unlink()
    convert_folder(folder, target)
    assert read_metadata(target).pooling_type == "mean"


def test_the_transformer_may_be_in_a_folder_of_its_own(folder, target, tmp_path):
    root = tmp_path / "old"
    shutil.copytree(folder, root / "0_Transformer")
    shutil.copytree(folder / "1_Pooling", root / "1_Pooling")
    steps = modules("Transformer", "Pooling")
    steps[0]["path"] = "0_Transformer"
    write_json(root / "modules.json", steps)
    convert_folder(root, target)
    assert read_metadata(target).pooling_type == "mean"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"pooling_mode_max_tokens": True}, "pools by pooling_mode_max_tokens; llama.cpp can"),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}, " and "),
        ({"pooling_mode": "weightedmean"}, "pools by weightedmean"),
    ],
)
def test_other_pooling_is_refused(folder, target, config, message):
    write_json(folder / "1_Pooling" / "config.json", config)
    with pytest.raises(ConversionError, match=message):
        convert_folder(folder, target)


def test_a_folder_that_is_none(folder, target, tmp_path):
    for source, message in {
        tmp_path / "absent": "is not there; name the folder",
        folder / "config.json": "is a file; name the folder",
        folder / "1_Pooling": None,
        tmp_path: "has no config.json",
    }.items():
        with pytest.raises(ConversionError, match=message):
            convert_folder(source, target)


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "is not JSON"), ("[1]", "holds a list"), ("\udcff", "is not JSON")],
)
def test_a_config_that_is_no_json_object(folder, target, text, message):
    (folder / "config.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ConversionError, match=message):
        convert_folder(folder, target)


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (modules("Transformer", "Pooling", "Dense"), "modules Dense after pooling"),
        ([{"type": "x.Transformer", "path": "../other"}], "outside its own"),
        ([{"path": ""}], "not a list of modules"),
        (7, "not a list of modules"),
    ],
)
def test_pipelines_that_a_gguf_cannot_hold_are_refused(folder, target, steps, message):
    write_json(folder / "modules.json", steps)
    with pytest.raises(ConversionError, match=message):
        convert_folder(folder, target)
