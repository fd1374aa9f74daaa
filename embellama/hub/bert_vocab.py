"""BERT's WordPiece vocabulary as llama.cpp wants it.

transformers marks what continues a word (``##ing``); llama.cpp marks what begins one, with U+2581,
and leaves special tokens as they are.
Source: ``set_vocab`` in conversion/bert.py of llama.cpp.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf.constants import TokenType

from embellama.errors import ConversionError
from embellama.hub.model_folder import read_json

WORD_START = "\u2581"
CONTINUATION = "##"

_SPECIAL_TOKENS = {"bos": "cls", "eos": "sep", "unk": "unk", "sep": "sep", "pad": "pad"} | {
    "mask": "mask"
}
"""The roles of GGUF by the roles of BERT, in the order llama.cpp's converter writes them."""

_DEFAULTS = {"cls": "[CLS]", "sep": "[SEP]", "unk": "[UNK]", "pad": "[PAD]", "mask": "[MASK]"}
_REQUIRED = ("cls", "sep", "unk")


@dataclass(frozen=True, slots=True)
class BertVocab:
    """A vocabulary ready to be written.

    Attributes:
        tokens: Texts by token id, in llama.cpp's spelling; all different.
        token_types: ``gguf.TokenType`` by token id.
        special_ids: Token ids by GGUF's role: bos, eos, unk, sep, pad, mask.
        lowercase: Whether texts are lower-cased.
        strip_accents: Whether accents are dropped; None: as ``lowercase``.
        warnings: Where llama.cpp will split a text otherwise than transformers.
    """

    tokens: list[str]
    token_types: list[int]
    special_ids: dict[str, int]
    lowercase: bool
    strip_accents: bool | None
    warnings: tuple[str, ...]


def read_bert_vocab(folder: Path, n_vocab: int) -> BertVocab:
    """Read tokenizer.json, or vocab.txt where there is none.

    Args:
        folder: Where these files are.
        n_vocab: Rows of the token table; ids without a token get a placeholder.

    Raises:
        ConversionError: There is no WordPiece vocabulary, or it does not fit the model.
    """
    config = _optional(folder / "tokenizer_config.json")
    full = _optional(folder / "tokenizer.json")
    if full:
        ids, control, added = _from_tokenizer_json(folder / "tokenizer.json", full)
    else:
        ids, control, added = _from_vocab_txt(folder), set(), set()
    roles = _special_tokens(folder, config)
    control |= {text for text in roles.values() if text in ids}
    if missing := [roles[role] for role in _REQUIRED if roles[role] not in ids]:
        raise ConversionError(f"the vocabulary in {str(folder)!r} has no {', '.join(missing)}")
    tokens, types = _spell(folder, ids, control, added, n_vocab)
    normalizer = _normalizer(full) if full else _config_normalizer(config)
    return BertVocab(
        tokens=tokens,
        token_types=types,
        special_ids={
            role: ids[roles[name]] for role, name in _SPECIAL_TOKENS.items() if roles[name] in ids
        },
        lowercase=bool(normalizer.get("lowercase", True)),
        strip_accents=normalizer.get("strip_accents"),
        warnings=_warnings(normalizer),
    )


