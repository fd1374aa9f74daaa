import io
import json
import os
import subprocess

import numpy as np
import pytest

from embellama import Calibration, EmbeddingCache

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
            "line 2 (602 tokens): over the limit of 512 tokens",
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


def test_kind_puts_the_models_prompt_in_front(run, prompted, minilm_path):
    plain = run("embed", minilm_path, "passage: a cat")
    outcome = run("embed", prompted, "a cat", "--kind", "document")
    assert (outcome.status, outcome.stdout, outcome.err) == (0, plain.stdout, "")
    for given in (["--prompt", "passage: "], ["--prompt-name", "document"]):
        assert run("embed", prompted, "a cat", *given).stdout == plain.stdout


def test_prompts_left_out_are_said_in_one_line(run, prompted, minilm_path):
    outcome = run("embed", prompted, "a cat")
    assert outcome.stdout == run("embed", minilm_path, "a cat").stdout
    assert outcome.err.startswith("embellama: warning: model 'prompted' was trained with prompts")
    assert outcome.err.count("\n") == 1
    assert run("embed", prompted, "a cat", "--prompt", "").err == ""


LONG = "word " * 600


def test_what_is_cut_is_told(run, minilm_path, engine):
    stdin = stdin_of(["short", LONG, "short", LONG])
    options = ("--overflow", "truncate", "--format", "npy")
    outcome = run("embed", minilm_path, *options, stdin=stdin)
    warning = "embellama: warning: 2 of 4 texts cut, 180 tokens dropped: line 2, 4\n"
    assert (outcome.status, outcome.err) == (0, warning)
    expected = engine.embed("minilm", LONG, overflow="truncate")
    assert np.allclose(np.load(io.BytesIO(outcome.stdout))[1], expected, atol=1e-3)


def test_a_text_is_cut_where_and_when_the_user_says(run, minilm_path, engine):
    text = "one two three four five"
    options = ("--overflow", "truncate", "--max-tokens", "4")
    left = run("embed", minilm_path, text, *options, "--truncate-side", "left")
    assert left.err == "embellama: warning: 1 of 1 texts cut, 3 tokens dropped: TEXT 1\n"
    assert np.allclose(json.loads(left.out), engine.embed("minilm", "four five"), atol=1e-3)
    right = run("embed", minilm_path, text, *options)
    assert np.allclose(json.loads(right.out), engine.embed("minilm", "one two"), atol=1e-3)


def test_windows_lose_nothing(run, minilm_path, engine):
    outcome = run("embed", minilm_path, LONG, "--overflow", "window")
    expected = engine.embed("minilm", LONG, overflow="window")
    assert (outcome.status, outcome.err) == (0, "")
    assert np.allclose(json.loads(outcome.out), expected, atol=1e-3)


def test_shorter_vectors_have_length_one(run, minilm_path, engine):
    options = ("--dimensions", "32", "--force-dimensions")
    outcome = run("embed", minilm_path, "Hello, world!", *options)
    expected = engine.embed("minilm", "Hello, world!", dimensions=32, force_dimensions=True)
    assert np.allclose(json.loads(outcome.out), expected, atol=1e-3)
    refused = run("embed", minilm_path, "Hello, world!", "--dimensions", "32")
    assert (refused.status, refused.stdout) == (2, b"")
    assert "does not declare any shorter length" in refused.err


@pytest.mark.parametrize(
    ("given", "length"), [("l2", 2), ("3", 3), ("max_abs", None), ("none", None)]
)
def test_vectors_are_scaled_as_told(run, minilm_path, given, length):
    outcome = run("embed", minilm_path, "Hello, world!", "--normalization", given)
    vector = np.array(json.loads(outcome.out))
    if length is not None:
        assert np.linalg.norm(vector, length) == pytest.approx(1, abs=1e-6)
    else:
        largest = np.abs(vector).max()
        assert largest == pytest.approx(32760) if given == "max_abs" else 0 < largest < 100


@pytest.fixture
def calibration(engine, tmp_path):
    path = tmp_path / "ranges.json"
    vectors = engine.embed_batch("minilm", [f"text number {n}" for n in range(100)])
    fingerprint = engine.get_model_info("minilm").fingerprint
    Calibration.from_vectors(vectors, fingerprint=fingerprint).save(path)
    return path


@pytest.mark.parametrize(
    ("precision", "dtype", "n_columns"),
    [
        ("float32", np.float32, 384),
        ("float16", np.float16, 384),
        ("int8", np.int8, 384),
        ("uint8", np.uint8, 384),
        ("binary", np.int8, 48),
        ("ubinary", np.uint8, 48),
    ],
)
def test_every_precision_in_every_format(
    run, minilm_path, calibration, precision, dtype, n_columns
):
    options = ["--precision", precision]
    if precision in ("int8", "uint8"):
        options += ["--calibration", calibration]

    def written(kind, texts=TEXTS):
        stdin = stdin_of(texts)
        return run("embed", minilm_path, *options, "--format", kind, stdin=stdin).stdout

    array = np.load(io.BytesIO(written("npy")), allow_pickle=False)
    assert (array.dtype, array.shape) == (dtype, (3, n_columns))
    none = np.load(io.BytesIO(written("npy", texts=[])))
    assert (none.dtype, none.shape) == (dtype, (0, n_columns))
    assert np.array_equal(np.array(json.loads(written("json"))).astype(dtype), array)
    table = np.loadtxt(io.BytesIO(written("csv")), delimiter=",", dtype=dtype, ndmin=2)
    assert np.array_equal(table, array)


def test_a_calibration_of_another_model_is_refused(run, calibration, tiny_path):
    options = ("--precision", "int8", "--calibration", calibration)
    outcome = run("embed", tiny_path, "a b", *options)
    assert (outcome.status, outcome.stdout) == (2, b"")
    assert "this calibration was made for the model" in outcome.err


def test_a_cache_gives_the_same_vectors_and_the_same_warning(run, minilm_path, tmp_path):
    stdin = stdin_of(["short", LONG])
    options = ("--cache", tmp_path / "vectors.db", "--overflow", "truncate")
    first = run("embed", minilm_path, *options, stdin=stdin)
    again = run("embed", minilm_path, *options, stdin=stdin)
    assert again.stdout == first.stdout
    assert "1 of 2 texts cut" in again.err
    with EmbeddingCache.on_disk(tmp_path / "vectors.db") as cache:
        assert cache.stats().n_entries == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--kind", "query", "--prompt", "x"], "--kind and --prompt"),
        (["--precision", "int8"], "int8 needs a file that Calibration.save wrote"),
        (["--precision", "int4"], "int4"),
        (["--normalization", "l1"], "'l1' is none of"),
        (["--max-tokens", "0"], "--max-tokens"),
        (["--max-tokens", "513"], "max_tokens = 513; it has to be 1 to 512"),
        (["--prompt-name", "no"], "prompt_name = 'no'"),
        (["--cache", "."], "is a directory"),
    ],
)
def test_options_that_cannot_be_are_wrong_usage(run, minilm_path, tmp_path, options, words):
    target = tmp_path / "out.json"
    outcome = run("embed", minilm_path, "x", *options, "-o", target)
    assert (outcome.status, outcome.stdout) == (2, b"")
    assert words in outcome.err
    assert not target.exists()
