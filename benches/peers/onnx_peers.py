"""onnxruntime on the exported models: called by hand, and through fastembed."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benches.peers.peer import BATCH, Peer, in_sorted_batches, normalized, versions_of

PROFILED = 4
"""Times that the texts are embedded under the profiler."""


class OnnxRuntime(Peer):
    """A session on a graph of one number format, fed with batches that are hardly padded."""

    how = f"sorted by length, batches of {BATCH}, graph fused by onnxruntime.transformers"

    def __init__(self, settings: dict[str, Any]) -> None:
        from tokenizers import Tokenizer

        self.versions = versions_of("onnxruntime", "tokenizers")
        self._settings = settings
        folder = Path(settings["onnx"])
        self._pooling = settings["pooling_type"]
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(settings["n_ctx"])
        self._session = self._open()

    def _open(self, profile_prefix: str | None = None) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._settings["n_threads"]
        options.inter_op_num_threads = 1
        # Threads spin while it computes, not in the turns of others.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        if profile_prefix is not None:
            options.enable_profiling = True
            options.profile_file_prefix = profile_prefix
        path = Path(self._settings["onnx"]) / f"{self._settings['variant']}.onnx"
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return self._embed(self._session, texts)

    def _embed(self, session: Any, texts: Sequence[str]) -> NDArray[np.float32]:
        encodings = self._tokenizer.encode_batch(list(texts))
        names = {given.name for given in session.get_inputs()}

        def rows_of(batch: list[int]) -> NDArray[np.float32]:
            feeds = padded([encodings[at].ids for at in batch])
            (states,) = session.run(["last_hidden_state"], {name: feeds[name] for name in names})
            return pooled(states, feeds["attention_mask"], self._pooling)

        lengths = [len(encoding.ids) for encoding in encodings]
        return in_sorted_batches(lengths, rows_of, self._settings["n_embd"])

    def profile(self, texts: Sequence[str]) -> dict[str, float]:
        """Return each kind of operation's part of the time, by onnxruntime's own profiler."""
        with tempfile.TemporaryDirectory() as folder:
            session = self._open(str(Path(folder) / "profile"))
            for _ in range(PROFILED):  # the first also finds memory, which is not what is asked
                self._embed(session, texts)
            written = Path(session.end_profiling())
            return shares_by_operation(json.loads(written.read_text(encoding="utf-8")))


class FastEmbed(Peer):
    """fastembed on the same float32 graph, under a name of its own."""

    how = f"given sorted by length, batches of {BATCH}"

    def __init__(self, settings: dict[str, Any]) -> None:
        from fastembed import TextEmbedding
        from fastembed.common.model_description import ModelSource, PoolingType

        self.versions = versions_of("fastembed", "onnxruntime", "tokenizers")
        folder = settings["onnx"]
        TextEmbedding.add_custom_model(
            model="local",
            pooling={"mean": PoolingType.MEAN, "cls": PoolingType.CLS}[settings["pooling_type"]],
            normalization=True,
            sources=ModelSource(url="https://localhost/none"),  # one is asked for, none is used
            dim=settings["n_embd"],
            model_file=f"{settings['variant']}.onnx",
        )
        self._model = TextEmbedding(
            "local", threads=settings["n_threads"], specific_model_path=folder
        )

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        # It pads in the order it is given: sorting is what a careful caller would do.
        order = sorted(range(len(texts)), key=lambda at: len(texts[at]))
        found = self._model.embed([texts[at] for at in order], batch_size=BATCH)
        by_length = np.array(list(found), dtype=np.float32)
        rows = np.empty_like(by_length)
        rows[order] = by_length
        return rows


def padded(input_ids: Sequence[Sequence[int]]) -> dict[str, NDArray[np.int64]]:
    """Make int64 (n_texts, n_longest) arrays of token ids, their mask and their types."""
    ids = np.zeros((len(input_ids), max(map(len, input_ids))), dtype=np.int64)
    mask = np.zeros_like(ids)
    for row, tokens in enumerate(input_ids):
        ids[row, : len(tokens)] = tokens
        mask[row, : len(tokens)] = 1
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}


def pooled(
    states: NDArray[np.float32], mask: NDArray[np.int64], pooling_type: str
) -> NDArray[np.float32]:
    """Make a row of length 1 of each text's token rows: their mean, or the first."""
    if pooling_type == "cls":
        rows = states[:, 0]
    else:
        weights = mask.astype(np.float32)
        rows = np.matmul(weights[:, None, :], states)[:, 0] / weights.sum(axis=1, keepdims=True)
    return normalized(rows)


def shares_by_operation(events: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Add up the profiler's kernel times by kind of operation; parts of their sum, largest first."""
    spent: Counter[str] = Counter()
    for event in events:
        if event.get("cat") == "Node" and str(event.get("name", "")).endswith("_kernel_time"):
            spent[event["args"]["op_name"]] += event["dur"]
    total = sum(spent.values())
    return {name: taken / total for name, taken in spent.most_common()}
