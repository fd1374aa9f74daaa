"""What a user may write where a model is wanted, taken apart.

::

    minilm                          a catalogue name, in its default file type
    minilm:Q8_0                     … in another one
    models/bge.gguf                 a file (of a split one, any part)
    hf:owner/repo:Q4_K_M            the one GGUF of that type in a repository of the hub
    hf:owner/repo@revision:Q4_K_M   … as it was at a branch, tag or commit ("/" written %2F)
    hf:owner/repo/folder/file.gguf  one file of a repository, also with @revision
"""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeAlias
from urllib.parse import unquote

from embellama.errors import InvalidInputError, InvalidInputTypeError, ModelNotFoundError
from embellama.gguf_header import printable
from embellama.hub.catalog import CatalogEntry, find, load_catalog

FILE_TYPES = (
    "F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q5_K_S", "Q5_1", "Q5_0", "Q4_K_M", "Q4_K_S",
    "Q4_1", "Q4_0", "Q3_K_L", "Q3_K_M", "Q3_K_S", "Q2_K", "Q2_K_S", "IQ4_NL", "IQ4_XS", "IQ3_M",
    "IQ3_S", "IQ3_XS", "IQ3_XXS", "IQ2_M", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S",
)  # fmt: skip
"""Names of GGUF file types. Source: the table of llama.cpp's tools/quantize/quantize.cpp."""

_REPOSITORY = re.compile(r"(?P<repository>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?P<rest>.*)")
_SUFFIX = re.compile(r"(?:@(?P<revision>[^/:@]+))?(?:/(?P<file>.+)|:(?P<file_type>[\w.-]+))?")
_SPLIT_PART = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$", re.IGNORECASE)

HUB_FORMS = (
    "hf:owner/repo:QUANT, hf:owner/repo@revision:QUANT or hf:owner/repo[@revision]/file.gguf"
)


@dataclass(frozen=True, slots=True)
class CatalogReference:
    """A row of the catalogue.

    Attributes:
        entry: The row.
        file_type: The type asked for, or the row's default.
    """

    entry: CatalogEntry
    file_type: str


@dataclass(frozen=True, slots=True)
class FileReference:
    """A file on this machine, which may not exist."""

    path: Path


@dataclass(frozen=True, slots=True)
class HubReference:
    """Something in a repository of the hub.

    Attributes:
        repository: ``owner/name``.
        revision: Branch, tag or commit; None means the default branch.
        file: Path inside the repository, where one was named.
        file_type: What the name of the wanted file says about its type, where one was asked for.
    """

    repository: str
    revision: str | None = None
    file: str | None = None
    file_type: str | None = None

    def __str__(self) -> str:
        """Write it the way the user would."""
        revision = f"@{self.revision}" if self.revision else ""
        tail = f"/{self.file}" if self.file else f":{self.file_type}" if self.file_type else ""
        return f"hf:{self.repository}{revision}{tail}"


Reference: TypeAlias = CatalogReference | FileReference | HubReference


def parse_reference(model: str | Path) -> Reference:
    """Tell what is meant by a model's name.

    A ``Path`` is always a file. A catalogue name wins over a file of the same name in the current
    directory; write ``./minilm`` for the file.

    Raises:
        InvalidInputError: It is empty, not text, or a malformed ``hf:`` reference.
        ModelNotFoundError: It looks like a catalogue name and is none.
    """
    if isinstance(model, Path):
        return FileReference(_expanded(model))
    if not isinstance(model, str):
        raise InvalidInputTypeError(
            f"a model is named by a str or a Path, not {type(model).__name__}: {model!r:.80}"
        )
    text = model.strip()
    if not text:
        raise InvalidInputError('the model name is empty; write "minilm", a path, or hf:owner/repo')
    if text.lower().startswith("hf:"):
        return _parse_hub(text)
    if (known := _parse_catalogue(text)) is not None:
        return known
    if _looks_like_path(text):
        return FileReference(_expanded(Path(text)))
    raise ModelNotFoundError(_unknown_name(text))


