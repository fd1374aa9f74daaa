import asyncio
import io
import json
import logging
import threading
import timeit
import warnings

import pytest
import structlog

from embellama.errors import EmbellamaWarning
from embellama.logs import log
from embellama.server.log_output import LogOutput, where, written_log

FORGED = 'x\n{"event": "forged"}\r\x1b[31m\x9b\u2028'


@pytest.fixture
def stream():
    return io.TextIOWrapper(io.BytesIO(), write_through=True)


def lines_of(stream):
    return stream.buffer.getvalue().decode().splitlines(keepends=True)


def events_of(stream):
    return [json.loads(line) for line in lines_of(stream)]


def test_an_event_is_an_object_with_its_time_level_and_name_first(stream):
    with (
        written_log("info", "json", stream),
        structlog.contextvars.bound_contextvars(request_id="r1"),
    ):
        log.info("embellama.model.loaded", model="m", load_s=0.25)
        log.debug("embellama.model.hidden")
    [event] = events_of(stream)
    assert list(event) == ["timestamp", "level", "event", "request_id", "model", "load_s"]
    assert event.pop("timestamp")[10:11] == "T"
    assert event == {
        "level": "info",
        "event": "embellama.model.loaded",
        "request_id": "r1",
        "model": "m",
        "load_s": 0.25,
    }


def test_people_get_a_line_with_what_they_cannot_read_in_quotes(stream):
    with written_log("info", "text", stream):
        log.warning("embellama.model.doubted", model="é b", path="/v1/x", n=2, why=None, by=[1])
    [line] = lines_of(stream)
    assert line.partition(" ")[2] == (
        'warning embellama.model.doubted model="é b" path=/v1/x n=2 by=[1]\n'
    )


def test_of_a_lifespan_that_a_second_signal_ended_no_traceback_is_written(stream):
    with written_log("info", "json", stream):
        for last in ("asyncio.exceptions.CancelledError", "ValueError: no"):
            logging.getLogger("uvicorn.error").error(
                f"Traceback (most recent call last):\n{last}\n"
            )
    [event] = events_of(stream)
    assert event["event"].endswith("ValueError: no\n")


@pytest.mark.parametrize("form", ["json", "text"])
def test_no_value_makes_a_line_of_its_own(stream, form):
    with written_log("info", form, stream):
        log.info("embellama.a.done", value=FORGED, **{"listed": [FORGED]})
        logging.getLogger("other").warning("got %s", FORGED)
    lines = stream.buffer.getvalue()
    assert lines.count(b"\n") == 2
    assert b"\r" not in lines
    assert b"\x1b" not in lines


def test_what_is_no_json_is_written_all_the_same(stream):
    with written_log("info", "json", stream):
        log.info("embellama.a.done", path="\udcff", number=1 << 80, what={1: object}, none=[...])
    [event] = events_of(stream)
    assert event["path"] == "\udcff"
    assert event["number"] == 1 << 80
    assert "object" in event["what"]["1"]


def test_an_events_own_level_is_not_the_lines(stream):
    with written_log("debug", "json", stream):
        log.debug("embellama.llama.logged", level=3, line="weights")
    [event] = events_of(stream)
    assert (event["level"], event["level_"]) == ("debug", 3)


def test_lines_of_other_libraries_are_events_too(stream):
    with written_log("info", "json", stream):
        logging.getLogger("uvicorn.error").error("Cancel %d running task(s)", 3)
        logging.getLogger("uvicorn.error").info("Started")
    [cancelled] = events_of(stream)
    assert cancelled["event"] == "Cancel 3 running task(s)"
    assert (cancelled["level"], cancelled["logger"]) == ("error", "uvicorn.error")


def test_a_line_whose_arguments_do_not_fit_is_told_without_them(stream, monkeypatch):
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # pytest's would raise
    with written_log("info", "json", stream):
        logging.getLogger("other").warning("%d of them", "text")
    [event] = events_of(stream)
    assert event["event"] == "%d of them"


def test_debugging_shows_what_other_libraries_tell(stream):
    with written_log("debug", "json", stream):
        logging.getLogger("uvicorn.error").info("Started")
    assert [event["event"] for event in events_of(stream)] == ["Started"]


