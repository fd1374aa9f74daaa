"""``embellama info``: what a model is, from its file or its row of the catalogue."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embellama.cli.models import JsonOption
from embellama.cli.settings import Settings, loaded, resolve, settings_of
from embellama.cli.tables import in_units, show_fields, tensor_summary
from embellama.errors import DownloadError, ModelNotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from embellama.gguf import GGUFMetadata
    from embellama.hub.catalog import CatalogEntry
    from embellama.model_info import ModelInfo

Fields = list[tuple[str, object]]


def info_command(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="What to describe, e.g. minilm.")],
    load: Annotated[
        bool, typer.Option("--load", help="Load it, and tell how it runs on this machine.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Describe a model without loading it.

    Nothing is fetched: of a model that is not stored, the catalogue's row is shown. With --load
    it is fetched and loaded, and what was decided about it is shown: its fingerprint, limit,
    pooling, prompts, backend, device, memory.
    """
    settings = settings_of(ctx)
    if load:
        with loaded(settings, model) as (engine, info):
            described: ModelInfo = engine.warmup_model(info.name)
        _show(described.to_dict(), _of_loaded(described), as_json=as_json)
        return
    metadata, entry = _read(settings, model)
    values = _metadata_values(metadata) | ({"catalogue": _plain(entry)} if entry else {})
    fields = _of_file(metadata) if metadata else []
    if metadata is not None:
        values["backend"] = _expected_backend(settings, model, metadata, entry)
        fields.append(("backend", values["backend"]))
    fields.extend(_of_entry(entry) if entry else ())
    if metadata is None:
        fields.insert(0, ("stored", f"no; `embellama pull {model}` fetches it"))
    _show(values, fields, as_json=as_json)


def _show(values: dict[str, Any], fields: Fields, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(values, ensure_ascii=False, indent=1))
    else:
        show_fields(fields)


def _read(settings: Settings, model: str) -> tuple[GGUFMetadata | None, CatalogEntry | None]:
    """Read the file if it is stored; else there has to be a row of the catalogue."""
    from embellama.gguf import read_metadata  # noqa: PLC0415
    from embellama.hub.reference import CatalogReference, parse_reference  # noqa: PLC0415

    try:
        resolved = resolve(settings, model, offline=True)
    except DownloadError as exc:
        reference = parse_reference(model)
        if isinstance(reference, CatalogReference):
            return None, reference.entry
        raise ModelNotFoundError(
            f"{model} is not stored; fetch it with `embellama pull {model}`, or give --load"
        ) from exc
    return read_metadata(resolved.path), resolved.entry


_PLACES_OF_TABLES = ("tensors", "token_table", "token_type_table")
"""Where some weights are in the file: nothing that helps to choose or to use a model."""


def _plain(value: Any) -> dict[str, Any]:
    """Return a dataclass as values that JSON can hold."""
    return {
        name: dict(item)
        if hasattr(item, "items")
        else str(item)
        if hasattr(item, "parts")
        else item
        for name, item in asdict(value).items()
    }


def _metadata_values(metadata: GGUFMetadata | None) -> dict[str, Any]:
    if metadata is None:
        return {"path": None}
    values = _plain(metadata) | {"paths": [str(path) for path in metadata.paths]}
    return {name: value for name, value in values.items() if name not in _PLACES_OF_TABLES}


def _of_file(metadata: GGUFMetadata) -> Fields:
    return [
        ("name", metadata.name),
        ("file", metadata.path),
        ("parts", len(metadata.paths) if len(metadata.paths) > 1 else None),
        ("size", in_units(metadata.size_bytes)),
        ("architecture", metadata.architecture),
        ("embedder", None if metadata.is_embedder else "no, made to generate text"),
        ("file type", f"{metadata.file_type} ({tensor_summary(metadata.tensor_types)})"),
        ("dimensions", metadata.n_embd),
        ("context", f"{metadata.n_ctx_train} tokens, {metadata.position_encoding} positions"),
        ("layers", f"{metadata.n_layer}, {metadata.n_head} heads"),
        ("pooling", metadata.pooling_type or "not in the file"),
        ("attention", {True: "causal", False: "both ways"}.get(bool(metadata.causal))
         if metadata.causal is not None else None),
        ("vocabulary", f"{metadata.vocab_kind}, {metadata.n_vocab} tokens"),
        ("special tokens", ", ".join(_special_tokens(metadata)) or "none named"),
    ]  # fmt: skip


