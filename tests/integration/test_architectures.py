"""Every architecture against a forward pass that is not the backends', on the same weights.

The models are tiny and random (tests/architectures); the references were made once by
tests/data/make_architecture_references.py, with transformers where it has the architecture.
"""

import unicodedata
from itertools import pairwise

import numpy as np
import pytest

from embellama import EmbeddingEngine
from tests.architectures import TINY_MODELS, WRONG_MODELS, jina_bert_v2, modern_bert
from tests.conftest import QUIET


def load(engine, tiny, folder, backend="llama"):
    path = tiny.write(folder / "tiny.gguf")
    assert path.stat().st_size < 1_000_000
    config = QUIET.model_copy(update={"backend": backend})
    return engine.load_model(path, name="tiny", config=config)


def read_reference(tiny):
    with np.load(tiny.reference) as data:
        ids = [data["input_ids"][a:b].tolist() for a, b in pairwise(data["offsets"])]
        return ids, data["vectors"]


def cosines(ours, theirs):
    return (ours.astype(np.float64) * theirs).sum(axis=1)


@pytest.fixture(scope="module", params=TINY_MODELS, ids=lambda model: model.name)
def tiny(request):
    return request.param


@pytest.fixture(scope="module", params=["llama", "auto"])
def engine(request, tiny, tmp_path_factory):
    with EmbeddingEngine() as engine:
        load(engine, tiny, tmp_path_factory.mktemp(tiny.name), request.param)
        yield engine


def test_pooling_is_decided_as_expected(tiny, engine):
    info = engine.get_model_info("tiny")
    assert (info.pooling_type, info.pooling_source) == (tiny.pooling_type, tiny.pooling_source)


def test_token_ids_are_those_of_the_real_tokenizer(tiny, engine):
    ids, _ = read_reference(tiny)
    assert [engine.tokenize("tiny", text).tolist() for text in tiny.texts] == ids


def test_vectors_are_those_of_the_reference(tiny, engine):
    _, vectors = read_reference(tiny)
    found = cosines(engine.embed_batch("tiny", tiny.texts), vectors)
    assert found.min() >= tiny.least_cosine, f"text {int(found.argmin())} of {found}"


def test_the_reference_tells_texts_apart(tiny):
    _, vectors = read_reference(tiny)
    between = (vectors @ vectors.T)[~np.eye(len(vectors), dtype=bool)]
    assert between.mean() < 0.95


@pytest.mark.parametrize("what", WRONG_MODELS)
@pytest.mark.parametrize("backend", ["llama", "auto"])
def test_one_wrong_thing_is_noticed(backend, what, tmp_path):
    wrong = WRONG_MODELS[what]
    _, vectors = read_reference(wrong)
    with EmbeddingEngine() as engine:
        load(engine, wrong, tmp_path, backend)
        found = cosines(engine.embed_batch("tiny", wrong.texts), vectors)
    assert found.min() < 0.999


def cosines_of_the_numpy_pass(slopes):
    ids, vectors = read_reference(jina_bert_v2.MODELS[0])
    rows = [jina_bert_v2.token_rows(row, head_slopes=slopes).mean(axis=0) for row in ids]
    return cosines(np.stack([row / np.linalg.norm(row) for row in rows]), vectors)


def test_the_numpy_pass_still_gives_its_reference():
    assert cosines_of_the_numpy_pass(None).min() > 1 - 1e-6


@pytest.mark.parametrize(
    "wrong",
    [[0.0] * jina_bert_v2.N_HEAD, jina_bert_v2.slopes(8)[: jina_bert_v2.N_HEAD]],
    ids=["no ALiBi", "slopes of 8 heads"],
)
def test_wrong_slopes_are_noticed(wrong):
    """llama.cpp has no switch for ALiBi, so the pass in numpy stands in for it."""
    assert cosines_of_the_numpy_pass(wrong).min() < 0.999


def test_letters_in_two_code_points_are_composed_as_the_models_tokenizer_does(tmp_path):
    """ModernBERT's tokenizer composes letters (NFC) first; llama.cpp's does not, so we do.

    Source: https://github.com/ggml-org/llama.cpp/issues/6980
    """
    text = "A naïve café, 2024: résumé & crème brûlée!"
    with EmbeddingEngine() as engine:
        load(engine, modern_bert.MODELS[0], tmp_path)
        forms = [unicodedata.normalize(form, text) for form in ("NFC", "NFD")]
        composed, decomposed = (engine.tokenize("tiny", form).tolist() for form in forms)
    assert forms[0] != forms[1]
    assert composed == decomposed
