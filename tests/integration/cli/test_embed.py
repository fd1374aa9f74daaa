import io
import json
import os
import subprocess

import numpy as np
import pytest

TEXTS = ["Hello, world!", "Grüße aus München", "a b c " * 20]


def stdin_of(texts):
    return "".join(f"{text}\n" for text in texts).encode()


def test_one_text_prints_384_numbers_of_norm_one(run, minilm_path, engine):
    outcome = run("embed", minilm_path, "Hello, world!")
    vector = np.array(json.loads(outcome.out), dtype=np.float32)
    assert (outcome.status, outcome.err) == (0, "")
    assert vector.shape == (384,)
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)
    assert np.allclose(vector, engine.embed("minilm", "Hello, world!"), atol=1e-4)


def test_several_texts_print_a_list_in_their_order(run, minilm_path, engine):
    rows = json.loads(run("embed", minilm_path, *TEXTS).out)
    assert np.allclose(rows, engine.embed_batch("minilm", TEXTS), atol=1e-3)


def test_one_line_of_standard_input_is_a_list_of_one(run, minilm_path):
    assert len(json.loads(run("embed", minilm_path, stdin=b"Hello\n").out)) == 1


def test_every_format_holds_the_same_vectors(run, minilm_path):
    def written(kind):
        return run("embed", minilm_path, "--format", kind, stdin=stdin_of(TEXTS)).stdout

    as_json = np.array(json.loads(written("json")), dtype=np.float32)
    lines = [json.loads(line) for line in written("jsonl").splitlines()]
    table = np.loadtxt(io.BytesIO(written("csv")), delimiter=",", dtype=np.float32)
    array = np.load(io.BytesIO(written("npy")), allow_pickle=False)
    assert array.shape == (len(TEXTS), 384)
    for other in (as_json, np.array(lines, dtype=np.float32), table):
        assert np.array_equal(other, array)


@pytest.mark.parametrize(("kind", "expected"), [("json", b"[]\n"), ("jsonl", b""), ("csv", b"")])
def test_no_text_gives_no_vector(run, minilm_path, kind, expected):
    outcome = run("embed", minilm_path, "--format", kind)
    assert (outcome.status, outcome.stdout) == (0, expected)


def test_npy_without_a_text_keeps_the_dimensions(run, minilm_path):
    array = np.load(io.BytesIO(run("embed", minilm_path, "--format", "npy").stdout))
    assert array.shape == (0, 384)


def test_a_file_goes_in_and_a_file_comes_out(run, minilm_path, tmp_path):
    source, target = tmp_path / "texts.txt", tmp_path / "out.npy"
    source.write_bytes(stdin_of([f"text {n}" for n in range(600)]))
    outcome = run("embed", minilm_path, "-f", source, "--format", "npy", "-o", target)
    assert (outcome.status, outcome.stdout, outcome.err) == (0, b"", "")
    assert np.load(target).shape == (600, 384)
    assert sorted(os.listdir(tmp_path)) == ["out.npy", "texts.txt"]


@pytest.mark.parametrize(
    ("arguments", "stdin", "words"),
    [
        ([], b"a\n\nb\n \n", "line 2, 4: blank"),
        (["a", ""], b"", "TEXT 2: blank"),
        ([], b"ok\n" * 600 + b"\x01\x02\n", "line 601: nothing to embed"),
        (
            [],
            b"ok\n" + b"word " * 600 + b"\n",
            "line 2 (602 tokens): over the model's limit of 512",
        ),
        ([], b"caf\xe9\n", "line 1 is not UTF-8"),
        (["--file", "missing.txt"], b"", "cannot read 'missing.txt'"),
        (["a", "-o", "no/such/out"], b"", "cannot write 'no/such/out'"),
        (["a", "--threads", "0"], b"", "n_threads = 0"),
    ],
)
def test_bad_input_is_named_and_exits_with_2(run, minilm_path, arguments, stdin, words):
    outcome = run("embed", minilm_path, *arguments, stdin=stdin)
    assert outcome.status == 2
    assert outcome.err.startswith("embellama: ")
    assert words in outcome.err
    assert outcome.err.count("\n") == 1


def test_numbers_of_lines_hold_behind_skipped_ones(run, minilm_path):
    stdin = b"\n\nok\n" + b"word " * 600 + b"\n"
    outcome = run("embed", minilm_path, "--skip-blank", stdin=stdin)
    assert "line 4 (602 tokens)" in outcome.err


def test_skipped_blank_lines_have_no_vector(run, minilm_path):
    outcome = run("embed", minilm_path, "--skip-blank", "--format", "jsonl", stdin=b"a\n\n \nb\n")
    assert (outcome.status, len(outcome.out.splitlines())) == (0, 2)


@pytest.mark.parametrize(
    ("model", "status", "words"),
    [
        ("no-such-model", 1, "no model named 'no-such-model'"),
        ("missing.gguf", 1, "no file 'missing.gguf'"),
        ("hf:broken", 2, "not a reference to the hub"),
    ],
)
def test_a_model_that_is_not_there_is_named(run, model, status, words):
    outcome = run("embed", model, "x")
    assert (outcome.status, outcome.stdout) == (status, b"")
    assert outcome.err.startswith("embellama: ")
    assert words in outcome.err


def test_what_fails_leaves_no_file(run, minilm_path, tmp_path):
    target = tmp_path / "out.jsonl"
    stdin = b"ok\n" * 1100 + b"\n"
    outcome = run("embed", minilm_path, "--format", "jsonl", "-o", target, stdin=stdin)
    assert outcome.status == 2
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "arguments", [["embed"], ["embed", "m", "x", "--no-such"], ["nonsense"], ["--threads", "x"]]
)
def test_wrong_usage_exits_with_2(run, arguments):
    outcome = run(*arguments)
    assert (outcome.status, outcome.stdout) == (2, b"")
    assert "Usage: embellama" in outcome.err


def test_verbose_shows_the_log_and_where_it_failed(run, minilm_path):
    good = run("embed", minilm_path, "x", "-v")
    assert "embellama.model.loaded" in good.err
    assert json.loads(good.out)
    bad = run("embed", minilm_path, " ", "--verbose")
    assert bad.err.startswith("Traceback")
    assert bad.err.splitlines()[-1].startswith("embellama: TEXT 1: blank")


def test_npy_through_a_pipe_is_binary_to_the_byte(command, minilm_path):
    done = subprocess.run(
        command("embed", minilm_path, "--format", "npy"),
        input=stdin_of(TEXTS), capture_output=True, check=True,
    )  # fmt: skip
    assert done.stderr == b""
    assert np.load(io.BytesIO(done.stdout), allow_pickle=False).shape == (3, 384)
    assert len(done.stdout) == 128 + 3 * 384 * 4
