"""From a folder of transformers weights to a GGUF, bit for bit as llama.cpp's converter writes it.

Only the pooler of a cross-encoder, which that converter leaves out, is written besides.

Source: conversion/base.py and conversion/bert.py of llama.cpp for which tensor gets which type.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from gguf import GGUFWriter
from gguf.constants import (
    GGML_QUANT_SIZES,
    GGML_QUANT_VERSION,
    GGMLQuantizationType,
    GGUFType,
    LlamaFileType,
)
from gguf.constants import PoolingType as GGUFPoolingType
from gguf.quants import quant_shape_to_byte_shape, quantize
from numpy.typing import NDArray

from embellama.errors import ConversionError
from embellama.gguf_header import printable, read_header
from embellama.hub.atomic import replacing
from embellama.hub.bert import (
    CROSS_ENCODER,
    BertSettings,
    expected_tensors,
    plain_name,
    read_bert_settings,
)
from embellama.hub.bert_vocab import BertVocab, read_bert_vocab
from embellama.hub.model_folder import ModelFolder, open_model_folder
from embellama.hub.weights import SourceTensor, open_weights
from embellama.logs import log
from embellama.types import PoolingType

Progress: TypeAlias = Callable[[int, int], None]

FILE_TYPES: Mapping[str, LlamaFileType] = {
    "F32": LlamaFileType.ALL_F32,
    "F16": LlamaFileType.MOSTLY_F16,
    "BF16": LlamaFileType.MOSTLY_BF16,
    "Q8_0": LlamaFileType.MOSTLY_Q8_0,
}
CHUNK_BYTES = 8 << 20
"""Source bytes that are converted at a time; quantizing needs several times as much memory."""

UNCASED_VOCAB = 30_522
"""Tokens of bert-base-uncased, whose vocabulary llama.cpp calls "jina-v2-en"."""

_ALWAYS_F32 = ("position_embd.weight", "token_types.weight")


@dataclass(frozen=True, slots=True)
class ConversionReport:
    """What was written.

    Attributes:
        path: The GGUF.
        file_type: The type asked for.
        tensor_types: How many tensors have which type.
        n_tensors: Tensors in the file.
        size_bytes: Bytes of the file.
        duration_s: Wall time.
        warnings: Where llama.cpp will behave otherwise than transformers.
    """

    path: Path
    file_type: str
    tensor_types: Mapping[str, int]
    n_tensors: int
    size_bytes: int
    duration_s: float
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Planned:
    """A tensor as it will be written."""

    name: str
    source: SourceTensor
    kind: GGMLQuantizationType
    size_bytes: int


def convert_folder(
    source: Path,
    target: Path,
    *,
    file_type: str = "F16",
    name: str | None = None,
    progress: Progress | None = None,
) -> ConversionReport:
    """Write the BERT in a folder as one GGUF, an embedder or a cross-encoder.

    The target appears complete or not at all, and replaces what was there. Weights pass through
    memory in chunks of ``CHUNK_BYTES``. Blocks; may be called from any thread.

    Args:
        source: A sentence-transformers or transformers folder.
        target: The file to write. Its folder is made.
        file_type: F32, F16, BF16 or Q8_0.
        name: What the model calls itself; the folder's name if not given.
        progress: Called with the tensor bytes written and to write.

    Raises:
        ConversionError: The folder cannot be converted, or the target cannot be written.
        MissingDependencyError: The weights need torch, which is not installed.
    """
    started = time.perf_counter()
    source, target = Path(source).absolute(), Path(target).absolute()
    kind = _file_type(file_type)
    folder = open_model_folder(source)
    settings = read_bert_settings(folder.transformer / "config.json")
    vocab = read_bert_vocab(folder.transformer, settings.n_vocab)
    plan = _plan(open_weights(folder.transformer), settings, kind)
    writer = GGUFWriter(None, "bert")
    writer.add_type(GGUFType.MODEL)
    name = name or printable(source.name)
    writer.add_name(name)
    writer.add_file_type(kind)
    _describe_model(writer, settings, _pooling_of(folder, settings))
    _describe_vocab(writer, vocab)
    with replacing(target, sum(tensor.size_bytes for tensor in plan)) as path:
        _write(writer, path, plan, progress)
    report = _report(target, file_type.upper(), time.perf_counter() - started, vocab.warnings)
    log.info(
        "embellama.model.converted",
        model=name,
        path=str(target),
        file_type=report.file_type,
        n_tensors=report.n_tensors,
        size_bytes=report.size_bytes,
        duration_s=report.duration_s,
    )
    return report


def _report(
    target: Path, file_type: str, duration_s: float, warnings: tuple[str, ...]
) -> ConversionReport:
    header = read_header(target)
    return ConversionReport(
        path=target,
        file_type=file_type,
        tensor_types=dict(Counter(tensor.type_name for tensor in header.tensors).most_common()),
        n_tensors=len(header.tensors),
        size_bytes=header.size_bytes,
        duration_s=duration_s,
        warnings=warnings,
    )


def _file_type(name: str) -> LlamaFileType:
    if name.upper() not in FILE_TYPES:
        raise ConversionError(
            f"cannot convert to {name!r}; convert to {', '.join(FILE_TYPES)}, and make other "
            "types from that with: embellama quantize"
        )
    return FILE_TYPES[name.upper()]


def _plan(
    weights: Mapping[str, SourceTensor], settings: BertSettings, file_type: LlamaFileType
) -> list[_Planned]:
    expected = expected_tensors(settings)
    plan: list[_Planned] = []
    for raw_name, tensor in weights.items():
        if (plain := plain_name(raw_name, settings)) is None:
            continue
        if plain not in expected:
            raise ConversionError(
                f"the weights hold {raw_name!r} {tensor.shape}, which is not a part of a BERT of "
                f"{settings.n_layer} layers, or is there twice; config.json and weights do not "
                "belong together"
            )
        name, shape = expected.pop(plain)
        if tensor.shape != shape:
            raise ConversionError(
                f"{raw_name!r} has the shape {tensor.shape}, and config.json asks for {shape}; "
                "they do not belong together"
            )
        kind = _tensor_type(name, shape, file_type)
        n_bytes = int(np.prod(quant_shape_to_byte_shape(shape, kind)))
        plan.append(_Planned(name, tensor, kind, n_bytes))
    if expected:
        raise ConversionError(
            f"{len(expected)} tensors are missing from the weights, as {next(iter(expected))!r}"
        )
    return plan


def _tensor_type(
    name: str, shape: tuple[int, ...], file_type: LlamaFileType
) -> GGMLQuantizationType:
    """Choose as llama.cpp's converter does: small and delicate tensors stay F32."""
    if len(shape) == 1 or name in _ALWAYS_F32:
        return GGMLQuantizationType.F32
    kind = GGMLQuantizationType[file_type.name.partition("_")[2]]
    block, _ = GGML_QUANT_SIZES[kind]
    return (
        GGMLQuantizationType.F16 if file_type.name.endswith("Q8_0") and shape[-1] % block else kind
    )


