"""Where llama.cpp and the model's own code part, by how much, and who is right.

Everything else about these architectures is in test_architectures.py, where they agree.
"""

import unicodedata
from dataclasses import replace

import numpy as np
import pytest

from embellama import EmbeddingEngine, ModelLoadError
from tests.architectures import qwen3, t5_encoder, xlm_roberta
from tests.architectures.trained_vocabulary import t5_pieces
from tests.conftest import QUIET

T5, QWEN = t5_encoder.MODELS[0], qwen3.MODELS[0]


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    with EmbeddingEngine() as engine:
        for tiny in (T5, QWEN):
            engine.load_model(
                tiny.write(folder / f"{tiny.name}.gguf"), name=tiny.name, config=QUIET
            )
        yield engine


def test_a_t5_file_with_its_dense_layer_is_refused(tmp_path):
    """llama.cpp takes the dense layers of gemma-embedding alone.

    Source: https://github.com/ggml-org/llama.cpp/pull/16367, and models/t5encoder.cpp.
    """
    tensors = {**T5.tensors(), **t5_encoder.dense_weights()}
    path = replace(T5, tensors=lambda: tensors).write(tmp_path / "dense.gguf")
    with EmbeddingEngine() as engine, pytest.raises(ModelLoadError, match="number of tensors"):
        engine.load_model(path, name="t5", config=QUIET)


def test_sentence_t5_lacks_its_last_layer_and_the_caller_can_add_it(engine):
    """What comes out is the pooled encoder; no cosine to sentence-transformers' vector is over 0.5.

    The layer has neither bias nor activation, so it may as well follow the normalisation.
    """
    (weight,) = (values.astype(np.float64) for values in t5_encoder.dense_weights().values())
    with np.load(T5.reference) as data:
        published = data["vectors"] @ weight.T
    published /= np.linalg.norm(published, axis=1, keepdims=True)
    ours = engine.embed_batch(T5.name, T5.texts)
    assert np.abs((ours * published).sum(axis=1)).max() < 0.5
    projected = ours @ weight.T
    projected /= np.linalg.norm(projected, axis=1, keepdims=True)
    assert (projected * published).sum(axis=1).min() >= 0.9999


@pytest.mark.parametrize(
    ("text", "sentencepiece", "tokenizers"),
    [
        (
            "Tiếng Việt rất đẹp",
            "▁T i ê <unk> ng ▁ V ie <unk> t ▁ r â <unk> t ▁ đ e <unk> p",
            "▁T i ê ng ▁ V ie <unk> t ▁ r â t ▁ đ e <unk> p",
        ),
        ("\ufb01\u0301n \uff21\u0308b", "▁f i <unk> n ▁ A <unk> b", "▁f in ▁ A b"),
        ("\ufb01\u0301ne", "▁f i <unk> ne", "▁f in e"),
    ],
)
def test_marks_after_a_changed_letter_are_kept_as_sentencepiece_keeps_them(
    engine, text, sentencepiece, tokenizers
):
    """The tokenizers package loses them, and with it the fast tokenizers of e5 and bge-m3.

    Only text with separate marks (NFD) is affected. The pieces are those of sentencepiece 0.2.3
    and tokenizers 0.23.3 for this vocabulary.
    Source: https://github.com/huggingface/tokenizers/issues/2334.
    """
    names = [piece for piece, _ in t5_pieces()]
    ids = engine.tokenize(T5.name, unicodedata.normalize("NFD", text))
    found = [names[number] for number in ids]
    assert found == [*sentencepiece.split(), "</s>"]
    assert sentencepiece != tokenizers


@pytest.mark.parametrize("text", ["café à la crème", "Tiếng Việt", "각"])
def test_a_qwen_sees_composed_characters(engine, text):
    """Text with separate marks gets the tokens of composed text, as in Qwen2Tokenizer.

    llama.cpp has no such step. Without ours, the cosines here are 0.20, 0.12 and -0.21, and there
    are 3, 2 and 7 tokens more.
    Source: ``normalizers.NFC()`` in transformers' tokenization_qwen2.py;
    https://github.com/ggml-org/llama.cpp/issues/6980.
    """
    apart = unicodedata.normalize("NFD", text)
    assert apart != text
    assert engine.tokenize(QWEN.name, apart).tolist() == engine.tokenize(QWEN.name, text).tolist()
    both = engine.embed_batch(QWEN.name, [apart, text])
    assert both[0] @ both[1] > 0.9999


def test_runs_of_spaces_are_merged_whatever_the_file_says(engine, tmp_path):
    """llama.cpp's converter writes a setting of detokenization into a flag of tokenization.

    Source: ``_xlmroberta_set_vocab`` in llama.cpp's conversion code, where there is no
    sentencepiece.bpe.model.
    """
    says_otherwise = xlm_roberta.MODELS[0].with_value(
        "tokenizer.ggml.remove_extra_whitespaces", False
    )
    engine.load_model(says_otherwise.write(tmp_path / "spaces.gguf"), name="spaces", config=QUIET)
    once, thrice = (engine.tokenize("spaces", f"two{gap}words") for gap in (" ", "   "))
    np.testing.assert_array_equal(once, thrice)
