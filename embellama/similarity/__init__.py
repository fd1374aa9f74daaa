"""Compare vectors: arrays in, arrays out; no model and no engine needed.

One with one: ``cosine``, ``dot``, ``euclidean``, ``manhattan``, ``angular``. One with many:
``one_to_many``. All with all: ``pairwise``. Search: ``top_k``, on codes ``top_k_codes``, by bits
``hamming_top_k``; ``rescore`` orders what any search found. Groups: ``kmeans``.

Vectors are read as float32. Whatever holds NaN or infinity is refused.
"""

from embellama.similarity.bits import hamming, hamming_matrix, hamming_top_k
from embellama.similarity.clusters import Clusters, kmeans
from embellama.similarity.compare import (
    angular,
    cosine,
    dot,
    euclidean,
    manhattan,
    normalize,
    one_to_many,
    pairwise,
)
from embellama.similarity.metrics import Metric
from embellama.similarity.nearest import TopK
from embellama.similarity.quantized import rescore, top_k_codes
from embellama.similarity.rows import CodePrecision
from embellama.similarity.search import top_k

__all__ = [
    "Clusters",
    "CodePrecision",
    "Metric",
    "TopK",
    "angular",
    "cosine",
    "dot",
    "euclidean",
    "hamming",
    "hamming_matrix",
    "hamming_top_k",
    "kmeans",
    "manhattan",
    "normalize",
    "one_to_many",
    "pairwise",
    "rescore",
    "top_k",
    "top_k_codes",
]
