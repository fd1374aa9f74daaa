"""What tests of measuring share."""

import pytest

from embellama._native.binding import open_library


@pytest.fixture
def native_kernels():
    if open_library() is None:
        pytest.skip("needs the native kernels: install embellama where there is a C++ compiler")
