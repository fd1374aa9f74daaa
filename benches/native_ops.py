"""What each step of a native forward pass takes, and how near it comes to the core's limit.

    python -m benches.native_ops [--shapes 22M,109M] [--batches short,mixed,passages]
                                 [--seconds 1] [--build FOLDER] [--json FILE] [--compare old.json]

One thread, a micro-batch of sequences, random weights; every kernel of this CPU but the scalar
ones. Compiles `native/benches` with CMake, into a folder of its own or the one given (which is
quicker the second time). Times are the thread's processor time, the middle one of the rounds. The
limit is the most that a loop of nothing but multiplications and additions in registers reaches,
which runs in every round beside them: in what the layers multiply, for int8 bytes, though attention
is computed in bfloat16 or float32 there.

GFLOP/s are told of products alone, a multiplication and an addition being two. Attention's are its
products with keys and values; its softmax, like GELU, takes time and counts nothing.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benches.machine import describe_machine
from benches.native import SHAPES, Shape, sizes
from benches.results import Results, finished, parser, started

SOURCES = Path(__file__).parents[1] / "native" / "benches"

BATCHES = {
    "short": (16,) * 16,
    "mixed": (8, 14, 27, 66, 141),
    "passages": (243, 243),
}
"""Tokens of the sequences of a micro-batch; the first two have 256 in all."""

STEPS = (
    "embedding, pooling",
    "qkv product",
    "attention",
    "out product",
    "norms",
    "up product, GELU",
    "down product",
)
"""Source: ``enum TimedStep`` in native/benches/steps.h."""


class BuildError(Exception):
    """The program could not be compiled, or failed; the message says why."""


@dataclass(frozen=True)
class Round:
    """One line of the program: seconds of the steps and of a whole pass, operations a second."""

    steps: tuple[float, ...]
    whole_s: float
    limit: float


@dataclass(frozen=True)
class Row:
    """A step in the table.

    Attributes:
        share: Of all steps together.
        rate: Operations a second; None where it has no products.
        of_limit: ``rate`` as a share of the core's limit.
    """

    name: str
    seconds: float
    share: float
    rate: float | None
    of_limit: float | None

    def __str__(self) -> str:
        text = f"  {self.name:20} {1000 * self.seconds:8.3f} ms {self.share:6.1%}"
        if self.rate is not None and self.of_limit is not None:
            text += f" {self.rate / 1e9:7.1f} GFLOP/s {self.of_limit:5.0%} of the limit"
        return text


def flops_of_steps(shape: Shape, lengths: tuple[int, ...]) -> tuple[int, ...]:
    """Return the operations of each of `STEPS`; 0 where there are no products."""
    n_tokens, wide, layers = sum(lengths), shape.n_embd, shape.n_layers
    square, inner = 2 * n_tokens * wide * wide, 2 * n_tokens * wide * shape.n_ff
    attention = 4 * wide * sum(length * length for length in lengths)
    each = (0, 3 * square, attention, square, 0, inner, inner)
    return tuple(layers * flops for flops in each)


def build(folder: Path, build_type: str = "Release") -> Path:
    """Compile the program; any other build type compiles sooner and tells nothing of speed.

    Raises:
        BuildError: There is no CMake, or it failed.
    """
    if shutil.which("cmake") is None:
        raise BuildError("cmake is not on PATH; install it, and a C++ compiler")
    told = ""
    for command in (
        ["cmake", "-S", str(SOURCES), "-B", str(folder), f"-DCMAKE_BUILD_TYPE={build_type}"],
        ["cmake", "--build", str(folder)],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        told += done.stdout + done.stderr
        if done.returncode != 0:
            raise BuildError(f"{' '.join(command)} failed:\n{told}")
    return folder / "time_ops"


@contextmanager
def program(folder: Path | None) -> Iterator[Path]:
    """Compile into a folder that is kept, or else into one that is not."""
    if folder is not None:
        yield build(folder)
        return
    with tempfile.TemporaryDirectory() as made:
        yield build(Path(made))


def measure(
    time_ops: Path, shape: Shape, lengths: tuple[int, ...], seconds: float
) -> dict[str, list[Round]]:
    """Run the program on a shape and a micro-batch; returns the rounds of each kernel.

    Raises:
        BuildError: It failed.
    """
    widths = (shape.n_layers, shape.n_embd, shape.n_ff, shape.n_heads)
    command = [str(part) for part in (time_ops, *widths, seconds, *lengths)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BuildError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr}")
    rounds: dict[str, list[Round]] = {}
    for line in done.stdout.splitlines():
        isa, compute_type, *numbers = line.split()
        *steps, whole_s, limit = map(float, numbers)
        if len(steps) != len(STEPS):
            raise BuildError(f"time_ops told of {len(steps)} steps, and {len(STEPS)} are known")
        one = Round(tuple(steps), whole_s, limit)
        rounds.setdefault(f"{isa}, {compute_type}", []).append(one)
    return rounds


def rows_of(rounds: list[Round], flops: tuple[int, ...]) -> tuple[list[Row], float]:
    """Return the steps as the middle round has them, and the core's limit: the most it reached."""
    limit = max(one.limit for one in rounds)
    seconds = [statistics.median(column) for column in zip(*(r.steps for r in rounds), strict=True)]
    rows = []
    for name, taken, count in zip(STEPS, seconds, flops, strict=True):
        rate = count / taken if count else None
        rows.append(Row(name, taken, taken / sum(seconds), rate, rate and rate / limit))
    return rows, limit


