"""Findings without measuring."""

from embellama.bench.findings import (
    BenchFindings,
    Fidelity,
    Latency,
    Recommendation,
    Speed,
    TypeFindings,
)


def speed(rate, spread=0.0):
    return Speed(texts_per_s=rate, tokens_per_s=14 * rate, spread=(rate - spread, rate + spread))


def type_findings(
    name,
    *,
    size=1_000_000,
    rates=None,
    cosine=1.0,
    spread=0.0,
    backend="llama.cpp",
    **scores,
):
    rates = {"short": 100.0, "long": 10.0} if rates is None else rates
    return TypeFindings(
        file_type=name,
        reference=f"m:{name}",
        backend=backend,
        tensor_types={name: 37, "F32": 64},
        file_bytes=size,
        rss_bytes=3 * size,
        load_s=0.05,
        speed={work: speed(rate, spread) for work, rate in rates.items()},
        latency=Latency(p50=0.001, p95=0.002, p99=0.003, samples=(0.001, 0.003)),
        fidelity=Fidelity(
            cosine_mean=cosine,
            cosine_worst=cosine - 0.01 * (cosine < 1),
            worst_text=f"[bold]what {name} does worst\x1b[31m",
            cosines=(cosine,),
            neighbour_overlap=0.98,
        ),
        **scores,
    )


def bench_findings(*types, **values):
    given = {
        "model": "m",
        "reference_type": types[0].file_type if types else "F32",
        "created": "2026-01-01T00:00:00+00:00",
        "machine": {"CPU": "a [fast] one", "cores": "2"},
        "n_texts": 1200,
        "texts_from": "texts of mine",
        "tolerance": 0.999,
        "types": types,
        "failed": {},
        "recommendations": (Recommendation(goal="best", file_type="F32", reason="It [is]."),),
    }
    return BenchFindings(**{**given, **values})
