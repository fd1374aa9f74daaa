"""From names to results: files made, processes opened, vectors compared, turns taken."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benches.peers.figures import Fidelity, compare
from benches.peers.peer import ONE_BY_ONE
from benches.peers.process import PeerError, PeerProcess
from benches.peers.roster import NATIVE, OURS, REFERENCE, PeerSpec
from benches.peers.settings import Plan, Settings
from benches.peers.turns import Turn, take_turns
from embellama.errors import EmbellamaError

PROFILED = ("onnxruntime", OURS, NATIVE)


@dataclass(slots=True)
class Outcome:
    """What came of it.

    Attributes:
        peers: What each peer that took part says of itself, by name.
        absent: Why a peer did not, or not to the end, by name.
        n_tokens: Tokens of each work.
        fidelity: By work and peer.
        turns: Every one.
        profiles: Parts of the time, by peer and work.
    """

    peers: dict[str, dict[str, Any]] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    n_tokens: dict[str, int] = field(default_factory=dict)
    fidelity: dict[str, dict[str, Fidelity]] = field(default_factory=dict)
    turns: list[Turn] = field(default_factory=list)
    profiles: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)


def run(plan: Plan, specs: Sequence[PeerSpec], reference: PeerSpec) -> Outcome:
    """Have every peer that can take part do so.

    The reference is opened too where it is not among them: for its vectors alone.
    """
    outcome = Outcome()
    settings = Settings(plan)
    with ExitStack() as stack:
        processes = {}
        for spec in dict.fromkeys([reference, *specs]):
            plan.say(f"opening {spec.name}")
            try:
                process = stack.enter_context(_open(plan, settings, spec, outcome))
            except (PeerError, EmbellamaError, OSError, RuntimeError, ValueError) as exc:
                outcome.absent[spec.name] = str(exc)
                plan.say(f"    absent: {exc}")
                continue
            if spec in specs:
                processes[spec.name] = process
            else:
                process.close()
        _compare_all(plan, [*processes, reference.name], outcome)
        _measure(plan, processes, outcome)
        if plan.profile:
            _profile(plan, processes, outcome)
    return outcome


def _open(plan: Plan, settings: Settings, spec: PeerSpec, outcome: Outcome) -> PeerProcess:
    """Start a peer and have it embed every work once."""
    told = settings.of(spec)
    python = plan.python(spec.family)
    log = plan.scratch / f"{spec.name}.log"
    process = PeerProcess(spec, python=python, n_threads=plan.n_threads, log=log)
    try:
        outcome.peers[spec.name] = {**process.ask("open", settings=told), "python": python}
        _warm_up(plan, process, outcome)
    except BaseException:
        process.close()
        raise
    return process


def _vectors_file(plan: Plan, peer: str, work: str) -> Path:
    return plan.scratch / f"{peer} {work}.npy"


def _warm_up(plan: Plan, process: PeerProcess, outcome: Outcome) -> None:
    name = process.spec.name
    for work in plan.works:
        answer = process.ask("vectors", work=work, path=str(_vectors_file(plan, name, work)))
        if answer["n_tokens"] is not None:
            outcome.n_tokens[work] = answer["n_tokens"]


def _load(plan: Plan, peer: str, work: str) -> NDArray[np.float32]:
    rows: NDArray[np.float32] = np.load(_vectors_file(plan, peer, work))
    return rows


def _compare_all(plan: Plan, names: Sequence[str], outcome: Outcome) -> None:
    for work in plan.works:
        outcome.fidelity[work] = {}
        if REFERENCE in outcome.absent:
            continue
        wanted = _load(plan, REFERENCE, work)
        for name in dict.fromkeys(names):
            try:
                outcome.fidelity[work][name] = compare(_load(plan, name, work), wanted)
            except ValueError as exc:
                outcome.absent[name] = str(exc)


def _measure(plan: Plan, processes: dict[str, PeerProcess], outcome: Outcome) -> None:
    def failed(name: str, error: PeerError) -> None:
        outcome.absent[name] = f"failed in its turn: {error}"
        plan.say(f"    {name}: {error}")
        processes[name].close()  # one that hangs would take the others' time

    n_turns = len(plan.works) * len(processes)
    fit = {name: process for name, process in processes.items() if name not in outcome.absent}
    for turn in take_turns(fit, list(plan.works), plan.n_rounds, failed):
        outcome.turns.append(turn)
        if len(outcome.turns) % max(n_turns, 1) == 0:
            plan.say(f"round {turn.round + 1} of {plan.n_rounds} done")


def _profile(plan: Plan, processes: dict[str, PeerProcess], outcome: Outcome) -> None:
    for name, process in processes.items():
        if name in outcome.absent or process.spec.family not in PROFILED:
            continue
        for work in plan.works:
            if work == ONE_BY_ONE:  # a profile is of a batch
                continue
            try:
                shares = process.ask("profile", work=work)["shares"]
            except PeerError as exc:
                plan.say(f"    no profile of {name}: {exc}")
                break
            if shares is not None:
                outcome.profiles.setdefault(name, {})[work] = shares
