"""Made-up findings of eight types, near those of MiniLM, to render pages from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from embellama.bench.findings import (
    BenchFindings,
    Fidelity,
    Latency,
    Recommendation,
    Speed,
    TypeFindings,
)

# type, MB, short and long texts a second, ms, typical and spread of log10(1 − cosine), overlap,
# Spearman
ROWS = (
    ("F32", 90.9, 520, 36, 3.9, None, 0.0, 1.0, 0.8203),
    ("BF16", 45.9, 1090, 58, 2.1, -5.4, 0.2, 0.997, 0.8203),
    ("F16", 45.9, 740, 41, 2.9, -6.6, 0.2, 0.999, 0.8203),
    ("Q8_0", 24.7, 640, 37, 3.2, -3.5, 0.2, 0.968, 0.8201),
    ("Q6_K", 22.3, 610, 35, 3.4, -2.9, 0.2, 0.941, 0.8189),
    ("Q5_K_M", 21.2, 655, 36.5, 3.3, -2.3, 0.25, 0.892, 0.8166),
    ("Q4_K_M", 20.6, 690, 38, 3.1, -2.05, 0.25, 0.865, 0.8131),
    ("Q4_0", 19.2, 1029, 58.4, 2.2, -1.5, 0.25, 0.781, 0.7987),
)
HOSTILE = '<script>alert("1")</script> </style> & \' <b onmouseover=x>'


def made_up(n_texts: int = 1500) -> BenchFindings:
    """Return findings with everything a run can find."""
    rng = np.random.default_rng(7)
    types = tuple(_type(row, rng, n_texts) for row in ROWS)
    return BenchFindings(
        model="minilm",
        reference_type="F32",
        created="2026-03-14T09:26:53+01:00",
        machine={
            "CPU": "Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz",
            "cores": "2 physical, 4 logical",
            "instruction sets": "SSE3 SSSE3 AVX AVX2 F16C FMA BMI2 AVX512 AVX512_VBMI AVX512_BF16",
            "memory": "17 GB",
            "llama-cpp-python": "0.3.36",
        },
        n_texts=n_texts,
        texts_from="1,500 pairs of pairs.tsv, both sentences",
        tolerance=0.005,
        types=types,
        failed={"Q3_K_S": "llama.cpp cannot quantize to Q3_K_S: rows of 384 weights"},
        recommendations=(
            Recommendation(
                goal="smallest",
                file_type="Q5_K_M",
                reason="21.2 MB, 23% of F32; Spearman 0.8166 (F32 0.8203), within 0.005.",
            ),
            Recommendation(
                goal="fastest",
                file_type="BF16",
                reason="1,090 short and 58 long texts/s, 2.1 times F32; Spearman 0.8203.",
            ),
            Recommendation(
                goal="best", file_type="F32", reason="Spearman 0.8203; it is the reference."
            ),
        ),
    )


def _type(row: tuple, rng: np.random.Generator, n_texts: int) -> TypeFindings:
    name, megabytes, short, long, ms, lost, spread, overlap, spearman = row
    cosines = (
        np.ones(n_texts)
        if lost is None
        else 1 - 10 ** rng.normal(lost, spread, n_texts).clip(-8, -0.2)
    )
    samples = ms / 1000 * rng.lognormal(0, 0.08, 400) * np.where(rng.random(400) < 0.03, 2.2, 1)
    p50, p95, p99 = np.quantile(samples, (0.5, 0.95, 0.99))
    worst = int(cosines.argmin())
    return TypeFindings(
        file_type=name,
        reference=f"minilm:{name}",
        backend="llama.cpp",
        tensor_types={name: 37, "F32": 64} if name != "F32" else {"F32": 101},
        file_bytes=int(megabytes * 1e6),
        rss_bytes=int((megabytes + 31) * 1e6),
        load_s=0.04 + megabytes / 1000,
        speed={
            "short": Speed(
                texts_per_s=short, tokens_per_s=short * 14, spread=(short * 0.97, short * 1.02)
            ),
            "long": Speed(
                texts_per_s=long, tokens_per_s=long * 240, spread=(long * 0.97, long * 1.02)
            ),
            "own": Speed(
                texts_per_s=short * 0.9,
                tokens_per_s=short * 15,
                spread=(short * 0.85, short * 0.93),
            ),
        },
        latency=Latency(p50=p50, p95=p95, p99=p99, samples=tuple(samples.tolist())),
        fidelity=Fidelity(
            cosine_mean=float(cosines.mean()),
            cosine_worst=float(cosines[worst]),
            worst_text=f"Text number {worst}: two dogs run over the wet sand."
            + " And on." * (60 if name == "Q4_0" else 0),
            cosines=tuple(cosines.tolist()),
            neighbour_overlap=overlap,
        ),
        spearman=spearman,
        ndcg_10=spearman - 0.35,
    )


def unjudged(findings: BenchFindings) -> BenchFindings:
    """Return the same without scores and relevance, as most runs are."""
    types = tuple(replace(found, spearman=None, ndcg_10=None) for found in findings.types)
    return replace(findings, types=types, tolerance=0.999)


def alike(findings: BenchFindings) -> BenchFindings:
    """Return the same with every type measured as the second one was."""
    one = findings.types[1]
    types = tuple(replace(one, file_type=found.file_type) for found in findings.types)
    return unjudged(replace(findings, types=types))


def hostile(findings: BenchFindings) -> BenchFindings:
    """Return the same with an attack in every string."""
    types = tuple(
        replace(
            found,
            file_type=f"{found.file_type}{HOSTILE}",
            reference=HOSTILE,
            tensor_types={HOSTILE: 1},
            speed={**found.speed, HOSTILE: found.speed["short"]},
            fidelity=replace(found.fidelity, worst_text=HOSTILE * (1 + 9 * (i % 2))),
        )
        for i, found in enumerate(findings.types)
    )
    return replace(
        findings,
        model=HOSTILE,
        reference_type=types[0].file_type,
        created=HOSTILE,
        machine={HOSTILE: HOSTILE},
        texts_from=HOSTILE,
        types=types,
        failed={HOSTILE: HOSTILE},
        recommendations=(
            Recommendation(goal="best", file_type=types[1].file_type, reason=HOSTILE),
        ),
    )
