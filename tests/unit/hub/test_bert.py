import pytest

from embellama.errors import ConversionError
from embellama.hub.convert import convert_folder
from tests.tiny_bert import CONFIG, write_json


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "distilbert"}, "model_type 'distilbert'"),
        ({"architectures": ["BertForSequenceClassification"]}, "BertForSequenceClassification"),
        ({"hidden_act": "relu"}, "hidden_act is 'relu'.*computes only 'gelu'"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type is 'relative_key'"),
        ({"is_decoder": True}, "is_decoder is True"),
        ({"num_attention_heads": 5}, "hidden_size 64 is not a multiple of num_attention_heads 5"),
        ({"hidden_size": "64"}, "hidden_size is '64', and should be over 0"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0"),
        ({"layer_norm_eps": -1.0}, "layer_norm_eps is -1.0"),
        ({"vocab_size": 3}, "11 tokens with ids up to 10.*vocab_size 3"),
    ],
)
def test_configurations_that_llama_cpp_cannot_compute_are_refused(folder, target, changes, message):
    write_json(folder / "config.json", CONFIG | changes)
    with pytest.raises(ConversionError, match=message):
        convert_folder(folder, target)