def _pooling_of(folder: ModelFolder, settings: BertSettings) -> PoolingType | None:
    if settings.label is None:
        return folder.pooling_type
    if folder.pooling_type is not None:
        raise ConversionError(
            f"{str(folder.root)!r} pools by {folder.pooling_type} and is a classifier too "
            f"({CROSS_ENCODER}); it is one or the other: remove 1_Pooling for a reranker, or "
            "save its BertModel alone for vectors"
        )
    return "rank"


def _describe_model(
    writer: GGUFWriter, settings: BertSettings, pooling_type: PoolingType | None
) -> None:
    writer.add_block_count(settings.n_layer)
    writer.add_context_length(settings.n_positions)
    writer.add_embedding_length(settings.n_embd)
    writer.add_feed_forward_length(settings.n_ff)
    writer.add_head_count(settings.n_head)
    writer.add_layer_norm_eps(settings.layer_norm_epsilon)
    writer.add_token_type_count(settings.n_token_types)
    writer.add_causal_attention(False)
    if pooling_type is not None:
        writer.add_pooling_type(GGUFPoolingType[pooling_type.upper()])
    if settings.label is not None:
        writer.add_classifier_output_labels([settings.label])
    writer.add_quantization_version(GGML_QUANT_VERSION)


def _describe_vocab(writer: GGUFWriter, vocab: BertVocab) -> None:
    uncased = vocab.lowercase and len(vocab.tokens) == UNCASED_VOCAB
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("jina-v2-en" if uncased else "default")
    writer.add_token_list(vocab.tokens)
    writer.add_token_types(vocab.token_types)
    for role, token_id in vocab.special_ids.items():
        getattr(writer, f"add_{role}_token_id")(token_id)
    # Of a WordPiece model llama.cpp begins every text with [CLS] and ends it with [SEP] anyway.
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(True)
    writer.add_add_sep_token(False)
    writer.add_bool("tokenizer.ggml.normalizer.lowercase", vocab.lowercase)
    if vocab.strip_accents is not None:
        writer.add_bool("tokenizer.ggml.normalizer.strip_accents", vocab.strip_accents)


def _write(writer: GGUFWriter, path: Path, plan: list[_Planned], progress: Progress | None) -> None:
    for tensor in plan:
        writer.add_tensor_info(
            tensor.name, tensor.source.shape, np.dtype(np.float32), tensor.size_bytes, tensor.kind
        )
    total, done = sum(tensor.size_bytes for tensor in plan), 0
    try:
        writer.write_header_to_file(path)
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        # Past the writer's own write_tensor_data, which wants every tensor in one piece.
        assert writer.fout is not None  # opened by write_header_to_file
        file = writer.fout[0]
        writer.write_padding(file, file.tell())
        for tensor in plan:
            for part in _converted(tensor):
                done += file.write(part.data)
                if progress is not None:
                    progress(done, total)
            writer.write_padding(file, tensor.size_bytes)
    finally:
        writer.close()


def _converted(tensor: _Planned) -> Iterator[NDArray[Any]]:
    """Read a tensor and bring it to its type, some rows at a time."""
    shape, kind = tensor.source.shape, tensor.kind
    row_bytes = 4 * int(np.prod(shape[1:], dtype=np.int64))
    step = max(1, CHUNK_BYTES // row_bytes)
    for start in range(0, shape[0], step):
        rows = tensor.source.read(start, min(start + step, shape[0]))
        if not np.isfinite(rows).all():
            raise ConversionError(f"{tensor.name} has NaN or infinite weights; download them again")
        with np.errstate(over="ignore"):
            part = np.ascontiguousarray(quantize(rows, kind))
        if kind == GGMLQuantizationType.F16 and not np.isfinite(part).all():
            raise ConversionError(
                f"{tensor.name} has weights up to {float(np.abs(rows).max()):.3g}, over F16's "
                "65,504; convert to BF16 or F32"
            )
        yield part
