"""What a GGUF file says about its model, read without loading the weights."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, TypeAlias, TypeVar, get_args

from gguf.constants import LlamaFileType

from embellama.errors import ModelNotFoundError
from embellama.gguf_checks import MAX_LAYERS, check_sizes, check_vocabulary
from embellama.gguf_header import (
    TOKENS_KEY,
    Array,
    Header,
    malformed,
    printable,
    read_header,
    value_of,
)
from embellama.types import PoolingType

PositionEncoding: TypeAlias = Literal["absolute", "rope", "alibi", "relative"]

EMBEDDING_ARCHITECTURES: Final = frozenset(
    {
        "bert",
        "eurobert",
        "gemma-embedding",
        "jina-bert-v2",
        "jina-bert-v3",
        "llama-embed",
        "modern-bert",
        "neo-bert",
        "nomic-bert",
        "nomic-bert-moe",
        "t5encoder",
    }
)
"""Architectures that make vectors and no text. Source: ``LLM_ARCH_NAMES`` in llama-arch.cpp."""

_UNSET = 0xFFFF_FFFF  # llama.cpp's -1, saved as unsigned
_POOLING_TYPES: tuple[PoolingType, ...] = get_args(PoolingType)[:5]  # those of llama.cpp
_SPLIT_NAME = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")

# Newer than the oldest gguf package we accept. Source: llama_ftype in llama.h.
_FILE_TYPES = {41: "Q2_0"} | {
    int(kind): kind.name.removeprefix("MOSTLY_").removeprefix("ALL_") for kind in LlamaFileType
}

_T = TypeVar("_T", int, float, bool, str)


@dataclass(frozen=True, slots=True)
class TensorPlace:
    """Where a tensor is, for those who read it themselves.

    Attributes:
        path: The file that holds it, one part of a split model.
        offset: Its first byte, counted from the beginning of that file.
        shape: (n_rows, n_columns); one row where there is no second dimension.
        type_name: ``"F16"``, ``"Q4_K"``…
        size_bytes: Bytes of all rows, without padding.
    """

    path: Path
    offset: int
    shape: tuple[int, int]
    type_name: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class GGUFMetadata:
    """A model file's own description.

    Attributes:
        path: The file to load; the first part of a split one.
        paths: All parts, in order.
        architecture: As llama.cpp names it: ``"bert"``, ``"nomic-bert"``, ``"qwen3"``…
        name: The model's name; the file's stem if it has none.
        n_embd: Components of a token row.
        n_ctx_train: Positions it was trained for; with absolute positions no more can be used.
        n_layer: Layers.
        n_head: Attention heads of a layer, the most if they differ; 0 without attention.
        n_head_kv: Heads that keys and values have; as many as there are unless the file says less.
        head_size: Components of a head's key.
        n_ff: Components inside a feed-forward block, of all experts that work together.
        is_gated: Whether the feed-forward block has a gate.
        has_window: Whether some layers look through a window.
        pooling_type: How the file says token rows become one vector; None if it does not say.
        vocab_kind: ``"bert"`` (WordPiece), ``"t5"`` (Unigram), ``"gpt2"`` (byte-level BPE),
            ``"llama"`` (SentencePiece BPE)…
        pre_tokenizer: How a BPE vocabulary splits texts into words: ``"gpt-2"``, ``"qwen2"``…;
            None: llama.cpp's default.
        n_vocab: Token ids are below this.
        add_bos: Whether a text begins with the bos token; None: llama.cpp's default.
        add_eos: Whether it ends with the eos token.
        add_sep: Whether it ends with the sep token.
        bos_token_id: Begin of text; ``[CLS]`` of BERT. None: not there, or not in the vocabulary.
        eos_token_id: End of text.
        sep_token_id: Separator; ``[SEP]`` of BERT.
        unk_token_id: What stands for text that no token covers.
        lowercase: Whether WordPiece lower-cases; None: it does.
        strip_accents: Whether WordPiece drops accents; None: as ``lowercase``.
        causal: Whether a token sees only those before it; None: llama.cpp's default for it.
        position_encoding: How a token knows its place.
        file_type: ``"F16"``, ``"Q8_0"``, ``"Q4_K_M"``…: what the file is called.
        tensor_types: How many tensors have which type: what the file is.
        tensor_bytes: Bytes of the weights.
        size_bytes: Bytes of all parts.
        is_embedder: Whether it is made for vectors, as opposed to generating text.
        norm_eps: What layer norms add to the variance; None where the file does not say.
        rope_freq_base: Of which rotary positions take the powers.
        n_rotated: Components of a head that rotary positions rotate.
        rope_is_scaled: Whether rotary positions are stretched in any way.
        tensors: Where each is, by name.
        token_table: The embeddings of the tokens.
        token_type_table: Those of the token types, which tell the texts of a pair apart.
        classifier: Names of the tensors that make scores of a pair: ``"cls.output.weight"``…
        n_labels: Scores that the classifier gives.
        rerank_template: How query and document become one text, where the file says so.
    """

    path: Path
    paths: tuple[Path, ...]
    architecture: str
    name: str
    n_embd: int
    n_ctx_train: int
    n_layer: int
    n_head: int
    n_head_kv: int
    head_size: int
    n_ff: int
    is_gated: bool
    has_window: bool
    pooling_type: PoolingType | None
    vocab_kind: str
    pre_tokenizer: str | None
    n_vocab: int
    add_bos: bool | None
    add_eos: bool | None
    add_sep: bool | None
    bos_token_id: int | None
    eos_token_id: int | None
    sep_token_id: int | None
    unk_token_id: int | None
    lowercase: bool | None
    strip_accents: bool | None
    causal: bool | None
    position_encoding: PositionEncoding
    file_type: str
    tensor_types: Mapping[str, int]
    tensor_bytes: int
    size_bytes: int
    is_embedder: bool
    norm_eps: float | None = None
    rope_freq_base: float = 10_000.0
    n_rotated: int = 0
    rope_is_scaled: bool = False
    tensors: Mapping[str, TensorPlace] = field(default_factory=dict)
    token_table: TensorPlace | None = None
    token_type_table: TensorPlace | None = None
    classifier: tuple[str, ...] = ()
    n_labels: int = 1
    rerank_template: str | None = None

    @property
    def n_token_types(self) -> int:
        """How many token types the model tells apart; 0 if it knows none."""
        return self.token_type_table.shape[0] if self.token_type_table else 0


def read_metadata(path: Path) -> GGUFMetadata:
    """Read what a model file says about itself, in milliseconds and without its weights.

    Any part of a split file stands for the whole. May be called from any thread.

    Raises:
        ModelNotFoundError: The file, or a part of it, is missing or cannot be read.
        GGUFFormatError: It is not a sound GGUF, or not of a model that llama.cpp can load.
    """
    path = Path(path)
    try:
        headers = [read_header(part) for part in _parts(path)]
        _check_split(headers)
        return _Fields(headers).metadata()
    except OSError as exc:
        raise ModelNotFoundError(
            f"{str(path)!r} cannot be read ({exc.strerror or exc}); check the path and its rights"
        ) from exc


def _parts(path: Path) -> tuple[Path, ...]:
    match = _SPLIT_NAME.fullmatch(path.name)
    paths: tuple[Path, ...] = (path,)
    if match and 1 <= int(match["number"]) <= int(match["count"]):
        count = int(match["count"])
        names = (f"{match['stem']}-{n:05d}-of-{count:05d}.gguf" for n in range(1, count + 1))
        paths = tuple(path.with_name(name) for name in names)
    missing = [part for part in paths if not part.is_file()]
    if path.is_dir():
        raise ModelNotFoundError(f"{str(path)!r} is a folder; {_way_out_of(path)}")
    if missing and len(paths) == 1:
        raise ModelNotFoundError(f"there is no model file {str(path)!r}; check the path")
    if missing:
        names_missing = ", ".join(printable(part.name) for part in missing[:5])
        raise ModelNotFoundError(
            f"{len(missing)} of the {len(paths)} parts of {str(path)!r} are missing "
            f"({names_missing}); put all parts into one folder"
        )
    return paths


def _way_out_of(folder: Path) -> str:
    if names := sorted(printable(part.name) for part in folder.glob("*.gguf")):
        return f"name the file in it: {', '.join(names[:5])}"
    if (folder / "config.json").is_file():
        return f"convert it first: embellama convert {printable(str(folder))} model.gguf"
    return "name a .gguf file"


def _check_split(headers: Sequence[Header]) -> None:
    for number, header in enumerate(headers):
        count = value_of(header, "split.count", int) or 1
        if count != len(headers):
            raise malformed(
                header.path,
                f"it is one of {count} parts, and its name says {len(headers)} (parts are named "
                f"*-00001-of-{count:05d}.gguf)",
            )
        if (value_of(header, "split.no", int) or 0) != number:
            raise malformed(header.path, f"its name says part {number + 1}, its header another")
    expected = value_of(headers[0], "split.tensors.count", int)
    n_tensors = len({tensor.name for header in headers for tensor in header.tensors})
    if len(headers) > 1 and n_tensors != expected:
        raise malformed(headers[0].path, f"{expected} tensors expected, {n_tensors} in all parts")


class _Fields:
    """The values of a model's headers by what they mean; those of the first part count."""

    def __init__(self, headers: Sequence[Header]) -> None:
        header = headers[0]
        self._headers = headers
        self._header = header
        self._path = header.path
        self._tensors = [tensor for part in headers for tensor in part.tensors]
        self._shapes = {tensor.name: tensor.shape for tensor in self._tensors}
        kind = value_of(header, "general.type", str) or "model"
        architecture = value_of(header, "general.architecture", str)
        if kind != "model" or not architecture:
            raise malformed(
                self._path, f"it holds no model (type {kind!r}, architecture {architecture!r})"
            )
        self._architecture = architecture

    def metadata(self) -> GGUFMetadata:
        n_embd = self._size("embedding_length", 1 << 20)
        n_ctx_train = self._size("context_length", 1 << 31)
        n_layer = self._size("block_count", MAX_LAYERS)
        check_sizes(self._header, self._architecture)
        pooling_type = self._pooling_type()
        causal = self._own("attention.causal", bool)
        n_vocab = self._n_vocab()
        vocab_kind = value_of(self._header, "tokenizer.ggml.model", str) or "none"
        check_vocabulary(self._header, vocab_kind, n_vocab)
        tensors = self._places()
        n_head = self._most("attention.head_count")
        head_size = self._most("attention.key_length") or n_embd // max(n_head, 1)
        n_ff = self._most("feed_forward_length") or 4 * n_embd
        return GGUFMetadata(
            path=self._path,
            paths=tuple(header.path for header in self._headers),
            architecture=self._architecture,
            name=value_of(self._header, "general.name", str) or printable(self._path.stem),
            n_embd=n_embd,
            n_ctx_train=n_ctx_train,
            n_layer=n_layer,
            n_head=n_head,
            n_head_kv=self._most("attention.head_count_kv") or n_head,
            head_size=head_size,
            n_ff=n_ff * max(self._most("expert_used_count"), 1),
            is_gated=self._is_gated(n_ff),
            has_window=self._most("attention.sliding_window") > 0,
            pooling_type=pooling_type,
            vocab_kind=vocab_kind,
            pre_tokenizer=value_of(self._header, "tokenizer.ggml.pre", str),
            n_vocab=n_vocab,
            add_bos=self._flag("add_bos_token"),
            add_eos=self._flag("add_eos_token"),
            add_sep=self._flag("add_sep_token"),
            bos_token_id=self._token_id("bos", n_vocab),
            eos_token_id=self._token_id("eos", n_vocab),
            # The key is misspelt in the format.
            sep_token_id=self._token_id("seperator", n_vocab),
            unk_token_id=self._token_id("unknown", n_vocab),
            lowercase=self._flag("normalizer.lowercase"),
            strip_accents=self._flag("normalizer.strip_accents"),
            causal=causal,
            position_encoding=self._position_encoding(),
            file_type=self._file_type(),
            tensor_types=dict(Counter(tensor.type_name for tensor in self._tensors).most_common()),
            tensor_bytes=sum(tensor.size_bytes for tensor in self._tensors),
            size_bytes=sum(header.size_bytes for header in self._headers),
            is_embedder=pooling_type is not None
            or causal is False
            or self._architecture in EMBEDDING_ARCHITECTURES,
            norm_eps=self._own("attention.layer_norm_epsilon", float),
            rope_freq_base=self._own("rope.freq_base", float) or 10_000.0,
            n_rotated=self._most("rope.dimension_count") or head_size,
            rope_is_scaled=self._rope_is_scaled(),
            tensors=tensors,
            token_table=tensors.get("token_embd.weight"),
            token_type_table=tensors.get("token_types.weight"),
            classifier=tuple(t.name for t in self._tensors if t.name.startswith("cls.")),
            n_labels=self._n_labels(),
            rerank_template=value_of(self._header, "tokenizer.chat_template.rerank", str),
        )

    def _places(self) -> dict[str, TensorPlace]:
        found: dict[str, TensorPlace] = {}
        for header in self._headers:
            for tensor in header.tensors:
                n_columns, *n_rows = tensor.shape or (0,)
                shape = (math.prod(n_rows), n_columns)
                place = TensorPlace(
                    header.path, tensor.offset, shape, tensor.type_name, tensor.size_bytes
                )
                found.setdefault(tensor.name, place)
        return found

    def _n_labels(self) -> int:
        labels = self._header.values.get(f"{self._architecture}.classifier.output_labels")
        return labels.length or 1 if isinstance(labels, Array) else 1

    def _own(self, name: str, kind: type[_T]) -> _T | None:
        return value_of(self._header, f"{self._architecture}.{name}", kind)

    def _flag(self, name: str) -> bool | None:
        return value_of(self._header, f"tokenizer.ggml.{name}", bool)

    def _size(self, name: str, limit: int) -> int:
        value = self._own(name, int)
        if value is None or not 1 <= value <= limit:
            what = "missing" if value is None else str(value)
            raise malformed(
                self._path, f"{self._architecture}.{name} is {what}, and should be 1 to {limit}"
            )
        return value

    def _most(self, name: str) -> int:
        """Read a count, the largest where layers differ; 0 where the file does not say."""
        value = self._header.values.get(f"{self._architecture}.{name}")
        if isinstance(value, Array):
            return max((int(item) for item in value.items), default=0)
        return max(self._own(name, int) or 0, 0)

    def _is_gated(self, n_ff: int) -> bool:
        return any(
            "ffn_gate" in name or (name.endswith("ffn_up.weight") and shape[-1] > n_ff)
            for name, shape in self._shapes.items()
        )

    def _pooling_type(self) -> PoolingType | None:
        value = self._own("pooling_type", int)
        if value is None or value in (-1, _UNSET):
            return None
        if not 0 <= value < len(_POOLING_TYPES):
            raise malformed(self._path, f"{self._architecture}.pooling_type is {value}, over 4")
        return _POOLING_TYPES[value]

    def _n_vocab(self) -> int:
        tokens = self._header.values.get(TOKENS_KEY)
        if isinstance(tokens, Array):
            return tokens.length
        embedded = self._shapes.get("token_embd.weight", ())
        return self._own("vocab_size", int) or (embedded[-1] if embedded else 0)

    def _token_id(self, name: str, n_vocab: int) -> int | None:
        value = value_of(self._header, f"tokenizer.ggml.{name}_token_id", int)
        return value if value is not None and 0 <= value < n_vocab else None

    def _position_encoding(self) -> PositionEncoding:
        alibi_bias = self._own("attention.max_alibi_bias", float)
        if self._architecture == "jina-bert-v2" or alibi_bias:
            return "alibi"
        if self._architecture.startswith("t5"):
            return "relative"
        return "absolute" if "position_embd.weight" in self._shapes else "rope"

    def _rope_is_scaled(self) -> bool:
        # Source: load_hparams in llama-model.cpp; its "linear" does nothing without a factor.
        kind = self._own("rope.scaling.type", str) or "linear"
        factors = (self._own(f"rope.{name}", float) for name in ("scaling.factor", "scale_linear"))
        others = (self._own("rope.scaling.attn_factor", float) or 1.0) != 1.0
        return (
            kind not in ("none", "linear")
            or others
            or any(f not in (None, 0.0, 1.0) for f in factors)
        )

    def _file_type(self) -> str:
        value = value_of(self._header, "general.file_type", int)
        if value is None:
            largest = max(self._tensors, key=lambda tensor: tensor.size_bytes, default=None)
            return largest.type_name if largest else "unknown"
        # llama.cpp marks a type it guessed with this bit.
        return _FILE_TYPES.get(value & ~LlamaFileType.GUESSED, f"type {value}")
