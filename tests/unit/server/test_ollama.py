"""Ollama's durations, and what its requests may look like."""

from types import SimpleNamespace

import pytest
from pydantic import TypeAdapter, ValidationError

from embellama.server.routes.ollama_models import _vram_bytes
from embellama.server.schemas.ollama import EmbedRequest

REQUEST = TypeAdapter(EmbedRequest)


def kept(written):
    """Return what a request's keep_alive, written in JSON, means."""
    return REQUEST.validate_json(f'{{"model": "m", "keep_alive": {written}}}').keep_alive


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ('"5m"', 300.0),
        ('"1h30m"', 5400.0),
        ('"1.5h"', 5400.0),
        ('"90s"', 90.0),
        ('"300ms"', 0.3),
        ('"5µs"', 5e-6),
        ('".5s"', 0.5),
        ('"+2s"', 2.0),
        ('"0"', 0.0),
        ('"90"', 90.0),
        ('"-1m"', -1.0),
        ('"-1"', -1.0),
        ("90", 90.0),
        ("0.5", 0.5),
        ("0", 0.0),
        ("-1", -1.0),
        ("-7.5", -1.0),
        ("null", None),
    ],
)
def test_durations_are_those_of_go(written, seconds):
    assert kept(written) == (seconds if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    "written",
    [
        '"soon"',
        '""',
        '"5 m"',
        '"5d"',
        '"m"',
        '"٥m"',
        "true",
        "[5]",
        "NaN",
        "Infinity",
        "1e300",
        "9" * 400,
        f'"{"9" * 400}h"',
        '"9999999h"',
    ],
)
def test_what_is_no_duration_is_refused(written):
    with pytest.raises(ValidationError) as caught:
        kept(written)
    assert caught.value.errors()[0]["loc"][0] == "keep_alive"


def test_a_wrong_duration_is_told_how_to_write_one():
    with pytest.raises(ValidationError, match=r"'soon' is no duration; give one like '5m'"):
        kept('"soon"')


def test_the_schema_says_that_durations_are_numbers_or_strings():
    schema = REQUEST.json_schema()["properties"]["keep_alive"]
    assert {kind["type"] for kind in schema["anyOf"]} == {"number", "string", "null"}


@pytest.mark.parametrize(
    ("offloaded", "offloadable", "n_bytes"), [(0, 7, 0), (7, 7, 700), (3, 7, 300)]
)
def test_memory_of_a_gpu_is_that_of_the_layers_there(offloaded, offloadable, n_bytes):
    info = SimpleNamespace(
        memory_bytes=700, n_layers_offloaded=offloaded, n_layers_offloadable=offloadable
    )
    assert _vram_bytes(info) == n_bytes
