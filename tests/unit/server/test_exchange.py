"""Answers as bytes, and a request's time."""

import json
import time

import numpy as np

from embellama.server.exchange import Exchange, answer


def test_float32_is_written_so_that_it_is_read_back_to_the_last_bit():
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2**32, size=20_000, dtype=np.uint32)
    row = bits.view(np.float32)
    row = row[np.isfinite(row)]
    written = answer({"embedding": row}).body
    read = np.array(json.loads(written)["embedding"], dtype=np.float32)
    np.testing.assert_array_equal(
        read.view(np.uint32) & 0x7FFFFFFF, row.view(np.uint32) & 0x7FFFFFFF
    )
    ordinary = np.array([0.1, -1.5, 3e-8, -0.0], dtype=np.float32)
    assert answer(ordinary).body == b"[0.1,-1.5,3e-8,-0.0]"  # no digits of float64


def test_rows_of_every_precision_are_numbers():
    rows = [np.array([-3, 127], np.int8), np.array([0, 255], np.uint8)]
    assert json.loads(answer(rows).body) == [[-3, 127], [0, 255]]


def test_what_an_answer_is_unless_said():
    given = answer({"a": 1, 2: "é"})
    assert (given.status, given.media_type, given.headers) == (200, b"application/json", ())
    assert given.body == '{"a":1,"2":"é"}'.encode()
    headers = ((b"x", b"y"),)
    assert answer([], status=503, headers=headers).headers == headers


def test_time_runs_out_and_not_below():
    def left(seconds):
        deadline = time.monotonic() + seconds
        return Exchange("id", {}, {}, b"", "me", deadline).remaining_s

    assert 99 < left(100) <= 100
    assert left(-1) == 0.0
