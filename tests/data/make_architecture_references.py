"""Compute what the tiny models of tests/architectures have to answer; needs torch and transformers.

    python tests/data/make_architecture_references.py [NAME ...]

Writes architectures/NAME.npz beside this script for each model, or for those named: the token ids
of its texts laid end to end with their offsets, float32 (n, n_embd) vectors of length 1, and the
versions of the packages. Each comes from a forward pass other than llama.cpp's over the same
weights, in float64 on the CPU, text by text without padding.
"""

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import tokenizers
import torch
import transformers
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[2]))
import trained_vocabulary_references

from tests.architectures import TINY_MODELS, bert, jina_bert_v2, modern_bert, nomic_bert
from tests.architectures.common import TinyModel, Weights
from tests.architectures.vocabulary import byte_pairs, wordpiece_vocabulary

Rows = NDArray[np.float64]
Tokenize = Callable[[Sequence[str]], list[list[int]]]
Run = Callable[[Sequence[int]], Rows]
Pool = Callable[[Rows], Rows]
Reference = Callable[[Sequence[str]], tuple[list[list[int]], list[Rows]]]
"""Gives the token ids of each text, and its pooled vector of any length."""


def load(model: torch.nn.Module, weights: Weights) -> torch.nn.Module:
    """Fill a model with these weights and no others, in float64."""
    model.load_state_dict({name: torch.from_numpy(values) for name, values in weights.items()})
    return model.double().eval()


@torch.no_grad()
def token_rows(model: torch.nn.Module, ids: Sequence[int]) -> Rows:
    """Run one text; returns its last hidden states, (n_tokens, n_embd)."""
    rows: NDArray[np.float64] = model(input_ids=torch.tensor([ids])).last_hidden_state[0].numpy()
    return rows


def mean(rows: Rows) -> Rows:
    """Average the rows of all tokens, special ones included, as sentence-transformers does."""
    return rows.mean(axis=0)


def first(rows: Rows) -> Rows:
    """Take the row of the first token, [CLS]."""
    return rows[0]


def wordpiece_ids(texts: Sequence[str]) -> list[list[int]]:
    """Tokenize with BERT's own fast tokenizer."""
    vocabulary = {piece: number for number, piece in enumerate(wordpiece_vocabulary())}
    tokenizer = tokenizers.BertWordPieceTokenizer(vocab=vocabulary, lowercase=True)
    return [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]


def modern_bert_ids(texts: Sequence[str]) -> list[list[int]]:
    """Tokenize with the parts named in ModernBERT's tokenizer.json, and this small vocabulary."""
    pieces = {piece: number for number, piece in enumerate(modern_bert.vocabulary())}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=pieces, merges=byte_pairs()[1]))
    tokenizer.normalizer = tokenizers.normalizers.NFC()
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_tokens(
        [tokenizers.AddedToken(spaces, normalized=True) for spaces in modern_bert.SPACES]
    )
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[(token, pieces[token]) for token in ("[CLS]", "[SEP]")],
    )
    return [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]


def reference_of(tokenize: Tokenize, run: Run, pool: Pool = mean) -> Reference:
    """Put a tokenizer, a forward pass and a pooling together."""

    def answer(texts: Sequence[str]) -> tuple[list[list[int]], list[Rows]]:
        ids = tokenize(texts)
        return ids, [pool(run(row)) for row in ids]

    return answer


def bert_reference(pool: Pool) -> Reference:
    """Make a reference of transformers' BertModel."""
    config = transformers.BertConfig(
        vocab_size=len(wordpiece_vocabulary()),
        hidden_size=bert.N_EMBD,
        intermediate_size=bert.N_FF,
        num_hidden_layers=bert.N_LAYER,
        num_attention_heads=bert.N_HEAD,
        max_position_embeddings=bert.N_POSITIONS,
        layer_norm_eps=bert.EPSILON,
    )
    model = load(transformers.BertModel(config, add_pooling_layer=False), bert.weights())
    return reference_of(wordpiece_ids, partial(token_rows, model), pool)


