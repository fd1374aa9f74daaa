"""What a sound header may say and llama.cpp does not survive: it ends the process there.

Every check stands for an assertion, an uncaught exception or an endless loop in llama.cpp, at load
or at a text, which no ``except`` of ours could catch.

Source: llama-model.cpp, llama-vocab.cpp, llama-context.cpp, models/*.cpp and ggml.c of llama.cpp.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from embellama.errors import GGUFFormatError
from embellama.gguf_header import TOKENS_KEY, Array, Header, malformed, value_of

MAX_LAYERS: Final = 512
"""Source: ``LLAMA_MAX_LAYERS`` in llama-hparams.h, where more is an assertion."""

MAX_EXPERTS: Final = 1024
"""Source: ``LLAMA_MAX_EXPERTS`` in llama-hparams.h, where more is an assertion."""

ROPE_SCALINGS: Final = ("none", "linear", "yarn", "longrope")
"""Source: ``LLAMA_ROPE_SCALING_TYPES`` in llama-model.cpp, where another is an assertion."""

_HEADS_FILL_ROW: Final = frozenset(
    {"bert", "eurobert", "jina-bert-v2", "jina-bert-v3", "modern-bert", "neo-bert", "nomic-bert"}
    | {"nomic-bert-moe"}
)
"""Where heads of ``key_length`` make a row of ``embedding_length``; other sizes are assertions."""

_EQUAL_HEADS: Final = _HEADS_FILL_ROW | {
    "gemma-embedding",
    "llama",
    "llama-embed",
    "mistral3",
    "qwen2",
    "qwen2vl",
    "qwen3",
    "qwen3moe",
    "qwen3vl",
    "t5encoder",
}
"""Where ``key_length`` and ``value_length`` have to be the same."""

_NO_ROPE: Final = frozenset({"bert", "jina-bert-v2", "t5encoder"})
_ONE_EXPERT_IS_NONE: Final = ("hunyuan-dense", "hunyuan_vl")
_OWN_OUTPUT_WIDTH: Final = frozenset(
    {"deepseek4", "gemma4-assistant", "lfm2", "lfm2moe", "qwen4exp", "wavtokenizer-dec"}
)
"""Where vectors may be longer or shorter than token rows."""

_GEMMA_PRE: Final = ("gemma4", "granite-embed-multi-311m")
_LLAMA3_PRE: Final = frozenset(
    {"llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"}
    | {"jina-v5-nano", "tekken", "chameleon"}
)
"""Pre-tokenizers that begin texts with the bos token unless the file says otherwise."""

_NO_BOS_PRE: Final = ("chatglm-bpe", "glm4", "glm5")
_MAX_BYTE = 0xFF
_BYTE_TYPE = 6
"""Source: ``LLAMA_TOKEN_TYPE_BYTE`` in llama.h."""


@dataclass(frozen=True, slots=True)
class _Vocabulary:
    """What llama.cpp makes of a kind of vocabulary.

    Attributes:
        ids: Token ids by role, where the file names none.
        needs: Roles without which it cannot tokenize.
        adds: Roles it puts around a text if the file does not say.
        may_add: Roles it puts around a text if the file says so.
    """

    ids: Mapping[str, int] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    adds: tuple[str, ...] = ()
    may_add: tuple[str, ...] = ("bos", "eos")


VOCABULARIES: Final[Mapping[str, _Vocabulary]] = {
    "bert": _Vocabulary(
        # The key of the separator is misspelt in the format.
        ids={"bos": 101, "seperator": 102, "unknown": 100},
        needs=("bos", "seperator", "unknown"),
        may_add=(),
    ),
    "gemma4": _Vocabulary(needs=("bos",)),
    "gpt2": _Vocabulary(ids={"bos": 11, "eos": 11}),
    "llama": _Vocabulary(ids={"bos": 1, "eos": 2}, adds=("bos",)),
    "plamo2": _Vocabulary(may_add=()),
    "t5": _Vocabulary(ids={"eos": 1, "unknown": 2}, needs=("unknown",), adds=("eos",)),
    "whitespace": _Vocabulary(ids={"bos": 11, "eos": 11}),
}
"""The kinds that tokenize any text.

