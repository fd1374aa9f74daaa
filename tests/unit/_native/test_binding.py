"""The compiled library is found, checked, and its absence is no trouble."""

import _ctypes
from pathlib import Path

import pytest

from embellama._native import binding as module
from embellama._native.binding import Library, library_path, open_library
from embellama.errors import ConfigurationError


def test_it_is_loaded_once(library):
    assert open_library() is library
    assert library.path == library_path()


def test_every_cpu_has_the_kernels_that_others_are_held_against(library):
    assert [(one.isa, one.compute_type) for one in library.kernels[-3:]] == [
        ("scalar", "f32"),
        ("scalar", "bf16"),
        ("scalar", "int8"),
    ]
    assert [one.number for one in library.kernels] == list(range(len(library.kernels)))
    assert str(library.kernels[-1]) == "scalar, int8"


def test_a_kernel_says_what_it_multiplies_and_in_what_steps(library):
    for kernel in library.kernels:
        assert kernel.compute_type in ("f32", "bf16", "int8")
        # with bytes, attention is computed in what the instruction set has
        of_attention = {"f32": {4}, "bf16": {2}, "int8": {2, 4}}[kernel.compute_type]
        assert kernel.value_bytes in of_attention
        assert kernel.lanes == 32 or (kernel.lanes < 32 and kernel.compute_type != "int8")


def test_none_where_none_were_compiled(monkeypatch):
    monkeypatch.setattr(module, "_FILE_NAME", "no_such_library.so")
    monkeypatch.setattr(module, "_loaded", [])
    assert library_path() is None
    assert open_library() is None


def test_none_where_embellama_is_not_installed(monkeypatch):
    def missing(name):
        raise module.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(module, "_FILE_NAME", "no_such_library.so")
    monkeypatch.setattr(module.metadata, "distribution", missing)
    assert library_path() is None


def test_what_is_no_library_says_so(tmp_path):
    path = tmp_path / "libembellama_native.so"
    path.write_bytes(b"not a library")
    with pytest.raises(ConfigurationError, match="cannot be loaded.*backend='llama'"):
        Library(path)


def test_another_library_says_so():
    with pytest.raises(ConfigurationError, match="has no native kernels in it.*backend='llama'"):
        Library(Path(_ctypes.__file__))


def test_another_version_says_so(library, monkeypatch):
    monkeypatch.setattr(module, "VERSION", 999)
    with pytest.raises(ConfigurationError, match="are version \\d+, and embellama wants 999"):
        Library(library.path)