def _special_tokens(metadata: GGUFMetadata) -> Iterator[str]:
    for name, token_id, added in (
        ("bos", metadata.bos_token_id, metadata.add_bos),
        ("eos", metadata.eos_token_id, metadata.add_eos),
        ("sep", metadata.sep_token_id, metadata.add_sep),
    ):
        if token_id is not None:
            yield f"{name} {token_id}" + {True: " (added)", False: " (not added)", None: ""}[added]


def _expected_backend(
    settings: Settings, model: str, metadata: GGUFMetadata, entry: CatalogEntry | None
) -> str:
    """Say which backend a load with the same settings would choose."""
    from embellama.cli.backend_choice import expected_backend  # noqa: PLC0415
    from embellama.loading import pooling_for  # noqa: PLC0415

    config = settings.model_config(model)
    pooling = pooling_for(metadata, entry, config)
    return expected_backend(metadata, config, pooling.pooling_type)


def _of_entry(entry: CatalogEntry) -> Fields:
    dims = ", ".join(map(str, entry.matryoshka_dims))
    return [
        ("catalogue", entry.name),
        ("also called", ", ".join(entry.aliases) or None),
        ("repository", entry.repository),
        ("GGUF from", entry.gguf_repository or ("converted here" if entry.convertible else None)),
        ("licence", entry.license),
        ("vectors", f"{entry.n_embd} dimensions, {entry.pooling_type} pooling"),
        ("text limit", f"{entry.n_ctx} tokens{_recommended(entry.n_ctx_recommended)}"),
        ("shorter vectors", dims or None),
        *_of_prompts(entry.prompts),
        ("model card", entry.source),
        ("checked", entry.checked or "no; the row was compared with no other source"),
        ("note", entry.note or None),
    ]


def _of_prompts(prompts: Mapping[str, str]) -> Fields:
    return [(f"prompt {name}", repr(text)) for name, text in prompts.items() if text]


def _recommended(n_ctx: int | None) -> str:
    return f" (its authors cut at {n_ctx})" if n_ctx else ""


def where_it_runs(info: ModelInfo) -> str:
    """Name the device, and how much of the model really is on it."""
    if not info.n_layers_offloaded:
        return info.device
    rest = " and the rest on the CPU" * (info.n_layers_offloaded < info.n_layers_offloadable)
    return f"{info.device}, {info.n_layers_offloaded} of {info.n_layers_offloadable} layers{rest}"


def _of_loaded(info: ModelInfo) -> Fields:
    phases = ", ".join(f"{name} {s * 1e3:.0f}" for name, s in info.load_s.items())
    return [
        ("name", info.name),
        ("fingerprint", info.fingerprint),
        ("file", info.path),
        ("size", in_units(info.size_bytes)),
        ("architecture", info.architecture),
        ("file type", f"{info.file_type} ({tensor_summary(info.tensor_types)})"),
        ("dimensions", info.n_embd),
        ("text limit", f"{info.n_ctx} tokens{_recommended(info.n_ctx_recommended)}"),
        ("layers", f"{info.n_layer}, {info.n_head} heads"),
        ("pooling", f"{info.pooling_type} (from: {info.pooling_source})"),
        ("normalization", info.normalization),
        ("shorter vectors", ", ".join(map(str, info.matryoshka_dims)) or None),
        *_of_prompts(info.prompts),
        ("vocabulary", f"{info.vocab_kind}, {info.n_vocab} tokens"),
        ("special tokens", f"{info.n_special_tokens} around each text"),
        ("licence", info.license),
        ("backend", info.backend),
        ("device", where_it_runs(info)),
        ("threads", f"{info.n_threads}, {info.n_contexts} context{'s' * (info.n_contexts != 1)}"),
        (
            "memory",
            f"{in_units(info.weights_bytes)} weights, {in_units(info.context_bytes)} contexts",
        ),
        ("load time", f"{phases} ms"),
    ]
