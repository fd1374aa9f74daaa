"""A GGUF of one file type from a GGUF of another."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from embellama._parallel import available_cores
from embellama.errors import ConversionError
from embellama.gguf import read_metadata
from embellama.hub.atomic import replacing
from embellama.logs import log

_UNQUANTIZED = frozenset({"F32", "F16", "BF16"})
_NEEDS_IMATRIX = frozenset({"IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "Q2_K_S"})
"""Types llama.cpp makes only with an importance matrix. Source: llama-quant.cpp."""


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
        raise ConversionError(
            f"{wanted} needs an importance matrix, which is not supported; "
            "choose Q2_K, IQ3_XXS or a larger type"
        )
    metadata = read_metadata(source)
    if metadata.file_type not in _UNQUANTIZED and not requantize:
        raise ConversionError(
            f"{str(source)!r} is {metadata.file_type} already, and quantizing it again loses more; "
            "start from F32, F16 or BF16, or allow it explicitly"
        )
    if target.is_dir():
        raise ConversionError(f"{str(target)!r} is a folder; name a file")
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
