"""How near the native kernels come to float32: vectors of texts of every length, on every kernel.

    python -m benches.fidelity [--model minilm | --shape bge-small|bge|e5|nomic|jina]
                               [--types F32,F16,BF16,Q8_0] [--kernels avx512,...] [--texts 2000]
                               [--exact 64] [--scalar-texts 8] [--json FILE] [--compare old.json]

Texts are cut to 1, 2, 3… tokens up to the last position that the model has, and then from 1 again,
so that every length occurs; fewer texts than that have their lengths spread evenly. A shape has
random weights, and random token ids. Each file type of the model is run on each kernel of this CPU,
the scalar ones on a few texts. Each vector's cosine is taken to llama.cpp's from the F32 file,
computed without flash attention (which rounds keys and values to half precision), and for some of
the texts to NumPy's in double precision.

Ends with status 1 where a cosine is below the limit of its file type: 0.99999 for F32, 0.9999 for
F16 and BF16, 0.999 for Q8_0; for F32 multiplied in bfloat16, that of BF16; 0.998 where activations
are rounded to bytes too (llama.cpp, which does that with Q8_0, has texts of 0.9981).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benches.machine import describe_machine
from benches.random_models import SHAPES, write_random
from benches.results import Results, finished, parser, started
from embellama._llama.model import LlamaBackend
from embellama._native.binding import Kernel, Library, open_library
from embellama._native.model import NativeModel
from embellama._native.support import fits
from embellama.batching import plan_micro_batches
from embellama.bench.texts import SENTENCES_A_PASSAGE, short_texts
from embellama.config import ModelConfig
from embellama.gguf import GGUFMetadata, read_metadata
from embellama.hub.quantize import quantize_file
from embellama.hub.resolve import resolve_model
from embellama.types import BackendModel, ContextOptions, IntArray, MicroBatch, PoolingType
from tests.bert_reference import BertReference

FILE_TYPES = ("F32", "F16", "BF16", "Q8_0")
LIMITS = {"F32": 0.99999, "F16": 0.9999, "BF16": 0.9999, "Q8_0": 0.999}
COMPUTED = {"f32": 0.99999, "bf16": 0.9999, "int8": 0.998}
"""The best that can be asked of a compute type."""

PASSAGES_A_TEXT = 4
"""About 240 tokens each: more than any text here keeps."""

MAX_BATCH_TOKENS, MAX_BATCH_REQUESTS = 256, 64

Vectors = NDArray[np.float64]


@dataclass(frozen=True)
class Subject:
    """A model in several file types, and what is embedded.

    Attributes:
        name: For titles.
        files: Of each file type; F32 always.
        sequences: int32 (n_tokens,) each.
    """

    name: str
    files: dict[str, GGUFMetadata]
    sequences: list[IntArray]

    @property
    def pooling(self) -> PoolingType:
        return self.files["F32"].pooling_type or "mean"


@dataclass(frozen=True)
class Agreement:
    """Cosines of some texts to a reference.

    Attributes:
        cosines: float64 (n_texts,).
        lengths: int (n_texts,), their tokens.
    """

    cosines: Vectors
    lengths: IntArray

    @property
    def worst(self) -> float:
        """The least cosine; NaN where one is."""
        return float(self.cosines.min())

    @property
    def worst_length(self) -> int:
        return int(self.lengths[self.cosines.argmin()])

    def __str__(self) -> str:
        return (
            f"worst {self.worst:.7f} at {self.worst_length:3} tokens, "
            f"mean {float(self.cosines.mean()):.7f}"
        )


def lengths_of(count: int, longest: int) -> list[int]:
    """Return so many lengths from 1 to a longest: each in turn, or if they are too few, spread."""
    if count < longest:
        return [int(n) for n in np.linspace(1, longest, count).round()]
    return [1 + number % longest for number in range(count)]


def cut(ids: IntArray, length: int) -> IntArray:
    """Return the first tokens of a text and its last, which ends it, so many in all."""
    if len(ids) < length:
        raise ValueError(f"a text of {len(ids)} tokens cannot be cut to {length}")
    return ids[:1] if length == 1 else np.concatenate([ids[: length - 1], ids[-1:]])


def real_model(name: str, types: Sequence[str], count: int) -> Subject:
    """Take a model of the catalogue and built-in texts."""
    files = {one: read_metadata(resolve_model(f"{name}:{one}").path) for one in ("F32", *types)}
    whole = files["F32"]
    n_sentences = SENTENCES_A_PASSAGE * PASSAGES_A_TEXT
    sentences = short_texts(count * n_sentences)
    words = LlamaBackend().load_vocabulary(whole, ModelConfig(), "mean")
    with closing(words):
        # the file's own limit: what the catalogue would cut at is not asked
        sequences = [
            cut(words.vocabulary.tokenize(" ".join(sentences[number::count])), length)
            for number, length in enumerate(lengths_of(count, whole.n_ctx_train))
        ]
    return Subject(name, files, sequences)


def random_model(name: str, types: Sequence[str], count: int, folder: Path) -> Subject:
    """Write a model with random weights, and make up token ids."""
    source = write_random(SHAPES[name], folder / f"{name}-F32.gguf")
    files = {"F32": read_metadata(source)}
    for one in types:
        if one != "F32":
            made = quantize_file(source, folder / f"{name}-{one}.gguf", one)
            files[one] = read_metadata(made.path)
    whole = files["F32"]
    n_vocab = whole.tensors["token_embd.weight"].shape[0]
    generator = np.random.default_rng(5)
    sequences = [
        generator.integers(0, n_vocab, length, dtype=np.int32)
        for length in lengths_of(count, whole.n_ctx_train)
    ]
    return Subject(name, files, sequences)


@contextmanager
def subject_of(given: argparse.Namespace) -> Iterator[Subject]:
    if given.shape is None:
        yield real_model(given.model, given.types, given.texts)
        return
    with tempfile.TemporaryDirectory() as folder:
        yield random_model(given.shape, given.types, given.texts, Path(folder))


def vectors_of(model: BackendModel, sequences: Sequence[IntArray]) -> Vectors:
    """Embed sequences in micro-batches of similar lengths; returns their vectors in order."""
    batches = plan_micro_batches(
        [len(one) for one in sequences],
        max_batch_tokens=MAX_BATCH_TOKENS,
        max_batch_requests=MAX_BATCH_REQUESTS,
    )
    most = max(MAX_BATCH_TOKENS, *map(len, sequences))
    with closing(model.create_context(ContextOptions(most, MAX_BATCH_REQUESTS, 1))) as context:
        rows = [context.run(MicroBatch.pack([sequences[i] for i in batch])) for batch in batches]
    vectors = np.empty((len(sequences), rows[0].shape[1]))
    vectors[np.concatenate(batches)] = np.concatenate(rows)
    return vectors


def reference_vectors(subject: Subject) -> Vectors:
    """Embed all sequences with llama.cpp, from the F32 file."""
    config = ModelConfig(backend="llama", use_gpu=False, flash_attn=False)
    with closing(LlamaBackend().load(subject.files["F32"], config, subject.pooling)) as model:
        return vectors_of(model, subject.sequences)


def exact_vectors(subject: Subject, chosen: Sequence[int]) -> Vectors:
    """Embed some of the sequences in double precision."""
    reference = BertReference(subject.files["F32"].path)
    rows = [reference.rows(subject.sequences[index].tolist()) for index in chosen]
    return np.stack([one[0] if subject.pooling == "cls" else one.mean(axis=0) for one in rows])


def native_vectors(
    library: Library, kernel: Kernel, subject: Subject, file_type: str, chosen: Sequence[int]
) -> Vectors:
    """Embed some of the sequences on a kernel."""
    metadata, pooling = subject.files[file_type], subject.pooling
    words = LlamaBackend().load_vocabulary(metadata, ModelConfig(), pooling)
    with closing(NativeModel(library, kernel, metadata, pooling, words)) as model:
        return vectors_of(model, [subject.sequences[index] for index in chosen])


def agreement(ours: Vectors, theirs: Vectors, subject: Subject, chosen: Sequence[int]) -> Agreement:
    norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    lengths = np.array([len(subject.sequences[index]) for index in chosen], dtype=np.int32)
    return Agreement((ours * theirs).sum(axis=1) / norms, lengths)


def limit_of(file_type: str, kernel: Kernel) -> float:
    """Return the least cosine that a file type may have on a kernel."""
    return min(LIMITS[file_type], COMPUTED[kernel.compute_type])


def spread(count: int, n_texts: int, subject: Subject) -> list[int]:
    """Choose so many texts whose lengths are spread evenly."""
    by_length = sorted(range(n_texts), key=lambda index: len(subject.sequences[index]))
    return [by_length[int(at)] for at in np.linspace(0, n_texts - 1, min(count, n_texts))]


class Comparison:
    """Kernels held against both references, and what was found below a limit."""

    def __init__(self, subject: Subject, results: Results, given: argparse.Namespace) -> None:
        self.subject, self.results = subject, results
        self.n_below = 0
        n_texts = len(subject.sequences)
        self._all = list(range(n_texts))
        self._few = spread(given.scalar_texts, n_texts, subject)
        self._exactly = spread(given.exact, n_texts, subject)
        self._reference = reference_vectors(subject)
        self._exact = exact_vectors(subject, self._exactly)
        told = agreement(self._reference[self._exactly], self._exact, subject, self._exactly)
        print(f"llama.cpp's F32, to double precision ({len(self._exactly)} texts): {told}")

    def hold(self, library: Library, kernel: Kernel, file_type: str) -> None:
        chosen = self._few if kernel.isa == "scalar" else self._all
        ours = native_vectors(library, kernel, self.subject, file_type, chosen)
        limit = limit_of(file_type, kernel)
        title = f"{self.subject.name}, {file_type} on {kernel}"
        self._note(title, agreement(ours, self._reference[chosen], self.subject, chosen), limit)
        places = {index: at for at, index in enumerate(chosen)}
        both = [at for at, index in enumerate(self._exactly) if index in places]
        if both:
            indices = [self._exactly[at] for at in both]
            rows = ours[[places[index] for index in indices]]
            found = agreement(rows, self._exact[both], self.subject, indices)
            self._note(f"{title}, to double precision", found, limit)

    def _note(self, title: str, found: Agreement, limit: float) -> None:
        self.results.add(
            f"{title}: 1 − worst cosine", 1 - found.worst, "", better="lower", show=False
        )
        holds = found.worst >= limit  # false for NaN
        self.n_below += not holds
        print(
            f"{title:52} {found}, {len(found.cosines)} texts, "
            f"{'at least' if holds else 'BELOW'} {limit:g}",
            flush=True,
        )


def file_types(text: str) -> list[str]:
    named = text.upper().replace(" ", "").split(",")
    unknown = [name for name in named if name not in FILE_TYPES]
    if unknown:
        raise argparse.ArgumentTypeError(
            f"no file type {unknown[0]!r} here; there are {', '.join(FILE_TYPES)}"
        )
    return named


def kernels_of(library: Library, named: str | None, metadata: GGUFMetadata) -> list[Kernel]:
    """Return the kernels to hold a file on that take it: all, or those of named sets."""
    chosen = [one for one in library.kernels if named is None or one.isa in named.split(",")]
    return [one for one in chosen if fits(metadata, one)]


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--model", default="minilm", help="of the catalogue")
    options.add_argument("--shape", choices=SHAPES, help="random weights in place of a model")
    options.add_argument("--types", type=file_types, default=list(FILE_TYPES))
    options.add_argument(
        "--kernels", help="instruction sets, such as avx2,scalar; all if not given"
    )
    options.add_argument("--texts", type=int, default=2000)
    options.add_argument("--exact", type=int, default=64, help="texts in double precision")
    options.add_argument("--scalar-texts", type=int, default=8, help="the scalar kernels are slow")
    given = options.parse_args()
    for name in ("texts", "exact", "scalar_texts"):
        if getattr(given, name) < 1:
            options.error(
                f"--{name.replace('_', '-')} {getattr(given, name)}: at least 1 is needed"
            )
    library = open_library()
    if library is None:
        print("embellama was installed without the native kernels", file=sys.stderr)
        return 2
    results = started("fidelity", describe_machine(), given)
    with subject_of(given) as subject:
        comparison = Comparison(subject, results, given)
        for file_type in given.types:
            for kernel in kernels_of(library, given.kernels, subject.files[file_type]):
                comparison.hold(library, kernel, file_type)
    return max(finished(results, given), int(comparison.n_below > 0))


if __name__ == "__main__":
    sys.exit(main())
