"""Which backend runs a model: llama.cpp, or the native kernels where they fit and agree with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from embellama import agreements
from embellama._llama.devices import gpus_among, list_devices
from embellama._llama.model import LlamaBackend
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
            if config.compute_type != "auto":  # which llama.cpp does not know
                log.warning("embellama.native.refused", model=metadata.name, reason=kernel)
            return self._llama.load(metadata, config, pooling_type)
        if config.backend == "auto" and has_gpu(config):
            return self._llama.load(metadata, config, pooling_type)
        try:
            return self._checked(kernel, metadata, config, pooling_type)
        except (ModelLoadError, MemoryError) as exc:
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
        """Load a model for the kernels, and hold its vectors against llama.cpp's.

        Not where that was done before and they agreed. llama.cpp's weights are gone before the
        kernels' are packed: one of them at a time is in memory.
        """
        library = open_library()
        assert library is not None  # the kernel is one of its own
        on_cpu = config.model_copy(update={"use_gpu": False, "n_gpu_layers": None})
        words = self._llama.load_vocabulary(metadata, on_cpu, pooling_type)
        try:
            least = LEAST_COSINE.get(metadata.file_type, LEAST_COSINE_QUANTIZED)
            key = self._key(kernel, library, metadata, pooling_type)
            is_known = key is not None and agreements.is_remembered(*key, least)
            probes = [] if is_known else _probes(words, metadata)
            expected = [] if is_known else self._reference(metadata, on_cpu, pooling_type, probes)
            model = NativeModel(
                library, kernel, metadata, pooling_type, words, use_mmap=config.use_mmap
            )
        except BaseException:
            words.close()
            raise
        if is_known:
            return model
        try:
            cosine = _agreement(model, probes, expected, least)
        except BaseException:
            model.close()
            raise
        if key is not None:
            agreements.remember(*key, model=metadata.name, kernel=kernel, cosine=cosine)
        return model

    def _reference(
        self,
        metadata: GGUFMetadata,
        config: ModelConfig,
        pooling_type: PoolingType,
        probes: list[np.ndarray],
    ) -> list[FloatArray]:
        """Compute llama.cpp's rows of each probe text."""
        reference = self._llama.load(metadata, config, pooling_type)
        try:
            context = reference.create_context(ContextOptions(max(map(len, probes)), 1, 1))
            try:
                return [context.run(MicroBatch.pack([ids])) for ids in probes]
            finally:
                context.close()
        except EmbellamaError as exc:
            raise ModelLoadError(f"the native kernels could not be compared: {exc}") from exc
        finally:
            reference.close()

    def _key(
        self,
        kernel: Kernel,
        library: Library,
        metadata: GGUFMetadata,
        pooling_type: PoolingType,
    ) -> tuple[Path, str] | None:
        """Return the folder of agreements and what this one is found by; None if none is kept."""
        if self._folder is None:
            return None
        content = [self._digests.digest(path) for path in metadata.paths]
        try:
            key = agreements.agreement_key(kernel, library.path, self.build, pooling_type, content)
        except OSError as exc:  # the library was replaced since it was loaded
            log.info("embellama.agreement.forgotten", folder=str(self._folder), error=repr(exc))
            return None
        return self._folder, key


def has_gpu(config: ModelConfig) -> bool:
    """Tell whether llama.cpp would put layers on a GPU that is there."""
    may_use = config.use_gpu == "auto" and config.n_gpu_layers != 0
    return may_use and bool(gpus_among(list_devices()))


def _probes(words: BackendModel, metadata: GGUFMetadata) -> list[np.ndarray]:
    limit = metadata.n_ctx_train
    try:
        return [words.vocabulary.tokenize(text)[:limit] for text in _PROBES]
    except EmbellamaError as exc:
        raise ModelLoadError(f"the native kernels could not be compared: {exc}") from exc


def _agreement(
    model: NativeModel, probes: list[np.ndarray], expected: list[FloatArray], least: float
) -> float:
    """Return the worst cosine of probe texts' vectors to those expected.

    Raises:
        ModelLoadError: It is below `least`, or the texts differ when they are computed together.
    """
    try:
        found = _rows(model, probes)
    except EmbellamaError as exc:
        raise ModelLoadError(f"the native kernels could not be compared: {exc}") from exc
    ours, theirs = _means(found), _means(expected)
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    cosines = (ours * theirs).sum(axis=1) / np.maximum(lengths, 1e-30)
    worst = float(cosines.min())
    if not worst >= least:
        raise ModelLoadError(
            f"native vectors of {model.name!r} agree with llama.cpp's to a cosine of "
            f"{worst:.6f}, and should to {least:g}; set backend='llama', and please report it"
        )
    return worst


def _rows(model: NativeModel, probes: list[np.ndarray]) -> list[FloatArray]:
    """Compute the rows of each text alone, on one thread, and of all together, on two."""
    context = model.create_context(ContextOptions(sum(map(len, probes)), len(probes), 2))
    try:
        together = context.run(MicroBatch.pack(probes))
        context.set_n_threads(1)
        alone = [context.run(MicroBatch.pack([ids])) for ids in probes]
    finally:
        context.close()
    if not np.array_equal(np.concatenate(alone), together, equal_nan=True):
        raise ModelLoadError(
            f"native vectors of {model.name!r} depend on what they are computed with; set "
            "backend='llama', and please report it"
        )
    return alone


def _means(rows: list[FloatArray]) -> FloatArray:
    return np.stack([one.mean(axis=0) for one in rows]).astype(np.float64)
