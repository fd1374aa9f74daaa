"""Settings of one model and of the engine, checked when they are made.

A value comes from the first of these that has it: the call itself, an environment variable, the
TOML file that ``EMBELLAMA_CONFIG`` names, the default. ``config.sources`` says which it was.

The TOML file has the fields of `EngineConfig` at its top level, a ``[model]`` table with the
defaults of every `ModelConfig`, one ``[[models]]`` table for each model to load, and a ``[server]``
table for ``embellama serve``::

    memory_limit_bytes = 2_000_000_000

    [model]
    n_threads = 4

    [[models]]
    model_path = "minilm"
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    ByteSize,
    ConfigDict,
    Field,
    PrivateAttr,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.functional_validators import ModelWrapValidatorHandler

from embellama.errors import ConfigurationError
from embellama.types import PoolingType

CONFIG_FILE_VARIABLE = "EMBELLAMA_CONFIG"

MAX_SEQUENCES = 256
"""Most sequences in one call. Source: ``LLAMA_MAX_SEQ`` in llama.cpp's llama-cparams.h."""

MAX_THREADS = 512
"""Most threads of one call. Source: ``GGML_MAX_N_THREADS`` in ggml.h."""

MAX_CONTEXTS = 64
"""Most contexts of a model: more threads than that compute on no machine we know faster."""

MAX_REQUESTS = 1 << 20
"""Most calls in flight: a thread or a task waits in each."""

MAX_P = 64
"""Largest p of a p-norm: far beyond where only the largest component counts."""

MAX_CONTEXT = 1 << 24
"""A sanity bound on token counts, far above any model's table, far below where int32 ends."""


