import pytest

from embellama.gguf import read_metadata
from tests.tiny_bert import write_folder


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "tiny")


def test_a_folder_becomes_a_gguf(run, folder, tmp_path):
    target = tmp_path / "out.gguf"
    outcome = run("convert", folder, target, "--type", "q8_0", "--name", "Tiny")
    metadata = read_metadata(target)
    assert outcome.status == 0
    assert outcome.out.startswith(f"{target}: Q8_0, ")
    assert f"{metadata.tensor_types['Q8_0']} Q8_0" in outcome.out
    assert metadata.name == "Tiny"


def test_quantizing_tells_the_types_the_tensors_got(run, folder, tmp_path):
    source, target = tmp_path / "f32.gguf", tmp_path / "q4.gguf"
    assert run("convert", folder, source, "--type", "F32").status == 0
    outcome = run("quantize", source, target, "Q4_K_M")
    assert outcome.status == 0
    tensors = outcome.out.splitlines()[1].removeprefix("tensors: ").split(", ")
    assert {name: int(count) for count, name in (part.split() for part in tensors)} == dict(
        read_metadata(target).tensor_types
    )
    assert run("quantize", target, tmp_path / "q5.gguf", "Q5_0").status == 1
    assert run("quantize", target, tmp_path / "q5.gguf", "Q5_0", "--requantize").status == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["convert", "no-folder", "out.gguf"], "no-folder"),
        (["quantize", "missing.gguf", "out.gguf", "Q8_0"], "missing.gguf"),
    ],
)
def test_what_cannot_be_made_is_said(run, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    outcome = run(*arguments)
    assert (outcome.status, outcome.out) == (1, "")
    assert outcome.err.startswith("embellama: ")
    assert words in outcome.err
    assert not (tmp_path / "out.gguf").exists()
