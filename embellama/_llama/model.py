"""Weights in memory: a llama_model, and the backend that loads it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from embellama._llama.binding import LogLines, lib, run_once
from embellama._llama.context import LlamaContext
from embellama._llama.control_tokens import control_tokens_in
from embellama._llama.devices import (
    binding_version,
    cpu_features,
    describe_build,
    gpus_among,
    list_devices,
)
from embellama._llama.memory import give_memory_back
from embellama._llama.offload import Offload, plan_offload
from embellama._llama.token_types import open_token_types
from embellama._llama.vocabulary import LlamaVocabulary
from embellama.config import ModelConfig
from embellama.errors import ContextError, ModelLoadError
from embellama.gguf import GGUFMetadata
from embellama.types import BackendInfo, ContextOptions, PoolingType

_LOAD_MODES = {(False, False): 0, (True, False): 1, (False, True): 2, (True, True): 3}
"""(use_mmap, use_mlock) to ``enum llama_load_mode`` in llama.h."""

_FLASH_ATTN = {"auto": -1, False: 0, True: 1}
"""Source: ``enum llama_flash_attn_type`` in llama.h."""

_KV_OVERRIDE_BOOL = 2
"""Source: ``LLAMA_KV_OVERRIDE_TYPE_BOOL`` in llama.h."""

_TEXT_FLAGS = {
    "bert": {"normalizer.lowercase": False, "normalizer.strip_accents": False},
    "t5": {"remove_extra_whitespaces": True},
}
"""What vocabularies are told instead of what their files say.

WordPiece takes text as it comes, for it is normalised before: llama.cpp strips all marks where BERT
strips only those without width, and does not take Hangul syllables apart; `embellama.wordpiece`
does both as BERT does.

Unigram merges runs of spaces, as T5's and XLM-RoBERTa's tokenizers do. A file made from a
tokenizer.json may say otherwise, because llama.cpp's converter puts there what
``clean_up_tokenization_spaces`` says, which is about turning tokens into text.
"""


class LlamaBackend:
    """Runs GGUF files with llama.cpp."""

    @property
    def build(self) -> str:
        """llama-cpp-python's version, and the CPU features that llama.cpp was compiled for."""
        return describe_build(binding_version(), cpu_features())

    def load(
        self, metadata: GGUFMetadata, config: ModelConfig, pooling_type: PoolingType
    ) -> LlamaModel:
        """Load the weights of a GGUF.

        Raises:
            ConfigurationError: A GPU is asked for and this build sees none, or not that one.
            ModelLoadError: llama.cpp refused the file; its last log lines are in the message.
        """
        return LlamaModel(metadata, config, pooling_type)

    def load_vocabulary(
        self, metadata: GGUFMetadata, config: ModelConfig, pooling_type: PoolingType
    ) -> LlamaModel:
        """Load a GGUF without its weights, for another backend to compute.

        Raises:
            ModelLoadError: llama.cpp refused the file.
        """
        return LlamaModel(metadata, config, pooling_type, vocabulary_only=True)


