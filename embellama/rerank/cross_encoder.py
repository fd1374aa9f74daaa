"""What a model that judges pairs needs beside its weights: a template and a usable head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from embellama.errors import ConfigurationError
from embellama.gguf import GGUFMetadata
from embellama.rerank.pairs import ControlTokens, PairTemplate, pair_template
from embellama.tokenization import Tokenizer
from embellama.types import FloatArray

_YES_AND_NO = frozenset({"qwen3", "qwen3vl"})
"""Where the scores are probabilities of "yes" and "no".

Source: ``llm_graph_context::build_pooling`` in llama.cpp's llama-graph.cpp, which puts a softmax
there, and ``Qwen3Model`` in its conversion/qwen.py, which orders the labels.
"""

_ONE_LAYER = frozenset({"jina-bert-v2"})
"""Whose head is one matrix under the name of the pooler. Source: models/jina-bert-v2.cpp."""

_HAVE_POOLERS = frozenset({"bert", "jina-bert-v2"})

_SMALLEST = 2.0**-149
"""The least float32 above zero, for the logarithm of a probability that was rounded to zero."""

Float64Array: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class CrossEncoder:
    """How a loaded model is asked, and how its answers are read.

    Attributes:
        template: How a pair becomes one sequence.
        gives_probabilities: Whether its outputs are probabilities of "yes" and "no", and not one
            logit.
        warnings: What the user should know about its scores.
    """

    template: PairTemplate
    gives_probabilities: bool
    warnings: tuple[str, ...]

    def logits(self, rows: FloatArray) -> Float64Array:
        """Read one logit from each row of outputs.

        Args:
            rows: float32 (n_pairs, n_labels), as the model gives them.

        Returns:
            float64 (n_pairs,); the higher, the more relevant.
        """
        exact = rows.astype(np.float64)
        if not self.gives_probabilities:
            return exact[:, 0]
        yes, no = np.log(np.maximum(exact, _SMALLEST)).T
        # of both, as "yes" alone is 1.0 for every logit above 17
        logits: Float64Array = yes - no
        return logits


def logistic(logits: Float64Array) -> Float64Array:
    """Turn logits into probabilities, float64 of the same shape.

    Neighbouring float32 logits stay apart up to 22; from 37 on all are 1.0.
    """
    # the smaller of the two exponentials, so that none overflows
    small = np.exp(-np.abs(logits))
    scaled: Float64Array = np.where(logits >= 0, 1, small) / (1 + small)
    return scaled


def cross_encoder_for(
    metadata: GGUFMetadata, tokenizer: Tokenizer, control_tokens: ControlTokens
) -> CrossEncoder:
    """Find out how to use a model with rank pooling.

    Raises:
        ConfigurationError: It has no head that gives one score to a pair, or does not say how its
            pairs are written.
        GGUFFormatError: The file's template or special tokens are no use.
    """
    _check_head(metadata)
    return CrossEncoder(
        template=pair_template(metadata, tokenizer, control_tokens),
        gives_probabilities=metadata.architecture in _YES_AND_NO,
        warnings=_doubts(metadata),
    )


def _check_head(metadata: GGUFMetadata) -> None:
    path, architecture = str(metadata.path), metadata.architecture
    wanted = "cls.weight" if architecture in _ONE_LAYER else "cls.output.weight"
    if wanted not in metadata.classifier:
        raise ConfigurationError(
            f"{path!r} has no classifier ({wanted}) that could score pairs; convert the reranker "
            "again with a newer llama.cpp, or load it as an embedding model with another "
            "pooling_type"
        )
    n_labels = 2 if architecture in _YES_AND_NO else 1
    if metadata.n_labels != n_labels:
        raise ConfigurationError(
            f"the classifier of {path!r} has {metadata.n_labels} labels; a reranker of "
            f"architecture {architecture!r} has {n_labels}"
        )


def _doubts(metadata: GGUFMetadata) -> tuple[str, ...]:
    """Say where llama.cpp's scores are not the original's.

    Source: ``BertModel.filter_tensors`` in llama.cpp's conversion/bert.py ("we don't need the
    pooling layer"); RoBERTa's head is stored whole.
    """
    whole = {"cls.weight", "cls.output.weight"} <= set(metadata.classifier)
    if whole or metadata.architecture not in _HAVE_POOLERS:
        return ()
    return (
        "the file lacks the pooler of the original (a dense layer and tanh before the classifier), "
        "as llama.cpp's converter leaves it out: expect other scores, and at times another order",
    )
