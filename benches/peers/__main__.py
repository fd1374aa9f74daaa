"""`python -m benches.peers`: options in, tables out."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import benches.peers
from benches.machine import describe_machine
from benches.peers import figures, roster, session
from benches.peers.model_files import ROOT, catalogue_row
from benches.peers.report import print_report, result_of
from benches.peers.settings import Plan
from benches.works import N_TEXTS, make_works
from embellama._parallel import available_cores


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benches.peers",
        description=benches.peers.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", default="minilm", help="a row of the catalogue")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--works", default=",".join(N_TEXTS))
    parser.add_argument("--types", default="F32,F16,BF16,Q8_0", help="embellama's file types")
    parser.add_argument("--only", nargs="+", default=[], help="families, or peers by full name")
    parser.add_argument("--python", action="append", default=[], metavar="[PEER=]PATH")
    parser.add_argument("--llama-server", help="the program, where it is not on PATH")
    parser.add_argument("--threads", type=int, default=available_cores(physical=True))
    for work, count in N_TEXTS.items():
        parser.add_argument(f"--n-{work}", type=int, default=count, help="texts of this work")
    parser.add_argument(
        "--fidelity",
        type=float,
        default=figures.MIN_FIDELITY,
        help="mean cosine to F32 that embellama's best has to have",
    )
    parser.add_argument("--json", type=Path, help="write everything measured, raw rounds too")
    parser.add_argument(
        "--png", type=Path, help="draw it (matplotlib, or --python matplotlib=PATH)"
    )
    parser.add_argument("--profile", action="store_true", help="ask where the time goes")
    given = parser.parse_args()
    if given.rounds < 1:
        parser.error(f"--rounds {given.rounds}: at least one is needed")
    return given


def draw(result: Path, target: Path, python: str) -> None:
    """Draw in a process of its own: matplotlib need not be in this environment."""
    command = [python, "-m", "benches.peers.plot", str(result.absolute()), str(target.absolute())]
    done = subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        print(f"no picture: {last}; pip install matplotlib, or --python matplotlib=PATH")


def main() -> None:
    given = options()
    n_texts = {
        work: getattr(given, f"n_{work}", 0) for work in given.works.replace(" ", "").split(",")
    }
    types = given.types.replace(" ", "").upper().split(",")
    try:
        row = catalogue_row(given.model)
        works, specs = make_works(n_texts), roster.choose(types, given.only)
    except ValueError as exc:
        sys.exit(f"error: {exc}")
    (reference,) = roster.choose(["F32"], [])[:1]
    machine = describe_machine()  # first: its load is the machine's own
    with tempfile.TemporaryDirectory(prefix="peers-") as scratch:
        plan = Plan(
            row=row,
            works=works,
            n_rounds=given.rounds,
            n_threads=given.threads,
            pythons=given.python,
            llama_server=given.llama_server,
            profile=given.profile,
            scratch=Path(scratch),
            say=lambda line: print(line, file=sys.stderr),
        )
        outcome = session.run(plan, specs, reference)
        ours = [spec.name for spec in specs if spec.family in roster.FAMILIES]
        tables = {
            work: figures.table(
                outcome.turns, work, len(texts), ours, outcome.fidelity[work], given.fidelity
            )
            for work, texts in works.items()
        }
        result = result_of(plan, outcome, machine, tables)
        print_report(result, {spec.name: spec.install for spec in specs})
        written = given.json or Path(scratch) / "result.json"
        written.write_text(json.dumps(result, indent=1), encoding="utf-8")
        if given.png:
            draw(written, given.png, plan.python("matplotlib"))


if __name__ == "__main__":
    main()
