"""Checks of a model: its file, what it puts around a text, its vectors, and its speed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from embellama._llama.devices import cpu_features, gpu_names
from embellama.cli.findings import Finding, failure, note, ok
from embellama.cli.info import where_it_runs
from embellama.cli.native_check import check_backend, check_native_type, is_native
from embellama.cli.settings import Settings, loaded, resolve
from embellama.cli.tables import in_units, tensor_summary
from embellama.embedding import BATCH_TOLERANCE, BATCH_TOLERANCE_QUANTIZED
from embellama.engine import EmbeddingEngine
from embellama.errors import EmbellamaError
from embellama.gguf import GGUFMetadata, read_metadata
from embellama.hub.resolve import ResolvedModel
from embellama.model_info import ModelInfo
from embellama.rerank.scoring import RerankResult
from embellama.types import FloatArray

NORM_TOLERANCE = 1e-5

GPU_TOLERANCE = 5e-3
"""Most by which a component differs between a text alone and packed with others, on a GPU.

GPUs add up in half precision what a CPU adds up in single precision. Source: MiniLM F16 with
llama.cpp's Vulkan backend differed by 1.1e-3, where the CPU's vectors differed by 3e-8.
"""

TEXTS = (
    "A cat sleeps on the warm windowsill.",
    "On the sunny ledge of a window, a cat is asleep.",
    "The central bank raised its interest rate by a quarter of a point.",
    "Photosynthesis turns light into chemical energy.",
    "def add(a, b):\n    return a + b",
    "Wo ist der nächste Bahnhof?",
)
"""The first two mean the same; the third has nothing to do with them."""


def check_model(settings: Settings, model: str) -> Iterator[Finding]:
    """Check a model, fetching it if it is not stored. Stops at what keeps it from running."""
    try:
        resolved = resolve(settings, model)
        metadata = read_metadata(resolved.path)
        yield from check_file(metadata, resolved)
        with loaded(settings, model) as (engine, info):
            yield from _check_loaded(engine, info, metadata)
            if is_native(info):
                yield check_native_type(info)
            else:
                yield from check_speed(resolved, info, cpu_features())
    except EmbellamaError as exc:
        yield failure(str(exc))


def check_file(metadata: GGUFMetadata, resolved: ResolvedModel) -> Iterator[Finding]:
    """Check what the file says of itself."""
    yield ok(
        f"file: {metadata.path}, {in_units(metadata.size_bytes)}, {metadata.architecture}, "
        f"{metadata.file_type} ({tensor_summary(metadata.tensor_types)})"
    )
    if not metadata.is_embedder:
        yield note("the file is of a model that generates text; expect weak vectors")
    expected = resolved.entry.pooling_type if resolved.entry else None
    if metadata.pooling_type is None and expected is None:
        yield note("pooling: the file does not say how; set pooling_type if the vectors are poor")
    elif metadata.pooling_type is None:
        yield ok(f"pooling: {expected}, from the catalogue; the file does not say")
    elif expected not in (None, metadata.pooling_type):
        yield failure(
            f"pooling: {metadata.pooling_type} in the file, {expected} in the model's card; "
            f"set pooling_type to {expected!r}, or get another file"
        )
    else:
        yield ok(f"pooling: {metadata.pooling_type}, in the file")


def _check_loaded(
    engine: EmbeddingEngine, info: ModelInfo, metadata: GGUFMetadata
) -> Iterator[Finding]:
    yield ok(f"loads in {info.load_s['total'] * 1e3:.0f} ms on {where_it_runs(info)}")
    yield check_backend(info, metadata)
    yield from check_offload(info, gpu_names())
    ids = engine.tokenize(info.name, TEXTS[0]).tolist()
    yield from check_special_tokens(ids, metadata, last_pooling=info.pooling_type == "last")
    if info.pooling_type == "rank":
        yield check_ranking(engine.rerank(info.name, TEXTS[0], TEXTS[1:], overflow="truncate"))
        return
    if info.pooling_type == "none":
        yield note("vectors: one a token, not one a text; `pooling_type` is none")
        return
    singles = np.stack([engine.embed(info.name, text, prompt="") for text in TEXTS])
    batch = engine.embed_batch(info.name, TEXTS, prompt="")
    yield from check_vectors(
        singles,
        batch,
        file_type=info.file_type,
        normalized=info.normalization == "l2",
        on_gpu=info.n_layers_offloaded > 0,
    )
    yield _measured(engine, info)


def check_offload(info: ModelInfo, gpus: Sequence[str]) -> Iterator[Finding]:
    """Say what of a model is not on a GPU that is there, and which setting keeps it off.

    Args:
        info: The model, loaded.
        gpus: What the build can use.
    """
    if not gpus or info.n_layers_offloaded == info.n_layers_offloadable:
        return
    config = info.config
    why = "use_gpu = False" if config.use_gpu is False else f"n_gpu_layers = {config.n_gpu_layers}"
    what = "part of it runs" if info.n_layers_offloaded else "it runs"
    yield note(f"GPU: {what} on the CPU, for {why}; there is {', '.join(gpus)}")


def check_special_tokens(
    ids: list[int], metadata: GGUFMetadata, *, last_pooling: bool
) -> Iterator[Finding]:
    """Check what stands around a text.

    Args:
        ids: A text's token ids.
        metadata: The model's own description.
        last_pooling: Whether the vector is read off the last token.
    """
    ends = {metadata.eos_token_id: "eos", metadata.sep_token_id: "sep"}
    ends.pop(None, None)
    begin = "bos" if ids[0] == metadata.bos_token_id else None
    end = ends.get(ids[-1])
    around = " … ".join([begin or "nothing", end or "nothing"])
    if end is None and last_pooling:
        yield failure(
            f"special tokens: {around}. The vector is read off the last token, and the file adds "
            "no end token (tokenizer.ggml.add_eos_token); get a newer file of this model"
        )
    elif metadata.vocab_kind == "bert" and not (begin and end):
        yield failure(
            f"special tokens: {around}, where BERT needs [CLS] … [SEP]; convert the model again"
        )
    else:
        yield ok(f"special tokens: {around} around each text")


def check_vectors(
    singles: FloatArray,
    batch: FloatArray,
    *,
    file_type: str,
    normalized: bool = True,
    on_gpu: bool = False,
) -> Iterator[Finding]:
    """Check the vectors of `TEXTS`, made one at a time and together.

    Args:
        singles: float32 (n_texts, n_embd), each text alone.
        batch: float32 (n_texts, n_embd), packed together.
        file_type: The model's, which says how much the two may differ.
        normalized: Whether they should be of length 1.
        on_gpu: Whether a GPU computed them, which rounds more.
    """
    norms = np.linalg.norm(singles, axis=1)
    off = float(np.abs(norms - 1).max())
    if normalized and off > NORM_TOLERANCE:
        yield failure(f"vectors: their length is off 1 by {off:.1e}; report this")
    else:
        yield ok(f"vectors: {singles.shape[1]} dimensions, length {norms.min():.6f}")
    unit = singles / norms[:, None]
    difference = float(np.abs(unit - batch / np.linalg.norm(batch, axis=1)[:, None]).max())
    allowed = BATCH_TOLERANCE.get(file_type, BATCH_TOLERANCE_QUANTIZED)
    allowed = max(allowed, GPU_TOLERANCE) if on_gpu else allowed
    found = failure if difference > allowed else ok
    yield found(
        f"batch against single: components differ by {difference:.1e} at most "
        f"(allowed: {allowed:.0e})"
    )
    same, other = float(unit[0] @ unit[1]), float(unit[0] @ unit[2])
    verdict = ok if same > other else failure
    yield verdict(f"sense: two sentences of one meaning {same:.2f}, of two meanings {other:.2f}")


def check_ranking(results: Sequence[RerankResult]) -> Finding:
    """Check how a cross-encoder orders the other `TEXTS` for the first of them."""
    scores = ", ".join(f"{result.score:.2f}" for result in results)
    verdict = ok if results[0].index == 0 else failure
    return verdict(f"sense: scores {scores}; first comes {results[0].document!r}")


def _measured(engine: EmbeddingEngine, info: ModelInfo, budget_s: float = 1.0) -> Finding:
    """Time single texts and a batch, each for about a second at most."""
    engine.warmup_model(info.name)
    single_s = min(_seconds(lambda: engine.embed(info.name, TEXTS[0], prompt="")) for _ in range(5))
    n_texts = max(len(TEXTS), min(256, int(budget_s / single_s)))
    texts = [f"{TEXTS[n % 4]} {n}" for n in range(n_texts)]
    batch_s = _seconds(lambda: engine.embed_batch(info.name, texts, prompt=""))
    return ok(
        f"speed: one short text in {single_s * 1e3:.1f} ms, {n_texts} in a batch at "
        f"{n_texts / batch_s:,.0f} texts/s"
    )


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def check_speed(
    resolved: ResolvedModel, info: ModelInfo, build: Mapping[str, bool]
) -> Iterator[Finding]:
    """Say which file type would be faster on this machine.

    Source: measured with all-MiniLM-L6-v2 on 2 cores: BF16 is 1.6 times as fast as Q8_0 and F16
    on a CPU with AVX512_BF16.
    """
    if info.n_layers_offloaded:
        return
    has_bf16 = bool(build.get("AVX512_BF16"))
    better = "BF16" if has_bf16 else "Q8_0"
    if info.file_type not in (("F32", "F16", "Q8_0") if has_bf16 else ("F32", "BF16")):
        yield ok(f"file type: {info.file_type} suits this CPU")
        return
    entry = resolved.entry
    way = (
        f"load it as {entry.name}:{better}"
        if entry and (entry.convertible or better in entry.gguf_file_types)
        else f"`embellama quantize` makes it from F32 or F16: quantize IN.gguf OUT.gguf {better}"
    )
    yield note(f"file type: {better} would be faster than {info.file_type} on this CPU; {way}")