def _expanded(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError as exc:
        raise InvalidInputError(
            f"{str(path)!r} begins with a user whose home directory is not known; write the path "
            "in full"
        ) from exc


def _parse_hub(text: str) -> HubReference:
    match = _REPOSITORY.fullmatch(text[3:])
    parts = _SUFFIX.fullmatch(match["rest"]) if match else None
    if match is None or parts is None:
        raise InvalidInputError(f"{text!r} is not a reference to the hub; write {HUB_FORMS}")
    file = parts["file"]
    if file is not None:
        if not file.lower().endswith(".gguf") or ".." in PurePosixPath(file).parts or "\\" in file:
            raise InvalidInputError(
                f"{text!r} names the file {file!r}; it has to be a .gguf inside the repository "
                f"({HUB_FORMS})"
            )
        file = str(PurePosixPath(file))
    revision = unquote(parts["revision"]) if parts["revision"] else None
    return HubReference(match["repository"], revision, file, parts["file_type"])


def _parse_catalogue(text: str) -> CatalogReference | None:
    entry = find(text)
    if entry is not None:
        return CatalogReference(entry, entry.default_file_type)
    name, colon, file_type = text.rpartition(":")
    entry = find(name) if colon else None
    if entry is None:
        return None
    return CatalogReference(entry, known_file_type(file_type))


def known_file_type(name: str) -> str:
    """Give the name of a file type in its usual spelling.

    Raises:
        InvalidInputError: llama.cpp knows no such type.
    """
    wanted = name.strip().upper()
    if wanted in FILE_TYPES:
        return wanted
    close = difflib.get_close_matches(wanted, FILE_TYPES, n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(FILE_TYPES)}"
    raise InvalidInputError(f"{name!r} is not a GGUF file type; {hint}")


def _looks_like_path(text: str) -> bool:
    separators = {os.sep, os.altsep or os.sep, "/"}
    return (
        text.lower().endswith(".gguf")
        or any(separator in text for separator in separators)
        or os.path.exists(text)
    )


def _unknown_name(text: str) -> str:
    names = [name for entry in load_catalog().values() for name in (entry.name, *entry.aliases)]
    wanted = text.rpartition(":")[0] or text
    close = difflib.get_close_matches(
        wanted.lower(), [name.lower() for name in names], n=3, cutoff=0.5
    )
    hint = f"did you mean {' or '.join(close)}?" if close else "`embellama models` lists them"
    return f"no model named {text!r} in the catalogue and no such file; {hint}"


def split_parts(name: str) -> tuple[str, ...]:
    """Name every part of a split GGUF, the first part first; a whole file is its only part."""
    match = _SPLIT_PART.search(name)
    if match is None:
        return (name,)
    n_parts = int(match[2])
    stem, end = name[: match.start()], name[-len(".gguf") :]
    return tuple(f"{stem}-{i:05d}-of-{n_parts:05d}{end}" for i in range(1, n_parts + 1))


def plain_stem(name: str) -> str:
    """Give a file's name without folders, ``.gguf`` and the number of its part."""
    path = PurePosixPath(_SPLIT_PART.sub("", name.replace("\\", "/")))
    return printable(path.name.removesuffix(".gguf"))


def choose_file(names: list[str], file_type: str | None, *, where: str) -> str:
    """Choose the GGUF of a file type by the files' names.

    Args:
        names: Paths inside a repository.
        file_type: The type as it stands in a name, in any case; None where there is no choice.
        where: What to call the repository in an error.

    Returns:
        The file, or the first part of a split one.

    Raises:
        ModelNotFoundError: No file matches, or more than one; the message lists the candidates.
    """
    models = [name for name in names if name.lower().endswith(".gguf")]
    whole = sorted({split_parts(name)[0] for name in models if "mmproj" not in name.lower()})
    if not whole:
        raise ModelNotFoundError(
            f"{where} holds no GGUF; look for a repository of the same model with GGUF in its "
            "name, or convert the folder with `embellama convert`"
        )
    matching = whole
    if file_type is not None:
        token = re.compile(rf"(?<![A-Za-z0-9]){re.escape(file_type)}(?![A-Za-z0-9_])", re.I)
        matching = [name for name in whole if token.search(name)]
    if len(matching) == 1:
        return matching[0]
    problem = "no GGUF" if not matching else f"{len(matching)} GGUFs"
    kind = f" of type {file_type!r}" if file_type else ""
    raise ModelNotFoundError(
        f"{where} has {problem}{kind}; name one of: {', '.join(matching or whole)}"
    )
