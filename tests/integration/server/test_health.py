"""Whether a server lives, and whether it is ready."""

import threading
import time

import pytest
import structlog

from embellama.errors import ModelLoadError
from embellama.testing import FakeBackend
from tests.integration.server.running import serving
from tests.integration.server.scraped import WAIT_S, eventually


class SlowToLoad(FakeBackend):
    """Loads when a test lets it; ``fails`` says whether with success."""

    def __init__(self, *, fails=False):
        super().__init__()
        self.may_load = threading.Event()
        self.fails = fails

    def load(self, metadata, config, pooling_type):
        assert self.may_load.wait(WAIT_S)
        if self.fails:
            raise ModelLoadError("the file is not what it should be")
        return super().load(metadata, config, pooling_type)


def test_a_server_listens_while_it_loads_and_says_so(tiny_path):
    backend = SlowToLoad()
    with serving(models={"tiny": tiny_path}, backend=backend, wait=False) as running:
        loading = {"tiny": "loading"}
        assert running.json("/health") == (200, {"status": "ok", "models": loading})
        status, headers, _ = running.request("/ready")
        assert (status, headers["retry-after"]) == (503, "2")
        assert running.json("/ready")[1] == {"status": "loading", "models": loading}
        status, headers, data = running.request("/v1/embeddings", {"input": "a"})
        assert (status, headers["retry-after"]) == (503, "2")
        assert b'"code":"loading"' in data
        backend.may_load.set()
        eventually(lambda: running.json("/ready")[0] == 200, "it is not ready")
        loaded = {"tiny": "loaded"}
        assert running.json("/ready") == (200, {"status": "ready", "models": loaded})
        assert running.json("/v1/embeddings", {"input": "a"})[0] == 200


def test_a_model_that_fails_at_start_is_named_until_it_is_there(tiny_path):
    backend = SlowToLoad(fails=True)
    backend.may_load.set()
    models = {"a": tiny_path, "b": tiny_path}
    with serving(models=models, backend=backend, wait=False) as running:

        def told():
            return running.json("/ready")[1]["status"]

        eventually(lambda: told() == "failed", "it does not fail")
        eventually(lambda: set(running.json("/health")[1]["models"].values()) == {"failed"}, "")
        assert running.json("/ready")[0] == 503
        assert running.json("/health")[0] == 200
        backend.fails = False
        running.service.models.failure_pause_s = 0.0
        assert running.json("/v1/embeddings", {"input": "a", "model": "a"})[0] == 200
        status, value = running.json("/ready")
        assert (status, value["models"]) == (503, {"a": "loaded", "b": "failed"})
        assert running.json("/v1/embeddings", {"input": "a", "model": "b"})[0] == 200
        assert told() == "ready"


def test_a_server_that_loads_nothing_by_itself_is_ready_at_once(tiny_path):
    backend = SlowToLoad(fails=True)
    backend.may_load.set()
    with serving({"lazy": True}, models={"tiny": tiny_path}, backend=backend) as running:
        assert running.json("/ready") == (200, {"status": "ready", "models": {"tiny": "unloaded"}})
        assert running.json("/v1/embeddings", {"input": "a"})[0] == 503
        assert running.json("/ready") == (200, {"status": "ready", "models": {"tiny": "failed"}})


def test_a_model_that_an_administrator_failed_to_add_changes_nothing(tiny_path, tmp_path):
    with serving(models={"tiny": tiny_path}) as running:
        added = running.service.models.add("other", str(tmp_path / "none.gguf"))
        added.error, added.failed_at_s = "there is no such file", time.monotonic()
        assert running.json("/ready")[0] == 200
        assert running.json("/health")[1]["models"]["other"] == "failed"


def test_a_server_that_ends_is_not_ready_and_lives(tiny_path):
    with serving(models={"tiny": tiny_path}) as running:
        running.service.is_stopping = True
        status, value = running.json("/ready")
        assert (status, value["status"]) == (503, "stopping")
        assert running.json("/health")[0] == 200


def test_no_key_is_needed(tiny_path):
    with serving({"api_keys": ("a-long-key",)}, models={"tiny": tiny_path}) as running:
        assert running.json("/v1/models")[0] == 401
        assert running.json("/health")[0] == running.json("/ready")[0] == 200
        status, _, data = running.request("/health", method="HEAD")
        assert (status, data) == (200, b"")


@pytest.mark.parametrize("path", ["/health", "/ready", "/metrics"])
def test_what_is_asked_every_few_seconds_is_logged_for_debugging_alone(tiny_path, path):
    config = {"access_log": True}
    with serving(config, models={"tiny": tiny_path}) as running:
        with structlog.testing.capture_logs() as events:
            running.request(path)
            running.request("/v1/models")
        levels = {e["path"]: e["log_level"] for e in events if e["event"].endswith(".answered")}
    assert levels == {path: "debug", "/v1/models": "info"}
