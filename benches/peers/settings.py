"""What was asked for, and what each peer has to be told to do it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benches.peers.model_files import onnx_folder, weights_folder
from benches.peers.roster import PeerSpec, python_of
from embellama.errors import EmbellamaError
from embellama.hub.catalog import CatalogEntry
from embellama.hub.resolve import resolve_model


@dataclass(frozen=True, slots=True)
class Plan:
    """What was asked for.

    Attributes:
        row: The model's row of the catalogue.
        works: Texts by work.
        n_rounds: Rounds.
        n_threads: Threads of each peer.
        pythons: ``PATH`` or ``FAMILY=PATH``, as given.
        llama_server: The program, where it is not on ``PATH``.
        profile: Whether to ask where the time goes.
        scratch: A folder for what need not stay.
        say: Called with one line for each step.
    """

    row: CatalogEntry
    works: dict[str, list[str]]
    n_rounds: int
    n_threads: int
    pythons: Sequence[str]
    llama_server: str | None
    profile: bool
    scratch: Path
    say: Callable[[str], None]

    def python(self, family: str) -> str:
        """Find the Python of a family."""
        return python_of(family, self.pythons, sys.executable)


class Settings:
    """What a peer is told; files are made when the first one needs them."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._entry = plan.row
        self._works = plan.scratch / "works.json"
        self._works.write_text(json.dumps(plan.works), encoding="utf-8")
        self._failed: dict[str, Exception] = {}

    def of(self, spec: PeerSpec) -> dict[str, Any]:
        """Say everything that a peer's class has to know."""
        if (before := self._failed.get(spec.needs)) is not None and spec.needs != "gguf":
            raise before
        try:
            file = self._file(spec)
        except (EmbellamaError, OSError, RuntimeError, ValueError) as exc:
            self._failed[spec.needs] = exc
            raise
        return {
            "model": self._entry.name,
            "variant": spec.variant,
            "works": str(self._works),
            "n_threads": self._plan.n_threads,
            "n_ctx": self._entry.n_ctx,
            "n_embd": self._entry.n_embd,
            "pooling_type": self._entry.pooling_type,
            "llama_server": self._plan.llama_server,
            spec.needs: str(file),
        }

    def _file(self, spec: PeerSpec) -> Path:
        say = self._plan.say
        if spec.needs == "gguf":
            return resolve_model(f"{self._entry.name}:{spec.variant}", progress=say).path
        folder = weights_folder(self._entry, say)
        if spec.needs == "folder":
            return folder
        named = any(given.startswith("export=") for given in self._plan.pythons)
        python = self._plan.python("export" if named else "onnxruntime")
        return onnx_folder(self._entry, folder, python, say)
