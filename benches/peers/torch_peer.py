"""sentence-transformers on torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from benches.peers.peer import BATCH, Peer, versions_of


class Sentences(Peer):
    """A `SentenceTransformer` in float32 or bfloat16, which sorts texts by length by itself."""

    how = f"sorted by length, batches of {BATCH}"

    def __init__(self, settings: dict[str, Any]) -> None:
        import torch
        from sentence_transformers import SentenceTransformer

        self.versions = versions_of("sentence-transformers", "torch", "transformers")
        torch.set_num_threads(settings["n_threads"])
        model = SentenceTransformer(settings["folder"], device="cpu")
        # Its own limit of 256 tokens would cut what the others do not.
        model.max_seq_length = settings["n_ctx"]
        self._model = model.to(getattr(torch, settings["variant"]))

    def embed(self, texts: Sequence[str]) -> NDArray[Any]:
        rows: NDArray[Any] = self._model.encode(
            list(texts), batch_size=BATCH, show_progress_bar=False, normalize_embeddings=True
        )
        return rows
