import logging

import structlog

from embellama.logs import log


def test_without_configuration_events_go_to_the_standard_logger(caplog, capsys):
    with caplog.at_level(logging.INFO, logger="embellama"):
        log.info("embellama.model.loaded", model="minilm", load_s=0.25)
        log.debug("embellama.llama.logged", line="hidden")
    assert [record.getMessage() for record in caplog.records] == [
        "event=embellama.model.loaded model=minilm load_s=0.25"
    ]
    assert capsys.readouterr() == ("", "")


def test_a_configured_structlog_gets_the_whole_event():
    with structlog.testing.capture_logs() as events:
        log.warning("embellama.model.doubted", model="minilm", warning="odd")
    assert events == [
        {
            "event": "embellama.model.doubted",
            "model": "minilm",
            "warning": "odd",
            "log_level": "warning",
        }
    ]


def test_loading_a_model_is_an_event(tiny_path):
    from embellama import EmbeddingEngine

    with structlog.testing.capture_logs() as events, EmbeddingEngine() as engine:
        engine.load_model(tiny_path, name="t")
        engine.unload_model("t")
    named = {event["event"]: event for event in events}
    assert named["embellama.model.loaded"]["model"] == "t"
    assert named["embellama.model.loaded"]["load_s"] > 0
    assert named["embellama.model.unloaded"]["model"] == "t"
