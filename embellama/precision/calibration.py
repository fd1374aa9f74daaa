"""The range of each component over some vectors, which int8 and uint8 codes are made by."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from embellama.errors import ConfigurationError, InvalidInputError
from embellama.files import replacing
from embellama.logs import log
from embellama.types import FloatArray

N_VECTORS_RECOMMENDED: Final = 100
"""Fewer vectors leave the ranges to chance. Source: quantize_embeddings, which warns there."""

MAX_FILE_BYTES: Final = 16 * 2**20
"""A file over this is no calibration: 65536 components take 3 MiB."""

_N_STEPS: Final = 255


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """The smallest and the largest value of each component, for int8 and uint8 codes.

    Two are equal if they make the same codes for the same model. May be shared between threads.

    Attributes:
        ranges: float32 (2, n_embd), read-only: the minimum and the maximum of each component.
        fingerprint: The fingerprint of the model whose vectors these were, where it is known.

    Raises:
        ConfigurationError: The ranges have another shape, are not finite, or are upside down.
    """

    ranges: FloatArray
    fingerprint: str | None = None

    def __post_init__(self) -> None:
        ranges = _checked_ranges(self.ranges)
        ranges.flags.writeable = False
        object.__setattr__(self, "ranges", ranges)

    @classmethod
    def from_vectors(
        cls, rows: NDArray[np.floating[Any]], *, fingerprint: str | None = None
    ) -> Calibration:
        """Measure vectors that are like those to come: same model, prompt and ``dimensions``.

        Args:
            rows: float32 (n, n_embd), a few hundred or more. Under 100 the event
                ``embellama.calibration.measured`` warns.
            fingerprint: The model's fingerprint, to be recorded.

        Raises:
            InvalidInputError: There is no vector, or one holds NaN or infinity.
        """
        if rows.ndim != 2 or not rows.size:
            raise InvalidInputError(
                f"a calibration is measured on rows of shape (n, n_embd), not {rows.shape}; "
                "give embeddings of a few hundred texts"
            )
        bad = np.flatnonzero(~np.isfinite(rows).all(axis=1)).tolist()
        if bad:
            raise InvalidInputError(
                f"{len(bad)} of {len(rows)} vectors, the first at {bad[0]}, hold NaN or infinity "
                "and have no range; leave them out",
                indices=bad,
            )
        if len(rows) < N_VECTORS_RECOMMENDED:
            log.warning(
                "embellama.calibration.measured",
                n_vectors=len(rows),
                n_recommended=N_VECTORS_RECOMMENDED,
            )
        return cls(np.stack([rows.min(axis=0), rows.max(axis=0)]), fingerprint)

    @property
    def n_embd(self) -> int:
        """Components of the vectors it is for."""
        return int(self.ranges.shape[1])

    @property
    def steps(self) -> FloatArray:
        """float32 (n_embd,): how much of each component one code stands for; 1 where it is 0.

        Source: ``quantize_embeddings`` of sentence-transformers 5.7.0.
        """
        steps: FloatArray = (self.ranges[1] - self.ranges[0]) / np.float32(_N_STEPS)
        steps[steps == 0] = 1
        return steps

    @property
    def digest(self) -> str:
        """16 hexadecimal digits that stand for the ranges: the same on every machine."""
        return self._hash("ranges").hexdigest()[:16]

    def check_fingerprint(self, fingerprint: str) -> None:
        """Refuse another model than the one it was made for; without a record, any will do.

        Raises:
            ConfigurationError: The fingerprints differ.
        """
        if self.fingerprint is not None and self.fingerprint != fingerprint:
            raise ConfigurationError(
                f"this calibration was made for the model {self.fingerprint}, not for "
                f"{fingerprint}; make one from this model's vectors with Calibration.from_vectors"
            )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a JSON file that appears complete or not at all; an older one is replaced.

        Raises:
            ConfigurationError: It cannot be written.
        """
        content = _CalibrationFile(
            format="embellama.calibration",
            version=1,
            fingerprint=self.fingerprint,
            sha256=self._checksum(),
            minimum=self.ranges[0].tolist(),
            maximum=self.ranges[1].tolist(),
        )
        target = Path(path)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with replacing(target) as partial:
                partial.write_bytes(content.model_dump_json(indent=1).encode())
        except (OSError, ValueError) as exc:  # ValueError: a NUL in the path
            raise ConfigurationError(
                f"the calibration cannot be written to {str(target)!r} ({exc}); check the folder, "
                "its rights and its room, or write elsewhere"
            ) from exc

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Calibration:
        """Read what ``save`` wrote.

        Raises:
            ConfigurationError: There is no such file, it is not a calibration, or it has changed
                since it was written.
        """
        data = _read_small(Path(path))
        try:
            content = _CalibrationFile.model_validate_json(data)
        except ValidationError as exc:
            first = exc.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"])) or "its JSON"
            raise ConfigurationError(
                f"{str(path)!r} is not a calibration this version reads ({where}: "
                f"{first['msg']}); give a file that Calibration.save wrote, or make it anew"
            ) from exc
        if len(content.minimum) != len(content.maximum):
            raise ConfigurationError(
                f"{str(path)!r} has {len(content.minimum)} minima and {len(content.maximum)} "
                "maxima; make it anew"
            )
        with np.errstate(over="ignore"):  # what float32 cannot hold is refused as infinite
            ranges = np.array([content.minimum, content.maximum], dtype=np.float32)
        loaded = cls(ranges, content.fingerprint)
        if loaded._checksum() != content.sha256:
            raise ConfigurationError(
                f"{str(path)!r} has changed since it was written: its checksum is "
                f"{loaded._checksum()[:16]}…, not {content.sha256[:16]}…; make it anew"
            )
        return loaded

    def _checksum(self) -> str:
        whole = self._hash("file")
        whole.update((self.fingerprint or "").encode())
        return whole.hexdigest()

    def _hash(self, purpose: str) -> hashlib._Hash:
        rows = np.ascontiguousarray(self.ranges, dtype="<f4")
        head = f"embellama.calibration.1 {purpose} {self.n_embd}\n".encode()
        return hashlib.sha256(head + rows.tobytes())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Calibration):
            return NotImplemented
        return self.fingerprint == other.fingerprint and self.digest == other.digest

    def __hash__(self) -> int:
        return hash((self.fingerprint, self.digest))


