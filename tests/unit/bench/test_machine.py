import pytest

from embellama._native.binding import Kernel
from embellama.bench import machine
from embellama.bench.machine import describe_kernels, describe_machine, native_kernels
from embellama.errors import ConfigurationError

SCALAR = Kernel(3, "scalar", "f32", 1, 4)


def test_a_machine_is_described_in_words():
    found = describe_machine()
    assert all(isinstance(value, str) and value for value in found.values())
    assert {"CPU", "cores", "instruction sets", "memory", "llama-cpp-python"} <= found.keys()
    assert "OPENMP" not in found["instruction sets"]
    assert found["native kernels"] == native_kernels()


@pytest.mark.parametrize(
    ("kernels", "words"),
    [
        (
            [
                Kernel(0, "big", "bf16", 32, 2),
                Kernel(1, "big", "f32", 16, 4),
                Kernel(2, "old", "f32", 8, 4),
            ],
            "big (bf16, f32), old (f32)",
        ),
        ([], "none for this CPU"),
    ],
)
def test_kernels_are_named_without_the_scalar_ones(kernels, words):
    assert describe_kernels([*kernels, SCALAR]) == words


def test_kernels_that_are_not_there_are_told(monkeypatch):
    monkeypatch.setattr(machine, "open_library", lambda: None)
    assert native_kernels() == "not compiled"

    def refuse():
        raise ConfigurationError("another version")

    monkeypatch.setattr(machine, "open_library", refuse)
    assert native_kernels().startswith("not usable")
