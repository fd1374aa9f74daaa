"""Vectors of tokens, late chunks, and the poolings that are made of token rows."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from embellama import (
    ConfigurationError,
    DecodeError,
    EmbeddingEngine,
    EmbeddingGenerationError,
    EmptyInputError,
    InputTooLongError,
    InvalidInputError,
    InvalidInputTypeError,
    ModelConfig,
)
from embellama.embedding import BATCH_TOLERANCE
from tests.architectures import TINY_MODELS
from tests.conftest import QUIET
from tests.recording import recording_engine
from tests.reference_texts import SENTENCES

CLS, SEP, A, B, C = 2, 3, 6, 7, 8


@pytest.fixture
def recorded(tiny_path):
    engine, backend = recording_engine(tiny_path)
    with engine:
        yield engine, backend


def unit(row):
    return row / np.linalg.norm(row.astype(np.float64))


# ── one vector a token ──────────────────────────────────────────────────────────────────────────


def test_the_mean_of_the_tokens_is_the_text(engine):
    texts = SENTENCES[:20]
    tokens = engine.embed_tokens("minilm", texts)
    means = np.stack([unit(found.vectors.mean(axis=0)) for found in tokens])
    tolerance = BATCH_TOLERANCE["F16"]
    np.testing.assert_allclose(means, engine.embed_batch("minilm", texts), rtol=0, atol=tolerance)
    for text, found in zip(texts, tokens, strict=True):
        np.testing.assert_array_equal(found.input_ids, engine.tokenize("minilm", text))
        assert found.vectors.shape == (len(found.input_ids), 384)
        assert found.vectors.dtype == np.float32
        assert found.vectors.base is None  # its own memory, not its micro-batch's
        assert len(found.spans) == len(found.input_ids)


def test_many_texts_are_what_each_is_alone(engine):
    texts = [*SENTENCES[:30], "short", SENTENCES[0]]
    together = engine.embed_tokens("minilm", texts)
    for text, found in zip(texts, together, strict=True):
        (alone,) = engine.embed_tokens("minilm", [text])
        cosines = [unit(a) @ unit(b) for a, b in zip(alone.vectors, found.vectors, strict=True)]
        assert min(cosines) > 0.9999
        np.testing.assert_array_equal(alone.input_ids, found.input_ids)
        assert alone.spans == found.spans


def test_spans_point_at_the_words(engine):
    text = "The ferry's café: unbelievably  good!"
    (found,) = engine.embed_tokens("minilm", [text])
    words = [text[slice(*span)] if span else None for span in found.spans]
    assert words == [
        None, "The", "ferry", "'", "s", "café", ":", "un", "bel", "ie", "va", "bly", "good", "!",
        None,
    ]  # fmt: skip


def test_spans_do_not_count_the_prompt(engine):
    text = "a good index"
    (plain,) = engine.embed_tokens("minilm", [text])
    (prompted,) = engine.embed_tokens("minilm", [text], prompt="query: ")
    assert prompted.spans == (None, None, None, *plain.spans[1:])
    assert len(prompted.input_ids) == len(plain.input_ids) + 2
    (glued,) = engine.embed_tokens("minilm", ["dex a"], prompt="in")
    assert glued.spans == (None, None, (4, 5), None)  # "index" is partly the prompt's


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("prompt", [None, "search: "])
def test_cut_texts_keep_their_spans(engine, side, prompt):
    text = " ".join(SENTENCES[:20])
    options = {"prompt": prompt, "overflow": "truncate", "truncate_side": side}
    (cut,) = engine.embed_tokens("minilm", [text], max_tokens=20, **options)
    assert len(cut.input_ids) == len(cut.spans) == len(cut.vectors) == 20
    n_prompt = 2 if prompt else 0
    own, spans = cut.input_ids[1 + n_prompt : -1], cut.spans[1 + n_prompt : -1]
    assert cut.spans[: 1 + n_prompt] == (None,) * (1 + n_prompt)
    assert cut.spans[-1] is None
    whole = engine.tokenize("minilm", text, add_special_tokens=False)
    kept = whole[: len(own)] if side == "right" else whole[-len(own) :]
    np.testing.assert_array_equal(own, kept)
    piece = text[spans[0][0] : spans[-1][1]]
    again = engine.tokenize("minilm", piece, add_special_tokens=False)
    np.testing.assert_array_equal(again, own)
    assert (text.startswith if side == "right" else text.endswith)(piece)


def test_ids_have_vectors_and_no_spans(engine):
    ids = engine.tokenize("minilm", "hello world")
    by_text, by_ids = engine.embed_tokens("minilm", ["hello world", ids.tolist()])
    assert by_ids.spans == (None,) * 4
    assert np.abs(by_text.vectors - by_ids.vectors).max() < 1e-3


def test_rows_of_another_scale(engine):
    (raw,) = engine.embed_tokens("minilm", ["hello world"])
    (scaled,) = engine.embed_tokens("minilm", ["hello world"], normalization="l2")
    norms = np.linalg.norm(raw.vectors, axis=1)
    assert norms.max() > 1.5
    np.testing.assert_allclose(scaled.vectors, raw.vectors / norms[:, np.newaxis], atol=1e-6)


def test_nothing_gives_nothing(recorded):
    engine, backend = recorded
    assert engine.embed_tokens("m", []) == []
    assert not backend.contexts


def test_bad_texts_are_named_before_any_inference(recorded):
    engine, backend = recorded
    with pytest.raises(InvalidInputError) as caught:
        engine.embed_tokens("m", ["a", " ", "a " * 15, "c", "\ud800"])
    assert caught.value.indices == (1, 2, 4)
    with pytest.raises(InvalidInputTypeError):
        engine.embed_tokens("m", "a c")
    with pytest.raises(ConfigurationError, match="overflow = 'window' averages"):
        engine.embed_tokens("m", ["a"], overflow="window")
    assert not backend.sequences


def test_failures_of_token_vectors_are_named(recorded):
    engine, backend = recorded

    def spoil(rows):
        rows[rows.shape[0] // 2 :, 0] = np.nan
        return rows

    backend.after = spoil
    with pytest.raises(EmbeddingGenerationError, match="infinity for text 0, 1, also alone"):
        engine.embed_tokens("m", ["a c a", "a c a"])
    assert len(backend.contexts) == 3  # one, a fresh one, and another after the first that is bad
    backend.after = lambda rows: rows

    def fail(batch):
        raise DecodeError("scripted", status=-3)

    backend.before = fail
    with pytest.raises(DecodeError, match="scripted"):
        engine.embed_tokens("m", ["a"])
    backend.before = lambda batch: None
    assert engine.embed_tokens("m", ["a"])[0].vectors.shape == (3, 64)


def test_the_first_call_makes_one_context_and_unloading_frees_it(recorded):
    engine, backend = recorded
    engine.embed("m", "a")
    before = engine.get_model_info("m").context_bytes
    for _ in range(3):
        engine.embed_tokens("m", ["a"])
    assert [options.pooling_type for options in backend.contexts] == ["mean", "none"]
    assert engine.get_model_info("m").context_bytes > before
    engine.unload_model("m")
    assert engine.list_models() == []


def test_threads_that_ask_first_at_once_share_the_context(engine):
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: engine.embed_tokens("minilm", ["hello world"])[0], "x" * 8))
    for one in found[1:]:
        assert np.abs(one.vectors - found[0].vectors).max() < 1e-3


# ── every architecture ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("tiny", TINY_MODELS, ids=lambda model: model.name)
def test_tokens_and_one_late_chunk_are_the_text_in_every_architecture(tiny, tmp_path):
    texts = list(tiny.texts)[:4]
    with EmbeddingEngine() as engine:
        info = engine.load_model(tiny.write(tmp_path / "tiny.gguf"), name="m", config=QUIET)
        expected = engine.embed_batch("m", texts, prompt="")
        tokens = engine.embed_tokens("m", texts, prompt="")
        late = (
            np.concatenate([engine.embed_late("m", [text], prompt="") for text in texts])
            if info.pooling_type != "cls"
            else expected
        )
    pool = {
        "mean": lambda rows: rows.mean(axis=0),
        "last": lambda rows: rows[-1],
        "cls": lambda rows: rows[0],
    }[info.pooling_type]
    pooled = np.stack([unit(pool(found.vectors)) for found in tokens])
    np.testing.assert_allclose(pooled, expected, rtol=0, atol=BATCH_TOLERANCE["F32"])
    np.testing.assert_allclose(late, expected, rtol=0, atol=BATCH_TOLERANCE["F32"])


# ── late chunks ─────────────────────────────────────────────────────────────────────────────────


def test_a_text_in_one_chunk_is_the_text(engine):
    for text in SENTENCES[:5]:
        (late,) = engine.embed_late("minilm", [text])
        assert np.abs(late - engine.embed("minilm", text)).max() <= BATCH_TOLERANCE["F16"]


def test_chunks_know_what_is_around_them(engine):
    chunks = ["The bank raised its interest rate.", " It was the third time this year."]
    other = ["The goalkeeper let the ball in.", chunks[1]]
    late, elsewhere = engine.embed_late("minilm", chunks), engine.embed_late("minilm", other)
    alone = engine.embed("minilm", chunks[1])
    assert late.shape == (2, 384)
    np.testing.assert_allclose(np.linalg.norm(late, axis=1), 1, atol=1e-6)
    assert float(late[1] @ alone) < 0.98
    assert float(late[1] @ elsewhere[1]) < 0.98
    bank = engine.embed("minilm", "money and banks")
    assert float(late[1] @ bank) > float(elsewhere[1] @ bank)


def test_chunks_are_means_of_their_rows_of_one_pass(recorded):
    engine, backend = recorded
    late = engine.embed_late("m", ["a ab", " c a", " c"])
    ids = [CLS, A, A, B, C, A, C, SEP]
    assert backend.sequences == [ids]
    rows = engine.embed_tokens("m", [ids])[0].vectors
    by_hand = [unit(rows[a:b].mean(axis=0)) for a, b in ((0, 4), (4, 6), (6, 8))]
    np.testing.assert_allclose(late, np.stack(by_hand), atol=1e-6)


def test_late_chunks_in_fewer_components_and_other_scales(recorded):
    engine, _ = recorded
    with pytest.raises(ConfigurationError, match="dimensions = 8"):
        engine.embed_late("m", ["a"], dimensions=8)
    raw = engine.embed_late("m", ["a", " c"], normalization="none")
    most = engine.embed_late("m", ["a", " c"], normalization="max_abs")
    largest = np.abs(raw).max(axis=1, keepdims=True)
    np.testing.assert_allclose(most, raw / largest * 32760, rtol=1e-5)
    none = engine.embed_late("m", [])
    assert (none.shape, none.dtype) == ((0, 64), np.float32)


def test_chunks_over_the_limit_together(recorded):
    engine, backend = recorded
    with pytest.raises(InputTooLongError, match="3 chunks have 17 tokens together.*is 16") as got:
        engine.embed_late("m", ["a " * 5, " c" * 5, " ab a a a"])
    assert (got.value.n_tokens, got.value.limit) == ((6, 5, 6), 16)
    with pytest.raises(InputTooLongError, match="1 chunks have 42 tokens"):
        engine.embed_late("m", ["a " * 40])
    assert engine.embed_late("m", ["a " * 5, " c" * 5, " ab a a"]).shape == (3, 64)
    assert len(backend.sequences) == 1


@pytest.mark.parametrize(
    ("chunks", "error", "message", "indices"),
    [
        (["a", " ", "c", ""], EmptyInputError, "nothing to embed in chunk 1, 3", (1, 3)),
        (["a", "\u0301"], EmptyInputError, "chunk 1", (1,)),
        (["a", "\ud800", "c"], InvalidInputError, r"chunk 1 \(.*surrogate U\+D800", (1,)),
        ("a c", InvalidInputTypeError, r"write \[text\]", ()),
        (["a", None], InvalidInputTypeError, "1 is None", (1,)),
        (["a", [6, 7]], InvalidInputTypeError, "1 is list", (1,)),
    ],
)
def test_chunks_that_cannot_be_embedded(recorded, chunks, error, message, indices):
    engine, backend = recorded
    with pytest.raises(error, match=message) as caught:
        engine.embed_late("m", chunks)
    assert caught.value.indices == indices
    assert not backend.sequences


def test_a_model_that_pools_by_its_first_token_has_no_late_chunks(tiny_path):
    with EmbeddingEngine() as engine:
        engine.load_model(tiny_path, name="m", config=ModelConfig(pooling_type="cls"))
        with pytest.raises(ConfigurationError, match="pools by its first token"):
            engine.embed_late("m", ["a", "c"])
        assert engine.embed("m", "a").shape == (64,)


def test_a_model_of_token_rows_has_tokens_only(tiny_path):
    engine, backend = recording_engine(
        tiny_path, config=ModelConfig(n_threads=1, pooling_type="none")
    )
    with engine:
        (found,) = engine.embed_tokens("m", ["a c"])
        assert found.vectors.shape == (4, 64)
        with pytest.raises(ConfigurationError, match="keeps its token rows apart"):
            engine.embed_late("m", ["a"])
    assert len(backend.contexts) == 1


# ── poolings made of token rows ─────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def pooled(minilm_path):
    """MiniLM under several poolings, and the fingerprints of each."""
    with EmbeddingEngine() as engine:
        for pooling in ("mean", "max", "mean_sqrt_len", "last", "cls"):
            config = ModelConfig(n_threads=1, pooling_type=pooling)
            engine.load_model(minilm_path, name=pooling, config=config)
        yield engine


@pytest.mark.parametrize(
    ("pooling", "by_hand"),
    [
        ("mean", lambda rows: rows.mean(axis=0)),
        ("max", lambda rows: rows.max(axis=0)),
        ("mean_sqrt_len", lambda rows: rows.sum(axis=0) / np.sqrt(len(rows))),
        ("last", lambda rows: rows[-1]),
        ("cls", lambda rows: rows[0]),
    ],
)
def test_every_pooling_is_that_of_the_token_rows(pooled, pooling, by_hand):
    texts = [*SENTENCES[:25], "one", " ".join(SENTENCES[:12])]
    tokens = pooled.embed_tokens("mean", texts)
    expected = np.stack([by_hand(found.vectors) for found in tokens])
    got = pooled.embed_batch(pooling, texts, normalization="none")
    np.testing.assert_allclose(got, expected, rtol=0, atol=2e-3 * np.abs(expected).max())
    normal = pooled.embed_batch(pooling, texts)
    np.testing.assert_allclose(np.linalg.norm(normal, axis=1), 1, atol=1e-6)


def test_mean_sqrt_len_differs_from_mean_by_length_alone(pooled):
    texts = SENTENCES[:10]
    mean, root = (pooled.embed_batch(name, texts) for name in ("mean", "mean_sqrt_len"))
    np.testing.assert_allclose(root, mean, rtol=0, atol=BATCH_TOLERANCE["F16"])
    raw = pooled.embed_batch("mean_sqrt_len", texts, normalization="none")
    lengths = [pooled.count_tokens("mean", text) for text in texts]
    whole = pooled.embed_batch("mean", texts, normalization="none")
    ratios = np.linalg.norm(raw, axis=1) / np.linalg.norm(whole, axis=1)
    np.testing.assert_allclose(ratios, np.sqrt(lengths), rtol=1e-3)


def test_each_pooling_has_an_identity_of_its_own(pooled):
    marks = {pooled.get_model_info(name).fingerprint for name in pooled.list_models()}
    assert len(marks) == len(pooled.list_models()) == 5


@pytest.mark.parametrize("pooling", ["max", "mean_sqrt_len"])
def test_late_chunks_of_a_pooling_of_ours(pooled, pooling):
    text = SENTENCES[3]
    (late,) = pooled.embed_late(pooling, [text])
    assert np.abs(late - pooled.embed(pooling, text)).max() <= BATCH_TOLERANCE["F16"]


@pytest.mark.parametrize("pooling", ["max", "mean_sqrt_len"])
def test_windows_and_streams_of_a_pooling_of_ours(pooled, pooling):
    texts = [*SENTENCES[:5], " ".join(SENTENCES[:60])]
    batch = pooled.embed_batch(pooling, texts, overflow="window")
    stream = np.stack(list(pooled.embed_stream(pooling, texts, overflow="window")))
    np.testing.assert_allclose(stream, batch, rtol=0, atol=BATCH_TOLERANCE["F16"])
