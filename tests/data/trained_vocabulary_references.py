"""References of the models whose vocabulary is SentencePiece's or Qwen's; see the script beside.

Token ids come from transformers' own tokenizers, made of the same pieces.
"""

import base64
from collections.abc import Callable, Sequence

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from tokenizers.processors import TemplateProcessing

from tests.architectures import gemma_embedding, qwen3, t5_encoder, xlm_roberta
from tests.architectures.common import Weights
from tests.architectures.trained_vocabulary import (
    qwen_pieces,
    t5_pieces,
    trained,
    xlm_roberta_pieces,
)

Rows = NDArray[np.float64]
Reference = Callable[[Sequence[str]], tuple[list[list[int]], list[Rows]]]
Load = Callable[[torch.nn.Module, Weights], torch.nn.Module]
TokenRows = Callable[[torch.nn.Module, Sequence[int]], Rows]


def makers(load: Load, token_rows: TokenRows) -> dict[str, Callable[[], Reference]]:
    """Say how to make each reference, with the script's way to fill a model and to run it."""

    def reference(
        tokenizer: transformers.PreTrainedTokenizerBase,
        model: torch.nn.Module,
        weights: Weights,
        pool: Callable[[Rows], Rows],
    ) -> Reference:
        filled = load(model, weights)

        def answer(texts: Sequence[str]) -> tuple[list[list[int]], list[Rows]]:
            ids = [list(tokenizer(text)["input_ids"]) for text in texts]
            return ids, [pool(token_rows(filled, row)) for row in ids]

        return answer

    return {
        "xlm-roberta-cls": lambda: reference(*_xlm_roberta(), lambda rows: rows[0]),
        "xlm-roberta-mean": lambda: reference(*_xlm_roberta(), lambda rows: rows.mean(axis=0)),
        "qwen3": lambda: reference(*_qwen3(), lambda rows: rows[-1]),
        "gemma-embedding": lambda: reference(*_gemma(), _through_dense),
        "t5-encoder": lambda: reference(*_t5(gated=False), lambda rows: rows.mean(axis=0)),
        "t5-encoder-gated": lambda: reference(*_t5(gated=True), lambda rows: rows.mean(axis=0)),
    }


Parts = tuple[transformers.PreTrainedTokenizerBase, torch.nn.Module, Weights]


def _charsmap() -> bytes:
    return base64.b64decode(trained("unigram")["charsmap"])


def _xlm_roberta() -> Parts:
    tokenizer = transformers.XLMRobertaTokenizer(
        vocab=xlm_roberta_pieces(), _spm_precompiled_charsmap=_charsmap()
    )
    config = transformers.XLMRobertaConfig(
        vocab_size=len(xlm_roberta_pieces()),
        hidden_size=xlm_roberta.N_EMBD,
        intermediate_size=xlm_roberta.N_FF,
        num_hidden_layers=xlm_roberta.N_LAYER,
        num_attention_heads=xlm_roberta.N_HEAD,
        max_position_embeddings=xlm_roberta.N_POSITIONS + xlm_roberta.POSITION_OFFSET,
        layer_norm_eps=xlm_roberta.EPSILON,
        type_vocab_size=1,
    )
    model = transformers.XLMRobertaModel(config, add_pooling_layer=False)
    return tokenizer, model, xlm_roberta.weights()


def _qwen3() -> Parts:
    pieces = qwen_pieces()
    tokenizer = transformers.Qwen2Tokenizer(
        vocab={piece: number for number, piece in enumerate(pieces)},
        merges=[tuple(pair) for pair in trained("bytes")["merges"]],
    )
    # as the tokenizer.json of Qwen3-Embedding has it
    end = "<|endoftext|>"
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"$A {end}", special_tokens=[(end, pieces.index(end))]
    )
    config = transformers.Qwen3Config(
        vocab_size=len(pieces),
        hidden_size=qwen3.N_EMBD,
        intermediate_size=qwen3.N_FF,
        num_hidden_layers=qwen3.N_LAYER,
        num_attention_heads=qwen3.N_HEAD,
        num_key_value_heads=qwen3.N_HEAD_KV,
        head_dim=qwen3.HEAD,
        max_position_embeddings=qwen3.N_POSITIONS,
        rms_norm_eps=qwen3.EPSILON,
        rope_parameters={"rope_type": "default", "rope_theta": qwen3.ROPE_BASE},
    )
    return tokenizer, transformers.Qwen3Model(config), qwen3.weights()


def _gemma() -> Parts:
    pieces = trained("spm")["pieces"]
    tokenizer = transformers.GemmaTokenizer(
        vocab={piece: number for number, piece in enumerate(pieces)}, merges=_merges(pieces)
    )
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", 2), ("<eos>", 1)]
    )
    config = transformers.Gemma3TextConfig(
        vocab_size=len(pieces),
        hidden_size=gemma_embedding.N_EMBD,
        intermediate_size=gemma_embedding.N_FF,
        num_hidden_layers=gemma_embedding.N_LAYER,
        num_attention_heads=gemma_embedding.N_HEAD,
        num_key_value_heads=gemma_embedding.N_HEAD_KV,
        head_dim=gemma_embedding.HEAD,
        query_pre_attn_scalar=gemma_embedding.HEAD,
        max_position_embeddings=gemma_embedding.N_POSITIONS,
        rms_norm_eps=gemma_embedding.EPSILON,
        sliding_window=gemma_embedding.WINDOW,
        use_bidirectional_attention=True,
    )
    return tokenizer, transformers.Gemma3TextModel(config), gemma_embedding.weights()


def _merges(pieces: Sequence[str]) -> list[tuple[str, str]]:
    """List the pairs that make a piece, the best piece's first: SentencePiece's order of merges."""
    vocabulary = trained("spm")
    known = set(pieces)
    ranked = sorted(
        (-score, number, piece)
        for number, (piece, score, kind) in enumerate(
            zip(pieces, vocabulary["scores"], vocabulary["types"], strict=True)
        )
        if kind == 1
    )
    return [
        (piece[:cut], piece[cut:])
        for _, _, piece in ranked
        for cut in range(1, len(piece))
        if piece[:cut] in known and piece[cut:] in known
    ]


def _through_dense(rows: Rows) -> Rows:
    vector = rows.mean(axis=0)
    for weight in gemma_embedding.dense_weights().values():
        vector = weight.astype(np.float64) @ vector
    return vector


def _t5(*, gated: bool) -> Parts:
    tokenizer = transformers.T5Tokenizer(
        vocab=t5_pieces(),
        _spm_precompiled_charsmap=_charsmap(),
        extra_ids=0,
    )
    config = transformers.T5Config(
        vocab_size=t5_encoder.N_VOCAB,
        d_model=t5_encoder.N_EMBD,
        d_kv=t5_encoder.HEAD,
        d_ff=t5_encoder.N_FF,
        num_layers=t5_encoder.N_LAYER,
        num_heads=t5_encoder.N_HEAD,
        relative_attention_num_buckets=t5_encoder.N_BUCKETS,
        relative_attention_max_distance=t5_encoder.FARTHEST,
        layer_norm_epsilon=t5_encoder.EPSILON,
        feed_forward_proj="gated-gelu" if gated else "relu",
    )
    weights = t5_encoder.weights(gated=gated)
    both = {**weights, "encoder.embed_tokens.weight": weights["shared.weight"]}
    return tokenizer, transformers.T5EncoderModel(config), both
