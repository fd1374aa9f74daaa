"""What is printed, and what is written for programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from benches.peers.figures import Row
from benches.peers.peer import ONE_BY_ONE
from benches.peers.session import Outcome
from benches.peers.settings import Plan

N_SHARES = 8
"""Lines of a profile; the rest is added up."""

IDLE_SHARE = 0.02
"""Of the time measured, from which a peer that works out of turn is named."""


def result_of(
    plan: Plan,
    outcome: Outcome,
    machine: str,
    tables: Mapping[str, tuple[str | None, Mapping[str, Row]]],
) -> dict[str, Any]:
    """Put everything that was measured into plain data, raw turns too.

    Args:
        plan: What was asked for.
        outcome: What came of it.
        machine: The machine, in one line.
        tables: By work, the best of embellama and each peer's row.
    """
    return {
        "machine": machine,
        "model": plan.row.name,
        "n_threads": plan.n_threads,
        "n_rounds": plan.n_rounds,
        "works": {
            work: {"n_texts": len(texts), "n_tokens": outcome.n_tokens.get(work, 0)}
            for work, texts in plan.works.items()
        },
        "peers": [
            {"name": name, **told}
            for name, told in outcome.peers.items()
            if any(turn.peer == name for turn in outcome.turns)
        ],
        "absent": dict(outcome.absent),
        "tables": {
            work: {
                "best": best,
                "rows": {name: asdict(rows[name]) for name in outcome.peers if name in rows},
            }
            for work, (best, rows) in tables.items()
        },
        "idle_cpu_s": _idle(outcome),
        "profiles": outcome.profiles,
        "turns": [asdict(turn) for turn in outcome.turns],
    }


def _idle(outcome: Outcome) -> dict[str, float]:
    found: dict[str, float] = {}
    for turn in outcome.turns:
        found[turn.peer] = found.get(turn.peer, 0.0) + turn.idle_cpu_s
    return found


def print_report(result: Mapping[str, Any], installs: Mapping[str, str]) -> None:
    """Print versions, a table for each work, profiles, and who is absent."""
    print(result["machine"])
    print(f"{result['model']}, {result['n_threads']} threads each, {result['n_rounds']} rounds")
    for peer in result["peers"]:
        versions = ", ".join(f"{name} {number}" for name, number in peer["versions"].items())
        print(f"  {peer['name']:31} {versions}; {peer['how']}")
    for work in result["tables"]:
        _print_work(result, work)
    for name, profiles in result["profiles"].items():
        _print_profile(name, profiles)
    _print_idle(result)
    for name, why in result["absent"].items():
        print(f"absent: {name}: {why}")
        print(f"        {installs.get(name, '')}")


def _print_work(result: Mapping[str, Any], work: str) -> None:
    facts, best = result["works"][work], result["tables"][work]["best"]
    per_text = facts["n_tokens"] / facts["n_texts"]
    is_single = work == ONE_BY_ONE
    each = ", one by one" if is_single else ""
    print(f"\n{work}: {facts['n_texts']} texts{each}, {per_text:.1f} tokens a text")
    against = f"best of embellama ({best}) ÷ it" if best else "no best of embellama"
    print(
        f"  {'':31} {'texts/s':>8} {'from..to':>15} {'p50 ms' if is_single else 'tokens/s':>9} "
        f"{'cosine, worst':>16}  {against}"
    )
    for name, row in result["tables"][work]["rows"].items():
        speed, fidelity, ratio = row["texts_per_s"], row["fidelity"], row["ratio"]
        median = speed["median"]
        own = f"{1000 / median:9.3f}" if is_single else f"{median * per_text:9.0f}"
        spread = f"{speed['low']:.1f}..{speed['high']:.1f}"
        cosines = f"{fidelity['mean']:.5f} {fidelity['worst']:.5f}" if fidelity else "-"
        times = (
            f"{ratio['median']:5.2f} ({ratio['low']:.2f}..{ratio['high']:.2f})" if ratio else "-"
        )
        print(f"  {name:31} {median:8.1f} {spread:>15} {own} {cosines:>16}  {times}")


def _print_profile(name: str, profiles: Mapping[str, Mapping[str, float]]) -> None:
    print(f"\nwhere the time goes, {name}:")
    for work, shares in profiles.items():
        listed = list(shares.items())
        said = [f"{what} {share:.1%}" for what, share in listed[:N_SHARES]]
        if len(listed) > N_SHARES:
            said.append(f"others {sum(share for _, share in listed[N_SHARES:]):.1%}")
        print(f"  {work:9} {', '.join(said)}")


def _print_idle(result: Mapping[str, Any]) -> None:
    measured = sum(turn["seconds"] for turn in result["turns"])
    busy = {
        name: seconds
        for name, seconds in result["idle_cpu_s"].items()
        if seconds > IDLE_SHARE * measured
    }
    print(f"\nprocessor's time that peers took out of turn, of {measured:.0f} s measured: ", end="")
    print(", ".join(f"{name} {s:.1f} s" for name, s in busy.items()) or "next to none")
