import shutil

import numpy as np
import pytest

from embellama import EmbeddingEngine
from embellama.errors import ConversionError
from embellama.gguf import read_metadata
from embellama.hub.catalog import CatalogEntry
from embellama.hub.convert import convert_folder
from embellama.hub.reference import CatalogReference
from embellama.hub.resolve import resolve_model
from tests.cross_encoder_folder import saved_weights, write_cross_encoder_folder
from tests.tiny_bert import modules, tensors_of, types_of, value_of, write_json
from tests.tiny_cross_encoder import DOCUMENTS, QUERY

HEAD = {
    "cls.weight": "bert.pooler.dense.weight",
    "cls.bias": "bert.pooler.dense.bias",
    "cls.output.weight": "classifier.weight",
    "cls.output.bias": "classifier.bias",
}


@pytest.fixture
def source(tmp_path):
    return tmp_path / "cross-encoder"


def test_the_whole_head_and_both_token_types_are_kept(source, target):
    report = convert_folder(write_cross_encoder_folder(source), target, file_type="F32")
    weights, found = saved_weights(), tensors_of(target)
    assert report.n_tensors == len(found) == len(weights)
    for name, original in HEAD.items():
        np.testing.assert_array_equal(found[name], weights[original], err_msg=name)
    types = weights["bert.embeddings.token_type_embeddings.weight"]
    assert types.shape[0] == 2
    np.testing.assert_array_equal(found["token_types.weight"], types)
    assert not report.warnings


@pytest.mark.parametrize("file_type", ["F16", "BF16", "Q8_0"])
def test_the_heads_matrices_get_the_type(source, target, file_type):
    convert_folder(write_cross_encoder_folder(source), target, file_type=file_type)
    types = types_of(target)
    assert {name: types[name] for name in HEAD} == {
        "cls.weight": file_type,
        "cls.bias": "F32",
        "cls.output.weight": file_type,
        "cls.output.bias": "F32",
    }
    assert types["token_types.weight"] == "F32"


def test_metadata(source, target):
    convert_folder(write_cross_encoder_folder(source), target)
    found = read_metadata(target)
    assert (found.architecture, found.pooling_type, found.causal) == ("bert", "rank", False)
    assert set(found.classifier) == set(HEAD)
    assert (found.n_labels, found.n_token_types) == (1, 2)
    assert value_of(target, "bert.classifier.output_labels") == ["LABEL_0"]


@pytest.mark.parametrize(
    ("changes", "label"),
    [
        ({"id2label": {"0": "relevant"}}, "relevant"),
        ({"id2label": {"0": "\udcff"}}, r"\udcff"),
        ({"id2label": None, "num_labels": 1}, "LABEL_0"),
    ],
)
def test_the_label(source, target, changes, label):
    convert_folder(write_cross_encoder_folder(source, **changes), target)
    assert value_of(target, "bert.classifier.output_labels") == [label]


def test_a_folder_with_modules_as_sentence_transformers_saves_it(source, target):
    write_cross_encoder_folder(source)
    write_json(source / "modules.json", modules("Transformer"))
    convert_folder(source, target)
    assert read_metadata(target).pooling_type == "rank"


def test_heads_of_pre_training_are_not_taken_for_the_classifier(source, target):
    """GGUF calls the pooler ``cls``, and transformers calls those heads that."""
    extra = {"cls.predictions.bias": np.ones(3, np.float32), "cls.weight": np.ones(3, np.float32)}
    convert_folder(write_cross_encoder_folder(source, weights=saved_weights() | extra), target)
    assert read_metadata(target).n_embd == 64
    assert len(tensors_of(target)) == len(saved_weights())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id2label": {"0": "no", "1": "yes"}}, "with 2 labels, and a reranker gives a pair one"),
        ({"id2label": None}, "with 2 labels"),
        ({"id2label": {}, "num_labels": 3}, "with 3 labels"),
        ({"id2label": None, "num_labels": 0}, "num_labels is 0, and should be over 0"),
        ({"id2label": None, "num_labels": "1"}, "num_labels is '1'"),
        (
            {"architectures": ["BertForTokenClassification"]},
            "is of BertForTokenClassification.*BertForSequenceClassification of model_type",
        ),
        ({"architectures": ["BertModel"]}, "'classifier.bias'.*not a part of a BERT"),
    ],
)
def test_other_classifiers_are_refused(source, target, changes, message):
    with pytest.raises(ConversionError, match=message):
        convert_folder(write_cross_encoder_folder(source, **changes), target)
    assert not target.exists()


def test_a_classifier_that_gives_more_than_its_config_says(source, target):
    weights = saved_weights() | {"classifier.weight": np.ones((2, 64), np.float32)}
    write_cross_encoder_folder(source, weights=weights)
    with pytest.raises(ConversionError, match=r"\(2, 64\), and config.json asks for \(1, 64\)"):
        convert_folder(source, target)


@pytest.mark.parametrize("lost", ["bert.pooler.dense.weight", "classifier.bias"])
def test_a_head_that_is_not_whole(source, target, lost):
    weights = {name: tensor for name, tensor in saved_weights().items() if name != lost}
    write_cross_encoder_folder(source, weights=weights)
    with pytest.raises(ConversionError, match=f"1 tensors are missing.*{lost[-10:]}"):
        convert_folder(source, target)


def test_a_classifier_that_pools_too(source, target):
    write_cross_encoder_folder(source)
    write_json(source / "1_Pooling" / "config.json", {"pooling_mode_mean_tokens": True})
    with pytest.raises(ConversionError, match="pools by mean and is a classifier too"):
        convert_folder(source, target)


ENTRY = CatalogEntry(
    name="tiny-cross-encoder",
    repository="authors/tiny-cross-encoder",
    architecture="bert",
    n_embd=64,
    n_ctx=48,
    pooling_type="rank",
    license="mit",
    source="https://example.org",
    checked="",
    convertible=True,
)


@pytest.mark.parametrize("file_type", ["F16", "Q4_0"])
def test_a_row_of_the_catalogue_is_fetched_converted_and_scores_pairs(
    hub, cache, source, file_type
):
    write_cross_encoder_folder(source)
    hub.repositories[ENTRY.repository] = {path.name: path.read_bytes() for path in source.iterdir()}
    lines = []
    resolved = resolve_model(CatalogReference(ENTRY, file_type), progress=lines.append)
    assert "fetching 3 files" in " ".join(lines)
    assert types_of(resolved.path)["blk.0.attn_q.weight"] == file_type
    assert read_metadata(resolved.path).pooling_type == "rank"
    with EmbeddingEngine() as engine:
        info = engine.load_model(resolved.path, name="tiny")
        results = engine.rerank("tiny", QUERY, DOCUMENTS)
    assert not info.warnings
    assert sorted(result.index for result in results) == list(range(len(DOCUMENTS)))
    shutil.rmtree(cache)
    again = resolve_model(CatalogReference(ENTRY, "F32"), offline=True)
    assert read_metadata(again.path).pooling_type == "rank"
