import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from embellama.pooling import normalize

finite = st.floats(-(2.0**100), 2.0**100, width=32)


@given(arrays(np.float32, array_shapes(min_dims=2, max_dims=2), elements=finite))
def test_every_row_has_length_one_or_zero(rows):
    lengths = np.linalg.norm(normalize(rows).astype(np.float64), axis=1)
    zero = ~rows.any(axis=1)
    np.testing.assert_allclose(lengths[~zero], 1, atol=1e-5)
    assert (lengths[zero] == 0).all()
