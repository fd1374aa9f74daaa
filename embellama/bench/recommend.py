"""Which file type to take, and why."""

from __future__ import annotations

import math
from collections.abc import Sequence

from embellama.bench.findings import Recommendation, TypeFindings
from embellama.errors import InvalidInputError

LEAST_COSINE = 0.999
"""Mean cosine to the reference that counts as good, where nothing better than cosines is known."""

MOST_LOST = 0.005
"""Loss of Spearman or nDCG that counts as none: people's own scores differ by more."""

_SAME_COSINE = 0.00005
"""Mean cosines nearer than this look equal."""

_LUCKY_COSINE = 0.9999
"""Below this mean cosine a score above the reference's needs an explanation."""


def checked_tolerance(tolerance: float | None, *, judged: bool) -> float:
    """Return what is tolerated, the default if nothing was said.

    Args:
        tolerance: What the user said.
        judged: Whether pairs or relevance are there: it is then what they may lose, otherwise
            the least mean cosine.

    Raises:
        InvalidInputError: It is out of the range that makes sense.
    """
    if tolerance is None:
        return MOST_LOST if judged else LEAST_COSINE
    low, high = (0.0, 0.5) if judged else (0.5, 1.0)
    if not low <= tolerance <= high:
        meaning = (
            "with pairs or queries it is what Spearman and nDCG may lose"
            if judged
            else "without pairs and queries it is the least mean cosine"
        )
        raise InvalidInputError(
            f"the tolerance is {tolerance}; {meaning}, from {low:g} to {high:g}, for example "
            f"{MOST_LOST if judged else LEAST_COSINE}"
        )
    return tolerance


def recommend(
    types: Sequence[TypeFindings], reference_type: str, tolerance: float
) -> tuple[Recommendation, ...]:
    """Choose the smallest and the fastest type within the tolerance, and the best of all.

    What decides is what the user gave: nDCG and Spearman, each of which may lose no more than the
    tolerance; the mean cosine without them.

    Args:
        types: What was measured, the reference type among it.
        reference_type: Its name.
        tolerance: As `checked_tolerance` returns it.
    """
    reference = next(one for one in types if one.file_type == reference_type)
    good = [one for one in types if _is_good(one, reference, tolerance)]
    smallest = min(good, key=lambda one: (one.file_bytes, -_speed(one)))
    fastest = max(good, key=_speed)
    best = _best(types)
    share = smallest.file_bytes / reference.file_bytes
    times = _speed(fastest) / _speed(reference)
    limit = _limit(reference, tolerance)
    return (
        Recommendation(
            goal="smallest",
            file_type=smallest.file_type,
            reason=f"{smallest.file_bytes / 1e6:.1f} MB, {share:.0%} of {reference_type}; "
            f"{_quality(smallest, reference)}, within {limit}.",
        ),
        Recommendation(
            goal="fastest",
            file_type=fastest.file_type,
            reason=f"{_speeds(fastest)}, {times:.2f} times {reference_type}; "
            f"{_quality(fastest, reference)}, within {limit}.{_close_second(fastest, good)}",
        ),
        Recommendation(
            goal="best",
            file_type=best.file_type,
            reason=f"{_capital(_quality(best, reference))}; {_why_best(best, types, reference)}.",
        ),
    )


def _is_judged(one: TypeFindings) -> bool:
    return one.ndcg_10 is not None or one.spearman is not None


def _lost(one: TypeFindings, reference: TypeFindings) -> float:
    """Return the largest loss of nDCG or Spearman; below 0 if all gained."""
    pairs = ((reference.ndcg_10, one.ndcg_10), (reference.spearman, one.spearman))
    return max(then - now for then, now in pairs if then is not None and now is not None)


def _is_good(one: TypeFindings, reference: TypeFindings, tolerance: float) -> bool:
    if one is reference:
        return True
    if _is_judged(reference):
        return _lost(one, reference) <= tolerance
    return one.fidelity.cosine_mean >= tolerance


def _limit(reference: TypeFindings, tolerance: float) -> str:
    if _is_judged(reference):
        return f"the tolerated loss of {tolerance:g}"
    return f"the tolerance of {tolerance:g}"


def _speed(one: TypeFindings) -> float:
    """Return texts a second on the user's own texts, else the geometric mean of short and long."""
    if "own" in one.speed:
        return one.speed["own"].texts_per_s
    rates = [speed.texts_per_s for speed in one.speed.values()]
    return math.prod(rates) ** (1 / len(rates))


def _works(one: TypeFindings) -> list[str]:
    return ["own"] if "own" in one.speed else list(one.speed)


def _speeds(one: TypeFindings) -> str:
    if "own" in one.speed:
        return f"{one.speed['own'].texts_per_s:,.0f} texts/s on your own texts"
    rates = [f"{speed.texts_per_s:,.0f} {work}" for work, speed in one.speed.items()]
    return f"{' and '.join(rates)} texts/s"


def _close_second(fastest: TypeFindings, good: Sequence[TypeFindings]) -> str:
    """Name the types whose rounds overlap with those of the fastest in all that decides."""
    close = [
        one.file_type
        for one in good
        if one is not fastest
        and all(
            one.speed[work].spread[1] >= fastest.speed[work].spread[0] for work in _works(fastest)
        )
    ]
    if not close:
        return ""
    return f" Not clearly slower, as the rounds spread: {', '.join(close)}."


def _best(types: Sequence[TypeFindings]) -> TypeFindings:
    """Take the fastest of those whose vectors are as near to the reference's as any.

    Not the highest Spearman or nDCG: rounding weights adds noise, which raises a score only by
    chance, and of eight types one is lucky.
    """
    nearest = max(one.fidelity.cosine_mean for one in types)
    same = [one for one in types if one.fidelity.cosine_mean >= nearest - _SAME_COSINE]
    return max(same, key=_speed)


def _why_best(best: TypeFindings, types: Sequence[TypeFindings], reference: TypeFindings) -> str:
    if len(types) == 1:
        return "the only type there is"
    why = (
        "its weights are not rounded any further"
        if best is reference
        else f"its vectors are as good as {reference.file_type}'s, and it is faster"
    )
    lucky = [
        one.file_type
        for one in types
        if _is_judged(one) and _lost(one, best) < 0 and one.fidelity.cosine_mean < _LUCKY_COSINE
    ]
    if not lucky:
        return why
    return f"{why}; that {' and '.join(lucky)} scored higher on your data is most likely chance"


def _quality(one: TypeFindings, reference: TypeFindings) -> str:
    parts = []
    for name, value, then in (
        ("nDCG@10", one.ndcg_10, reference.ndcg_10),
        ("Spearman", one.spearman, reference.spearman),
    ):
        if value is not None and then is not None:
            versus = "" if one is reference else f" ({reference.file_type} {then:.4f})"
            parts.append(f"{name} {value:.4f}{versus}")
    cosine = (
        "the reference itself"
        if one is reference
        else f"mean cosine {one.fidelity.cosine_mean:.4f}"
    )
    return ", ".join([*parts, cosine])


def _capital(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]
