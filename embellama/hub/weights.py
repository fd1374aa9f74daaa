"""Tensors of a model folder, read a few rows at a time: safetensors, or pytorch_model.bin.

``safetensors`` checks each file as a whole; the bytes are then read here, because its numpy
interface has no bfloat16 and reads a tensor only in one piece.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from embellama.errors import ConversionError
from embellama.hub.model_folder import read_json
from embellama.hub.torch_weights import read_torch_file

RowReader: TypeAlias = Callable[[int, int], NDArray[Any]]

_READ_AS = {"F32": "<f4", "F16": "<f2", "F64": "<f8", "BF16": "<u2"}
_OTHER_WEIGHTS = {
    "*.onnx": "ONNX",
    "onnx/*.onnx": "ONNX",
    "tf_model.h5": "TensorFlow",
    "flax_model.msgpack": "Flax",
    "openvino*.xml": "OpenVINO",
}


@dataclass(frozen=True, slots=True)
class SourceTensor:
    """A tensor that is still in its file.

    Attributes:
        shape: Elements per dimension, rows first.
        dtype: As safetensors names it: ``"F32"``, ``"F16"``, ``"BF16"``…
        read: Gives rows ``start`` to ``stop`` (of a vector: elements) as float32 or float16.
    """

    shape: tuple[int, ...]
    dtype: str
    read: RowReader


def open_weights(folder: Path) -> dict[str, SourceTensor]:
    """List the tensors of a transformers folder, in the order of their files and names.

    Raises:
        ConversionError: There are no weights that can be read, a part is missing or damaged.
        MissingDependencyError: Only pytorch_model.bin is there, and torch is not installed.
    """
    for stem, ending, read_file in (
        ("model", ".safetensors", _read_safetensors),
        ("pytorch_model", ".bin", _read_torch),
    ):
        index = folder / f"{stem}{ending}.index.json"
        if (single := folder / f"{stem}{ending}").is_file():
            return dict(read_file(single))
        if index.is_file():
            return _read_parts(index, read_file)
    raise ConversionError(f"no weights in {str(folder)!r}; {_way_out(folder)}")


def _way_out(folder: Path) -> str:
    found = {kind for pattern, kind in _OTHER_WEIGHTS.items() if any(folder.glob(pattern))}
    if found:
        return (
            f"there is only {' and '.join(sorted(found))}, from which no GGUF can be made: get "
            "the model's model.safetensors (most repositories have it) or a ready-made .gguf"
        )
    return "put model.safetensors (or pytorch_model.bin) next to config.json"


def _read_parts(
    index: Path, read_file: Callable[[Path], Iterator[tuple[str, SourceTensor]]]
) -> dict[str, SourceTensor]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, Mapping) or not weight_map:
        raise ConversionError(f"{str(index)!r} has no weight_map; download it again")
    names = sorted({str(name) for name in weight_map.values()})
    if foreign := [name for name in names if Path(name).name != name]:
        raise ConversionError(f"{str(index)!r} names files outside its folder: {foreign[:3]}")
    if missing := [name for name in names if not index.with_name(name).is_file()]:
        raise ConversionError(
            f"{len(missing)} of {len(names)} weight files are missing next to {str(index)!r}: "
            f"{', '.join(missing[:5])}; download them"
        )
    tensors = {key: value for name in names for key, value in read_file(index.with_name(name))}
    if lost := sorted(set(weight_map) - set(tensors)):
        raise ConversionError(
            f"{len(lost)} tensors that {str(index)!r} lists are in none of its files, as "
            f"{lost[0]!r}; download the files again"
        )
    return tensors


def _read_safetensors(path: Path) -> Iterator[tuple[str, SourceTensor]]:
    try:
        with safe_open(path, framework="np"):  # checks sizes, offsets and the header
            pass
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
    except (SafetensorError, OSError, ValueError) as exc:
        raise ConversionError(
            f"{str(path)!r} ({_size(path)} bytes) is damaged or cut off: {exc}; download it again"
        ) from exc
    header.pop("__metadata__", None)
    for name, entry in sorted(header.items()):
        start = 8 + length + entry["data_offsets"][0]
        shape, dtype = tuple(entry["shape"]), entry["dtype"]
        yield name, SourceTensor(shape, dtype, _row_reader(path, name, shape, dtype, start))


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _row_reader(
    path: Path, name: str, shape: tuple[int, ...], dtype: str, offset: int
) -> RowReader:
    row_shape = shape[1:]
    n_row = int(np.prod(row_shape, dtype=np.int64))

    def read(start: int, stop: int) -> NDArray[Any]:
        if dtype not in _READ_AS:
            raise ConversionError(
                f"tensor {name!r} in {str(path)!r} is {dtype}; F32, F16, BF16 and F64 can be "
                "converted: get the model's unquantized weights"
            )
        kind = np.dtype(_READ_AS[dtype])
        n = (stop - start) * n_row
        try:
            rows = np.fromfile(path, kind, n, offset=offset + start * n_row * kind.itemsize)
        except OSError as exc:
            raise ConversionError(f"{str(path)!r} cannot be read: {exc}") from exc
        if len(rows) != n:
            raise ConversionError(f"{str(path)!r} became shorter while it was read; start again")
        if dtype == "BF16":
            rows = (rows.astype(np.uint32) << 16).view(np.float32)
        elif dtype == "F64":
            rows = rows.astype(np.float32)
        return rows.reshape(stop - start, *row_shape)

    return read


def _read_torch(path: Path) -> Iterator[tuple[str, SourceTensor]]:
    for name, (shape, dtype, read) in sorted(read_torch_file(path).items()):
        yield name, SourceTensor(shape, dtype, read)
