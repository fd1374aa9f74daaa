"""The llama_cpp library: checked to be one we know, and its log lines captured.

The structs of llama.cpp change between versions. ctypes would pass a struct of the old shape to a
library of the new one without a word, so the field names and some well-known defaults are compared
once, at import.
"""

from __future__ import annotations

import ctypes
import re
import threading
from collections import deque
from typing import Any, Self

import llama_cpp
from llama_cpp import llama_cpp as lib

from embellama._llama.memory import map_large_blocks
from embellama.errors import ConfigurationError
from embellama.logs import log

__all__ = ["LogLines", "lib", "run_once"]

_USED_FIELDS = {
    "llama_model_params": (
        "devices tensor_buft_overrides n_gpu_layers split_mode load_mode lazy_mode main_gpu "
        "tensor_split progress_callback progress_callback_user_data kv_overrides vocab_only "
        "check_tensors use_extra_bufts no_host no_alloc load_mtp"
    ),
    "llama_context_params": (
        "n_ctx n_batch n_ubatch n_seq_max n_rs_seq n_outputs_max n_outputs_max_per_seq n_threads "
        "n_threads_batch ctx_type rope_scaling_type pooling_type attention_type flash_attn_type "
        "rope_freq_base rope_freq_scale yarn_ext_factor yarn_attn_factor yarn_beta_fast "
        "yarn_beta_slow yarn_orig_ctx defrag_thold cb_eval cb_eval_user_data type_k type_v "
        "abort_callback abort_callback_data embeddings offload_kqv no_perf op_offload swa_full "
        "kv_unified samplers n_samplers ctx_other"
    ),
    "llama_model_quantize_params": (
        "nthread ftype output_tensor_type token_embedding_type allow_requantize "
        "quantize_output_tensor only_copy pure keep_split dry_run imatrix kv_overrides "
        "tt_overrides prune_layers max_buf_size"
    ),
    "llama_batch": "n_tokens token embd pos n_seq_id seq_id logits",
    "llama_model_kv_override": "tag key value",
}


def check_binding(module: Any = lib) -> None:
    """Compare the structs we fill with the ones this llama-cpp-python has.

    Raises:
        ConfigurationError: A struct has other fields, or the library other defaults.
    """
    for name, fields in _USED_FIELDS.items():
        found = [field[0] for field in getattr(module, name)._fields_]
        if found != fields.split():
            odd = sorted(set(found) ^ set(fields.split())) or ["their order"]
            raise ConfigurationError(
                f"llama-cpp-python {llama_cpp.__version__} has another {name} than embellama "
                f"knows (differing: {', '.join(odd)}); install a version that embellama's "
                "requirements allow, or a newer embellama"
            )
    model, context = module.llama_model_default_params(), module.llama_context_default_params()
    # The defaults of fields at the start, the middle and the end: a shifted struct shows.
    seen = (context.n_ctx, context.flash_attn_type, context.offload_kqv, context.embeddings)
    if seen != (512, -1, True, False) or model.vocab_only or not model.use_extra_bufts:
        raise ConfigurationError(
            f"the library in llama-cpp-python {llama_cpp.__version__} does not fit its own "
            f"structs (defaults read as {seen}); reinstall it with --no-cache-dir"
        )


class LogLines:
    """Lines llama.cpp writes on this thread while the block runs."""

    def __init__(self) -> None:
        self.lines: deque[str] = deque(maxlen=2000)

    def __enter__(self) -> Self:
        _capturing.setdefault(threading.get_ident(), []).append(self)
        return self

    def __exit__(self, *exc_info: object) -> None:
        thread = threading.get_ident()
        _capturing[thread].remove(self)
        if not _capturing[thread]:
            del _capturing[thread]

    def relevant(self, limit: int = 4) -> tuple[str, ...]:
        """Return the last lines that speak of an error, or else just the last ones."""
        wanted = re.compile(r"error|fail|invalid|missing|unknown|unable|not supported", re.I)
        listing = re.compile(r"print_info:|- kv\b|- type\b")
        telling = [x for x in self.lines if wanted.search(x) and not listing.search(x)]
        return tuple((telling or list(self.lines))[-limit:])

    def find(self, pattern: str) -> list[re.Match[str]]:
        """Return the match of each line that has the pattern."""
        return [match for line in self.lines if (match := re.search(pattern, line))]


_capturing: dict[int, list[LogLines]] = {}
_partial: dict[int, str] = {}


@lib.llama_log_callback  # type: ignore[untyped-decorator]
def _on_log(level: int, text: bytes, user_data: object) -> None:
    thread = threading.get_ident()
    message = _partial.pop(thread, "") + text.decode("utf-8", "replace")
    if not message.endswith("\n"):  # llama.cpp writes some lines in pieces
        _partial[thread] = message
        return
    for line in filter(None, (line.rstrip() for line in message.splitlines())):
        for lines in _capturing.get(thread, ()):
            lines.lines.append(line)
        log.debug("embellama.llama.logged", level=level, line=line)


_started = threading.Lock()
_ready = False


def run_once() -> None:
    """Start llama.cpp's backends, once in a process."""
    global _ready  # noqa: PLW0603  # the state of a process-wide library
    with _started:
        if not _ready:
            map_large_blocks()
            lib.llama_backend_init()
            _ready = True


check_binding()
lib.llama_log_set(_on_log, ctypes.c_void_p(0))
