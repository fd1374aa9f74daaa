"""What a server writes while it runs: one object a line, and nothing that a client sent."""

import json
import logging
import os
import re
import signal
import threading
import time
import urllib.request
import warnings
from contextlib import redirect_stderr

import pytest
import structlog

from embellama import EngineConfig
from embellama.errors import ConfigurationError, EmbellamaWarning
from embellama.server.gate import Gate
from embellama.server.run import serve
from embellama.server.settings import ServerConfig
from tests.integration.server.raw import Raw
from tests.integration.server.running import Running, server_process, serving, wait_until_ready
from tests.integration.server.scraped import Page, eventually

SECRET = "sk-never-to-be-seen"


class Written:
    """Standard error in memory, to be read while it is written: capfd loses lines then."""

    def __init__(self):
        self._parts = []
        self.buffer = self

    def write(self, data):
        self._parts.append(data.encode() if isinstance(data, str) else bytes(data))
        return len(data)

    def flush(self):
        """Nothing is held back."""

    def isatty(self):
        return False

    @property
    def text(self):
        return b"".join(self._parts).decode()


class Served:
    """A call of `serve` on this thread, that ends when a function has used it."""

    def __init__(self, capfd, config, use, **settings):
        self._written = Written()
        self._use = use
        self.failure = None
        using = threading.Thread(target=self._run)
        using.start()
        try:
            with redirect_stderr(self._written):
                serve(ServerConfig(port=0, **config), EngineConfig(), **settings)
        finally:
            using.join()
        if self.failure is not None:
            raise self.failure
        self._besides = capfd.readouterr().err  # of native code, or of who found it before

    @property
    def text(self):
        return self._written.text + self._besides

    @property
    def events(self):
        return [json.loads(line) for line in self.text.splitlines()]

    def named(self, name):
        return [event for event in self.events if event["event"] == name]

    def _run(self):
        def url():
            told = self._written.text
            started = re.search(r"embellama\.server\.started.*?(http://[\d.:]+)", told)
            return started and started[1]

        try:
            eventually(url, "it does not start")
            running = Running(None, url())
            wait_until_ready(running)
            self._use(running)
        except BaseException as exc:  # noqa: BLE001 - raised on the thread of the test
            self.failure = exc
        finally:
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_server_tells_what_it_is_and_what_it_does(capfd, tiny_path, monkeypatch, tmp_path):
    monkeypatch.setenv("EMBELLAMA_MAX_TEXTS", "9")
    monkeypatch.setenv("EMBELLAMA_API_KEYS", SECRET)
    admins = tmp_path / "admins"
    admins.write_text(f"boss: {SECRET}2\n")
    headers = {"Authorization": f"Bearer {SECRET}", "X-Request-Id": "mine-1"}

    def use(running):
        body = {"input": ["a c", "ab"]}
        assert running.json("/v1/embeddings", body, headers=headers)[0] == 200

    config = {"models": (f"tiny={tiny_path}",), "admin_key_file": admins}
    served = Served(capfd, config, use, model_settings={"n_threads": 1})
    assert SECRET not in served.text
    [configured] = served.named("embellama.server.configured")
    assert set(configured["server"]) == set(ServerConfig.model_fields)
    assert configured["server"]["max_texts"] == 9
    assert configured["model tiny"]["n_threads"] == 1
    assert configured["sources"] == {
        "server: port": "explicit",
        "server: models": "explicit",
        "server: admin_key_file": "explicit",
        "server: max_texts": "environment: EMBELLAMA_MAX_TEXTS",
        "server: api_keys": "environment: EMBELLAMA_API_KEYS",
        "model tiny: n_threads": "explicit",
    }
    [answered] = served.named("embellama.request.answered")
    times = {answered.pop(name) for name in ("timestamp", "queue_s", "inference_s", "total_s")}
    assert len(times) == 4
    assert answered == {
        "level": "info",
        "event": "embellama.request.answered",
        "request_id": "mine-1",
        "method": "POST",
        "path": "/v1/embeddings",
        "status": 200,
        "code": None,
        "client": "key1",
        "model": "tiny",
        "n_texts": 2,
        "n_tokens": 8,
        "n_truncated": 0,
    }
    assert [event["event"] for event in served.events if "logger" in event] == []
    assert served.events[-1]["event"] == "embellama.server.stopped"
    assert not structlog.is_configured()


