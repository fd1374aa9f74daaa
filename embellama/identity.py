"""What made a vector, in a short digest: the file's content, and all that changes its output.

Two configurations share a fingerprint only if their vectors agree within the stated tolerance. How
fast or where something is computed (threads, device, batching, backend) is not part of it.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from embellama.errors import ModelLoadError
from embellama.files import replacing, sha256_of
from embellama.gguf import GGUFMetadata
from embellama.logs import log
from embellama.types import PoolingType

VECTOR_VERSION = 1
"""Raised when a change of ours makes vectors differ by more than the stated tolerance."""

_DIGEST_BYTES = 16
_SETTLED_NS = 2_000_000_000
"""A file written less than this ago may change again within one tick of its clock."""


def digest_parts(parts: Iterable[str]) -> str:
    """Return the digest of a sequence of strings, 32 hexadecimal digits.

    Each part goes in with its length before it: ("ab", "c") and ("a", "bc") differ.
    """
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()


def model_fingerprint(
    metadata: GGUFMetadata,
    content: Sequence[str],
    pooling_type: PoolingType,
    *,
    fused_attention: bool = True,
) -> str:
    """Identify what a loaded model computes.

    Args:
        metadata: Of its file.
        content: SHA-256 of each part of the file, in order.
        pooling_type: As decided, which need not be the file's own.
        fused_attention: Whether attention may be fused. It then rounds keys and values to half
            floats, which moves some models' components by more than the tolerance between a text
            alone and in a batch: 9.5e-4 with random weights, 1.4e-4 with MiniLM's.
    """
    flags = (
        metadata.vocab_kind,
        metadata.pre_tokenizer,
        metadata.add_bos,
        metadata.add_eos,
        metadata.add_sep,
        metadata.lowercase,
        metadata.strip_accents,
    )
    attention = "fused attention" if fused_attention else "exact attention"
    settings = (str(VECTOR_VERSION), pooling_type, attention)
    parts = ("embellama model", *settings, *map(repr, flags), *content)
    return digest_parts(parts)


class ContentDigests:
    """SHA-256 of files, computed once for each state of a file. Safe to use from any thread.

    A state is device, inode, size and the times of the last modification and change: archives give
    files of different content one modification time. What is known is kept in memory and, given a
    folder, there for other processes.

    Args:
        folder: Where to keep digests; made when it is first needed.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._known: dict[str, str] = {}
        self._lock = threading.Lock()

    def digest(self, path: Path) -> str:
        """Return the SHA-256 of a file's content. Blocks while it is read, if it is not known.

        Raises:
            ModelLoadError: It cannot be read, or changes meanwhile.
        """
        try:
            before = file_state(path)
            known = self._look_up(before)
            if known is not None:
                return known
            value = sha256_of(path)
            if file_state(path) != before:
                raise ModelLoadError(
                    f"{str(path)!r} changed while it was read; load it again when it is complete"
                )
            status = path.stat()
            if time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) > _SETTLED_NS:
                self._keep(before, value)
        except OSError as exc:
            raise ModelLoadError(f"{str(path)!r} cannot be read ({exc.strerror or exc})") from exc
        return value

    def _look_up(self, state: str) -> str | None:
        with self._lock:
            if (known := self._known.get(state)) is not None or self._folder is None:
                return known
        try:
            known = (self._folder / state).read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            return None
        if len(known) != 64 or not set(known) <= set("0123456789abcdef"):
            return None  # cut short: it is computed anew, and written over
        with self._lock:
            self._known[state] = known
        return known

    def _keep(self, state: str, value: str) -> None:
        with self._lock:
            self._known[state] = value
        if self._folder is None:
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with replacing(self._folder / state) as partial:
                partial.write_text(value, encoding="ascii")
        except OSError as exc:  # only time is lost: the next process computes it again
            log.info("embellama.digest.forgotten", folder=str(self._folder), error=repr(exc))


def file_state(path: Path) -> str:
    """Return what tells one state of a file from another without reading it.

    Raises:
        OSError: It is not there, or may not be looked at.
    """
    status = path.stat()
    times = f"{status.st_mtime_ns}-{status.st_ctime_ns}"
    return f"{status.st_dev}-{status.st_ino}-{status.st_size}-{times}"
