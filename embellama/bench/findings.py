"""What a comparison of file types found: plain data, to JSON and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

Goal = Literal["smallest", "fastest", "best"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """How fast one kind of texts was embedded: medians over interleaved rounds.

    Attributes:
        texts_per_s: Texts a second.
        tokens_per_s: Tokens a second, special tokens included.
        spread: Texts a second of the slowest and of the fastest round.
    """

    texts_per_s: float
    tokens_per_s: float
    spread: tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Seconds for a single text, tokenization included.

    Attributes:
        p50: The median.
        p95: 95 % took no longer.
        p99: 99 % took no longer.
        samples: Every measured duration, in the order of measuring.
    """

    p50: float
    p95: float
    p99: float
    samples: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fidelity:
    """How near a type's vectors are to the reference type's, on the same texts.

    Attributes:
        cosine_mean: Mean cosine.
        cosine_worst: The smallest.
        worst_text: The text it belongs to.
        cosines: One for each text.
        neighbour_overlap: Share of each text's 10 nearest neighbours that are the same, on average.
    """

    cosine_mean: float
    cosine_worst: float
    worst_text: str
    cosines: tuple[float, ...]
    neighbour_overlap: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TypeFindings:
    """One file type, measured.

    Attributes:
        file_type: Its name, e.g. ``"Q8_0"``.
        reference: What loads it, e.g. ``"minilm:Q8_0"``.
        backend: What computed it: ``"llama.cpp"``, or ``"native"`` with its kernels.
        tensor_types: How many tensors really have which type.
        file_bytes: Size of the file.
        rss_bytes: What a process of its own grew by, from before the load until after the texts.
        load_s: Seconds to load it in that process.
        speed: By kind of texts: ``"short"``, ``"long"``, and ``"own"`` if the user gave texts.
        latency: Of a single text.
        fidelity: Against the reference type; of the reference type itself, all ones.
        spearman: Correlation with the scores of the user's pairs.
        ndcg_10: nDCG@10 of the user's queries.
    """

    file_type: str
    reference: str
    backend: str
    tensor_types: Mapping[str, int]
    file_bytes: int
    rss_bytes: int
    load_s: float
    speed: Mapping[str, Speed]
    latency: Latency
    fidelity: Fidelity
    spearman: float | None = None
    ndcg_10: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """Which type to take for a goal, and why.

    Attributes:
        goal: ``"smallest"`` within the tolerance, ``"fastest"`` within it, ``"best"`` of all.
        file_type: The type.
        reason: A sentence with the figures it rests on.
    """

    goal: Goal
    file_type: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchFindings:
    """All types of one model, on one machine.

    Attributes:
        model: What was asked for.
        reference_type: The type the others are compared with.
        created: When, in ISO 8601 with the zone.
        machine: CPU, cores, instruction sets and versions, by name.
        n_texts: Texts of the fidelity part.
        texts_from: Where they came from, in words.
        tolerance: The least mean cosine, or most lost Spearman or nDCG, that still counts as good.
        types: What was found, by type, from the largest file to the smallest.
        failed: Types that could not be made or run, and why.
        recommendations: One for each goal that some type meets.
    """

    model: str
    reference_type: str
    created: str
    machine: Mapping[str, str]
    n_texts: int
    texts_from: str
    tolerance: float
    types: tuple[TypeFindings, ...]
    failed: Mapping[str, str]
    recommendations: tuple[Recommendation, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold."""
        return asdict(self)
