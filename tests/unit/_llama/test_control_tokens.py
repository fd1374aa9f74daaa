"""The tokens of a template are told from text that looks like them."""

import pytest

from embellama._llama.model import LlamaBackend
from embellama.config import ModelConfig
from embellama.errors import ContextError
from embellama.gguf import read_metadata
from tests.tiny_cross_encoder import WORDS, write_cross_encoder, write_yes_no_reranker


def opened(path):
    return LlamaBackend().load(read_metadata(path), ModelConfig(), "rank")


def test_only_control_tokens_that_the_text_spells(tmp_path):
    model = opened(write_yes_no_reranker(tmp_path / "q.gguf"))
    found = model.control_tokens("<|im_start|>user\na cat <|no_such|> <|im_end|>")
    (start,), (end,) = (
        {token for text, token in found.items() if text == wanted}
        for wanted in ("<|im_start|>", "<|im_end|>")
    )
    assert end == start + 1
    assert len(found) == 2
    assert model.control_tokens("") == {}
    model.close()
    with pytest.raises(ContextError, match="model is closed"):
        model.control_tokens("a")


def test_those_of_word_piece(tmp_path):
    model = opened(write_cross_encoder(tmp_path / "b.gguf"))
    assert model.control_tokens("[CLS] a panda [SEP]") == {
        "[CLS]": 2,
        "[SEP]": WORDS.index("[SEP]"),
    }
    model.close()