class _CalibrationFile(BaseModel):
    """The file, as JSON; floats are written so that they come back bit by bit."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: Literal["embellama.calibration"]
    version: Literal[1]
    fingerprint: str | None
    sha256: str
    minimum: list[float]
    maximum: list[float]


def _checked_ranges(ranges: ArrayLike) -> FloatArray:
    """Return a float32 copy of ranges that codes can be made by."""
    with np.errstate(over="ignore"):
        # + 0 makes -0 the 0 it is equal to, so that the digest is the same
        found: FloatArray = np.array(ranges, dtype=np.float32) + np.float32(0)
        if found.ndim != 2 or found.shape[0] != 2 or not found.size:
            raise ConfigurationError(
                f"calibration ranges have the shape {found.shape}, not (2, n_embd): a row of "
                "minima and a row of maxima; use Calibration.from_vectors"
            )
        spread = found[1] - found[0]
    wrong = np.flatnonzero(~(np.isfinite(found).all(axis=0) & np.isfinite(spread) & (spread >= 0)))
    if wrong.size:
        first = int(wrong[0])
        raise ConfigurationError(
            f"the calibration range of component {first} goes from {found[0, first]} to "
            f"{found[1, first]}; each must be finite, and the minimum not over the maximum; use "
            "Calibration.from_vectors"
        )
    return found


def _read_small(path: Path) -> bytes:
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode) or found.st_size > MAX_FILE_BYTES:
            raise ConfigurationError(
                f"{str(path)!r} is not a calibration: it has {found.st_size} bytes, and one is a "
                f"plain file of at most {MAX_FILE_BYTES}; give a file that Calibration.save wrote"
            )
        return path.read_bytes()
    except (OSError, ValueError) as exc:  # ValueError: a NUL in the path
        raise ConfigurationError(
            f"the calibration {str(path)!r} cannot be read ({exc}); check the path, or make one "
            "with Calibration.from_vectors(...).save(path)"
        ) from exc
