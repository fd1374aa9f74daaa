from pathlib import Path

import numpy as np
import pytest

from embellama.errors import InvalidInputError, InvalidInputTypeError
from embellama.precision.calibration import Calibration
from embellama.precision.codes import PRECISIONS, dequantize, quantize, shorten

REFERENCE = Path(__file__).parents[2] / "data" / "precision_reference.npz"
N_CALIBRATION = 100
ODD = 61

DTYPES = {
    "float32": np.float32,
    "float16": np.float16,
    "int8": np.int8,
    "uint8": np.uint8,
    "binary": np.int8,
    "ubinary": np.uint8,
}


@pytest.fixture(scope="module")
def reference():
    with np.load(REFERENCE) as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def vectors(reference):
    return reference["vectors"]


@pytest.fixture(scope="module")
def calibration(vectors):
    return Calibration.from_vectors(vectors[:N_CALIBRATION])


def same(ours, theirs):
    assert ours.dtype == theirs.dtype
    np.testing.assert_array_equal(ours, theirs)


# against sentence-transformers, bit by bit


@pytest.mark.parametrize("precision", ["int8", "uint8"])
def test_codes_equal_sentence_transformers(precision, reference, vectors, calibration):
    own = Calibration.from_vectors(vectors)
    same(quantize(vectors, precision, own), reference[f"{precision}_own"])
    same(quantize(vectors, precision, calibration), reference[f"{precision}_first"])


@pytest.mark.parametrize("precision", ["binary", "ubinary"])
def test_bits_equal_sentence_transformers(precision, reference, vectors):
    same(quantize(vectors, precision), reference[precision])
    same(quantize(vectors[:, :ODD], precision), reference[f"{precision}_odd"])


@pytest.mark.parametrize("dimensions", [64, 32, 10, 1])
def test_shortened_vectors_equal_sentence_transformers(dimensions, reference, vectors):
    ours = shorten(vectors, dimensions)
    assert ours.dtype == np.float32
    assert ours.flags.c_contiguous
    np.testing.assert_allclose(ours, reference[f"shortened_{dimensions}"], rtol=0, atol=1e-6)


def test_the_reference_covers_clamping_constants_and_zeros(vectors, calibration):
    outside = (vectors < calibration.ranges[0]) | (vectors > calibration.ranges[1])
    assert outside[N_CALIBRATION:].any(axis=1).sum() > 30
    constant = calibration.ranges[0] == calibration.ranges[1]
    assert np.flatnonzero(constant).tolist() == [5, 6]
    assert np.flatnonzero(~vectors.any(axis=1)).tolist() == [130]


# what each precision is


@pytest.mark.parametrize("precision", PRECISIONS)
def test_types_shapes_and_layout(precision, vectors, calibration):
    codes = quantize(np.asfortranarray(vectors), precision, calibration)
    assert codes.dtype == DTYPES[precision]
    assert codes.shape == (150, 8 if "binary" in precision else 64)
    assert codes.flags.c_contiguous
    same(codes, quantize(vectors, precision, calibration))
    assert quantize(vectors[:0], precision, calibration).shape == (0, codes.shape[1])


def test_float32_rows_come_back_as_they_are(vectors):
    assert quantize(vectors, "float32") is vectors
    assert quantize(vectors.astype(np.float64), "float32").dtype == np.float32


def test_float16_rounds_to_nearest(vectors):
    halves = quantize(vectors, "float16")
    np.testing.assert_allclose(halves.astype(np.float64), vectors, rtol=2**-11, atol=2**-25)


def test_values_outside_the_ranges_get_the_codes_of_the_ends():
    calibration = Calibration(np.array([[0], [510]], dtype=np.float32))
    rows = np.array([[-1e38], [-0.1], [0], [510], [510.1], [3e38]], dtype=np.float32)
    assert quantize(rows, "uint8", calibration).ravel().tolist() == [0, 0, 0, 255, 255, 255]
    assert quantize(rows, "int8", calibration).ravel().tolist() == [-128] * 3 + [127] * 3


def test_difference_beyond_float32_is_clamped_without_a_warning():
    calibration = Calibration(np.array([[-3e38], [-2.9e38]], dtype=np.float32))
    rows = np.array([[3e38]], dtype=np.float32)
    assert quantize(rows, "uint8", calibration).tolist() == [[255]]


def test_a_constant_component_divides_nothing_by_zero():
    rows = np.full((100, 2), 0.5, dtype=np.float32)
    rows[:, 1] = np.linspace(-1, 1, 100)
    calibration = Calibration.from_vectors(rows)
    codes = quantize(rows, "uint8", calibration)
    assert (codes[:, 0] == 0).all()
    assert (dequantize(codes, "uint8", calibration)[:, 0] == 0.5).all()


def test_bits_are_filled_up_with_zeros():
    rows = np.ones((1, 11), dtype=np.float32)
    assert quantize(rows, "ubinary").tolist() == [[0b11111111, 0b11100000]]
    assert quantize(rows, "binary").tolist() == [[127, 0b11100000 - 128]]


def test_zero_is_not_over_zero():
    rows = np.array([[0.0, -0.0, 1e-45, -1e-45]], dtype=np.float32)
    assert quantize(rows, "ubinary").tolist() == [[0b00100000]]


def test_rounding_may_put_the_maximum_into_the_last_step_as_in_sentence_transformers():
    calibration = Calibration(np.array([[0], [10]], dtype=np.float32))
    codes = quantize(np.array([[10], [10.1]], dtype=np.float32), "uint8", calibration)
    assert codes.ravel().tolist() == [254, 255]  # 10 / (10 / 255) is 254.99998 in float32