def test_for_people_only_what_somebody_set_and_what_there_is_to_say_is_told(capfd, tiny_path):
    def use(running):
        assert running.json("/v1/embeddings", {"input": "a"})[0] == 200

    config = {"models": (f"tiny={tiny_path}",), "max_texts": 7, "log_format": "text"}
    text = Served(capfd, config, use, model_settings={"n_threads": 1}).text
    first, *others = text.splitlines()
    told = first.partition(" embellama.server.configured ")[2]
    assert told.startswith("port=0 models=[")
    assert " max_texts=7 log_format=text model.tiny={" in told
    assert told.endswith('.gguf","n_threads":1}')
    assert "sources" not in told
    [answered] = [line for line in others if "request.answered" in line]
    assert " status=200 " in answered
    assert " code=" not in answered
    assert "None" not in text


def test_a_server_that_cannot_start_leaves_logging_as_it_was(tiny_path):
    handlers = list(logging.getLogger().handlers)
    same = (f"a={tiny_path}", f"a={tiny_path}")
    with pytest.raises(ConfigurationError, match="two models"):
        serve(ServerConfig(port=0, models=same), EngineConfig())
    assert not structlog.is_configured()
    assert logging.getLogger().handlers == handlers


def test_what_the_engine_does_for_a_request_has_its_id(capfd, tiny_path):
    def use(running):
        headers = {"X-Request-Id": "loads-it"}
        assert running.json("/v1/embeddings", {"input": "a"}, headers=headers)[0] == 200

    served = Served(capfd, {"models": (f"tiny={tiny_path}",), "lazy": True}, use)
    [loaded] = served.named("embellama.model.loaded")
    assert loaded["request_id"] == "loads-it"


def test_a_warning_of_the_engine_is_an_event(capfd, tiny_path, monkeypatch, tmp_path):
    settings = tmp_path / "embellama.toml"
    settings.write_text('[model]\nprompts = {query = "a: ", document = "c: "}\n')
    monkeypatch.setenv("EMBELLAMA_CONFIG", str(settings))

    def use(running):
        assert running.json("/v1/embeddings", {"input": "a"})[0] == 200

    with warnings.catch_warnings():
        warnings.simplefilter("default", EmbellamaWarning)
        served = Served(capfd, {"models": (f"tiny={tiny_path}",)}, use)
    [warned] = served.named("embellama.server.warned")
    assert warned["category"] == "EmbellamaWarning"
    assert "prompt" in warned["warning"]


@pytest.mark.parametrize("form", ["json", "text"])
def test_nothing_that_a_client_sends_makes_a_line_or_is_in_one(capfd, tiny_path, form):
    told = "told-to-nobody"

    def use(running):
        for path, headers in (
            (f"/{told}%0a%7b%22event%22:%22forged%22%7d", {}),
            (f"/v1/models/{told}%0aforged", {}),
            (f"/v1/models?{told}=1", {}),
            ("/v1/models", {"Authorization": f"Bearer {told}"}),
            ("/v1/models", {"X-Request-Id": f"{told} forged"}),
            ("/v1/models", {"User-Agent": told}),
        ):
            running.request(path, headers=headers)
        for body in (
            {"input": told, "model": told},
            {"input": [told, ""]},
            {"input": told, "user": told},
            {"input": told, "dimensions": told},
            {"input": told, "embellama": {told: 1}},
            f'{{"input": "{told}'.encode(),
            f'{{"input": "{told}\\ud800"}}'.encode(),
            told.encode(),
        ):
            running.request("/v1/embeddings", body)
        running.request("/v1/embeddings", b"{}", headers={"Content-Type": told})
        raw = Raw(running.url)
        raw.send(f"GET /{told} {told}\r\n{told}\r\n\r\n".encode())
        raw.answer()
        raw.socket.close()

    config = {"models": (f"tiny={tiny_path}",), "log_level": "debug", "log_format": form}
    served = Served(capfd, config, use)
    assert "forged" not in served.text
    assert told not in served.text
    assert [line for line in served.text.splitlines() if line[:2] not in ('{"', "20")] == []
    if form == "json":
        assert len(served.named("embellama.request.answered")) >= 15


