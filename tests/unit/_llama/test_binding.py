import ctypes
import types

import pytest
import structlog

from embellama._llama.binding import LogLines, check_binding, lib
from embellama._llama.devices import binding_version, cpu_features, list_devices
from embellama.errors import ConfigurationError


def changed(**replaced):
    """The library with some of its names replaced."""
    return types.SimpleNamespace(**{**vars(lib), **replaced})


def test_the_installed_library_is_one_we_know():
    check_binding()


def test_a_struct_with_another_field_is_refused_by_name():
    class llama_batch(ctypes.Structure):  # noqa: N801
        _fields_ = [*lib.llama_batch._fields_, ("surprise", ctypes.c_int)]

    with pytest.raises(ConfigurationError, match=r"another llama_batch .* \(differing: surprise\)"):
        check_binding(changed(llama_batch=llama_batch))


def test_fields_in_another_order_are_refused():
    class llama_batch(ctypes.Structure):  # noqa: N801
        _fields_ = list(reversed(lib.llama_batch._fields_))

    with pytest.raises(ConfigurationError, match="their order"):
        check_binding(changed(llama_batch=llama_batch))


def test_a_library_that_does_not_fit_its_structs_is_refused():
    def shifted():
        params = lib.llama_context_default_params()
        params.embeddings = True
        return params

    with pytest.raises(ConfigurationError, match="does not fit its own structs"):
        check_binding(changed(llama_context_default_params=shifted))


def test_lines_are_captured_on_the_thread_that_asked_and_logged_at_debug():
    with structlog.testing.capture_logs() as events, LogLines() as lines:
        assert not lib.llama_model_load_from_file(
            b"/nowhere.gguf", lib.llama_model_default_params()
        )
    assert any("nowhere.gguf" in line for line in lines.relevant())
    logged = [event for event in events if event["event"] == "embellama.llama.logged"]
    assert {event["log_level"] for event in logged} == {"debug"}
    assert any("nowhere.gguf" in event["line"] for event in logged)


def test_nothing_is_captured_after_the_block():
    with LogLines() as lines:
        pass
    lib.llama_model_load_from_file(b"/nowhere.gguf", lib.llama_model_default_params())
    assert lines.relevant() == ()


def test_the_cpu_is_a_device_and_has_named_features():
    (cpu, *_) = [device for device in list_devices() if device.kind == "cpu"]
    assert cpu.total_bytes > 0
    assert cpu.description
    assert cpu_features()
    assert binding_version().startswith("0.3.")
