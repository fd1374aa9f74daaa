"""What a call says of itself, its lengths and precisions, and the options it refuses."""

import re
import warnings

import numpy as np
import pytest

from embellama import (
    Chunk,
    ConfigurationError,
    EmbeddingEngine,
    EmbeddingGenerationError,
    EmbellamaWarning,
    InvalidInputTypeError,
    ModelConfig,
)
from embellama.precision.calibration import Calibration
from embellama.precision.codes import quantize, shorten
from tests.recording import recording_engine
from tests.reference_texts import SENTENCES
from tests.tiny_cross_encoder import DOCUMENTS, QUERY, write_cross_encoder

TEXTS = SENTENCES[:40]
PRECISIONS = {
    "float32": (np.float32, 384),
    "float16": (np.float16, 384),
    "int8": (np.int8, 384),
    "uint8": (np.uint8, 384),
    "binary": (np.int8, 48),
    "ubinary": (np.uint8, 48),
}


@pytest.fixture(scope="module")
def rows(engine):
    return engine.embed_batch("minilm", TEXTS)


@pytest.fixture(scope="module")
def calibration(rows):
    return Calibration.from_vectors(rows)


@pytest.fixture(scope="module")
def tiny(tiny_path):
    config = ModelConfig(n_threads=1, prompts={"query": "c c ", "document": "", "odd": "ab "})
    engine, backend = recording_engine(tiny_path, config=config)
    with engine:
        yield engine, backend


# ── the account of a call ───────────────────────────────────────────────────────────────────────


def test_a_detailed_result_is_the_batch_and_its_account(engine):
    texts = ["one two three", "four", "one two three", "five six"]
    result = engine.embed_detailed("minilm", texts)
    np.testing.assert_array_equal(result.vectors, engine.embed_batch("minilm", texts))
    assert [report.n_tokens for report in result.texts] == [5, 3, 5, 4]
    assert {(r.n_dropped, r.n_windows, r.cached, r.truncated) for r in result.texts} == {
        (0, 1, False, False)
    }
    usage = result.usage
    assert (usage.n_texts, usage.n_tokens, usage.n_computed_tokens) == (4, 17, 12)
    assert result.model == "minilm"
    assert result.model_fingerprint == engine.get_model_info("minilm").fingerprint
    assert re.fullmatch(r"[0-9a-f]{32}", result.fingerprint)


def test_the_parts_of_the_time_are_within_the_whole(engine):
    timings = engine.embed_detailed("minilm", TEXTS).timings
    assert timings.inference_s > 0
    assert timings.tokenize_s > 0
    assert timings.cache_s == 0
    assert 0 <= timings.queue_s < timings.total_s
    # two contexts compute at once, so that inference alone may be up to twice the whole
    assert timings.inference_s <= 2 * timings.total_s
    assert timings.tokenize_s + timings.queue_s < timings.total_s


def test_nothing_has_an_account_too(engine):
    result = engine.embed_detailed("minilm", [])
    assert result.vectors.shape == (0, 384)
    assert result.texts == ()
    assert (result.usage.n_texts, result.usage.n_tokens, result.timings.queue_s) == (0, 0, 0)


def test_a_repeated_call_has_the_same_fingerprint_and_another_prompt_another(tiny):
    engine, _ = tiny

    def mark(**options):
        return engine.embed_detailed("m", ["a"], **options).fingerprint

    assert mark(prompt="") == mark(prompt="") == mark(kind="document")
    assert mark(kind="query") == mark(prompt="c c ") == mark(prompt_name="query")
    assert len({mark(prompt=""), mark(kind="query"), mark(prompt_name="odd")}) == 3


def test_roles_reach_the_model_as_prompts(tiny):
    engine, backend = tiny
    backend.sequences.clear()
    engine.embed_query("m", "a ab")
    engine.embed_documents("m", ["a ab a"])
    engine.embed("m", "c a", prompt_name="odd")
    engine.embed_late("m", ["ab a", " a"], kind="query")
    engine.embed_tokens("m", ["ab c"], kind="query")
    assert backend.sequences == [
        [2, 8, 8, 6, 6, 7, 3],
        [2, 6, 6, 7, 6, 3],
        [2, 6, 7, 8, 6, 3],
        [2, 8, 8, 6, 7, 6, 6, 3],
        [2, 8, 8, 6, 7, 8, 3],
    ]


def test_prompts_left_out_are_warned_of_once(tiny_path):
    config = ModelConfig(n_threads=1, prompts={"query": "c "})
    engine, _ = recording_engine(tiny_path, config=config)
    with engine, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        engine.embed("m", "a", prompt="")
        engine.embed("m", "a", kind="document")
        assert not caught
        for _ in range(3):
            engine.embed("m", "a")
        list(engine.embed_stream("m", ["a"]))
    (warning,) = caught
    assert warning.category is EmbellamaWarning
    assert "was trained with prompts (query: 'c ')" in str(warning.message)
    assert warning.filename == __file__


