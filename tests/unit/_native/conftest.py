"""The compiled kernels, or a reason to skip."""

import pytest

from embellama._native.binding import open_library


@pytest.fixture(scope="session")
def library():
    library = open_library()
    if library is None:
        pytest.skip("needs the native kernels: install embellama where there is a C++ compiler")
    return library
