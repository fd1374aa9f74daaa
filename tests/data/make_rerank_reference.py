"""Compute the scores the rerank tests compare with; needs transformers and torch.

    python tests/data/make_rerank_reference.py

Takes the weights and vocabularies of tests/tiny_cross_encoder.py through transformers' own
tokenizers, BertForSequenceClassification and XLMRobertaForSequenceClassification. Writes
rerank_reference.npz beside this script; for each of ``bert`` and ``xlmr``: the logits of all pairs,
the last one with its document cut (truncation="only_second"), float32 (n_pairs,); the ids laid end
to end with their offsets; and for ``bert`` the token types, the logits without them, and those of
weights whose feed-forward parts are as loud as the rest.
Made with transformers 5.23.0, tokenizers 0.23.3, torch 2.13.0, float32 on CPU.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PreTrainedTokenizerFast,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
)

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests import tiny_cross_encoder as tiny

SIZES: dict[str, Any] = {
    "hidden_size": tiny.N_EMBD,
    "intermediate_size": tiny.N_FF,
    "num_hidden_layers": tiny.N_LAYER,
    "num_attention_heads": tiny.N_HEAD,
    "num_labels": 1,
    "layer_norm_eps": 1e-12,
    "hidden_act": "gelu",
}


def bert_tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {word: number for number, word in enumerate(tiny.WORDS)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def xlmr_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.Unigram(tiny.PIECES, unk_id=3))
    tokenizer.normalizer = normalizers.Replace(" {2,}", " ")
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        model_input_names=["input_ids", "attention_mask"],
    )


def load(model: torch.nn.Module, weights: Any, prefix: str) -> torch.nn.Module:
    state = {
        name if name.startswith("classifier") else f"{prefix}.{name}": torch.from_numpy(tensor)
        for name, tensor in weights.items()
    }
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected, unexpected
    assert not [name for name in missing if "position_ids" not in name], missing
    return model.eval()


def bert_model(weights: Any) -> torch.nn.Module:
    config = BertConfig(
        vocab_size=len(tiny.WORDS), max_position_embeddings=tiny.N_CTX, type_vocab_size=2, **SIZES
    )
    return load(BertForSequenceClassification(config), weights, "bert")


def logits(model: torch.nn.Module, pairs: list[Any], **changes: Any) -> Any:
    with torch.no_grad():
        outputs = [model(**{**pair, **changes}).logits[0, 0].item() for pair in pairs]
    return np.array(outputs, dtype=np.float32)


def encode(tokenizer: PreTrainedTokenizerFast) -> list[Any]:
    return [
        tokenizer(
            tiny.QUERY,
            document,
            truncation="only_second",
            max_length=tiny.N_CTX,
            return_tensors="pt",
        )
        for document in (*tiny.DOCUMENTS, tiny.LONG_DOCUMENT)
    ]


def flat(pairs: list[Any], name: str) -> Any:
    return np.concatenate([pair[name][0].numpy() for pair in pairs]).astype(np.int32)


def offsets(pairs: list[Any]) -> Any:
    return np.cumsum([0, *(pair["input_ids"].shape[1] for pair in pairs)], dtype=np.int32)


if __name__ == "__main__":
    torch.set_num_threads(1)
    bert, loud = bert_model(tiny.bert_weights()), bert_model(tiny.bert_weights(1.0))
    bert_pairs = encode(bert_tokenizer())
    xlmr = XLMRobertaForSequenceClassification(
        XLMRobertaConfig(
            vocab_size=len(tiny.PIECES),
            max_position_embeddings=tiny.N_CTX + tiny.PAD_OFFSET,
            type_vocab_size=1,
            pad_token_id=1,
            bos_token_id=0,
            eos_token_id=2,
            **SIZES,
        )
    )
    xlmr = load(xlmr, tiny.xlmr_weights(), "roberta")
    xlmr_pairs = encode(xlmr_tokenizer())
    found = {
        "bert_logits": logits(bert, bert_pairs),
        "bert_untyped_logits": np.array(
            [
                logits(bert, [pair], token_type_ids=torch.zeros_like(pair["input_ids"]))[0]
                for pair in bert_pairs
            ]
        ),
        "bert_loud_logits": logits(loud, bert_pairs),
        "bert_input_ids": flat(bert_pairs, "input_ids"),
        "bert_token_types": flat(bert_pairs, "token_type_ids"),
        "bert_offsets": offsets(bert_pairs),
        "xlmr_logits": logits(xlmr, xlmr_pairs),
        "xlmr_input_ids": flat(xlmr_pairs, "input_ids"),
        "xlmr_offsets": offsets(xlmr_pairs),
    }
    target = Path(__file__).with_name("rerank_reference.npz")
    np.savez_compressed(target, **found)
    for name, array in found.items():
        print(name, array.tolist() if "logits" in name else array.shape)
