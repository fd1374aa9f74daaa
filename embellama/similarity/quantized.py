"""Search among codes with float queries, and score again what was found."""

from __future__ import annotations

import numpy as np

from embellama.errors import InvalidInputError, InvalidInputTypeError
from embellama.similarity.arrays import (
    TILE,
    AnyArray,
    Float64Array,
    as_count,
    as_floats,
    blocks,
    check_axes,
    check_widths,
    described,
    float64_block,
)
from embellama.similarity.bits import hamming_top_k
from embellama.similarity.metrics import paired
from embellama.similarity.nearest import IndexArray, Nearest, TopK, collect
from embellama.similarity.rows import (
    SIGN_BIT,
    BinaryRows,
    CodePrecision,
    FloatRows,
    Rows,
    code_rows,
)
from embellama.similarity.search import nearest_rows


def top_k_codes(
    queries: AnyArray,
    codes: AnyArray,
    k: int,
    *,
    precision: CodePrecision,
    ranges: AnyArray | None = None,
    vectors: AnyArray | None = None,
    oversampling: int = 4,
) -> TopK:
    """Find the k codes nearest to each float query, by inner product.

    Packed bits: the ``k * oversampling`` codes with the fewest bits that differ from the query's
    signs are found first, then scored with the query's floats. Integers: all are scored with the
    query's floats, which leaves nothing to gain by scoring them again. With ``vectors``, the
    ``k * oversampling`` best of either kind are scored by their floats.
    Source: S. Shakir, T. Aarsen and SeanLee, https://huggingface.co/blog/embedding-quantization;
    Yamada et al., https://arxiv.org/abs/2106.00882, for scoring bits with the query's floats.

    Args:
        queries: float (n_queries, n_embd), or (n_embd,) for one.
        codes: int8 or uint8 (n, n_embd), or packed bits (n, n_embd / 8, rounded up).
        k: How many of each; all of them, sorted, where there are no more than that.
        precision: What the codes are.
        ranges: float (2, n_embd) minima and maxima that int8 and uint8 codes were made with: codes
            are scored as the values they stand for. None scores the codes as numbers, as
            sentence-transformers does.
        vectors: float (n, n_embd), what the codes were made of. Only rows that were found are
            read, so this may be a ``numpy.memmap``.
        oversampling: How many times ``k`` are found first.

    Returns:
        ``(indices, scores)`` as from ``top_k``, scores descending: the inner product of the query
        with the vector, with the value of the integers, or with +1 and -1 for bits.

    Raises:
        InvalidInputError: Shapes, ranges or numbers that do not fit, NaN or infinity.
        InvalidInputTypeError: Dtypes that do not fit.
    """
    wanted, one = _as_queries(queries)
    k, n_first = as_count("k", k), as_count("oversampling", oversampling) * as_count("k", k)
    rows = code_rows(codes, precision, wanted.shape[1], ranges)
    exact: Rows = rows if vectors is None else _originals(vectors, codes, wanted)
    if isinstance(rows, BinaryRows):
        bits = np.packbits(wanted > 0, axis=1)
        signs = (bits ^ SIGN_BIT).view(np.int8) if precision == "binary" else bits
        first = hamming_top_k(signs, codes, n_first).indices
    elif exact is rows:
        return nearest_rows(wanted, rows, k, metric="dot", one=one)
    else:
        first = nearest_rows(wanted, rows, n_first, metric="dot", one=False).indices
    return _rescored(wanted, first, exact, k, one=one)


def rescore(
    queries: AnyArray,
    candidates: IndexArray,
    rows: AnyArray,
    k: int | None = None,
    *,
    precision: CodePrecision | None = None,
    ranges: AnyArray | None = None,
) -> TopK:
    """Order rows that a coarser search has found by their inner product with the float query.

    Args:
        queries: float (n_queries, n_embd), or (n_embd,) for one.
        candidates: integers (n_queries, n_candidates), or (n_candidates,) for one query: positions
            in ``rows``, each at most once for a query.
        rows: float vectors (n, n_embd), or codes of them. Only candidates are read.
        k: How many to keep; None keeps all.
        precision: What ``rows`` are if they are codes.
        ranges: As in ``top_k_codes``.

    Returns:
        ``(indices, scores)`` as from ``top_k``, scores descending.

    Raises:
        InvalidInputError: Shapes, ranges or numbers that do not fit, NaN or infinity, positions
            that are not in ``rows``.
        InvalidInputTypeError: Dtypes that do not fit.
    """
    wanted, one = _as_queries(queries)
    positions = np.asarray(candidates)
    if positions.dtype.kind not in "iu":
        raise InvalidInputTypeError(
            f"{described('candidates', positions)}; pass integers, the indices of a search"
        )
    if positions.ndim != np.ndim(queries) or len(np.atleast_2d(positions)) != len(wanted):
        raise InvalidInputError(
            f"{described('candidates', positions)}, {described('queries', np.asarray(queries))}: "
            "pass one row of candidates for each query"
        )
    source: Rows
    if precision is None:
        (vectors,) = as_floats(("rows", rows))
        check_widths("queries", wanted, "rows", vectors)
        source = FloatRows("rows", vectors)
    else:
        source = code_rows(rows, precision, wanted.shape[1], ranges)
    outside = positions[(positions < 0) | (positions >= len(source))]
    if len(outside):
        raise InvalidInputError(
            f"candidates holds {outside[0]}, rows are numbered 0 to {len(source) - 1}; pass the "
            "rows that were searched"
        )
    positions = np.atleast_2d(positions).astype(np.int64)
    n_kept = positions.shape[1] if k is None else as_count("k", k)
    return _rescored(wanted, positions, source, n_kept, one=one)


def _as_queries(queries: AnyArray) -> tuple[Float64Array, bool]:
    (floats,) = as_floats(("queries", queries))
    check_axes("queries", floats, (1, 2))
    return float64_block("queries", np.atleast_2d(floats)), floats.ndim == 1


def _originals(vectors: AnyArray, codes: AnyArray, queries: Float64Array) -> FloatRows:
    (floats,) = as_floats(("vectors", vectors))
    check_widths("queries", queries, "vectors", floats)
    if len(floats) != len(codes):
        raise InvalidInputError(
            f"{described('vectors', floats)}, {described('codes', np.asarray(codes))}: pass the "
            "vectors that the codes were made of, in the same order"
        )
    return FloatRows("vectors", floats)


def _rescored(
    queries: Float64Array, candidates: IndexArray, rows: Rows, k: int, *, one: bool
) -> TopK:
    k = min(k, candidates.shape[1])
    found = [Nearest(max(k, 1)) for _ in queries]
    for query, positions, nearest in zip(queries, candidates, found, strict=True):
        for part in blocks(len(positions), TILE):
            chosen = positions[part]
            values = float64_block(rows.name, rows.take(chosen), chosen)
            scores = paired("dot", query[np.newaxis], values).astype(np.float32)
            nearest.add(chosen, -scores)
    return collect(found, k, negate=True, one=one)
