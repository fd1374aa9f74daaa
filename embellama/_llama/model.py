"""Weights in memory: a llama_model, and the backend that loads it."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping
from typing import Any

from embellama._llama.binding import LogLines, capture_log, lib, run_once
from embellama._llama.context import LlamaContext
from embellama._llama.control_tokens import control_tokens_in
from embellama._llama.devices import gpu_names
from embellama._llama.memory import give_memory_back
from embellama._llama.token_types import open_token_types
from embellama._llama.vocabulary import LlamaVocabulary
from embellama.config import ModelConfig
from embellama.errors import ConfigurationError, ContextError, ModelLoadError
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

_ALL_LAYERS = -1
_NO_DEVICES = (ctypes.c_void_p * 1)(None)
"""The NULL that ends an empty list of GPUs; llama.cpp reads it while it loads."""


class LlamaBackend:
    """Runs GGUF files with llama.cpp."""

    def load(
        self, metadata: GGUFMetadata, config: ModelConfig, pooling_type: PoolingType
    ) -> LlamaModel:
        """Load the weights of a GGUF.

        Raises:
            ConfigurationError: A GPU is asked for and this build has none.
            ModelLoadError: llama.cpp refused the file; its last log lines are in the message.
        """
        return LlamaModel(metadata, config, pooling_type)


class LlamaModel:
    """A llama_model. Contexts and the vocabulary live on it; close them first."""

    def __init__(
        self, metadata: GGUFMetadata, config: ModelConfig, pooling_type: PoolingType
    ) -> None:
        run_once()
        self._config = config
        # a longer sequence reads beyond the position table, which ends the process
        absolute = metadata.position_encoding == "absolute"
        self._max_positions = metadata.n_ctx_train if absolute else None
        self._pooling_type: PoolingType = pooling_type
        self._typed_tokens = open_token_types(metadata)
        self._handle, lines = _load(metadata, _model_params(config))
        self.vocabulary = LlamaVocabulary(self._handle)
        self.info = self._describe(lines)

    def _describe(self, lines: LogLines) -> BackendInfo:
        offloaded = lines.find(r"offloaded (\d+)/(\d+) layers to GPU")
        n_offloaded = int(offloaded[-1][1]) if offloaded else 0
        n_layers = (
            int(offloaded[-1][2]) if offloaded else int(lib.llama_model_n_layer(self._handle)) + 1
        )
        gpus = gpu_names() if n_offloaded else []
        wanted = self._config.n_gpu_layers
        warnings = []
        if (
            wanted is not None
            and self._config.use_gpu == "auto"
            and n_offloaded < min(wanted, n_layers)
        ):
            warnings.append(f"{wanted} layers were asked for on a GPU, {n_offloaded} are there")
        return BackendInfo(
            n_embd=int(lib.llama_model_n_embd_out(self._handle)),
            n_vocab=self.vocabulary.n_tokens,
            n_ctx_train=int(lib.llama_model_n_ctx_train(self._handle)),
            pooling_type=self._pooling_type,
            device=", ".join(gpus) or "CPU",
            n_layers_offloaded=n_offloaded,
            n_layers=n_layers,
            size_bytes=int(lib.llama_model_size(self._handle)),
            warnings=tuple(warnings),
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


def _model_params(config: ModelConfig) -> Any:
    params = lib.llama_model_default_params()
    params.load_mode = _LOAD_MODES[config.use_mmap, config.use_mlock]
    params.n_gpu_layers = _ALL_LAYERS if config.n_gpu_layers is None else config.n_gpu_layers
    if config.use_gpu is True and not gpu_names():
        raise ConfigurationError(
            "use_gpu = True, but this build of llama.cpp sees no GPU; install llama-cpp-python "
            "built for yours (CUDA, Metal, Vulkan or ROCm), or set use_gpu to 'auto' or False"
        )
    if config.use_gpu is False or config.n_gpu_layers == 0:
        params.n_gpu_layers = 0
        params.devices = ctypes.addressof(_NO_DEVICES)
    return params


def _text_overrides(vocab_kind: str) -> Any:
    flags = _TEXT_FLAGS.get(vocab_kind, {})
    overrides = (lib.llama_model_kv_override * (len(flags) + 1))()
    for override, (flag, value) in zip(overrides, flags.items(), strict=False):
        override.tag = _KV_OVERRIDE_BOOL
        override.key = f"tokenizer.ggml.{flag}".encode()
        override.value.val_bool = value
    return overrides  # the empty key of the last one ends the list


def _load(metadata: GGUFMetadata, params: Any) -> tuple[Any, LogLines]:
    path = metadata.path
    params.kv_overrides = _text_overrides(metadata.vocab_kind)
    with capture_log() as lines:
        handle = lib.llama_model_load_from_file(os.fsencode(path), params)
    if not handle:
        raise ModelLoadError(
            f"llama.cpp could not load {str(path)!r}: {'; '.join(lines.relevant()) or 'no reason'}",
            log_lines=tuple(lines.lines)[-20:],
        )
    return handle, lines
