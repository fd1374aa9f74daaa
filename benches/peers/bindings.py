"""Other Python bindings of llama.cpp, each called the way its documents show."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benches.peers.peer import Peer, normalized, versions_of

N_SLOTS = 16
"""Texts that llama.cpp's server takes into a batch at the same time."""

N_BATCH = 512
"""Tokens of a batch: llama-cpp-python's default, and no less than the longest text."""


class LlamaEmbed(Peer):
    """`llama_cpp.Llama.embed`, which packs texts into batches by itself."""

    how = f"its own packing, n_batch = n_ubatch = {N_BATCH}"

    def __init__(self, settings: dict[str, Any]) -> None:
        from llama_cpp import Llama

        self.versions = versions_of("llama-cpp-python")
        n_batch = max(N_BATCH, settings["n_ctx"])
        self._llama = Llama(
            settings["gguf"],
            embedding=True,
            n_ctx=n_batch,
            n_batch=n_batch,
            n_ubatch=n_batch,
            n_threads=settings["n_threads"],
            n_threads_batch=settings["n_threads"],
            n_gpu_layers=0,
            verbose=False,
        )

    def embed(self, texts: Sequence[str]) -> Any:
        # Its normalisation is a loop in Python: left out, in its favour.
        return self._llama.embed(list(texts))

    def close(self) -> None:
        self._llama.close()


class XLlamaCpp(Peer):
    """llama.cpp's server inside the process, called without HTTP."""

    how = f"one call, {N_SLOTS} slots; the wheel for Linux has no AVX-512, by its own documents"

    def __init__(self, settings: dict[str, Any]) -> None:
        import xllamacpp

        self.versions = versions_of("xllamacpp")
        params = xllamacpp.CommonParams()
        params.model.path = settings["gguf"]
        params.embedding = True
        params.n_parallel = N_SLOTS
        params.n_ctx = N_SLOTS * max(N_BATCH, settings["n_ctx"])
        params.n_batch = params.n_ubatch = max(N_BATCH, settings["n_ctx"])
        params.cpuparams.n_threads = settings["n_threads"]
        params.cpuparams_batch.n_threads = settings["n_threads"]
        params.verbosity = 0
        self._server = xllamacpp.Server(params)

    def embed(self, texts: Sequence[str]) -> list[str]:
        answer = self._server.handle_embeddings(
            {"input": list(texts), "model": "m", "encoding_format": "base64"}
        )
        if "data" not in answer:
            raise RuntimeError(f"xllamacpp answered {str(answer)[:300]}")
        return [row["embedding"] for row in sorted(answer["data"], key=lambda row: row["index"])]

    def rows(self, native: Any) -> NDArray[np.float32]:
        return decoded(native)


def decoded(rows: Sequence[str]) -> NDArray[np.float32]:
    """Read rows of little-endian float32 in base64, and scale them to length 1."""
    return normalized(np.array([np.frombuffer(base64.b64decode(row), "<f4") for row in rows]))