def _optional(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _from_tokenizer_json(
    path: Path, full: Mapping[str, Any]
) -> tuple[dict[str, int], set[str], set[str]]:
    model = full.get("model") or {}
    vocab = model.get("vocab")
    kind = model.get("type", "WordPiece" if "continuing_subword_prefix" in model else None)
    if kind != "WordPiece" or not isinstance(vocab, dict):
        raise ConversionError(f"{str(path)!r} holds a {kind} vocabulary, and BERT's is WordPiece")
    if (prefix := model.get("continuing_subword_prefix", CONTINUATION)) != CONTINUATION:
        raise ConversionError(
            f"{str(path)!r} marks the inside of words by {prefix!r}; llama.cpp's WordPiece knows "
            f"only {CONTINUATION!r}"
        )
    entries = full.get("added_tokens") or []
    ids = {str(text): int(token_id) for text, token_id in vocab.items()}
    ids |= {str(entry["content"]): int(entry["id"]) for entry in entries}
    control = {str(entry["content"]) for entry in entries if entry.get("special")}
    return ids, control, {str(entry["content"]) for entry in entries} - control


def _from_vocab_txt(folder: Path) -> dict[str, int]:
    path = folder / "vocab.txt"
    try:
        # Only line feeds end a token: some tokens are other line separators of Unicode.
        lines = path.read_bytes().decode("utf-8").replace("\r\n", "\n").rstrip("\n").split("\n")
    except FileNotFoundError as exc:
        raise ConversionError(
            f"{str(folder)!r} has neither tokenizer.json nor vocab.txt; get one of them from "
            "where config.json came from"
        ) from exc
    except (OSError, UnicodeDecodeError) as exc:
        raise ConversionError(f"{str(path)!r} cannot be read: {exc}") from exc
    ids = {line: number for number, line in enumerate(lines)}
    added = _optional(folder / "added_tokens.json")
    return ids | {str(text): int(token_id) for text, token_id in added.items()}


def _special_tokens(folder: Path, config: Mapping[str, Any]) -> dict[str, str]:
    named = _optional(folder / "special_tokens_map.json") | dict(config)
    roles = dict(_DEFAULTS)
    for role in roles:
        entry = named.get(f"{role}_token")
        text = entry.get("content") if isinstance(entry, Mapping) else entry
        if isinstance(text, str) and text:
            roles[role] = text
    return roles


def _spell(
    folder: Path, ids: Mapping[str, int], control: set[str], added: set[str], n_vocab: int
) -> tuple[list[str], list[int]]:
    if not ids or min(ids.values()) < 0 or max(ids.values()) >= n_vocab:
        raise ConversionError(
            f"the vocabulary in {str(folder)!r} has {len(ids)} tokens with ids up to "
            f"{max(ids.values(), default=-1)}, and config.json has vocab_size {n_vocab}; they "
            "belong to different models"
        )
    by_id = {token_id: text for text, token_id in ids.items()}
    tokens, types = [], []
    for token_id in range(n_vocab):
        text = by_id.get(token_id)
        kind = TokenType.NORMAL
        if text is None:
            text, kind = f"[PAD{token_id}]", TokenType.UNUSED
        elif text in control:
            kind = TokenType.CONTROL
        elif text in added:
            kind = TokenType.USER_DEFINED
        if kind != TokenType.CONTROL:
            continues = text.startswith(CONTINUATION)
            text = text.removeprefix(CONTINUATION) if continues else WORD_START + text
        tokens.append(text)
        types.append(int(kind))
    if len(set(tokens)) != n_vocab:
        ((twice, _),) = Counter(tokens).most_common(1)
        raise ConversionError(
            f"the vocabulary in {str(folder)!r} has {twice!r} twice in llama.cpp's spelling, "
            "which llama.cpp cannot load"
        )
    return tokens, types


def _normalizer(full: Mapping[str, Any]) -> dict[str, Any]:
    """Collect what the steps of a tokenizer.json do to a text before it is split."""
    merged: dict[str, Any] = {"lowercase": False}
    step = full.get("normalizer") or {}
    for part in step.get("normalizers", [step]):
        match part.get("type"):
            case "Lowercase":
                merged["lowercase"] = True
            case "StripAccents":
                merged["strip_accents"] = True
            case "BertNormalizer":
                merged |= part
    return merged


def _config_normalizer(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "lowercase": config.get("do_lower_case", True),
        "strip_accents": config.get("strip_accents"),
        "handle_chinese_chars": config.get("tokenize_chinese_chars", True),
    }


def _warnings(normalizer: Mapping[str, Any]) -> tuple[str, ...]:
    if normalizer.get("handle_chinese_chars", True):
        return ()
    return ("llama.cpp splits Chinese characters one by one, and this tokenizer does not",)
