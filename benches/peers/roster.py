"""Who takes part: names, where each is written down, and what installs it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

OURS = "embellama"
NATIVE = f"{OURS} native"
INT8 = f"{OURS} native int8"
REFERENCE = f"{OURS} F32"
"""Whose vectors the others' are compared with: llama.cpp's, which the kernels' are held against."""

_HOMES = {
    OURS: "benches.peers.ours:Embellama",
    NATIVE: "benches.peers.ours:Native",
    INT8: "benches.peers.ours:NativeInt8",
}
"""On llama.cpp, on kernels of its own, and on those that multiply the bytes of Q8_0."""

FAMILIES = tuple(_HOMES)


@dataclass(frozen=True, slots=True)
class PeerSpec:
    """A peer before anything of it is imported.

    Attributes:
        family: Who computes.
        variant: In which numbers.
        home: The class and its module, as ``module:Class``.
        install: What to do where it is absent.
        needs: Which file it reads: ``"gguf"``, ``"folder"`` or ``"onnx"``.
    """

    family: str
    variant: str
    home: str
    install: str
    needs: str

    @property
    def name(self) -> str:
        """What tables call it."""
        return f"{self.family} {self.variant}"

    def is_called(self, wanted: str) -> bool:
        """Tell whether the family's name, or the whole name, is the one wanted."""
        return wanted.strip().casefold() in (self.family.casefold(), self.name.casefold())


_COMPILED = "pip install . where there is a C++ compiler"
_INSTALLS = {OURS: "pip install .", NATIVE: _COMPILED, INT8: _COMPILED}
_LLAMA_CPP = "a build of llama.cpp on PATH, or --llama-server PATH"
_TORCH = "pip install sentence-transformers torch"
_ONNX = "pip install onnx onnxruntime onnxscript tokenizers, with torch and transformers to export"

OTHERS = (
    PeerSpec(
        "Llama.embed",
        "F16",
        "benches.peers.bindings:LlamaEmbed",
        "pip install llama-cpp-python",
        "gguf",
    ),
    PeerSpec(
        "Llama.embed",
        "BF16",
        "benches.peers.bindings:LlamaEmbed",
        "pip install llama-cpp-python",
        "gguf",
    ),
    PeerSpec("llama-server", "F16", "benches.peers.llama_server:LlamaServer", _LLAMA_CPP, "gguf"),
    PeerSpec("llama-server", "BF16", "benches.peers.llama_server:LlamaServer", _LLAMA_CPP, "gguf"),
    PeerSpec(
        "xllamacpp", "F16", "benches.peers.bindings:XLlamaCpp", "pip install xllamacpp", "gguf"
    ),
    PeerSpec(
        "xllamacpp", "BF16", "benches.peers.bindings:XLlamaCpp", "pip install xllamacpp", "gguf"
    ),
    PeerSpec(
        "sentence-transformers", "float32", "benches.peers.torch_peer:Sentences", _TORCH, "folder"
    ),
    PeerSpec(
        "sentence-transformers", "bfloat16", "benches.peers.torch_peer:Sentences", _TORCH, "folder"
    ),
    PeerSpec("onnxruntime", "float32", "benches.peers.onnx_peers:OnnxRuntime", _ONNX, "onnx"),
    PeerSpec("onnxruntime", "int8", "benches.peers.onnx_peers:OnnxRuntime", _ONNX, "onnx"),
    PeerSpec(
        "onnxruntime", "int8-per-channel", "benches.peers.onnx_peers:OnnxRuntime", _ONNX, "onnx"
    ),
    PeerSpec(
        "fastembed",
        "float32",
        "benches.peers.onnx_peers:FastEmbed",
        "pip install fastembed",
        "onnx",
    ),
)


def choose(types: Sequence[str], only: Sequence[str]) -> list[PeerSpec]:
    """List embellama in each file type on both backends, and the others: those asked for, or all.

    Raises:
        ValueError: Nobody is called so.
    """
    ours = [
        PeerSpec(family, file_type, home, _INSTALLS[family], "gguf")
        for family, home in _HOMES.items()
        for file_type in types
        if family != INT8 or file_type == "Q8_0"
    ]
    unknown = [
        wanted for wanted in only if not any(spec.is_called(wanted) for spec in (*ours, *OTHERS))
    ]
    if unknown:
        known = ", ".join(dict.fromkeys(spec.family for spec in OTHERS))
        raise ValueError(f"no peer {', '.join(map(repr, unknown))}; there are: {known}")
    backends = [wanted for wanted in only if any(spec.is_called(wanted) for spec in ours)]
    if backends:  # otherwise both: without them there is nothing to compare with
        ours = [spec for spec in ours if any(map(spec.is_called, backends))]
    others = [spec for spec in OTHERS if not only or any(map(spec.is_called, only))]
    return [*ours, *others]


WITH_EMBELLAMA = (*FAMILIES, "Llama.embed", "llama-server")
"""Families whose modules need nothing that embellama's environment lacks."""


def python_of(family: str, given: Sequence[str], default: str) -> str:
    """Find the Python that a family runs in.

    Args:
        family: Whose.
        given: ``FAMILY=PATH`` for one family, ``PATH`` for all but `WITH_EMBELLAMA`.
        default: Where nothing fits.
    """
    pairs = [entry.rpartition("=") for entry in given]
    own = [path for name, _, path in pairs if name.casefold() == family.casefold()]
    common = [path for name, _, path in pairs if not name and family not in WITH_EMBELLAMA]
    return [default, *common, *own][-1]