def nomic_bert_reference() -> Reference:
    """Make a reference of transformers' NomicBertModel."""
    config = transformers.NomicBertConfig(
        vocab_size=len(wordpiece_vocabulary()),
        hidden_size=nomic_bert.N_EMBD,
        intermediate_size=nomic_bert.N_FF,
        num_hidden_layers=nomic_bert.N_LAYER,
        num_attention_heads=nomic_bert.N_HEAD,
        max_position_embeddings=nomic_bert.N_POSITIONS,
        layer_norm_eps=nomic_bert.EPSILON,
        rope_parameters={"rope_type": "default", "rope_theta": nomic_bert.THETA},
    )
    model = load(transformers.NomicBertModel(config), nomic_bert.weights())
    return reference_of(wordpiece_ids, partial(token_rows, model))


def modern_bert_reference() -> Reference:
    """Make a reference of transformers' ModernBertModel."""
    special = {
        f"{name}_token_id": modern_bert.vocabulary().index(token)
        for names, token in (("pad", "[PAD]"), ("cls bos", "[CLS]"), ("sep eos", "[SEP]"))
        for name in names.split()
    }
    config = transformers.ModernBertConfig(
        vocab_size=len(modern_bert.vocabulary()),
        hidden_size=modern_bert.N_EMBD,
        intermediate_size=modern_bert.N_FF,
        num_hidden_layers=modern_bert.N_LAYER,
        num_attention_heads=modern_bert.N_HEAD,
        max_position_embeddings=modern_bert.N_POSITIONS,
        norm_eps=modern_bert.EPSILON,
        local_attention=modern_bert.WINDOW,
        global_attn_every_n_layers=modern_bert.GLOBAL_EVERY,
        rope_parameters={
            "full_attention": {"rope_type": "default", "rope_theta": modern_bert.GLOBAL_THETA},
            "sliding_attention": {"rope_type": "default", "rope_theta": modern_bert.LOCAL_THETA},
        },
        **special,
    )
    model = load(transformers.ModernBertModel(config), modern_bert.weights())
    return reference_of(modern_bert_ids, partial(token_rows, model))


MAKERS: dict[str, Callable[[], Reference]] = {
    "bert-mean": lambda: bert_reference(mean),
    "bert-cls": lambda: bert_reference(first),
    "nomic-bert": nomic_bert_reference,
    "jina-bert-v2": lambda: reference_of(wordpiece_ids, jina_bert_v2.token_rows),
    "modern-bert": modern_bert_reference,
    **trained_vocabulary_references.makers(load, token_rows),
}
"""How to make the reference of each tiny model."""


def save(model: TinyModel, reference: Reference) -> None:
    """Write the reference file of a model and say how far its texts are apart."""
    ids, pooled = reference(model.texts)
    rows = np.stack(pooled)
    vectors = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    np.savez_compressed(
        model.reference,
        input_ids=np.concatenate([np.asarray(row, np.int32) for row in ids]),
        offsets=np.cumsum([0, *map(len, ids)], dtype=np.int32),
        vectors=vectors.astype(np.float32),
        versions=[f"{package.__name__} {package.__version__}" for package in _PACKAGES],
    )
    apart = (vectors @ vectors.T)[~np.eye(len(ids), dtype=bool)]
    lengths = [len(row) for row in ids]
    print(
        f"{model.name}: {len(ids)} texts of {min(lengths)} to {max(lengths)} tokens, "
        f"cosines {apart.min():.3f} to {apart.max():.3f}, {model.reference.stat().st_size} bytes"
    )


_PACKAGES = (tokenizers, torch, transformers)

if __name__ == "__main__":
    wanted = set(sys.argv[1:]) or {model.name for model in TINY_MODELS}
    for tiny_model in TINY_MODELS:
        if tiny_model.name in wanted:
            save(tiny_model, MAKERS[tiny_model.name]())
