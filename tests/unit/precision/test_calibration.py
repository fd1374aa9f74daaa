import json
import os
import pickle

import numpy as np
import pytest
import structlog

from embellama.errors import ConfigurationError, InvalidInputError
from embellama.precision.calibration import MAX_FILE_BYTES, Calibration


@pytest.fixture
def rows():
    return np.random.default_rng(5).normal(0, 0.05, (200, 12)).astype(np.float32)


@pytest.fixture
def calibration(rows):
    return Calibration.from_vectors(rows, fingerprint="abc123")


@pytest.fixture
def file(calibration, tmp_path):
    path = tmp_path / "ranges.json"
    calibration.save(path)
    return path


def test_ranges_are_minima_and_maxima(rows, calibration):
    assert calibration.ranges.dtype == np.float32
    np.testing.assert_array_equal(calibration.ranges, [rows.min(axis=0), rows.max(axis=0)])
    assert calibration.n_embd == 12


def test_ranges_cannot_be_changed(rows):
    given = np.stack([rows.min(axis=0), rows.max(axis=0)])
    calibration = Calibration(given)
    given[0] = 9
    assert (calibration.ranges[0] < 0).all()
    with pytest.raises(ValueError, match="read-only"):
        calibration.ranges[0] = 9


@pytest.mark.parametrize("n_vectors", [99, 100])
def test_few_vectors_are_reported(n_vectors, rows):
    with structlog.testing.capture_logs() as events:
        Calibration.from_vectors(rows[:n_vectors])
    report = {
        "event": "embellama.calibration.measured",
        "log_level": "warning",
        "n_vectors": 99,
        "n_recommended": 100,
    }
    assert events == ([report] if n_vectors < 100 else [])


def test_the_digest_is_of_the_ranges_alone(rows, calibration):
    again = Calibration(calibration.ranges)
    assert again.digest == calibration.digest
    assert again != calibration  # another model
    moved = calibration.ranges.copy()
    moved[1, 3] = np.nextafter(moved[1, 3], np.float32(9))
    assert Calibration(moved).digest != calibration.digest
    transposed_values = calibration.ranges.reshape(2, 12)[:, :6]
    assert Calibration(transposed_values).digest != calibration.digest


def test_the_digest_is_the_same_everywhere():
    known = Calibration(np.array([[-1, -0.0], [1, 0.5]], dtype=np.float32))
    assert known.digest == "871e1e79199fca49"
    assert Calibration(np.array([[-1, 0.0], [1, 0.5]], dtype=">f4")).digest == known.digest


def test_equal_ones_are_one_key(calibration):
    same = Calibration(calibration.ranges.copy(), "abc123")
    assert {calibration, same, pickle.loads(pickle.dumps(calibration))} == {same}
    assert calibration != "abc123"


def test_saved_and_loaded(calibration, file, tmp_path):
    assert Calibration.load(file) == calibration
    assert Calibration.load(str(file)).fingerprint == "abc123"
    below = tmp_path / "new" / "folder" / "ranges.json"
    Calibration(calibration.ranges).save(str(below))
    assert Calibration.load(below) == Calibration(calibration.ranges)
    assert Calibration.load(below).fingerprint is None


def test_another_model_is_refused(calibration):
    calibration.check_fingerprint("abc123")
    Calibration(calibration.ranges).check_fingerprint("anything")
    with pytest.raises(ConfigurationError, match=r"for the model abc123, not for def456; make"):
        calibration.check_fingerprint("def456")


def test_a_failed_save_leaves_the_old_file_and_no_other(calibration, file, monkeypatch):
    before = file.read_bytes()

    def fail(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(ConfigurationError, match=r"ranges.json.*No space left.*write elsewhere"):
        Calibration(calibration.ranges).save(file)
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == ["ranges.json"]


def test_a_folder_and_a_nul_are_no_place_for_a_file(calibration, tmp_path):
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "folder", "a\0b", ""):
        with pytest.raises(ConfigurationError, match="cannot be written"):
            calibration.save(path)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_what_is_not_there_or_no_file(tmp_path):
    for path in (tmp_path / "absent.json", "a\0b"):
        with pytest.raises(ConfigurationError, match=r"cannot be read.*from_vectors"):
            Calibration.load(path)
    with pytest.raises(ConfigurationError, match="a plain file of at most"):
        Calibration.load(tmp_path)


def test_a_file_too_large_is_not_read(tmp_path):
    path = tmp_path / "large.json"
    with path.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(ConfigurationError, match=f"{MAX_FILE_BYTES + 1} bytes"):
        Calibration.load(path)


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"[1, 2]", b"\x80\x05", b"PK\x03\x04", b"[" * 100_000, b'{"format": "x"}'],
    ids=["empty", "object", "list", "pickle", "zip", "deep", "format"],
)
def test_a_foreign_file(data, tmp_path):
    path = tmp_path / "foreign.json"
    path.write_bytes(data)
    with pytest.raises(ConfigurationError, match="is not a calibration this version reads"):
        Calibration.load(path)


def changed(file, **fields):
    content = json.loads(file.read_text()) | fields
    file.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"version": 2}, r"reads \(version: Input should be 1"),
        ({"extra": 1}, r"\(extra: Extra inputs"),
        ({"fingerprint": "other"}, "has changed since it was written"),
        ({"sha256": "0" * 64}, "not 0000000000000000"),
        ({"minimum": [-9.0] * 12}, "has changed"),
        ({"minimum": [-9.0] * 11}, "11 minima and 12 maxima"),
        ({"minimum": ["-9.0"] * 12}, "valid number"),
        ({"minimum": [9.0] * 12}, "component 0 goes from 9.0 to"),
        ({"maximum": [1e300] * 12}, "to inf"),
        ({"minimum": [], "maximum": []}, r"shape \(2, 0\)"),
        ({"minimum": [float("nan")] * 12}, "component 0 goes from nan"),
    ],
)
def test_a_changed_file(fields, message, file):
    changed(file, **fields)
    with pytest.raises(ConfigurationError, match=message):
        Calibration.load(file)


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        (np.zeros(4), r"shape \(4,\), not \(2, n_embd\)"),
        (np.zeros((3, 4)), r"shape \(3, 4\)"),
        ([[0, 2], [1, 1]], "component 1 goes from 2.0 to 1.0"),
        ([[0, 0], [1, np.inf]], "component 1"),
        ([[-3e38], [3e38]], "must be finite"),
    ],
)
def test_impossible_ranges(ranges, message):
    with pytest.raises(ConfigurationError, match=message):
        Calibration(np.array(ranges, dtype=np.float32))


@pytest.mark.parametrize("shape", [(0, 4), (4,), (4, 0)])
def test_nothing_to_measure(shape):
    with pytest.raises(InvalidInputError, match="a few hundred texts"):
        Calibration.from_vectors(np.zeros(shape, dtype=np.float32))


def test_nan_is_not_measured(rows):
    rows[[4, 5], 0] = np.nan
    with pytest.raises(InvalidInputError, match="2 of 200 vectors, the first at 4") as caught:
        Calibration.from_vectors(rows)
    assert caught.value.indices == (4, 5)
