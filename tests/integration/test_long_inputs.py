"""Texts over the limit: refused by name, cut with CLS and SEP kept, or embedded in windows."""

import numpy as np
import pytest

from embellama import (
    BatchError,
    ConfigurationError,
    DecodeError,
    EmbeddingEngine,
    EmbeddingGenerationError,
    InputTooLongError,
    ModelConfig,
)
from embellama.embedding import BATCH_TOLERANCE
from tests.conftest import SOAK
from tests.recording import recording_engine
from tests.reference_texts import SENTENCES

N_TOKENS = 50_000
CLS, SEP, A, B, C = 2, 3, 6, 7, 8
"""Ids of the tiny vocabulary; ``ab`` is A, B."""

LONG = "a ab c " * (N_TOKENS // 4)
OWN = [A, A, B, C] * (N_TOKENS // 4)


@pytest.fixture
def recorded(tiny_path):
    engine, backend = recording_engine(tiny_path)
    with engine:
        yield engine, backend


@pytest.fixture(scope="module")
def tiny(tiny_path):
    with EmbeddingEngine() as engine:
        engine.load_model(tiny_path, name="m", config=ModelConfig(n_threads=1))
        yield engine


def real_text(engine, n_tokens):
    """Make a text of at least so many tokens of MiniLM's, and its ids without special ones."""
    counts = [engine.count_tokens("minilm", text) - 2 for text in SENTENCES[:30]]
    repeats = -(-n_tokens // sum(counts))
    text = " ".join(SENTENCES[:30] * repeats)
    return text, engine.tokenize("minilm", text, add_special_tokens=False)


def windows_by_hand(own, *, room, overlap, before, after):
    """Cut ids into windows in the plainest way; return them with the own tokens of each."""
    windows, counts, start = [], [], 0
    while True:
        part = own[start : start + room]
        windows.append([*before, *part, *after])
        counts.append(len(part))
        if start + room >= len(own):
            return windows, counts
        start += room - overlap


def mean_by_hand(vectors, counts):
    """Average unit vectors by their tokens, and bring the mean to length 1."""
    total = np.asarray(counts) @ np.stack(vectors).astype(np.float64)
    return total / np.linalg.norm(total)


# ── refused ─────────────────────────────────────────────────────────────────────────────────────


def test_fifty_thousand_tokens_are_refused_by_name_and_count(recorded):
    engine, backend = recorded
    with pytest.raises(InputTooLongError, match=r"text 1 \(50002 tokens\), 3 \(17 tokens\)") as got:
        engine.embed_batch("m", ["a", LONG, "c", "a " * 15, "a " * 14])
    assert (got.value.indices, got.value.n_tokens, got.value.limit) == ((1, 3), (50_002, 17), 16)
    assert not backend.sequences


def test_the_real_model_counts_them_too(engine):
    text, own = real_text(engine, N_TOKENS)
    with pytest.raises(InputTooLongError) as got:
        engine.embed("minilm", text)
    assert got.value.n_tokens == (len(own) + 2,)
    assert len(own) >= N_TOKENS


def test_token_ids_over_the_limit_are_refused_too(tiny):
    with pytest.raises(InputTooLongError, match=r"text 1 \(50000 tokens\)"):
        tiny.embed_batch("m", [[CLS, A, SEP], OWN])


# ── cut ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("side", "kept"), [("right", OWN[:14]), ("left", OWN[-14:])], ids=["right", "left"]
)
def test_a_cut_keeps_cls_and_sep_and_is_reported(recorded, side, kept):
    engine, backend = recorded
    result = engine.embed_detailed("m", [LONG], overflow="truncate", truncate_side=side)
    assert backend.sequences == [[CLS, *kept, SEP]]
    (report,) = result.texts
    assert (report.n_tokens, report.n_dropped, report.n_windows) == (50_002, 50_002 - 16, 1)
    assert report.truncated
    assert (result.usage.n_tokens, result.usage.n_computed_tokens) == (16, 16)
    np.testing.assert_array_equal(result.vectors[0], engine.embed("m", [CLS, *kept, SEP]))


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_cut_with_the_real_model_is_the_vector_of_the_ids_that_stay(engine, side):
    text, own = real_text(engine, N_TOKENS)
    kept = own[:510] if side == "right" else own[-510:]
    cut = engine.embed("minilm", text, overflow="truncate", truncate_side=side)
    np.testing.assert_array_equal(cut, engine.embed("minilm", [101, *kept.tolist(), 102]))


def test_the_two_sides_are_two_vectors(engine):
    text, _ = real_text(engine, 1000)
    right, left = (
        engine.embed("minilm", text, overflow="truncate", truncate_side=side)
        for side in ("right", "left")
    )
    assert float(right @ left) < 0.99


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_cut_leaves_the_prompt(recorded, side):
    engine, backend = recorded
    engine.embed("m", "a c " * 20, prompt="c c ", overflow="truncate", truncate_side=side)
    kept = [A, C] * 6
    assert backend.sequences == [[CLS, C, C, *kept, SEP]]


def test_a_lower_limit_cuts_earlier(recorded):
    engine, backend = recorded
    result = engine.embed_detailed("m", ["a c a c a c", "a c"], overflow="truncate", max_tokens=5)
    assert sorted(backend.sequences) == [[CLS, A, C, SEP], [CLS, A, C, A, SEP]]
    assert [report.n_dropped for report in result.texts] == [3, 0]
    with pytest.raises(InputTooLongError, match="over the limit of 5 tokens"):
        engine.embed("m", "a c a c a c", max_tokens=5)


def test_ids_are_cut_between_their_special_tokens(recorded):
    engine, backend = recorded
    engine.embed("m", [CLS, *OWN, SEP], overflow="truncate")
    assert backend.sequences == [[CLS, *OWN[:14], SEP]]


@pytest.mark.parametrize("overflow", ["truncate", "window"])
def test_a_text_within_the_limit_is_left_alone(tiny, overflow):
    plain = tiny.embed_detailed("m", ["a c " * 7])
    other = tiny.embed_detailed("m", ["a c " * 7], overflow=overflow)
    np.testing.assert_array_equal(plain.vectors, other.vectors)
    assert other.texts[0] == plain.texts[0]
    assert not other.texts[0].truncated


# ── windows ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("given", "overlap"), [(None, 1), (0, 0), (5, 5), (13, 13)])
def test_windows_are_those_cut_by_hand(recorded, given, overlap):
    engine, backend = recorded
    n_own = 200 if overlap == 13 else N_TOKENS  # which advance by one token
    windows, counts = windows_by_hand(
        OWN[:n_own], room=14, overlap=overlap, before=[CLS], after=[SEP]
    )
    result = engine.embed_detailed(
        "m", ["a ab c " * (n_own // 4)], overflow="window", window_overlap=given
    )
    assert sorted(backend.sequences) == sorted(windows)
    (report,) = result.texts
    assert (report.n_tokens, report.n_dropped) == (n_own + 2, 0)
    assert report.n_windows == len(windows)
    assert result.usage.n_tokens == n_own + 2
    assert result.usage.n_computed_tokens == sum(map(len, windows))
    by_hand = mean_by_hand(engine.embed_batch("m", windows), counts)
    assert np.abs(result.vectors[0] - by_hand).max() <= BATCH_TOLERANCE["F32"]
    assert np.linalg.norm(result.vectors[0]) == pytest.approx(1, abs=1e-6)


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_windows_of_the_real_model_are_those_done_by_hand(engine):
    text, own = real_text(engine, N_TOKENS if SOAK else 3000)
    windows, counts = windows_by_hand(own.tolist(), room=510, overlap=51, before=[101], after=[102])
    result = engine.embed_detailed("minilm", [text], overflow="window")
    assert result.texts[0].n_windows == len(windows)
    one_by_one = [engine.embed("minilm", window) for window in windows]
    by_hand = mean_by_hand(one_by_one, counts)
    assert np.abs(result.vectors[0] - by_hand).max() <= BATCH_TOLERANCE["F16"]
    assert float(result.vectors[0] @ by_hand) > 0.99999
    # the first window alone, as a cut would have it, is another vector
    assert float(one_by_one[0] @ by_hand) < 0.999


def test_windows_repeat_the_prompt(recorded):
    engine, backend = recorded
    engine.embed("m", "a c " * 10, prompt="c c ", overflow="window", window_overlap=2)
    windows, _ = windows_by_hand([A, C] * 10, room=12, overlap=2, before=[CLS, C, C], after=[SEP])
    assert sorted(backend.sequences) == sorted(windows)


@pytest.mark.parametrize("normalization", ["none", "max_abs", 1, 3])
def test_windows_in_other_scales(tiny, normalization):
    options = {"overflow": "window", "window_overlap": 0, "normalization": normalization}
    got = tiny.embed("m", "a ab c " * 12 + "a ab", **options)
    windows, counts = windows_by_hand(OWN[:51], room=14, overlap=0, before=[CLS], after=[SEP])
    raw = normalization if normalization == "none" else "l2"
    rows = tiny.embed_batch("m", windows, normalization=raw).astype(np.float64)
    mean = np.average(rows, axis=0, weights=counts)
    scale = {
        "none": 1.0,
        "max_abs": np.abs(mean).max() / 32760,
        1: np.abs(mean).sum(),
        3: (np.abs(mean) ** 3).sum() ** (1 / 3),
    }[normalization]
    np.testing.assert_allclose(got, mean / scale, rtol=2e-4, atol=1e-5 * np.abs(got).max())


def test_long_and_short_texts_in_one_call_stay_in_order(tiny):
    texts = ["a", "a c ab " * 20, "c", "c ab " * 30, "a", "ab c a " * 9]
    told = []
    result = tiny.embed_detailed(
        "m", texts, overflow="window", progress=lambda done, total: told.append((done, total))
    )
    alone = np.stack([tiny.embed("m", text, overflow="window") for text in texts])
    np.testing.assert_allclose(result.vectors, alone, rtol=0, atol=BATCH_TOLERANCE["F32"])
    assert [report.n_windows for report in result.texts] == [1, 7, 1, 7, 1, 3]
    assert told[-1] == (6, 6)
    assert told == sorted(set(told))


@pytest.mark.parametrize("overflow", ["truncate", "window"])
def test_a_stream_treats_long_texts_as_a_batch_does(tiny, overflow):
    texts = ["a c ab " * (n % 9 + 1) for n in range(150)]
    batch = tiny.embed_batch("m", texts, overflow=overflow)
    stream = np.stack(list(tiny.embed_stream("m", iter(texts), overflow=overflow)))
    np.testing.assert_allclose(stream, batch, rtol=0, atol=BATCH_TOLERANCE["F32"])


def test_a_window_with_infinity_is_named_by_its_text(recorded):
    engine, backend = recorded

    def spoil(rows):
        rows[-1, 3] = np.inf
        return rows

    backend.after = spoil
    with pytest.raises(EmbeddingGenerationError, match=r"infinity for text 0, also alone"):
        engine.embed("m", LONG[:400], overflow="window")


def test_a_window_that_fails_is_named_by_its_text_at_all_its_places(recorded):
    engine, backend = recorded

    def refuse(batch):
        if B in batch.input_ids:
            raise DecodeError("scripted", status=-3)

    backend.before = refuse
    texts = ["a c", "a ab c " * 20, "c", "a ab c " * 20]
    with pytest.raises(BatchError, match=r"texts \[.*1, .*3\] could") as got:
        engine.embed_batch("m", texts, overflow="window", max_tokens=16)
    assert {1, 3} <= set(got.value.failed_indices)
    with pytest.raises(DecodeError):
        engine.embed("m", texts[1], overflow="window")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window_overlap": 14}, "window_overlap = 14; it has to be 0 to 13"),
        ({"window_overlap": -1}, "window_overlap = -1"),
        ({"window_overlap": 1.0}, "window_overlap = 1.0"),
        ({"window_overlap": 3, "overflow": "truncate"}, "window_overlap = 3 means nothing"),
        ({"max_tokens": 2}, "a limit of 2 tokens leaves no room"),
        ({"max_tokens": 17}, "max_tokens = 17; it has to be 1 to 16"),
        ({"max_tokens": 0}, "max_tokens = 0"),
        ({"prompt": "a " * 14}, "14 of the prompt"),
    ],
)
def test_limits_under_which_nothing_could_be_embedded(tiny, options, message):
    for verb in (tiny.embed_batch, tiny.embed_stream):
        with pytest.raises(ConfigurationError, match=message):
            list(verb("m", ["a"], **{"overflow": "window", **options}))
