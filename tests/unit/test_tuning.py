import json

import pytest
from structlog.testing import capture_logs

from embellama import tuning
from embellama._llama.devices import describe_build
from embellama.config import ModelConfig
from embellama.cpu import describe_cpu
from embellama.errors import ConfigurationError
from embellama.tuning import (
    MAX_BATCH_TOKENS,
    Measured,
    Tuning,
    build_for,
    default_layouts,
    read_tuning,
    stored_tuning,
    tuning_key,
    tuning_path,
    write_tuning,
)
from embellama.types import Layout, Layouts

KEY = tuning_key("some CPU", "some build", "ab" * 32)
BUILD = describe_build("0.3.36", {"AVX2": True, "AMX_INT8": False, "AVX": True})
TUNING = Tuning(
    layouts=Layouts(Layout(4, 2, 128), Layout(8, 1, 512), Layout(1, 8, 256)),
    flash_attn="auto",
    file_type=None,
    device="CPU",
    measured={
        "short": Measured(900.0, 1100.5, 1.22),
        "long": Measured(50.0, 50.0, 1.0),
        "single": Measured(300.0, 310.0, 1.03),
    },
    created="2026-01-02T03:04:05+00:00",
)


def stored(folder):
    return json.loads(tuning_path(folder, KEY).read_text())


def refused(folder):
    """Read a tuning that has to be refused; return the reason in the log."""
    with capture_logs() as events:
        assert read_tuning(folder, KEY) is None
    (event,) = events
    assert event["event"] == "embellama.tuning.refused"
    assert event["path"] == str(tuning_path(folder, KEY))
    return event["error"]


def test_what_is_written_is_read(tmp_path):
    folder = tmp_path / "deep" / "tuning"
    for kept in (TUNING, Tuning(**{**_fields(TUNING), "file_type": "BF16", "flash_attn": False})):
        path = write_tuning(folder, KEY, kept)
        assert read_tuning(folder, KEY) == kept
    assert [file.name for file in folder.iterdir()] == [path.name]


def _fields(one):
    return {name: getattr(one, name) for name in Tuning.__dataclass_fields__}


def test_nothing_stored_is_no_event(tmp_path):
    with capture_logs() as events:
        assert read_tuning(tmp_path / "missing", KEY) is None
    assert events == []


def test_a_model_finds_its_own_tuning(tmp_path):
    content = ["ab" * 32, "cd" * 32]
    key = tuning_key(describe_cpu(2), BUILD, *content)
    write_tuning(tmp_path, key, TUNING)
    found = {"n_cores": 2, "build": BUILD, "content": content}
    assert stored_tuning(tmp_path, **found) == TUNING
    others = ({"n_cores": 3}, {"build": BUILD + "1"}, {"content": content[:1]})
    for other in others:
        assert stored_tuning(tmp_path, **{**found, **other}) is None


def test_backends_are_told_apart_where_both_may_compute(monkeypatch, tmp_path):
    monkeypatch.setattr(tuning, "library_path", lambda: tmp_path / "kernels.so")
    names = {
        build_for("llama 1", ModelConfig(backend="llama")),
        build_for("llama 1", ModelConfig(backend="auto")),
        build_for("llama 1", ModelConfig(backend="auto", compute_type="f32")),
    }
    monkeypatch.setenv("EMBELLAMA_ISA", "avx2")
    names.add(build_for("llama 1", ModelConfig(backend="auto")))
    assert len(names) == 4
    assert "llama 1" in names
    native, auto = (build_for("llama 1", ModelConfig(backend=name)) for name in ("native", "auto"))
    assert native == auto  # a model that both load runs on the same kernels
    monkeypatch.setattr(tuning, "library_path", lambda: None)
    assert build_for("llama 1", ModelConfig(backend="auto")) == "llama 1"