Of the others llama.cpp knows, "test" hashes, "rwkv" hangs on a text that begins like a token and
is none, and "hybriddna" is for genes.
"""


def check_vocabulary(header: Header, kind: str, n_vocab: int) -> None:
    """Refuse a vocabulary that makes llama.cpp end the process.

    Args:
        header: The header of a model's first part.
        kind: ``tokenizer.ggml.model``; ``"none"`` where there is none.
        n_vocab: How many tokens there are.

    Raises:
        GGUFFormatError: It is missing, of an unknown kind, or lacks tokens that its kind needs.
    """
    if kind in ("none", "no_vocab"):
        raise GGUFFormatError(
            f"{str(header.path)!r} has no vocabulary (tokenizer.ggml.model is {kind!r}): a model "
            "without one cannot embed text; choose another file"
        )
    if kind not in VOCABULARIES:
        raise GGUFFormatError(
            f"{str(header.path)!r} has a vocabulary of the kind {kind!r}, and these can be used: "
            f"{', '.join(sorted(VOCABULARIES))}; choose another model"
        )
    pre = value_of(header, "tokenizer.ggml.pre", str) or ""
    if (kind, pre) == ("gpt2", "whitespace"):
        raise malformed(
            header.path,
            "a gpt2 vocabulary has the pre-tokenizer 'whitespace', which leaves spaces in words",
        )
    for role in _required_roles(header, kind, pre):
        default = VOCABULARIES[kind].ids.get(role)
        if role == "bos" and kind == "gpt2" and pre in _NO_BOS_PRE:
            default = None
        given = value_of(header, f"tokenizer.ggml.{role}_token_id", int)
        if not any(token is not None and 0 <= token < n_vocab for token in (given, default)):
            raise malformed(header.path, f"no tokenizer.ggml.{role}_token_id below {n_vocab} given")
    if kind == "bert":
        _check_no_byte_tokens(header)
    if kind == "llama":
        _check_byte_tokens(header)
    if kind == "t5":
        _check_charsmap(header)


def _required_roles(header: Header, kind: str, pre: str) -> Iterator[str]:
    vocabulary = VOCABULARIES[kind]
    yield from vocabulary.needs
    for role in vocabulary.may_add:
        adds = value_of(header, f"tokenizer.ggml.add_{role}_token", bool)
        if adds is None:
            adds = role in vocabulary.adds or (role == "bos" and pre in _LLAMA3_PRE)
        if adds or (role == "bos" and pre in _GEMMA_PRE):
            yield role


def _check_no_byte_tokens(header: Header) -> None:
    types = header.values.get("tokenizer.ggml.token_type")
    if isinstance(types, Array) and _BYTE_TYPE in np.frombuffer(_read(header, types, 4), "<i4"):
        raise malformed(header.path, "its WordPiece vocabulary has tokens of the type for bytes")


def _read(header: Header, numbers: Array, n_bytes: int) -> bytes:
    """Read a number array of elements of so many bytes; llama.cpp refuses other ones by itself."""
    with header.path.open("rb") as file:
        file.seek(numbers.start)
        raw = file.read(numbers.length * n_bytes)
    return raw[: len(raw) // n_bytes * n_bytes]


def _check_byte_tokens(header: Header) -> None:
    tokens = header.values.get(TOKENS_KEY)
    if isinstance(tokens, Array) and not tokens.has_byte_tokens:
        raise malformed(
            header.path,
            "its SentencePiece vocabulary lacks some of the byte tokens <0x00> to <0xF4>, which "
            "stand for characters without a token",
        )


def _check_charsmap(header: Header) -> None:
    """Check that the normalizer of a Unigram vocabulary stays within its tables for any text.

    The table is a double array: an entry points to a block of 256 entries, one for each next byte.
    """
    value = header.values.get("tokenizer.ggml.precompiled_charsmap")
    if not isinstance(value, Array) or value.length < 4:
        return  # there is none, or llama.cpp refuses it by itself
    raw = _read(header, value, 1)
    n_bytes = int.from_bytes(raw[:4], "little")
    table = np.frombuffer(raw[4 : 4 + n_bytes // 4 * 4], "<u4")
    texts = raw[4 + n_bytes :]
    if not len(table) or not texts:
        return
    is_text = table >> 31 == 1
    is_text[0] = False
    base = (table >> 10) << ((table & (1 << 9)) >> 6)
    places = np.arange(len(table), dtype=np.uint32)
    target = np.where(places == 0, base, places ^ base)[~is_text]
    if int((target | _MAX_BYTE).max()) >= len(table):
        raise malformed(header.path, "the table of precompiled_charsmap points out of itself")
    has_text = (table >> 8 & 1 == 1)[~is_text]
    found = table[target[has_text]] & ((1 << 31) - 1)
    if texts[-1] or (len(found) and int(found.max()) >= len(texts)):
        raise malformed(header.path, "the texts of precompiled_charsmap are cut off")


def check_sizes(header: Header, architecture: str) -> None:
    """Refuse numbers on which llama.cpp does not fail but ends the process.

    Raises:
        GGUFFormatError: There is such a number.
    """
    for name in ("attention.layer_norm_epsilon", "attention.layer_norm_rms_epsilon"):
        epsilon = value_of(header, f"{architecture}.{name}", float)
        if epsilon is not None and not (math.isfinite(epsilon) and epsilon >= 0):
            raise malformed(header.path, f"{architecture}.{name} is {epsilon}")
    scaling = value_of(header, f"{architecture}.rope.scaling.type", str)
    if scaling is not None and scaling not in ROPE_SCALINGS:
        raise malformed(header.path, f"the rope scaling {scaling!r} is unknown")
    n_layer = _count(header, architecture, "block_count")
    n_nextn = _count(header, architecture, "nextn_predict_layers")
    if n_nextn > n_layer:
        raise malformed(header.path, f"{n_nextn} of {n_layer} layers predict tokens further on")
    _check_experts(header, architecture)
    _check_widths(header, architecture)


def _count(header: Header, architecture: str, name: str, default: int = 0) -> int:
    """Read a number; of a list with one for each layer, the first."""
    key = f"{architecture}.{name}"
    value = header.values.get(key)
    if isinstance(value, Array):
        return int(value.items[0]) if value.items else default
    value = value_of(header, key, int)
    return default if value is None else value


def _check_experts(header: Header, architecture: str) -> None:
    n_experts = _count(header, architecture, "expert_count")
    used = header.values.get(f"{architecture}.expert_used_count", 0)
    n_used = max(used.items, default=0) if isinstance(used, Array) else used
    if architecture in _ONE_EXPERT_IS_NONE and n_experts <= 1:
        n_experts = n_used = 0
    in_range = isinstance(n_used, int) and min(n_experts, 1) <= n_used <= n_experts
    if n_experts > MAX_EXPERTS or not in_range:
        raise malformed(header.path, f"{n_used} of {n_experts} experts are used")
    n_groups = _count(header, architecture, "expert_group_count")
    n_groups_used = _count(header, architecture, "expert_group_used_count")
    if n_groups and n_groups >= n_experts:
        raise malformed(header.path, f"{n_experts} experts are in {n_groups} groups")
    if n_groups > 1 and (n_experts % n_groups or not 0 < n_groups_used < n_groups):
        raise malformed(
            header.path, f"{n_groups_used} of {n_groups} groups of {n_experts} experts are used"
        )


def _check_widths(header: Header, architecture: str) -> None:
    n_embd = _count(header, architecture, "embedding_length")
    n_out = _count(header, architecture, "embedding_length_out", n_embd)
    if n_out not in (0, n_embd) and architecture not in _OWN_OUTPUT_WIDTH:
        raise malformed(header.path, f"its vectors have {n_out} components, its rows {n_embd}")
    n_head = _count(header, architecture, "attention.head_count")
    if architecture not in _EQUAL_HEADS:
        return
    head = n_embd // n_head if n_head > 0 else 0
    key = _count(header, architecture, "attention.key_length", head)
    value = _count(header, architecture, "attention.value_length", head)
    if key != value:
        raise malformed(header.path, f"its attention keys are {key} long, its values {value}")
    n_kv = _count(header, architecture, "attention.head_count_kv", n_head)
    if architecture in _HEADS_FILL_ROW and (
        key < 1 or n_head * key != n_embd or n_kv < 1 or n_head % n_kv
    ):
        raise malformed(
            header.path,
            f"{n_head} attention heads, {n_kv} of them with keys, of {key} do not fill a row of "
            f"{n_embd}",
        )
    n_rot = _count(header, architecture, "rope.dimension_count", key)
    if architecture not in _NO_ROPE and (n_rot > key or n_rot % 2):
        raise malformed(header.path, f"{n_rot} of {key} components of a head are rotated")
