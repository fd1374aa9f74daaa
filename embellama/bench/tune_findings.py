"""What `embellama tune` found for a model: plain data, and as JSON has it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from embellama.bench.tune_search import Found, VariantFindings, WorkFindings
from embellama.tuning import WORKS, Tuning


@dataclass(frozen=True, slots=True)
class TuneFindings:
    """What was found, and what is kept of it.

    Attributes:
        model: The model's name.
        file_type: Its own type.
        cpu: The machine it holds for.
        build: The builds of the backends it holds for.
        backend: What computed: ``"llama.cpp"``, or ``"native"`` with its kernels.
        found: All that was measured.
        tuning: What is kept.
        path: Where.
        takeable: Other file types that a load can get by itself.
    """

    model: str
    file_type: str
    cpu: str
    build: str
    backend: str
    found: Found
    tuning: Tuning
    path: Path
    takeable: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold."""
        return {
            "model": self.model,
            "file_type": self.file_type,
            "cpu": self.cpu,
            "build": self.build,
            "backend": self.backend,
            "works": {work: _work_values(self.found.works[work]) for work in WORKS},
            "variants": [_variant_values(one) for one in self.found.variants],
            "tuning": asdict(self.tuning),
            "path": str(self.path),
            "takeable": list(self.takeable),
            "spent_s": self.found.spent_s,
        }


def _work_values(one: WorkFindings) -> dict[str, Any]:
    return {
        "default": asdict(one.default),
        "best": asdict(one.best),
        **asdict(one.measured),
        "n_rounds": one.n_rounds,
        "layouts": [
            {**asdict(layout), "texts_per_s": rate} for layout, rate in one.texts_per_s.items()
        ],
        "dropped": [{**asdict(layout), "reason": why} for layout, why in one.dropped.items()],
    }


def _variant_values(one: VariantFindings) -> dict[str, Any]:
    return {
        **asdict(one.variant),
        "gains": dict(one.gains),
        "least_cosine": one.least_cosine,
        "failed": one.failed,
    }
