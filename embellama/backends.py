"""Which backend runs a model: llama.cpp, or the native kernels where they fit and agree with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from embellama import agreements
from embellama._llama.devices import gpus_among, list_devices
from embellama._llama.model import LlamaBackend, LlamaModel
from embellama._native.binding import Kernel, Library, open_library
from embellama._native.model import NativeModel
from embellama._native.support import find_kernel
from embellama.config import ModelConfig
from embellama.errors import ConfigurationError, EmbellamaError, ModelLoadError
from embellama.gguf import GGUFMetadata
from embellama.identity import ContentDigests
from embellama.logs import log
from embellama.types import BackendModel, ContextOptions, FloatArray, MicroBatch, PoolingType

LEAST_COSINE = {"F32": 0.9999, "F16": 0.9999, "BF16": 0.9999}
LEAST_COSINE_QUANTIZED = 0.998
"""What probe texts have to agree to, by file type.

Beside quantized weights llama.cpp rounds activations to 8 bits, which the native kernels do not, or
do in another way. Worst probe of Q8_0 files, on bfloat16, float32 and int8 kernels: MiniLM 0.99949,
0.99948, 0.99918; random weights of the shapes of bge-small, nomic and jina 0.9999 and more, and
0.9992 and more where they spread by 1 / √n_embd. MiniLM with a bias of one layer left out: 0.951
(queries) to 0.9975 (a norm), of keys nothing, which softmax takes out again; with a panel of one
layer's weights lost: at most 0.989. Where the first token is taken: 0.982 to 0.9989, and 0.997.
What is not told apart is a GELU by tanh, which is llama.cpp's own.
"""

_PROBES = (
    "a",
    "The quick brown fox jumps over the lazy dog.",
    "Rates rose by 0.25 % in March; nobody (except two analysts) had expected it. " * 3,
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich. " * 12,
)


class ChosenBackend:
    """Runs each model on the backend that its configuration asks for, or that suits it.

    Args:
        folder: Where it is kept that native vectors agreed with llama.cpp's; None: nowhere, and
            every load compares them.
        digests: Of files' content; shared with whoever computes them anyway.
    """

    def __init__(
        self, *, folder: Path | None = None, digests: ContentDigests | None = None
    ) -> None:
        self._llama = LlamaBackend()
        self._folder = folder
        self._digests = digests or ContentDigests()

    @property
    def build(self) -> str:
        """llama.cpp's build; what was measured with one says nothing about another."""
        return self._llama.build

    def load(
        self, metadata: GGUFMetadata, config: ModelConfig, pooling_type: PoolingType
    ) -> BackendModel:
        """Load the weights of a GGUF.

        Raises:
            ConfigurationError: ``backend="native"`` where the kernels do not fit, or a GPU that is
                not there.
            ModelLoadError: The file was refused, or native vectors differ from llama.cpp's.
        """
        if config.backend == "llama":
            return self._llama.load(metadata, config, pooling_type)
        kernel = find_kernel(metadata, config, pooling_type)
        if isinstance(kernel, str):
            if config.backend == "native":
                raise ConfigurationError(
                    f"backend = 'native' does not fit {metadata.name!r}: {kernel}; "
                    "set backend to 'auto' or 'llama'"
                )
            return self._llama.load(metadata, config, pooling_type)
        if config.backend == "auto" and _has_gpu(config):
            return self._llama.load(metadata, config, pooling_type)
        try:
            return self._checked(kernel, metadata, config, pooling_type)
        except ModelLoadError as exc:
            if config.backend == "native":
                raise
            log.warning("embellama.native.refused", model=metadata.name, reason=str(exc))
            return self._llama.load(metadata, config, pooling_type)

    def _checked(
        self,
        kernel: Kernel,
        metadata: GGUFMetadata,
        config: ModelConfig,
        pooling_type: PoolingType,
    ) -> BackendModel:
        """Load a model for the kernels, after its vectors were held against llama.cpp's."""
        library = open_library()
        assert library is not None  # the kernel is one of its own
        on_cpu = config.model_copy(update={"use_gpu": False, "n_gpu_layers": None})
        words = self._llama.load_vocabulary(metadata, on_cpu, pooling_type)
        try:
            model = NativeModel(
                library, kernel, metadata, pooling_type, words, use_mmap=config.use_mmap
            )
        except BaseException:
            words.close()
            raise
        try:
            self._compare(model, library, metadata, on_cpu, pooling_type)
        except BaseException:
            model.close()
            raise
        return model

    def _compare(
        self,
        model: NativeModel,
        library: Library,
        metadata: GGUFMetadata,
        config: ModelConfig,
        pooling_type: PoolingType,
    ) -> None:
        """Hold a model against llama.cpp, unless that was done before and it agreed.

        Raises:
            ModelLoadError: They differ, or could not be compared.
        """
        key = self._key(model, library, metadata, pooling_type)
        if self._folder and key and agreements.is_remembered(self._folder, key):
            return
        reference = self._llama.load(metadata, config, pooling_type)
        try:
            cosine = _agreement(model, reference, metadata)
        finally:
            reference.close()
        if self._folder and key:
            agreements.remember(
                self._folder, key, model=metadata.name, kernel=model.kernel, cosine=cosine
            )

    def _key(
        self,
        model: NativeModel,
        library: Library,
        metadata: GGUFMetadata,
        pooling_type: PoolingType,
    ) -> str | None:
        """Return what an agreement is found by; None where none is kept."""
        if self._folder is None:
            return None
        content = [self._digests.digest(path) for path in metadata.paths]
        try:
            return agreements.agreement_key(
                model.kernel, library.path, self.build, pooling_type, content
            )
        except OSError as exc:  # the library was replaced since it was loaded
            log.info("embellama.agreement.forgotten", folder=str(self._folder), error=repr(exc))
            return None


def _has_gpu(config: ModelConfig) -> bool:
    """Tell whether llama.cpp would put layers on a GPU that is there."""
    may_use = config.use_gpu == "auto" and config.n_gpu_layers != 0
    return may_use and bool(gpus_among(list_devices()))


def _agreement(model: NativeModel, reference: LlamaModel, metadata: GGUFMetadata) -> float:
    """Return the worst cosine of probe texts' vectors to llama.cpp's.

    Raises:
        ModelLoadError: It is too small, or there is none.
    """
    limit = metadata.n_ctx_train
    try:
        sequences = [model.vocabulary.tokenize(text)[:limit] for text in _PROBES]
        ours, theirs = _rows(model, sequences), _rows(reference, sequences)
    except EmbellamaError as exc:
        raise ModelLoadError(f"the native kernels could not be compared: {exc}") from exc
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    cosines = (ours * theirs).sum(axis=1) / np.maximum(lengths, 1e-30)
    worst = float(cosines.min())
    least = LEAST_COSINE.get(metadata.file_type, LEAST_COSINE_QUANTIZED)
    if not worst >= least:
        raise ModelLoadError(
            f"native vectors of {metadata.name!r} agree with llama.cpp's to a cosine of "
            f"{worst:.6f}, and should to {least:g}; set backend='llama', and please report it"
        )
    return worst


def _rows(model: BackendModel, sequences: list[np.ndarray]) -> FloatArray:
    context = model.create_context(ContextOptions(max(map(len, sequences)), 1, 1))
    try:
        rows = [context.run(MicroBatch.pack([ids])) for ids in sequences]
    finally:
        context.close()
    return np.concatenate([row.mean(axis=0, keepdims=True) for row in rows]).astype(np.float64)