def test_a_key_depends_on_every_part():
    keys = {
        tuning_key("cpu", "build", "one"),
        tuning_key("cpu2", "build", "one"),
        tuning_key("cpu", "build2", "one"),
        tuning_key("cpu", "build", "two"),
        tuning_key("cpu", "build", "one", "two"),
        tuning_key("cpub", "uild", "one"),
    }
    assert len(keys) == 6


@pytest.mark.parametrize(
    "data", [b"", b"{", b"\xff\xfe", b"[]", b"null", b"7", b"[" * 60_000, b" " * 70_000]
)
def test_damaged_files_are_refused(tmp_path, data):
    tuning_path(tmp_path, KEY).write_bytes(data)
    assert refused(tmp_path)


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("layouts", "short", "n_contexts"), 0),
        (("layouts", "short", "n_contexts"), 65),
        (("layouts", "long", "n_threads"), True),
        (("layouts", "long", "n_threads"), 1.0),
        (("layouts", "single", "n_threads"), 513),
        (("layouts", "single", "max_batch_tokens"), 10**9),
        (("layouts", "single", "max_batch_tokens"), MAX_BATCH_TOKENS + 1),
        (("layouts", "single", "max_batch_tokens"), "256"),
        (("layouts", "single"), None),
        (("layouts",), []),
        (("flash_attn",), "yes"),
        (("flash_attn",), 1),
        (("file_type",), "../../etc"),
        (("file_type",), 16),
        (("device",), ""),
        (("device",), "x" * 201),
        (("measured", "short", "gain"), float("nan")),
        (("measured", "short", "gain"), float("inf")),
        (("measured", "short", "gain"), -1),
        (("measured", "short", "gain"), False),
        (("measured", "short", "best_texts_per_s"), "fast"),
        (("created",), "yesterday"),
        (("created",), "2026-01-02T03:04:05"),
        (("format",), "embellama tuning 2"),
        (("key",), "0" * 32),
        (("extra",), 1),
        (("layouts", "huge"), {"n_contexts": 1, "n_threads": 1, "max_batch_tokens": 1}),
    ],
)
def test_values_out_of_their_limits_are_refused(tmp_path, where, value):
    write_tuning(tmp_path, KEY, TUNING)
    document = stored(tmp_path)
    inner = document
    for name in where[:-1]:
        inner = inner[name]
    inner[where[-1]] = value
    tuning_path(tmp_path, KEY).write_text(json.dumps(document))
    assert refused(tmp_path).startswith("ValueError")


@pytest.mark.parametrize("name", ["format", "layouts", "device", "measured", "created"])
def test_what_lacks_a_field_is_refused(tmp_path, name):
    write_tuning(tmp_path, KEY, TUNING)
    document = stored(tmp_path)
    del document[name]
    tuning_path(tmp_path, KEY).write_text(json.dumps(document))
    assert refused(tmp_path)


def test_a_folder_in_place_of_the_file_is_refused(tmp_path):
    tuning_path(tmp_path, KEY).mkdir()
    assert "IsADirectoryError" in refused(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"layouts": Layouts(Layout(0, 1, 256), Layout(1, 1, 256), Layout(1, 1, 256))},
        {"file_type": "no such/type"},
        {"created": "2026-01-02T03:04:05"},
        {"measured": {}},
    ],
)
def test_what_could_not_be_read_is_not_written(tmp_path, change):
    with pytest.raises(ConfigurationError, match="cannot be kept"):
        write_tuning(tmp_path, KEY, Tuning(**{**_fields(TUNING), **change}))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "tuning").write_text("a file")
    with pytest.raises(FileExistsError):
        write_tuning(tmp_path / "tuning", KEY, TUNING)


def test_defaults_use_every_core_once():
    assert default_layouts(8, 256) == Layouts(
        Layout(8, 1, 256), Layout(8, 1, 256), Layout(1, 8, 256)
    )
    assert default_layouts(1000, 64).short == Layout(64, 1, 64)


def test_a_build_is_told_by_version_and_features():
    assert BUILD == "llama-cpp-python 0.3.36 with AVX AVX2"
    assert describe_build("0.3.36", {}) != BUILD