def test_an_exception_is_its_type_and_its_place_without_what_it_quotes(stream):
    def fails():
        raise ValueError("a client's text")

    with written_log("info", "json", stream):
        try:
            fails()
        except ValueError:
            logging.getLogger("other").exception("failed")
    [event] = events_of(stream)
    assert event["error"] == "ValueError"
    assert event["where"][0].startswith("test_log_output.py:")
    assert event["where"][0].endswith(" fails")
    assert "client" not in stream.buffer.getvalue().decode()


def test_asyncio_does_not_tell_what_a_forgotten_task_held(stream):
    async def forgotten():
        raise ValueError("a client's text")

    async def forget():
        task = asyncio.ensure_future(forgotten())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        del task

    with written_log("info", "json", stream):
        asyncio.run(forget())
    [event] = events_of(stream)
    assert event["event"] == "Task exception was never retrieved"
    assert (event["logger"], event["error"]) == ("asyncio", "ValueError")
    assert "client" not in stream.buffer.getvalue().decode()


def test_warnings_are_events(stream):
    with written_log("info", "json", stream), warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.warn("prompts are missing", EmbellamaWarning, stacklevel=1)
    [event] = events_of(stream)
    assert (event["event"], event["level"]) == ("embellama.server.warned", "warning")
    assert (event["category"], event["warning"]) == ("EmbellamaWarning", "prompts are missing")
    assert event["where"].startswith("test_log_output.py:")


def test_what_a_thread_dies_of_is_an_event(stream):
    def die():
        raise ValueError("a client's text")

    with written_log("info", "json", stream):
        thread = threading.Thread(target=die, name="t")
        thread.start()
        thread.join()
    [event] = events_of(stream)
    assert (event["event"], event["thread"], event["error"]) == (
        "embellama.thread.failed",
        "t",
        "ValueError",
    )
    assert "client" not in stream.buffer.getvalue().decode()


@pytest.mark.parametrize("was_configured", [False, True])
def test_everything_is_as_it_was_afterwards(stream, was_configured):
    if was_configured:
        structlog.configure(processors=[structlog.processors.KeyValueRenderer()])
    root = logging.getLogger()

    def state():
        return (
            structlog.is_configured(),
            structlog.get_config()["processors"],
            list(root.handlers),
            root.level,
            warnings.showwarning,
            threading.excepthook,
        )

    before = state()
    with pytest.raises(KeyError), written_log("debug", "json", stream):
        assert state() != before
        raise KeyError
    assert state() == before
    assert lines_of(stream) == []


class Full(io.BytesIO):
    """A disk without room, for the time being."""

    is_full = True

    def write(self, data):
        if self.is_full:
            raise OSError(28, "No space left on device")
        return super().write(data)


def test_a_line_that_cannot_be_written_fails_nothing_and_is_told_of_later():
    full = Full()
    stream = io.TextIOWrapper(full, write_through=True)
    with written_log("info", "json", stream):
        log.info("embellama.a.done", n=1)
        log.info("embellama.a.done", n=2)
        full.is_full = False
        log.info("embellama.a.done", n=3)
        log.info("embellama.a.done", n=4)
    events = [json.loads(line) for line in full.getvalue().splitlines()]
    assert [(event["event"], event.get("n"), event.get("n_lines")) for event in events] == [
        ("embellama.log.lost", None, 2),
        ("embellama.a.done", 3, None),
        ("embellama.a.done", 4, None),
    ]


def test_a_stream_of_text_alone_and_a_closed_one_will_do():
    stream = io.StringIO()
    output = LogOutput(stream, "json")
    output.tell("info", "embellama.a.done")
    assert json.loads(stream.getvalue())["event"] == "embellama.a.done"
    stream.close()
    output.tell("info", "embellama.a.done")


def test_nothing_raised_is_nowhere():
    assert where(None) == []
    assert where(ValueError()) == []


def test_the_line_of_a_request_is_a_small_part_of_it(tmp_path):
    fields = dict.fromkeys(("queue_s", "inference_s", "total_s"), 0.001234)
    fields |= dict.fromkeys(("n_texts", "n_tokens", "n_truncated"), 7)
    fields |= dict.fromkeys(("method", "path", "client", "model"), "/v1/embeddings")

    def tell():
        log.info("embellama.request.answered", status=200, **fields)

    with (tmp_path / "log").open("w") as stream, written_log("info", "json", stream):
        taken = timeit.repeat(tell, number=500, repeat=20)
    # 15 µs alone on a machine; coverage and other people take their share
    assert min(taken) / 500 < 60e-6
    assert len((tmp_path / "log").read_text().splitlines()) == 10_000