# ── lengths and precisions ──────────────────────────────────────────────────────────────────────


def expected(rows, precision, calibration):
    return quantize(rows, precision, calibration if precision in ("int8", "uint8") else None)


@pytest.mark.filterwarnings("ignore:no prompts are known")
@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_precision_of_every_verb(engine, rows, calibration, precision):
    dtype, n_columns = PRECISIONS[precision]
    options = {"precision": precision}
    if precision in ("int8", "uint8"):
        options["calibration"] = calibration
    batch = engine.embed_batch("minilm", TEXTS, **options)
    assert (batch.dtype, batch.shape) == (dtype, (len(TEXTS), n_columns))
    assert batch.flags.c_contiguous
    np.testing.assert_array_equal(batch, expected(rows, precision, calibration))
    np.testing.assert_array_equal(batch, engine.embed_documents("minilm", TEXTS, **options))

    empty = engine.embed_batch("minilm", [], **options)
    assert (empty.dtype, empty.shape) == (dtype, (0, n_columns))

    one = engine.embed("minilm", TEXTS[3], **options)
    alone = expected(engine.embed("minilm", TEXTS[3])[np.newaxis], precision, calibration)[0]
    assert (one.dtype, one.shape) == (dtype, (n_columns,))
    np.testing.assert_array_equal(one, alone)

    stream = list(engine.embed_stream("minilm", iter(TEXTS), **options))
    assert {(row.dtype, row.shape) for row in stream} == {(np.dtype(dtype), (n_columns,))}
    np.testing.assert_array_equal(np.stack(stream), batch)
    (chunk,) = engine.embed_chunks("minilm", [Chunk("1", TEXTS[3])], **options)
    np.testing.assert_array_equal(chunk.vector, alone)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_shorter_vectors_in_every_precision(engine, rows, precision):
    short = shorten(rows, 100)
    options = {"precision": precision, "dimensions": 100, "force_dimensions": True}
    ranges = Calibration.from_vectors(short)
    if precision in ("int8", "uint8"):
        options["calibration"] = ranges
    batch = engine.embed_batch("minilm", TEXTS, **options)
    np.testing.assert_array_equal(batch, expected(short, precision, ranges))
    assert batch.shape[1] == (13 if "binary" in precision else 100)


def test_vectors_of_a_call_are_the_callers_own(engine):
    first = engine.embed("minilm", TEXTS[0])
    first[:] = 0
    assert np.linalg.norm(engine.embed("minilm", TEXTS[0])) == pytest.approx(1)
    a, b = engine.embed_stream("minilm", [TEXTS[0]] * 2)
    assert not np.shares_memory(a, b)


@pytest.mark.parametrize("verb", ["embed", "embed_tokens", "embed_late"])
def test_one_text_fails_with_the_error_itself_and_what_caused_it(tiny, verb):
    engine, backend = tiny

    def fail(batch):
        raise ValueError("odd")

    backend.before = fail
    with pytest.raises(EmbeddingGenerationError, match="the worker failed") as caught:
        getattr(engine, verb)("m", "c c a" if verb == "embed" else ["c c a"], prompt="")
    backend.before = lambda batch: None
    assert isinstance(caught.value.__cause__, ValueError)


# ── options that cannot be ──────────────────────────────────────────────────────────────────────

WRONG = [
    ({"overflow": "cut"}, "overflow = 'cut'"),
    ({"overflow": None}, "overflow = None"),
    ({"truncate_side": "both"}, "truncate_side = 'both'"),
    ({"precision": "int4"}, "precision = 'int4'"),
    ({"precision": "int8"}, "precision = 'int8' needs the range"),
    ({"precision": "uint8"}, "precision = 'uint8' needs the range"),
    ({"precision": "int8", "calibration": "ranges"}, "calibration"),
    ({"kind": "passage"}, "kind = 'passage'"),
    ({"kind": "query", "prompt": ""}, "kind and prompt"),
    ({"prompt": "", "prompt_name": "query"}, "prompt and prompt_name"),
    ({"prompt": b"query: "}, "prompt has to be a str, not bytes"),
    ({"prompt_name": "passage"}, "prompt_name = 'passage'"),
    ({"max_tokens": 0}, "max_tokens = 0"),
    ({"max_tokens": 17}, "max_tokens = 17"),
    ({"max_tokens": 5.0}, "max_tokens = 5.0"),
    ({"max_tokens": "5"}, "max_tokens = '5'"),
    ({"window_overlap": 1}, "window_overlap = 1 means nothing"),
    ({"window_overlap": 14, "overflow": "window"}, "window_overlap = 14"),
    ({"window_overlap": "1", "overflow": "window"}, "window_overlap = '1'"),
    ({"normalization": "l1"}, "normalization = 'l1'"),
    ({"normalization": 0}, "normalization = 0"),
    ({"normalization": -1}, "normalization = -1"),
    ({"normalization": 65}, "normalization = 65"),
    ({"normalization": 2.0}, "normalization = 2.0"),
    ({"normalization": True}, "normalization = True"),
    ({"dimensions": 0}, "dimensions = 0"),
    ({"dimensions": 65}, "dimensions = 65"),
    ({"dimensions": 8.0}, "dimensions = 8.0"),
    ({"dimensions": True}, "dimensions = True"),
    ({"dimensions": 8}, "dimensions = 8, but model 'm' does not declare"),
]
TAKEN = {
    "embed_tokens": {"kind", "prompt", "overflow", "truncate_side", "max_tokens", "normalization"},
    "embed_late": {"kind", "prompt", "normalization", "dimensions"},
    "embed_chunks": {"kind", "overflow", "dimensions", "precision", "calibration"},
    "embed_query": {"overflow", "dimensions", "precision", "calibration"},
    "embed_documents": {"overflow", "dimensions", "precision", "calibration"},
}
INPUT = {"embed": "a", "embed_query": "a", "embed_chunks": [Chunk("1", "a")]}
VERBS = ["embed", "embed_batch", "embed_detailed", "embed_stream", *TAKEN]