class LayeredConfig(BaseModel):
    """A frozen pydantic model that fills unset fields from the environment and the TOML file."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    environment_variables: ClassVar[Mapping[str, str]] = {}
    secrets: ClassVar[frozenset[str]] = frozenset()
    """Fields whose values no message shows."""
    _sources: dict[str, str] = PrivateAttr(default_factory=dict)

    @property
    def sources(self) -> dict[str, str]:
        """Where each field's value came from: explicit, environment, file or default."""
        return {name: self._sources.get(name, "default") for name in type(self).model_fields}

    @classmethod
    def _file_values(cls, document: Mapping[str, Any]) -> Mapping[str, Any]:
        return document

    @classmethod
    def _explicit_names(cls, data: Mapping[str, Any]) -> set[str]:
        return {name for name, value in data.items() if value is not None}

    @classmethod
    def _layer(cls, data: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
        """Merge the layers under the explicit values; say where each came from."""
        explicit = cls._explicit_names(data)
        merged = dict(data)
        sources = dict.fromkeys(explicit, "explicit")
        for name, variable in cls.environment_variables.items():
            if name not in explicit and _is_set(variable):
                merged[name] = os.environ[variable].strip()
                sources[name] = f"environment: {variable}"
        path, document = read_config_file()
        for name, value in cls._file_values(document).items():
            if name not in sources:
                merged[name] = value
                sources[name] = f"file: {path}"
        return merged, sources

    @model_validator(mode="wrap")
    @classmethod
    def _build(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if not isinstance(data, Mapping):  # an instance, validated before
            return handler(data)
        merged, sources = cls._layer(data)
        try:
            config = handler(merged)
        except ValidationError as exc:
            raise ConfigurationError(_describe(cls, exc, sources)) from exc
        config._sources = sources
        config._check_together()
        return config

    def _check_together(self) -> None:
        """Raise ConfigurationError where fields contradict each other."""


def _is_set(variable: str) -> bool:
    return bool(os.environ.get(variable, "").strip())


def _describe(cls: type[LayeredConfig], exc: ValidationError, sources: Mapping[str, str]) -> str:
    lines = []
    for error in exc.errors():
        name = ".".join(str(part) for part in error["loc"]) or cls.__name__
        field = str(error["loc"][0]) if error["loc"] else ""
        origin = sources.get(field, "explicit")
        source = "" if origin == "explicit" else f" (from {origin})"
        if error["type"] == "extra_forbidden":
            known = ", ".join(sorted(cls.model_fields))
            lines.append(f"{name} is not a setting{source}; {cls.__name__} has: {known}")
        elif error["loc"]:
            shown = "(hidden)" if field in cls.secrets else repr(error["input"])
            lines.append(f"{name} = {shown}{source}: {error['msg'].removeprefix('Value error, ')}")
        else:
            lines.append(error["msg"])
    return f"{cls.__name__}: " + "; ".join(lines)


def read_config_file() -> tuple[Path | None, dict[str, Any]]:
    """Read the TOML file that ``EMBELLAMA_CONFIG`` names.

    Returns:
        Its path and content; ``(None, {})`` where the variable is not set.

    Raises:
        ConfigurationError: The file is missing, unreadable, or not TOML.
    """
    name = os.environ.get(CONFIG_FILE_VARIABLE, "").strip()
    if not name:
        return None, {}
    path = Path(name).expanduser()
    try:
        return path, tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise ConfigurationError(
            f"{CONFIG_FILE_VARIABLE} names {str(path)!r}, which cannot be read "
            f"({exc.strerror or exc}); correct the path or unset the variable"
        ) from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise ConfigurationError(f"{str(path)!r} is not valid TOML: {exc}") from exc


class ModelConfig(LayeredConfig):
    """Settings of one model.

    Attributes:
        model_path: A path to a GGUF, or anything else `EmbeddingEngine.load_model` takes.
        model_name: The name to call it by; the catalogue's name or the file's stem if unset.
        n_ctx: Per-text limit in tokens, special tokens included. Unset: the model's own.
        context_size: Another name of ``n_ctx``; both always hold the same value.
        max_batch_tokens: Tokens in one micro-batch. A single longer text still goes alone.
        max_batch_requests: Texts in one micro-batch, at most 256.
        n_threads: CPU threads of one forward pass. Unset: the physical cores this process may use.
        n_contexts: Contexts that compute at the same time on one copy of the weights, each with
            ``n_threads`` if both are set. Unset: chosen by the work, ``n_threads`` in all: one
            for a single text, contexts of one thread for many.
        tuning: ``"auto"`` takes what ``embellama tune`` found for this model on this machine in
            place of defaults; ``"off"`` does not look.
        backend: What computes: ``"auto"`` takes kernels of our own for encoders of the BERT
            family on a CPU where they fit and agree with llama.cpp, and llama.cpp everywhere else;
            ``"native"`` is an error where they do not fit; ``"llama"`` is always llama.cpp.
        compute_type: What the native kernels multiply; sums are float32. ``"auto"``: float32 for
            files of F32 tensors alone, bfloat16 for others where the CPU has it. ``"int8"``: the
            bytes of a Q8_0 file as they are, with activations rounded to bytes, as llama.cpp does;
            ``"auto"`` does so where the CPU has byte products and no bfloat16.
        n_gpu_layers: Layers to put on the GPU. Unset: all of them where a GPU is used.
        use_gpu: True asks for a GPU and fails without one; ``"auto"`` takes one that is there.
        main_gpu: This GPU alone takes the model, counted as ``embellama doctor`` lists them.
        split_mode: How several GPUs share a model: ``"none"`` uses ``main_gpu``, or the first;
            ``"layer"`` gives each some layers, ``"row"`` some rows of each matrix. Unset: by
            layers.
        use_mmap: Map the file instead of reading it.
        use_mlock: Keep the weights from being swapped out.
        flash_attn: Fused attention; ``"auto"`` lets llama.cpp decide.
        pooling_type: How token rows become one vector. Unset: what the file or the catalogue says.
        normalization: ``"l2"`` scales every vector to length 1; a number p its p-norm to 1;
            ``"max_abs"`` its largest component to 32760; ``"none"`` leaves it.
        prompts: What to put before a text, by role (``"query"``, ``"document"``) or any other
            name. They add to the catalogue's and replace those of the same name.
        matryoshka_dims: Shorter lengths the model was trained for, where the catalogue does not
            say it.
    """

    environment_variables = {
        "n_ctx": "EMBELLAMA_CONTEXT_SIZE",
        "n_threads": "EMBELLAMA_N_THREADS",
        "use_gpu": "EMBELLAMA_USE_GPU",
        "max_batch_requests": "EMBELLAMA_BATCH_SIZE",
        "backend": "EMBELLAMA_BACKEND",
    }

    model_path: str | Path | None = None
    model_name: str | None = Field(default=None, min_length=1)
    n_ctx: int | None = Field(default=None, ge=1, le=MAX_CONTEXT)
    context_size: int | None = Field(default=None, ge=1, le=MAX_CONTEXT)
    max_batch_tokens: int = Field(default=256, ge=1, le=MAX_CONTEXT)
    max_batch_requests: int = Field(default=64, ge=1, le=MAX_SEQUENCES)
    n_threads: int | None = Field(default=None, ge=1, le=MAX_THREADS)
    n_contexts: int | None = Field(default=None, ge=1, le=MAX_CONTEXTS)
    tuning: Literal["auto", "off"] = "auto"
    backend: Literal["auto", "llama", "native"] = "auto"
    compute_type: Literal["auto", "bf16", "f32", "int8"] = "auto"
    n_gpu_layers: int | None = Field(default=None, ge=0, le=10_000)
    use_gpu: bool | Literal["auto"] = "auto"
    main_gpu: int | None = Field(default=None, ge=0, le=255)
    split_mode: Literal["none", "layer", "row"] | None = None
    use_mmap: bool = True
    use_mlock: bool = False
    flash_attn: bool | Literal["auto"] = "auto"
    pooling_type: PoolingType | None = None
    normalization: Literal["l2", "none", "max_abs"] | Annotated[int, Field(ge=1, le=MAX_P)] = "l2"
    prompts: Mapping[Annotated[str, Field(min_length=1)], str] | None = None
    matryoshka_dims: tuple[Annotated[int, Field(ge=1)], ...] | None = None

    @classmethod
    def _file_values(cls, document: Mapping[str, Any]) -> Mapping[str, Any]:
        table = document.get("model", {})
        if not isinstance(table, dict):
            raise ConfigurationError(f"'model' in the configuration file is {table!r}, not a table")
        return _with_both_context_names(table)

    @classmethod
    def _explicit_names(cls, data: Mapping[str, Any]) -> set[str]:
        return super()._explicit_names(_with_both_context_names(data))

    @classmethod
    def _layer(cls, data: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
        merged, sources = super()._layer(data)
        merged = _with_both_context_names(merged)
        for name, other in (("n_ctx", "context_size"), ("context_size", "n_ctx")):
            if other in sources:
                sources.setdefault(name, sources[other])
        return merged, sources

    @classmethod
    def _from_layer(cls, values: Mapping[str, Any], origins: Mapping[str, str]) -> Self:
        """Build from values that another configuration holds, and keep where they came from."""
        given = {name: value for name, value in values.items() if value is not None}
        config = cls(**given)
        explicit = [name for name, origin in config.sources.items() if origin == "explicit"]
        config._sources.update({name: origins.get(name, "explicit") for name in explicit})
        return config

    @classmethod
    def _from_file(cls, values: Mapping[str, Any], origin: str) -> Self:
        """Build from a table of the TOML file, over which environment variables win."""
        won = {name for name, variable in cls.environment_variables.items() if _is_set(variable)}
        if "n_ctx" in won:
            won.add("context_size")
        kept = {name: value for name, value in values.items() if name not in won}
        return cls._from_layer(kept, dict.fromkeys(cls.model_fields, origin))

    def _check_together(self) -> None:
        if self.n_ctx != self.context_size:
            raise ConfigurationError(
                f"n_ctx = {self.n_ctx} and context_size = {self.context_size} are two names of "
                "one setting; give one of them"
            )
        if self.use_gpu is False and self.n_gpu_layers:
            raise ConfigurationError(
                f"n_gpu_layers = {self.n_gpu_layers} needs a GPU, but use_gpu = False; "
                "drop one of the two"
            )
        off = "use_gpu = False" if self.use_gpu is False else "n_gpu_layers = 0"
        for name in ("main_gpu", "split_mode"):
            value = getattr(self, name)
            if value is not None and (self.use_gpu is False or self.n_gpu_layers == 0):
                raise ConfigurationError(
                    f"{name} = {value!r} needs a GPU, but {off}; drop one of the two"
                )
        if self.main_gpu is not None and self.split_mode in ("layer", "row"):
            raise ConfigurationError(
                f"main_gpu = {self.main_gpu} puts the model on one GPU, and split_mode = "
                f"{self.split_mode!r} on all of them; drop one of the two"
            )
        if self.use_gpu is True and self.n_gpu_layers == 0:
            raise ConfigurationError(
                "use_gpu = True with n_gpu_layers = 0 puts nothing on the GPU; drop one of the two"
            )


def _with_both_context_names(values: Mapping[str, Any]) -> dict[str, Any]:
    both = dict(values)
    if both.get("n_ctx") is None and both.get("context_size") is not None:
        both["n_ctx"] = both["context_size"]
    elif both.get("context_size") is None and both.get("n_ctx") is not None:
        both["context_size"] = both["n_ctx"]
    return both


_OTHERS_TABLES = ("model", "server")
"""Tables of the TOML file that are not the engine's."""

_SIZE = TypeAdapter(ByteSize)

_ONE_MODELS_SETTINGS = ("context_size", "n_threads", "use_gpu")
"""Fields of the engine's short form that mean nothing without its model."""


class EngineConfig(LayeredConfig):
    """Settings of an engine.

    The first fields are the short form for one model; they become the first of ``models``.

    Attributes:
        model_path: A path to a GGUF, or anything else `EmbeddingEngine.load_model` takes.
        model_name: The name to call it by.
        context_size: Its per-text limit in tokens.
        n_threads: CPU threads of one forward pass.
        use_gpu: Whether it runs on a GPU.
        models: Models the engine loads by itself.
        lazy: Load a configured or catalogued model when it is first asked for.
        memory_limit_bytes: Most bytes of weights, and of the contexts made so far, that a load may
            leave in memory; a number, or written ``"2GB"`` or ``"512MiB"``. Idle models make room.
        max_concurrent_requests: Calls that may run or wait at the same time; one more is refused
            with `OverloadedError`.
        n_jobs: Threads that tokenize. Unset: the cores this process may use.
        unload_timeout_s: How long an unload waits for running work.
        cache_path: Where downloads and conversions are kept. Unset: the user's cache directory.
        offline: Use only what is stored already.
    """

    environment_variables = {
        "model_path": "EMBELLAMA_MODEL_PATH",
        "model_name": "EMBELLAMA_MODEL_NAME",
        "context_size": "EMBELLAMA_CONTEXT_SIZE",
        "n_threads": "EMBELLAMA_N_THREADS",
        "use_gpu": "EMBELLAMA_USE_GPU",
        "memory_limit_bytes": "EMBELLAMA_MEMORY_LIMIT",
        "cache_path": "EMBELLAMA_CACHE_PATH",
    }

    model_path: str | Path | None = None
    model_name: str | None = Field(default=None, min_length=1)
    context_size: int | None = Field(default=None, ge=1, le=MAX_CONTEXT)
    n_threads: int | None = Field(default=None, ge=1, le=MAX_THREADS)
    use_gpu: bool | Literal["auto"] | None = None
    models: tuple[ModelConfig, ...] = ()
    lazy: bool = False
    memory_limit_bytes: int | None = Field(default=None, ge=1)
    max_concurrent_requests: int = Field(default=4096, ge=1, le=MAX_REQUESTS)
    n_jobs: int | None = Field(default=None, ge=1, le=MAX_THREADS)
    unload_timeout_s: float = Field(default=60.0, ge=0.0)
    cache_path: Path | None = None
    offline: bool = False

    @field_validator("memory_limit_bytes", mode="before")
    @classmethod
    def _in_bytes(cls, value: object) -> object:
        return int(_SIZE.validate_python(value)) if isinstance(value, str) else value

    @classmethod
    def _file_values(cls, document: Mapping[str, Any]) -> Mapping[str, Any]:
        return {name: value for name, value in document.items() if name not in _OTHERS_TABLES}

    @classmethod
    def _layer(cls, data: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
        merged, sources = super()._layer(data)
        if merged.get("model_path") is None and merged.get("model_name") is None:
            # variables about one model speak to each of ``models`` by themselves
            for name in _ONE_MODELS_SETTINGS:
                if sources.get(name, "").startswith("environment"):
                    del merged[name], sources[name]
        origin = sources.get("models", "")
        if origin.startswith("file") and isinstance(merged["models"], list):
            merged["models"] = tuple(
                ModelConfig._from_file(entry, origin) if isinstance(entry, dict) else entry
                for entry in merged["models"]
            )
        return merged, sources

    def _check_together(self) -> None:
        given = [name for name in _ONE_MODELS_SETTINGS if getattr(self, name) is not None]
        if given and self.model_path is None and self.model_name is None:
            raise ConfigurationError(
                f"{', '.join(given)} describe one model: give model_path too, "
                "or set them on a ModelConfig"
            )

    @property
    def all_models(self) -> tuple[ModelConfig, ...]:
        """The short form's model, if any, and then ``models``."""
        if self.model_path is None and self.model_name is None:
            return self.models
        values: dict[str, Any] = {
            "model_path": self.model_path if self.model_path is not None else self.model_name,
            "model_name": self.model_name,
            "context_size": self.context_size,
            "n_threads": self.n_threads,
            "use_gpu": self.use_gpu,
        }
        origins = {**self.sources, "n_ctx": self.sources["context_size"]}
        return (ModelConfig._from_layer(values, origins), *self.models)
