"""pytorch_model.bin, read as weights only: the one file that imports torch."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from embellama.errors import ConversionError, MissingDependencyError


def read_torch_file(
    path: Path,
) -> dict[str, tuple[tuple[int, ...], str, Callable[[int, int], NDArray[Any]]]]:
    """Open a checkpoint without running code from it.

    Returns:
        For each tensor its shape, its dtype (as safetensors names it), and what reads rows of it.

    Raises:
        MissingDependencyError: torch is not installed.
        ConversionError: The file is damaged, or holds more than tensors.
    """
    try:
        import torch  # noqa: PLC0415 - hundreds of megabytes that only this format needs
    except ImportError as exc:
        raise MissingDependencyError(
            f"{str(path)!r} can only be read with torch: pip install 'embellama[torch]', or get "
            "the model's model.safetensors",
            extra="torch",
        ) from exc
    try:
        # Files of the old, unzipped format cannot be mapped.
        mapped = zipfile.is_zipfile(path)
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as exc:
        raise ConversionError(
            f"{str(path)!r} is damaged, or holds more than weights, and nothing else is loaded "
            f"from it ({str(exc).splitlines()[0] if str(exc) else type(exc).__name__}); download "
            "it again, or get the model's model.safetensors"
        ) from exc
    names = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
    names |= {torch.float64: "F64"}

    def reader(tensor: Any) -> Callable[[int, int], NDArray[Any]]:
        def read(start: int, stop: int) -> NDArray[Any]:
            rows = tensor[start:stop].detach()
            kept = rows if rows.dtype == torch.float16 else rows.to(torch.float32)
            return kept.numpy()  # type: ignore[no-any-return]

        return read

    if not isinstance(state, dict):
        raise ConversionError(f"{str(path)!r} holds a {type(state).__name__}, not named tensors")
    return {
        str(name): (tuple(tensor.shape), names.get(tensor.dtype, str(tensor.dtype)), reader(tensor))
        for name, tensor in state.items()
        if isinstance(tensor, torch.Tensor)
    }