# and back


@pytest.mark.parametrize("precision", ["int8", "uint8"])
def test_back_within_half_a_step(precision, vectors):
    calibration = Calibration.from_vectors(vectors)
    back = dequantize(quantize(vectors, precision, calibration), precision, calibration)
    assert back.dtype == np.float32
    assert (np.abs(back - vectors) <= calibration.steps * 0.501).all()


@pytest.mark.parametrize("precision", ["binary", "ubinary"])
def test_back_to_signs(precision, vectors):
    codes = quantize(vectors[:, :ODD], precision)
    signs = np.where(vectors[:, :ODD] > 0, np.float32(1), np.float32(-1))
    same(dequantize(codes, precision, dimensions=ODD), signs)
    filled = dequantize(codes, precision)
    same(filled[:, :ODD], signs)
    assert filled.shape == (150, 64)
    assert (filled[:, ODD:] == -1).all()


def test_back_from_floats(vectors):
    same(dequantize(vectors, "float32"), vectors)
    halves = quantize(vectors, "float16")
    same(dequantize(halves, "float16"), halves.astype(np.float32))


def test_ranges_as_wide_as_float32_come_back_finite():
    calibration = Calibration(np.array([[0], [3.4e38]], dtype=np.float32))
    back = dequantize(np.array([[255]], dtype=np.uint8), "uint8", calibration)
    assert back.tolist() == calibration.ranges[1:].tolist()


# cutting


def test_cutting_does_not_depend_on_earlier_scaling(vectors):
    np.testing.assert_allclose(
        shorten(shorten(vectors, 64), 16), shorten(vectors, 16), rtol=0, atol=1e-6
    )


def test_none_only_cuts_and_shares_no_memory(vectors):
    cut = shorten(vectors, 16, "none")
    same(cut, vectors[:, :16])
    assert not np.shares_memory(cut, vectors)
    assert not np.shares_memory(shorten(vectors, 64, "none"), vectors)


def test_the_models_own_normalization_is_used(vectors):
    rows = shorten(vectors[8:9], 16, 1)
    assert np.abs(rows).sum() == pytest.approx(1, abs=1e-5)


# refusals


@pytest.mark.parametrize("dimensions", [0, -1, 65])
def test_dimensions_out_of_range(dimensions, vectors):
    with pytest.raises(InvalidInputError, match=f"dimensions is {dimensions}.*64 components"):
        shorten(vectors, dimensions)


@pytest.mark.parametrize("dimensions", [True, 8.0, "8"])
def test_dimensions_of_another_type(dimensions, vectors):
    with pytest.raises(InvalidInputTypeError, match="whole number"):
        shorten(vectors, dimensions)


@pytest.mark.parametrize("precision", ["int8", "uint8"])
def test_bytes_need_a_calibration(precision, vectors):
    with pytest.raises(InvalidInputError, match="Calibration.from_vectors"):
        quantize(vectors, precision)
    codes = np.zeros((1, 64), dtype=precision)
    with pytest.raises(InvalidInputError, match="needs a calibration"):
        dequantize(codes, precision)


def test_a_calibration_of_another_length(vectors, calibration):
    with pytest.raises(InvalidInputError, match="for 64 components and the vectors have 32"):
        quantize(shorten(vectors, 32), "int8", calibration)


def test_an_unknown_precision(vectors):
    with pytest.raises(InvalidInputError, match="'int4'; use one of float32, float16, int8"):
        quantize(vectors, "int4")
    with pytest.raises(InvalidInputError, match="'int4'"):
        dequantize(vectors, "int4")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_nan_and_infinity_have_no_code(precision, value, vectors, calibration):
    rows = vectors.copy()
    rows[[3, 9], 1] = value
    with pytest.raises(InvalidInputError, match="2 of 150 vectors, the first at 3") as caught:
        quantize(rows, precision, calibration)
    assert caught.value.indices == (3, 9)


def test_values_too_large_for_float16():
    rows = np.array([[1, 65504], [65520, 0]], dtype=np.float32)
    with pytest.raises(InvalidInputError, match="ends at 65504.*go up to 65520") as caught:
        quantize(rows, "float16")
    assert caught.value.indices == (1,)


def test_rows_of_another_kind(vectors, calibration):
    codes = quantize(vectors, "int8", calibration)
    for wrong in (lambda: quantize(codes, "int8", calibration), lambda: shorten(codes, 8)):
        with pytest.raises(InvalidInputTypeError, match="the vectors are int8"):
            wrong()
    with pytest.raises(InvalidInputError, match=r"shape \(64,\).*newaxis"):
        quantize(vectors[0], "binary")
    with pytest.raises(InvalidInputError, match=r"shape \(2, 0\)"):
        shorten(vectors[:2, :0], 1)


def test_codes_of_another_kind(vectors, calibration):
    with pytest.raises(InvalidInputError, match="uint8 codes are uint8.*not int8"):
        dequantize(quantize(vectors, "int8", calibration), "uint8", calibration)
    with pytest.raises(InvalidInputError, match=r"shape \(8,\)"):
        dequantize(quantize(vectors, "ubinary")[0], "ubinary")


@pytest.mark.parametrize("dimensions", [56, 65, 0, -1])
def test_bits_of_another_length(dimensions, vectors):
    with pytest.raises(InvalidInputError, match=f"hold 57 to 64 components, not {dimensions}"):
        dequantize(quantize(vectors, "ubinary"), "ubinary", dimensions=dimensions)
