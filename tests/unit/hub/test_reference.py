from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embellama.errors import InvalidInputError, InvalidInputTypeError, ModelNotFoundError
from embellama.hub.catalog import find
from embellama.hub.reference import (
    CatalogReference,
    FileReference,
    HubReference,
    choose_file,
    parse_reference,
    plain_stem,
    split_parts,
)


@pytest.mark.parametrize("text", ["minilm", "MiniLM", " minilm ", "all-MiniLM-L6-v2"])
def test_a_catalogue_name_has_the_default_type(text):
    assert parse_reference(text) == CatalogReference(find("minilm"), "F16")


@pytest.mark.parametrize("text", ["minilm:Q8_0", "minilm:q8_0", "all-minilm-l6-v2:Q8_0"])
def test_a_catalogue_name_with_a_type(text):
    assert parse_reference(text) == CatalogReference(find("minilm"), "Q8_0")


def test_an_unknown_type_suggests_known_ones():
    with pytest.raises(InvalidInputError, match="did you mean Q8_0"):
        parse_reference("minilm:Q8")
    with pytest.raises(InvalidInputError, match="known: F32, F16"):
        parse_reference("minilm:")


def test_an_unknown_name_suggests_known_ones():
    with pytest.raises(ModelNotFoundError, match="did you mean minilm"):
        parse_reference("minlm")
    with pytest.raises(ModelNotFoundError, match="embellama models"):
        parse_reference("qqqqqqqq")


@pytest.mark.parametrize("text", ["a.gguf", "models/a.bin", "./minilm", "/x/y.GGUF", "b:/c.gguf"])
def test_what_looks_like_a_path_is_one(text):
    assert parse_reference(text) == FileReference(Path(text))


def test_a_path_object_is_a_path_whatever_it_is_called():
    assert parse_reference(Path("minilm")) == FileReference(Path("minilm"))


def test_an_existing_file_of_any_name_is_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("weights").write_bytes(b"")
    Path("minilm").mkdir()
    assert parse_reference("weights") == FileReference(Path("weights"))
    assert isinstance(parse_reference("minilm"), CatalogReference)


def test_the_home_directory_is_expanded(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert parse_reference("~/a.gguf") == FileReference(tmp_path / "a.gguf")


@pytest.mark.parametrize("model", ["~no-such-user/a.gguf", Path("~no-such-user/a.gguf")])
def test_a_home_directory_that_is_not_known(model):
    with pytest.raises(InvalidInputError, match="'~no-such-user/a.gguf' begins with a user"):
        parse_reference(model)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hf:o/r", HubReference("o/r")),
        ("hf:o/r:Q4_K_M", HubReference("o/r", file_type="Q4_K_M")),
        ("hf:o/r@v1", HubReference("o/r", "v1")),
        ("hf:o/r@v1:Q8_0", HubReference("o/r", "v1", file_type="Q8_0")),
        ("hf:o/r@v1/m.gguf", HubReference("o/r", "v1", "m.gguf")),
        ("hf:o/r/m.gguf", HubReference("o/r", None, "m.gguf")),
        ("hf:o/r/sub/dir/m.gguf", HubReference("o/r", None, "sub/dir/m.gguf")),
        ("HF:o.x/r-1.5_b/m.gguf", HubReference("o.x/r-1.5_b", None, "m.gguf")),
    ],
)
def test_references_to_the_hub(text, expected):
    assert parse_reference(text) == expected
    assert parse_reference(str(expected)) == expected


def test_a_revision_with_a_slash_is_written_with_its_code():
    assert parse_reference("hf:o/r@refs%2Fpr%2F1:F16") == HubReference(
        "o/r", "refs/pr/1", None, "F16"
    )


@pytest.mark.parametrize(
    "text",
    [
        "hf:", "hf:r", "hf:o/", "hf://o/r", "hf:o/r:", "hf:o/r@", "hf:o/r@/m.gguf", "hf:o/r/m.bin",
        "hf:o/r/../../m.gguf", "hf:o/r/..\\m.gguf", "hf:o/r@v1@v2", "hf:../r:F16", "hf:o/r F16",
    ],
)  # fmt: skip
def test_malformed_references_show_the_forms(text):
    with pytest.raises(InvalidInputError, match="hf:owner/repo"):
        parse_reference(text)


@pytest.mark.parametrize("text", ["", "  ", "\n"])
def test_an_empty_name(text):
    with pytest.raises(InvalidInputError, match="empty"):
        parse_reference(text)


@pytest.mark.parametrize("value", [None, 3, b"minilm", ["minilm"]])
def test_a_wrong_type_is_also_a_type_error(value):
    with pytest.raises(InvalidInputTypeError, match=type(value).__name__) as caught:
        parse_reference(value)
    assert isinstance(caught.value, TypeError)


@given(st.text())
def test_any_text_is_a_reference_or_an_error_of_ours(text):
    try:
        parsed = parse_reference(text)
    except (InvalidInputError, ModelNotFoundError):
        return
    assert isinstance(parsed, CatalogReference | FileReference | HubReference)


def test_split_files():
    parts = ("a/m-00001-of-00003.gguf", "a/m-00002-of-00003.gguf", "a/m-00003-of-00003.gguf")
    for part in parts:
        assert split_parts(part) == parts
    assert split_parts("m.gguf") == ("m.gguf",)
    assert plain_stem("a/m-00002-of-00003.gguf") == "m"
    assert plain_stem("m-F16.gguf") == "m-F16"


NAMES = [
    "README.md", "m-F16.gguf", "m-BF16.gguf", "m-Q4_K_M.gguf", "m-Q4_K_S.gguf", "m.q8_0.gguf",
    "mmproj-m-F16.gguf", "F32/m-f32-00001-of-00002.gguf", "F32/m-f32-00002-of-00002.gguf",
]  # fmt: skip


@pytest.mark.parametrize(
    ("file_type", "expected"),
    [
        ("F16", "m-F16.gguf"),
        ("bf16", "m-BF16.gguf"),
        ("Q4_K_M", "m-Q4_K_M.gguf"),
        ("Q8_0", "m.q8_0.gguf"),
        ("F32", "F32/m-f32-00001-of-00002.gguf"),
    ],
)
def test_a_file_is_chosen_by_its_type(file_type, expected):
    assert choose_file(NAMES, file_type, where="o/r") == expected


def test_no_match_and_many_matches_list_the_candidates():
    with pytest.raises(ModelNotFoundError, match=r"no GGUF of type 'Q4_K'.*m-Q4_K_S\.gguf"):
        choose_file(NAMES, "Q4_K", where="o/r")
    with pytest.raises(ModelNotFoundError, match=r"2 GGUFs of type 'F16'.*a-F16.gguf, b-F16.gguf"):
        choose_file(["b-F16.gguf", "a-F16.gguf", "a-Q8_0.gguf"], "F16", where="o/r")
    with pytest.raises(ModelNotFoundError, match="6 GGUFs; name one of"):
        choose_file(NAMES, None, where="o/r")
    with pytest.raises(ModelNotFoundError, match="o/r holds no GGUF"):
        choose_file(["a.bin"], None, where="o/r")
    assert choose_file(["README.md", "only.gguf"], None, where="o/r") == "only.gguf"
