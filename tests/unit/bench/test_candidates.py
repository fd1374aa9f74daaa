import shutil

import pytest

from embellama.bench.candidates import ALL_TYPES, Source, by_precision, make_candidates, parse_types
from embellama.errors import InvalidInputError, ModelNotFoundError
from embellama.gguf import read_metadata
from embellama.hub.quantize import quantize_file


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "made"
    folder.mkdir()
    return Source(folder, cache_path=tmp_path / "cache", offline=True)


def nothing(what, done, total):
    pass


def test_types_are_read_in_any_spelling_once_each():
    assert parse_types("all") == ALL_TYPES
    assert parse_types(" q8_0, F16,Q8_0,") == ("Q8_0", "F16")
    assert parse_types("Q2_K,ALL") == ("Q2_K", *ALL_TYPES)
    assert by_precision(ALL_TYPES) == [
        "F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "words"),
    [("", "no file type given"), (" , ", "no file type"), ("Q9", "'Q9' is not a GGUF file type")],
)
def test_types_that_are_none(text, words):
    with pytest.raises(InvalidInputError, match=words):
        parse_types(text)


def test_a_file_is_itself_and_what_can_be_made_of_it(tiny_path, source):
    told = []
    made, failed = make_candidates(
        tiny_path, ["Q8_0", "F32", "IQ1_S"], source, lambda *step: told.append(step)
    )
    assert [one.file_type for one in made] == ["F32", "Q8_0"]
    whole, small = made
    assert (whole.model, whole.reference) == (tiny_path, str(tiny_path))
    assert whole.file_bytes == tiny_path.stat().st_size
    assert small.model.parent == source.folder
    assert small.tensor_types == read_metadata(small.model).tensor_types
    assert small.tensor_types["Q8_0"] > 0
    assert small.reference.startswith("tiny-Q8_0.gguf, made by embellama quantize ")
    assert "importance matrix" in failed["IQ1_S"]
    assert told == [("making F32", 0, 3), ("making Q8_0", 1, 3), ("making IQ1_S", 2, 3)]


def test_a_quantized_file_is_only_itself(tiny_path, source, tmp_path):
    path = tmp_path / "small.gguf"
    quantize_file(tiny_path, path, "Q8_0")
    made, failed = make_candidates(path, ["F16", "Q8_0"], source, nothing)
    assert [one.model for one in made] == [path]
    assert "quantizing it again loses more" in failed["F16"]


def test_a_model_that_is_not_there_ends_it(source, tmp_path):
    with pytest.raises(ModelNotFoundError):
        make_candidates(tmp_path / "none.gguf", ["F32"], source, nothing)
    with pytest.raises(ModelNotFoundError):
        make_candidates("no-such-model", ["F32"], source, nothing)


def test_catalogue_types_that_cannot_be_fetched_are_quantized_from_one_that_is_stored(
    minilm_path, source, tmp_path, monkeypatch
):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    stored = source.cache_path / "converted"
    stored.mkdir(parents=True)
    for path in (minilm_path, minilm_path.with_name(minilm_path.name + ".json")):
        shutil.copy2(path, stored)
    made, failed = make_candidates("minilm", ["F16", "Q4_0", "IQ1_S"], source, nothing)
    assert [(one.file_type, one.reference.partition(",")[0]) for one in made] == [
        ("F16", "minilm:F16"),
        ("Q4_0", f"{minilm_path.stem}-Q4_0.gguf"),
    ]
    assert "network is switched off" in failed["IQ1_S"]
    assert "; and from F16: IQ1_S needs an importance matrix" in failed["IQ1_S"]


def test_nothing_stored_and_no_network_leaves_nothing(source, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    made, failed = make_candidates("minilm", ["F16", "Q8_0"], source, nothing)
    assert made == []
    assert set(failed) == {"F16", "Q8_0"}