@pytest.mark.parametrize("verb", VERBS)
def test_options_that_cannot_be_are_named_before_any_inference(tiny, verb):
    engine, backend = tiny
    backend.sequences.clear()
    for options, message in WRONG:
        if not options.keys() <= TAKEN.get(verb, options.keys()):
            continue
        with pytest.raises(ConfigurationError, match=re.escape(message)):
            list(getattr(engine, verb)("m", INPUT.get(verb, ["a"]), **options))
    assert not backend.sequences


@pytest.mark.parametrize("verb", ["embed", "embed_batch", "embed_stream"])
def test_a_calibration_of_another_width_is_refused_before_any_inference(tiny, verb, calibration):
    engine, backend = tiny
    backend.sequences.clear()
    options = {"precision": "int8", "calibration": calibration, "prompt": ""}
    with pytest.raises(ConfigurationError, match="384.*64"):
        list(getattr(engine, verb)("m", INPUT.get(verb, ["a"]), **options))
    assert not backend.sequences


def test_a_stream_refuses_what_no_model_could_do_at_once(tiny):
    engine, _ = tiny
    for options in ({"overflow": "cut"}, {"precision": "int4"}, {"kind": "passage"}):
        with pytest.raises(ConfigurationError):
            engine.embed_stream("m", ["a"], **options)
    with pytest.raises(InvalidInputTypeError):
        engine.embed_stream("m", "a b c")


# ── cross-encoders ──────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def reranker(tmp_path_factory):
    engine, backend = recording_engine(
        write_cross_encoder(tmp_path_factory.mktemp("rank") / "rank.gguf")
    )
    with engine:
        yield engine, backend


@pytest.mark.parametrize("verb", VERBS)
def test_a_cross_encoder_makes_no_vectors(reranker, verb):
    engine, backend = reranker
    backend.sequences.clear()
    with pytest.raises(ConfigurationError, match="scores pairs of texts.*call rerank"):
        list(getattr(engine, verb)("m", INPUT.get(verb, ["a"])))
    assert not backend.sequences


def test_an_embedder_scores_no_pairs(tiny):
    engine, backend = tiny
    backend.sequences.clear()
    with pytest.raises(ConfigurationError, match="makes vectors.*rerank with a cross-encoder"):
        engine.rerank("m", "a", ["c"])
    assert not backend.sequences


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_n": 0}, "top_n = 0"),
        ({"top_n": -1}, "top_n = -1"),
        ({"top_n": "2"}, "top_n = '2'"),
        ({"top_n": 1.5}, "top_n = 1.5"),
        ({"overflow": "window"}, "overflow = 'window'"),
        ({"overflow": "cut"}, "overflow = 'cut'"),
    ],
)
def test_options_of_rerank_are_refused_before_any_inference(reranker, options, message):
    engine, backend = reranker
    backend.sequences.clear()
    with pytest.raises(ConfigurationError, match=message):
        engine.rerank("m", QUERY, DOCUMENTS, **options)
    assert not backend.sequences


def test_warming_up_any_kind_of_model(reranker, tiny_path):
    engine, backend = reranker
    backend.sequences.clear()
    assert engine.warmup_model("m").pooling_type == "rank"
    assert len(backend.sequences) == 1
    for pooling in ("none", "mean", "max"):
        config = ModelConfig(n_threads=1, pooling_type=pooling)
        with EmbeddingEngine() as other:
            other.load_model(tiny_path, name="m", config=config)
            assert other.warmup_model().context_bytes > 0
