"""What the tiny models share: weights from names, GGUF files, and the texts they embed."""

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from gguf import MODEL_ARCH, MODEL_ARCH_NAMES, GGUFWriter, LlamaFileType, get_tensor_name_map
from numpy.typing import NDArray

REFERENCES = Path(__file__).parents[1] / "data" / "architectures"
"""Where the reference vectors are; ``tests/data/make_architecture_references.py`` writes them."""

Weights = Mapping[str, NDArray[np.float32]]

TEXTS = (
    "a cat",
    "The dog is not in the house.",
    "the house is not in the dog",
    "What is the capital of Spain?",
    "A naïve café, 2024: résumé & crème brûlée!",
    "  two   spaces,\ttabs\nand lines  ",
    "день и ночь, 東京 2020 🙂",
    "The quick brown fox jumps over the lazy dog. " * 5,
    "Once there was a queen, and the queen had a dog and a cat and a house near the sea. "
    "Every morning they went down to the water to see the ships; in the evening they read "
    "books about far cities, trains and rain. Nobody knows how it ended, or when.",
)
"""From 2 words to well over any window of attention here, in several scripts."""


def tensor(
    name: str, *shape: int, mean: float = 0.0, std: float = 0.2, seed: int = 1
) -> NDArray[np.float32]:
    """Make weights that depend on the name, the seed and nothing else.

    Only PCG64's raw bits are used: numpy promises to keep those, and not its distributions.

    Returns:
        float32 of this shape, uniform around ``mean`` with standard deviation ``std``.
    """
    bits = np.random.PCG64([seed, zlib.crc32(name.encode())])
    raw = bits.random_raw(int(np.prod(shape))).astype(np.float64)
    uniform = raw / 2**63 - 1.0
    values: NDArray[np.float32] = (mean + std * np.sqrt(3.0) * uniform).astype(np.float32)
    return values.reshape(shape)


def norm(name: str, width: int) -> NDArray[np.float32]:
    """Make a normalisation's weight, around 1 and far enough from it to show."""
    return tensor(name, width, mean=1.0, std=0.3)


def fill(shapes: Mapping[str, tuple[int, ...]], *, seed: int = 1) -> dict[str, NDArray[np.float32]]:
    """Make a tensor of each shape: norms around 1, embeddings of tokens larger than the rest.

    A weight with one dimension is a norm's. Embeddings of tokens are large, so that texts differ by
    more than what all tokens share, such as positions and biases.
    """

    def made(name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        if name.endswith(".weight") and len(shape) == 1:
            return norm(name, shape[0])
        is_token = "word_embeddings" in name or "tok_embeddings" in name
        return tensor(name, *shape, std=1.0 if is_token else 0.2, seed=seed)

    return {name: made(name, shape) for name, shape in shapes.items()}


def in_gguf_names(
    weights: Weights, architecture: MODEL_ARCH, n_layer: int
) -> dict[str, NDArray[np.float32]]:
    """Rename tensors from their model's own names, with the table of llama.cpp's converter."""
    table = get_tensor_name_map(architecture, n_layer)
    renamed = {}
    for name, values in weights.items():
        known = table.get_name(name, try_suffixes=(".weight", ".bias"))
        assert known is not None, f"{name} has no name in a GGUF of {architecture.name}"
        renamed[known] = values
    assert len(renamed) == len(weights)
    return renamed


@dataclass(frozen=True, slots=True)
class TinyModel:
    """A model of a few hundred kilobytes and what it has to answer.

    Attributes:
        name: Of its files and in the test's output.
        architecture: What llama.cpp runs it as.
        describe: Adds the metadata, vocabulary included, that llama.cpp's converter writes.
        tensors: Makes the float32 tensors in GGUF's names.
        pooling_type: What the engine has to decide.
        pooling_source: From what.
        texts: What is embedded.
        least_cosine: To the reference, for the worst text.
    """

    name: str
    architecture: MODEL_ARCH
    describe: Callable[[GGUFWriter], None]
    tensors: Callable[[], Weights]
    pooling_type: str = "mean"
    pooling_source: str = "file"
    texts: tuple[str, ...] = TEXTS
    least_cosine: float = 0.9999

    @property
    def reference(self) -> Path:
        """The file with the token ids and vectors of its texts."""
        return REFERENCES / f"{self.name}.npz"

    def write(self, path: Path) -> Path:
        """Write the model as F32."""
        writer = GGUFWriter(path, MODEL_ARCH_NAMES[self.architecture])
        writer.add_name(self.name)
        writer.add_file_type(LlamaFileType.ALL_F32)
        self.describe(writer)
        for name, values in self.tensors().items():
            writer.add_tensor(name, values)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    def with_value(self, name: str, value: Any) -> "TinyModel":
        """Return this model with another value of its metadata, to see it matter.

        Args:
            name: The key; of the architecture's own also without the architecture's name.
            value: Of the type that the key has.
        """

        def describe(writer: GGUFWriter) -> None:
            self.describe(writer)
            values = writer.kv_data[0]
            key = f"{MODEL_ARCH_NAMES[self.architecture]}.{name}"
            values[name if name in values else key].value = value

        return replace(self, describe=describe)

    def with_added(self, add: Callable[[GGUFWriter], None]) -> "TinyModel":
        """Return this model with a value that its metadata leaves out, to see it matter."""

        def describe(writer: GGUFWriter) -> None:
            self.describe(writer)
            add(writer)

        return replace(self, describe=describe)

    def with_tensors(
        self, end: str, change: Callable[[NDArray[np.float32]], NDArray[np.float32]]
    ) -> "TinyModel":
        """Return this model with other values in the tensors of these names, to see them matter."""

        def tensors() -> Weights:
            given = self.tensors()
            changed = {name: change(given[name]) for name in given if name.endswith(end)}
            assert changed, f"no tensor is named {end}"
            return {**given, **changed}

        return replace(self, tensors=tensors)
