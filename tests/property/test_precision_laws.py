import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from embellama.errors import ConfigurationError
from embellama.precision.calibration import Calibration
from embellama.precision.codes import dequantize, quantize, shorten

values = st.floats(-(2.0**60), 2.0**60, width=32)
rows_of = st.tuples(st.integers(1, 20), st.integers(1, 20)).flatmap(
    lambda shape: arrays(np.float32, shape, elements=values)
)


@given(rows_of, rows_of)
def test_codes_grow_with_values_and_never_wrap(measured, rows):
    rows = np.resize(rows, (len(rows), measured.shape[1]))
    calibration = Calibration.from_vectors(measured)
    codes = quantize(rows, "uint8", calibration)
    order = np.argsort(rows, axis=0, kind="stable")
    assert (np.diff(np.take_along_axis(codes, order, axis=0).astype(int), axis=0) >= 0).all()
    constant = calibration.ranges[0] == calibration.ranges[1]
    assert (codes[rows <= calibration.ranges[0]] == 0).all()
    assert (codes[(rows > calibration.ranges[1]) & ~constant] >= 254).all()
    signed = quantize(rows, "int8", calibration)
    np.testing.assert_array_equal(signed.astype(int), codes.astype(int) - 128)


@given(rows_of)
def test_what_comes_back_is_half_a_step_away_at_most(rows):
    calibration = Calibration.from_vectors(rows)
    back = dequantize(quantize(rows, "int8", calibration), "int8", calibration)
    assert ((calibration.ranges[0] <= back) & (back <= calibration.ranges[1])).all()
    # below the smallest normal number there are fewer digits
    rounding = np.abs(calibration.ranges).max(axis=0) * 2.0**-22 + np.finfo(np.float32).tiny
    assert (np.abs(back - rows) <= calibration.steps * 0.5 + rounding).all()


@given(rows_of)
def test_every_bit_is_a_sign(rows):
    for precision in ("binary", "ubinary"):
        back = dequantize(quantize(rows, precision), precision, dimensions=rows.shape[1])
        np.testing.assert_array_equal(back > 0, rows > 0)


@given(rows_of, st.data())
def test_shortened_vectors_point_where_the_cut_does(rows, data):
    dimensions = data.draw(st.integers(1, rows.shape[1]))
    cut = rows[:, :dimensions].astype(np.float64)
    lengths = np.linalg.norm(cut, axis=1, keepdims=True)
    expected = np.divide(cut, lengths, out=np.zeros_like(cut), where=lengths > 0)
    np.testing.assert_allclose(shorten(rows, dimensions), expected, rtol=0, atol=1e-6)


@given(arrays(np.float32, (3, 4), elements=st.floats(-(2.0**126), 2.0**126, width=32)))
def test_a_file_keeps_every_bit(rows):
    calibration = Calibration.from_vectors(rows, fingerprint="é\0\n")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ranges.json"
        calibration.save(path)
        loaded = Calibration.load(path)
    assert loaded.ranges.tobytes() == calibration.ranges.tobytes()
    assert loaded == calibration


@given(st.data())
def test_a_damaged_file_is_never_taken(data):
    calibration = Calibration(np.array([[-0.5, -2], [0.25, 3]], dtype=np.float32), "abc")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ranges.json"
        calibration.save(path)
        damaged = bytearray(path.read_bytes())
        position = data.draw(st.integers(0, len(damaged) - 1))
        if data.draw(st.booleans()):
            damaged[position] ^= 1 << data.draw(st.integers(0, 7))
        else:
            del damaged[position:]
        path.write_bytes(bytes(damaged))
        try:
            loaded = Calibration.load(path)
        except ConfigurationError:
            return
    # white space, or a digit beyond float32
    assert loaded == calibration