def test_an_error_that_nobody_thought_of_is_told_without_what_it_quotes(tiny_path, monkeypatch):
    def fails(endpoint, body):
        raise RuntimeError("quotes a client's text")

    monkeypatch.setattr("embellama.server.gate.parsed", fails)
    with serving(models={"tiny": tiny_path}) as running:
        with structlog.testing.capture_logs() as events:
            status, value = running.json("/v1/embeddings", {"input": "a"})
        assert (status, value["error"]["code"]) == (500, "internal")
    [event] = [event for event in events if event["event"] == "embellama.request.failed"]
    assert event["error"] == "RuntimeError"
    assert event["where"][0].endswith(" fails")
    assert event["where"][1].endswith(f" {Gate._answered.__name__}")
    assert "quotes" not in str(events)


def test_the_command_line_does_not_say_anything_twice(tiny_path):
    with server_process(f"tiny={tiny_path}", "-v") as (process, url, lines):
        with urllib.request.urlopen(f"{url}/v1/models") as answer:
            assert answer.status == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        time.sleep(0.1)
    names = [line["event"] for line in lines]
    # each of its lines was JSON, or it could not have been read
    for name in ("server.configured", "model.loaded", "request.answered", "server.stopped"):
        assert names.count(f"embellama.{name}") == 1


@pytest.mark.parametrize("kept", [{}, {"vector_cache_bytes": 1 << 20}])
def test_an_address_that_others_reach_without_a_key_is_warned_of(capfd, tiny_path, tmp_path, kept):
    def use(running):
        for _ in range(2):
            assert running.json("/v1/embeddings", {"input": "a"})[0] == 200
        assert Page(running).value("embellama_cache_hits_total", model="tiny") == 1

    file = tmp_path / "vectors.db"
    config = {"models": (f"tiny={tiny_path}",), "host": "0.0.0.0", "vector_cache_path": file}
    served = Served(capfd, config | kept, use)
    [exposed] = served.named("embellama.server.exposed")
    assert (exposed["level"], exposed["host"]) == ("warning", "0.0.0.0")
    assert "--api-key-file" in exposed["why"]
    assert file.exists()
    assert served.named("embellama.server.configured")[0]["server"]["vector_cache_path"] == str(
        file
    )


def test_variables_that_nothing_reads_are_warned_of(capfd, tiny_path, monkeypatch):
    monkeypatch.setenv("EMBELLAMA_API_KEY", "secret-of-mine")
    monkeypatch.setenv("EMBELLAMA_ZZZ", "1")
    served = Served(capfd, {"models": (f"tiny={tiny_path}",)}, lambda running: None)
    [warned] = served.named("embellama.server.unknown_variables")
    assert warned["level"] == "warning"
    assert warned["variables"] == ["EMBELLAMA_API_KEY", "EMBELLAMA_ZZZ"]
    assert warned["perhaps"] == {"EMBELLAMA_API_KEY": "EMBELLAMA_API_KEYS"}
    assert "secret-of-mine" not in str(served.text)


def test_vectors_may_be_kept_in_memory_alone_and_spans_sent(capfd, tiny_path, monkeypatch):
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")

    def use(running):
        for _ in range(2):
            assert running.json("/v1/embeddings", {"input": "a"})[0] == 200
        assert Page(running).value("embellama_cache_hits_total", model="tiny") == 1

    config = {"models": (f"tiny={tiny_path}",), "vector_cache_bytes": 1 << 20, "traces": True}
    served = Served(capfd, config, use)
    assert served.named("embellama.server.exposed") == []
    assert "trace_id" not in served.named("embellama.request.answered")[0]
