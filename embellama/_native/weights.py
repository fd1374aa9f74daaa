"""The tensors of a model file, mapped and in the order in which the kernels take them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embellama._native.architectures import slots_of
from embellama._native.binding import TensorPointer
from embellama.errors import ModelLoadError
from embellama.gguf import GGUFMetadata, TensorPlace

TYPE_CODES = {"F32": 0, "F16": 1, "Q8_0": 8, "BF16": 30}
"""Types that the kernels read. Source: ``enum ggml_type`` in ggml.h."""


class MappedWeights:
    """The files of a model, mapped as long as this lives.

    Raises:
        ModelLoadError: A file is no longer what its header said.
    """

    def __init__(self, metadata: GGUFMetadata) -> None:
        self._files: dict[Path, NDArray[np.uint8]] = {
            path: _mapped(path) for path in metadata.paths
        }
        pointers = [self._pointer(slot.place) for slot in slots_of(metadata)]
        self.n_tensors = len(pointers)
        self.tensors: Any = (TensorPointer * self.n_tensors)(*pointers)

    def _pointer(self, place: TensorPlace | None) -> TensorPointer:
        if place is None:
            return TensorPointer(None, 0, 0, 0)
        data = self._files[place.path]
        if place.offset + place.size_bytes > len(data):
            raise ModelLoadError(
                f"{str(place.path)!r} changed while it was being loaded: it has {len(data)} bytes "
                "and should have more; load it again"
            )
        n_rows, n_columns = place.shape
        address = data.ctypes.data + place.offset
        return TensorPointer(address, TYPE_CODES[place.type_name], n_rows, n_columns)


def _mapped(path: Path) -> NDArray[np.uint8]:
    try:
        return np.memmap(path, mode="r", dtype=np.uint8)
    except (OSError, ValueError) as exc:
        raise ModelLoadError(
            f"{str(path)!r} changed while it was being loaded ({exc}); load it again"
        ) from exc