def report(
    results: Results, title: str, rounds: list[Round], shape: Shape, lengths: tuple[int, ...]
) -> None:
    """Print a kernel's table, and note its figures."""
    flops = flops_of_steps(shape, lengths)
    rows, limit = rows_of(rounds, flops)
    whole_s = statistics.median(one.whole_s for one in rounds)
    steps_s = sum(row.seconds for row in rows)
    rate = sum(flops) / whole_s
    print(f"\n{title}: {sum(lengths)} tokens in {len(lengths)} texts, {len(rounds)} rounds")
    for row in rows:
        print(row)
    print(
        f"  {'all of it':20} {1000 * whole_s:8.3f} ms {steps_s / whole_s:6.1%} in steps "
        f"{rate / 1e9:7.1f} GFLOP/s {rate / limit:5.0%} of {limit / 1e9:.0f} GFLOP/s",
        flush=True,
    )
    for number, name in enumerate(STEPS):
        taken = [1000 * one.steps[number] for one in rounds]
        results.add(f"{title}, {name}", taken, "ms", better="lower", show=False)
    whole = [1000 * one.whole_s for one in rounds]
    results.add(f"{title}, all of it", whole, "ms", better="lower", show=False)
    limits = [one.limit / 1e9 for one in rounds]
    results.add(f"{title}, limit", limits, "GFLOP/s", better="higher", show=False)


def batches(text: str) -> list[str]:
    named = text.replace(" ", "").split(",")
    unknown = [name for name in named if name not in BATCHES]
    if unknown:
        raise argparse.ArgumentTypeError(
            f"no micro-batch {unknown[0]!r}; there are {', '.join(BATCHES)}"
        )
    return named


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--shapes", type=sizes, default=["22M", "109M"])
    options.add_argument("--batches", type=batches, default=list(BATCHES))
    options.add_argument("--seconds", type=float, default=1.0, help="of each kernel and batch")
    options.add_argument("--build", type=Path, help="keep what is compiled in this folder")
    given = options.parse_args()
    results = started("native_ops", describe_machine(), given)
    try:
        with program(given.build) as time_ops:
            for size in given.shapes:
                for name in given.batches:
                    shape, lengths = SHAPES[size], BATCHES[name]
                    found = measure(time_ops, shape, lengths, given.seconds)
                    for kernel, rounds in found.items():
                        report(results, f"{size}, {name}, {kernel}", rounds, shape, lengths)
    except BuildError as exc:
        print(exc, file=sys.stderr)
        return 2
    return finished(results, given)


if __name__ == "__main__":
    sys.exit(main())
