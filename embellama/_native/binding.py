"""The compiled kernels, through plain C: found, checked, and their signatures declared."""

from __future__ import annotations

import ctypes
import sys
import threading
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from embellama.errors import ConfigurationError

ComputeType = Literal["bf16", "f32", "int8"]

VERSION = 5
"""Of the calls declared here. Source: ``EM_VERSION`` in native/src/embellama_native.h."""

_FILE_NAME = {"win32": "embellama_native.dll", "darwin": "libembellama_native.dylib"}.get(
    sys.platform, "libembellama_native.so"
)
_MESSAGE_BYTES = 512


class TensorPointer(ctypes.Structure):
    """``em_tensor``: a weight as it lies in a file."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("type", ctypes.c_int32),
        ("n_rows", ctypes.c_int64),
        ("n_columns", ctypes.c_int64),
    )


class Shape(ctypes.Structure):
    """``em_shape``: the widths of a model, and how its layers are made."""

    _fields_ = (
        ("n_layers", ctypes.c_int64),
        ("n_embd", ctypes.c_int64),
        ("n_ff", ctypes.c_int64),
        ("n_heads", ctypes.c_int64),
        ("n_token_types", ctypes.c_int64),
        ("n_vocab", ctypes.c_int64),
        ("n_positions", ctypes.c_int64),
        ("n_rotated", ctypes.c_int64),
        ("position_encoding", ctypes.c_int32),
        ("activation", ctypes.c_int32),
        ("norm_eps", ctypes.c_float),
        ("rotary_base", ctypes.c_float),
        ("alibi_bias", ctypes.c_float),
    )


@dataclass(frozen=True, slots=True)
class Kernel:
    """A forward pass that this CPU can run.

    Attributes:
        number: What the library calls it.
        isa: The instruction set: ``"avx512"``, ``"avx2"``, ``"scalar"``…
        compute_type: What is multiplied; sums are float32 always.
        lanes: Widths of a model have to be multiples of this.
        value_bytes: Bytes of a number that attention multiplies.
    """

    number: int
    isa: str
    compute_type: ComputeType
    lanes: int
    value_bytes: int

    def __str__(self) -> str:
        return f"{self.isa}, {self.compute_type}"


class Library:
    """The loaded library. Safe to use from any thread.

    Raises:
        ConfigurationError: It cannot be loaded, or is of another version.
    """

    def __init__(self, path: Path) -> None:
        try:
            self.c: Any = ctypes.CDLL(str(path))
        except OSError as exc:
            raise ConfigurationError(
                f"the native kernels in {str(path)!r} cannot be loaded: {exc}; reinstall "
                "embellama, or set backend='llama'"
            ) from exc
        try:
            found = int(self.c.em_version())
        except AttributeError as exc:
            raise ConfigurationError(
                f"{str(path)!r} has no native kernels in it: {exc}; reinstall embellama, or set "
                "backend='llama'"
            ) from exc
        if found != VERSION:
            raise ConfigurationError(
                f"the native kernels in {str(path)!r} are version {found}, and embellama wants "
                f"{VERSION}; install embellama again, which compiles them"
            )
        _declare(self.c)
        self.path = path
        self.kernels = tuple(self._kernel(number) for number in range(self.c.em_n_kernels()))

    def _kernel(self, number: int) -> Kernel:
        compute_type: Any = self.c.em_kernel_compute_type(number).decode()
        isa = self.c.em_kernel_isa(number).decode()
        return Kernel(
            number,
            isa,
            compute_type,
            lanes=int(self.c.em_kernel_lanes(number)),
            value_bytes=int(self.c.em_kernel_value_bytes(number)),
        )


class Message:
    """Room for what a call says went wrong."""

    def __init__(self) -> None:
        self._buffer = ctypes.create_string_buffer(_MESSAGE_BYTES)
        self.arguments = (self._buffer, _MESSAGE_BYTES)

    def __str__(self) -> str:
        return self._buffer.value.decode("utf-8", "replace")


_loading = threading.Lock()
_loaded: list[Library] = []


def library_path() -> Path | None:
    """Return where the compiled kernels are; None where none were compiled."""
    beside = Path(__file__).with_name(_FILE_NAME)
    if beside.exists():
        return beside
    # an editable installation has the sources here and what was compiled in site-packages
    try:
        files = metadata.distribution("embellama").files or ()
    except metadata.PackageNotFoundError:
        return None
    found = [Path(str(file.locate())) for file in files if file.name == _FILE_NAME]
    return next((path for path in found if path.exists()), None)


def build_name() -> str:
    """Name the build of the kernels; what was found out with one says nothing about another."""
    try:
        of = metadata.version("embellama")
    except metadata.PackageNotFoundError:  # the files were copied here without what pip writes
        of = "of no known version"
    return f"native kernels {VERSION} of embellama {of}"


def open_library() -> Library | None:
    """Load the kernels, once in a process; None where none were compiled.

    Raises:
        ConfigurationError: They cannot be loaded, or are of another version.
    """
    with _loading:
        if not _loaded:
            path = library_path()
            if path is None:
                return None
            _loaded.append(Library(path))
        return _loaded[0]


def _declare(c: Any) -> None:
    message = (ctypes.c_char_p, ctypes.c_size_t)
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    signatures: dict[str, tuple[Any, tuple[Any, ...]]] = {
        "em_n_kernels": (ctypes.c_int32, ()),
        "em_kernel_isa": (ctypes.c_char_p, (ctypes.c_int32,)),
        "em_kernel_compute_type": (ctypes.c_char_p, (ctypes.c_int32,)),
        "em_kernel_lanes": (ctypes.c_int32, (ctypes.c_int32,)),
        "em_kernel_value_bytes": (ctypes.c_int32, (ctypes.c_int32,)),
        "em_model_new": (
            pointer,
            (
                ctypes.POINTER(Shape),
                ctypes.c_int32,
                ctypes.POINTER(TensorPointer),
                number,
                *message,
            ),
        ),
        "em_model_free": (None, (pointer,)),
        "em_model_bytes": (number, (pointer,)),
        "em_context_new": (pointer, (pointer, number, ctypes.c_int32, *message)),
        "em_context_free": (None, (pointer,)),
        "em_context_bytes": (number, (pointer,)),
        "em_encode": (
            ctypes.c_int32,
            (
                pointer,
                pointer,
                pointer,
                pointer,
                number,
                ctypes.c_int32,
                ctypes.c_int32,
                pointer,
                *message,
            ),
        ),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(c, name)
        function.restype, function.argtypes = result, arguments
