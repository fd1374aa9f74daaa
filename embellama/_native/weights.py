"""The tensors of a model file, mapped and in the order in which the kernels take them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embellama._native.architectures import Slot, slots_of
from embellama._native.binding import TensorPointer
from embellama.errors import ModelLoadError
from embellama.gguf import GGUFMetadata, TensorPlace
from embellama.similarity.pages import let_go

TYPE_CODES = {"F32": 0, "F16": 1, "Q8_0": 8, "BF16": 30}
"""Types that the kernels read. Source: ``enum ggml_type`` in ggml.h."""


TOKEN_TABLE = "token_embd.weight"
"""The one tensor that forward passes read where it is; the others are packed."""


class MappedWeights:
    """The files of a model, mapped as long as this lives, or until they are packed.

    Args:
        metadata: Of the model.
        use_mmap: Whether the token table stays in the mapped file; otherwise it is copied, and
            after `release` nothing of the file is used any more.

    Raises:
        ModelLoadError: A file is no longer what its header said.
    """

    def __init__(self, metadata: GGUFMetadata, *, use_mmap: bool = True) -> None:
        self._use_mmap = use_mmap
        self._files: dict[Path, NDArray[np.uint8]] = {
            path: _mapped(path) for path in metadata.paths
        }
        self._copies: list[NDArray[np.uint8]] = []
        pointers = [self._pointer(slot) for slot in slots_of(metadata)]
        self.n_tensors = len(pointers)
        self.tensors: Any = (TensorPointer * self.n_tensors)(*pointers)

    def release(self) -> None:
        """Let go of what was packed; of the tensors, the token table alone may still be read."""
        if not self._use_mmap:
            self._files.clear()
        for data in self._files.values():
            let_go(data)

    def close(self) -> None:
        """Let go of everything, once nothing computes any more."""
        self._files.clear()
        self._copies.clear()

    def _pointer(self, slot: Slot) -> TensorPointer:
        place = slot.place
        if place is None:
            return TensorPointer(None, 0, 0, 0)
        bytes_of_it = self._bytes_of(place)
        if slot.name == TOKEN_TABLE and not self._use_mmap:
            bytes_of_it = np.array(bytes_of_it)
            self._copies.append(bytes_of_it)
        n_rows, n_columns = place.shape
        return TensorPointer(
            bytes_of_it.ctypes.data, TYPE_CODES[place.type_name], n_rows, n_columns
        )

    def _bytes_of(self, place: TensorPlace) -> NDArray[np.uint8]:
        data = self._files[place.path]
        end = place.offset + place.size_bytes
        if end > len(data):
            raise ModelLoadError(
                f"{str(place.path)!r} changed while it was being loaded: it has {len(data)} bytes "
                "and should have more; load it again"
            )
        return data[place.offset : end]


def _mapped(path: Path) -> NDArray[np.uint8]:
    try:
        return np.memmap(path, mode="r", dtype=np.uint8)
    except (OSError, ValueError) as exc:
        raise ModelLoadError(
            f"{str(path)!r} changed while it was being loaded ({exc}); load it again"
        ) from exc
