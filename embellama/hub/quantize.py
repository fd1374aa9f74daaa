"""A GGUF of one file type from a GGUF of another."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from embellama._parallel import available_cores
from embellama.errors import ConversionError
from embellama.gguf import read_metadata
from embellama.gguf_header import Tensor, read_header
from embellama.hub.atomic import replacing
from embellama.logs import log

_UNQUANTIZED = frozenset({"F32", "F16", "BF16"})
_NEEDS_IMATRIX = frozenset({"IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "Q2_K_S"})
"""Types of no use without an importance matrix.

Of IQ2_M, IQ3_XS and IQ3_XXS it depends on the model whether llama.cpp asks for one: where rows are
no multiple of 256, they fall back to other types. Source: ``tensor_requires_imatrix`` in
llama-quant.cpp.
"""

_LARGEST_WEIGHT = 65_504.0
"""Block scales are F16. Squares of far larger weights overflow, which is an assertion for IQ3_S."""

_CHUNK_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class QuantizeReport:
    """What was written.

    Attributes:
        path: The GGUF.
        file_type: The type asked for.
        tensor_types: How many tensors really have which type. Rows that a type's blocks do not
            divide fall back to another: at width 384 "Q4_K_M" is mostly Q5_0.
        source_bytes: Bytes of the source.
        size_bytes: Bytes of the file.
        duration_s: Wall time.
    """

    path: Path
    file_type: str
    tensor_types: Mapping[str, int]
    source_bytes: int
    size_bytes: int
    duration_s: float


def quantize_file(
    source: Path,
    target: Path,
    file_type: str,
    *,
    n_threads: int | None = None,
    requantize: bool = False,
) -> QuantizeReport:
    """Write a GGUF in another file type, with llama.cpp's own quantizer.

    The target appears complete or not at all. Blocks until done.

    Args:
        source: A GGUF in F32, F16 or BF16.
        target: Where to write.
        file_type: llama.cpp's name of the type, in any case.
        n_threads: Threads; all cores if not given.
        requantize: Allow a source that is quantized already, at a loss.

    Raises:
        ModelNotFoundError, GGUFFormatError: The source cannot be read.
        ConversionError: The type is unknown or cannot be made, or the target cannot be written.
    """
    # imported here: the command line's help and the catalogue do without the native library
    from embellama._llama.quantize import quantizable_types, run_quantize  # noqa: PLC0415

    source, target = Path(source), Path(target)
    start = time.perf_counter()
    wanted = file_type.strip().upper()
    known = quantizable_types()
    if wanted not in known:
        raise ConversionError(
            f"{file_type!r} is not a file type of llama.cpp; known: {', '.join(sorted(known))}"
        )
    if wanted in _NEEDS_IMATRIX:
        raise _needs_imatrix(wanted)
    metadata = read_metadata(source)
    if metadata.file_type not in _UNQUANTIZED and not requantize:
        raise ConversionError(
            f"{str(source)!r} is {metadata.file_type} already, and quantizing it again loses more; "
            "start from F32, F16 or BF16, or allow it explicitly"
        )
    if os.path.isdir(target):  # of a path too long for the system, Path's own would raise
        raise ConversionError(f"{str(target)!r} is a folder; name a file")
    if wanted not in ("F32", "BF16"):
        for path in metadata.paths:
            _check_weights(path, wanted)
    # a sixteenth of F32 at the least: a disk too full for that is refused before llama.cpp writes
    expected = metadata.tensor_bytes if wanted in _UNQUANTIZED else metadata.tensor_bytes // 16
    with replacing(target, expected) as partial:
        failure = run_quantize(
            source,
            partial,
            known[wanted],
            n_threads=n_threads or available_cores(),
            requantize=requantize,
        )
        if any("importance matrix" in line for line in failure):
            raise _needs_imatrix(wanted)
        if failure:
            raise ConversionError(
                f"llama.cpp could not make {wanted} of {str(source)!r}: {'; '.join(failure)}"
            )
        tensor_types = read_metadata(partial).tensor_types
    report = QuantizeReport(
        path=target,
        file_type=wanted,
        tensor_types=tensor_types,
        source_bytes=metadata.size_bytes,
        size_bytes=target.stat().st_size,
        duration_s=time.perf_counter() - start,
    )
    log.info("embellama.model.quantized", file_type=wanted, size_bytes=report.size_bytes)
    return report


def _needs_imatrix(file_type: str) -> ConversionError:
    return ConversionError(
        f"{file_type} needs an importance matrix, which is not supported; choose Q2_K, IQ3_S or a "
        "larger type"
    )


def _check_weights(path: Path, file_type: str) -> None:
    """Refuse weights that no block scale can hold, and those that are no numbers.

    Of types other than F32 and BF16 llama.cpp finds the latter, and the former cannot be there.
    """
    for tensor in read_header(path).tensors:
        if tensor.type_name not in ("F32", "BF16"):
            continue
        largest = _largest(path, tensor)
        if not largest <= _LARGEST_WEIGHT:  # NaN is not
            raise ConversionError(
                f"{tensor.name} has weights up to {largest:.3g}, over the "
                f"{_LARGEST_WEIGHT:,.0f} that {file_type} can hold; download the model again, or "
                "choose F32 or BF16"
            )


def _largest(path: Path, tensor: Tensor) -> float:
    """Find the largest magnitude in a tensor, some megabytes at a time; NaN if one is NaN."""
    largest = 0.0
    for start in range(0, tensor.size_bytes, _CHUNK_BYTES):
        n_bytes = min(_CHUNK_BYTES, tensor.size_bytes - start)
        raw = np.fromfile(path, np.uint8, n_bytes, offset=tensor.offset + start)
        weights = (
            raw.view(np.float32)
            if tensor.type_name == "F32"
            else (raw.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
        )
        largest = float(np.maximum(largest, np.abs(weights).max()))
    return largest