class LlamaModel:
    """A llama_model. Contexts and the vocabulary live on it; close them first."""

    def __init__(
        self,
        metadata: GGUFMetadata,
        config: ModelConfig,
        pooling_type: PoolingType,
        *,
        vocabulary_only: bool = False,
    ) -> None:
        run_once()
        self._config = config
        # a longer sequence reads beyond the position table, which ends the process
        absolute = metadata.position_encoding == "absolute"
        self._max_positions = metadata.n_ctx_train if absolute else None
        self._pooling_type: PoolingType = pooling_type
        self._typed_tokens = open_token_types(metadata)
        offload = plan_offload(config, gpus_among(list_devices()))
        self._handle, lines = _load(metadata, config, offload, vocabulary_only)
        self.vocabulary = LlamaVocabulary(self._handle)
        self.info = self._describe(lines)

    def _describe(self, lines: LogLines) -> BackendInfo:
        n_offloaded, n_layers = offloaded_layers(lines)
        gpus = devices_used(lines) if n_offloaded else []
        return BackendInfo(
            n_embd=int(lib.llama_model_n_embd_out(self._handle)),
            n_vocab=self.vocabulary.n_tokens,
            n_ctx_train=int(lib.llama_model_n_ctx_train(self._handle)),
            pooling_type=self._pooling_type,
            device=", ".join(gpus) or "CPU",
            n_layers_offloaded=n_offloaded,
            # the output layer counts as one
            n_layers=n_layers or int(lib.llama_model_n_layer(self._handle)) + 1,
            size_bytes=int(lib.llama_model_size(self._handle)),
        )

    def create_context(self, options: ContextOptions) -> LlamaContext:
        """Make a context; see `BackendModel.create_context`.

        Raises:
            ContextError: The model is closed, or llama.cpp could not make one.
        """
        if self._handle is None:
            raise ContextError("the model is closed")
        params = lib.llama_context_default_params()
        params.flash_attn_type = _FLASH_ATTN[self._config.flash_attn]
        params.offload_kqv = params.op_offload = self.info.n_layers_offloaded > 0
        return LlamaContext(
            self._handle,
            options,
            pooling_type=options.pooling_type or self._pooling_type,
            max_positions=self._max_positions,
            typed_tokens=self._typed_tokens,
            params=params,
        )

    def control_tokens(self, text: str) -> Mapping[str, int]:
        """Return the ids of the control tokens that a trusted text spells.

        Raises:
            ContextError: The model is closed.
        """
        if self._handle is None:
            raise ContextError("the model is closed")
        return control_tokens_in(self._handle, text)

    def close(self) -> None:
        """Free the weights. May be called again."""
        handle, self._handle = self._handle, None
        self._typed_tokens = None
        if handle is not None:
            lib.llama_model_free(handle)
            give_memory_back()


def offloaded_layers(lines: LogLines) -> tuple[int, int | None]:
    """Read off the log how many layers are on a GPU, of how many; None where it does not say."""
    found = lines.find(r"offloaded (\d+)/(\d+) layers to GPU")
    return (int(found[-1][1]), int(found[-1][2])) if found else (0, None)


def devices_used(lines: LogLines) -> list[str]:
    """Read off the log which GPUs llama.cpp took, e.g. ``["CUDA0 (NVIDIA H200)"]``."""
    found = lines.find(r"using device (\S+) \((.*)\) \([^()]*\) - \d+ MiB free")
    return [f"{match[1]} ({match[2]})" for match in found]


def _text_overrides(vocab_kind: str) -> Any:
    flags = _TEXT_FLAGS.get(vocab_kind, {})
    overrides = (lib.llama_model_kv_override * (len(flags) + 1))()
    for override, (flag, value) in zip(overrides, flags.items(), strict=False):
        override.tag = _KV_OVERRIDE_BOOL
        override.key = f"tokenizer.ggml.{flag}".encode()
        override.value.val_bool = value
    return overrides  # the empty key of the last one ends the list


def _load(
    metadata: GGUFMetadata, config: ModelConfig, offload: Offload, vocabulary_only: bool
) -> tuple[Any, LogLines]:
    params = lib.llama_model_default_params()
    params.load_mode = _LOAD_MODES[config.use_mmap, config.use_mlock]
    params.kv_overrides = _text_overrides(metadata.vocab_kind)
    params.vocab_only = vocabulary_only
    devices = offload.apply(params)
    with LogLines() as lines:
        handle = lib.llama_model_load_from_file(os.fsencode(metadata.path), params)
    del devices  # llama.cpp has read the list
    if not handle:
        hint = "; if a GPU's memory is short, lower n_gpu_layers" if offload.n_gpu_layers else ""
        raise ModelLoadError(
            f"llama.cpp could not load {str(metadata.path)!r}: "
            f"{'; '.join(lines.relevant()) or 'no reason'}{hint}",
            log_lines=tuple(lines.lines)[-20:],
        )
    return handle, lines
