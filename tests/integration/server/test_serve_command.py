"""``embellama serve`` as a process: how it starts, what it says, and how it ends."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import numpy as np
import pytest

from tests.conftest import SOAK
from tests.integration.server.running import Running, server_process
from tests.reference_texts import SENTENCES

ONE_THREAD = {"EMBELLAMA_N_THREADS": "1"}
SECRET = "a-secret-of-the-tests"
END_S = 60.0


def embed(url, text, **options):
    """Return the status and the vectors of a request; 0 where it was not taken."""
    body = {"input": text, **options.pop("body", {})}
    try:
        status, value = Running(None, url).json("/v1/embeddings", body, **options)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return 0, None
    return status, [item["embedding"] for item in value.get("data", [])]


def ended(*arguments, env=None, blocked=None):
    """Run a server that does not start; return its status, its log and its last words."""
    code = "import sys; from embellama.cli import main; sys.exit(main(sys.argv[1:]))"
    if blocked is not None:
        code = f"import sys; sys.modules[{blocked!r}] = None; {code}"
    done = subprocess.run(
        [sys.executable, "-c", code, "serve", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=END_S,
        env={**os.environ, **ONE_THREAD, **(env or {})},
        check=False,
    )
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    said = [line for line in lines if line.startswith("embellama: ")]
    assert all(json.loads(line) for line in lines if line not in said)
    return done.returncode, [line for line in lines if line not in said], "".join(said)


# ── start, answer, end ───────────────────────────────────────────────────────────────────────


def test_a_life(minilm_path, engine):
    # what is no line of JSON is an error in `server_process` itself
    arguments = (f"minilm={minilm_path}", "--alias", "text-embedding-3-small=minilm")
    env = {**ONE_THREAD, "EMBELLAMA_API_KEYS": f"tests: {SECRET}", "EMBELLAMA_MAX_TEXTS": "7"}
    key = {"Authorization": f"Bearer {SECRET}"}
    with server_process(*arguments, env=env) as (process, url, lines):
        status, rows = embed(
            url, "a b c", headers=key, body={"model": "text-embedding-3-small", "user": "u"}
        )
        assert status == 200
        np.testing.assert_array_equal(np.float32(rows[0]), engine.embed("minilm", "a b c"))
        assert embed(url, ["a"] * 8, headers=key)[0] == 400
        assert embed(url, "a")[0] == 401
        process.send_signal(signal.SIGTERM)
        assert process.wait(END_S) == 0
    events = [line["event"] for line in lines]
    assert events[0] == "embellama.server.configured"
    assert events.index("embellama.server.started") < events.index("embellama.model.loaded")
    assert events[-1] == "embellama.server.stopped"
    assert "embellama.server.stopping" in events
    answered = [line for line in lines if line["event"] == "embellama.request.answered"]
    embedded = [line for line in answered if line["path"] == "/v1/embeddings"]
    assert [line["status"] for line in embedded] == [200, 400, 401]
    assert embedded[0]["client"] == "tests"
    assert (embedded[0]["n_texts"], embedded[0]["n_tokens"]) == (1, 5)
    assert len({line["request_id"] for line in answered}) == len(answered)
    settings = lines[0]
    assert settings["server"]["max_texts"] == 7
    assert settings["sources"]["server: max_texts"] == "environment: EMBELLAMA_MAX_TEXTS"
    written = json.dumps(lines)
    assert SECRET not in written
    assert "a b c" not in written


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_it_ends_well_while_it_loads(name, minilm_path):
    with server_process(f"m={minilm_path}", env=ONE_THREAD, ready=False) as (process, _, lines):
        process.send_signal(getattr(signal, name))
        assert process.wait(END_S) == 0
    assert lines[-1]["event"] == "embellama.server.stopped"


def test_it_is_configured_by_variables_and_a_file(minilm_path, tmp_path):
    file = tmp_path / "embellama.toml"
    file.write_text(
        '[server]\nmax_texts = 5\naliases = {other = "mine"}\nlog_format = "json"\n'
        "[model]\nmax_batch_requests = 3\n"
    )
    env = {
        **ONE_THREAD,
        "EMBELLAMA_CONFIG": str(file),
        "EMBELLAMA_MODEL_PATH": str(minilm_path),
        "EMBELLAMA_MODEL_NAME": "mine",
        "EMBELLAMA_MAX_REQUEST_TOKENS": "50",
        "EMBELLAMA_BATCH_SIZE": "2",
        "EMBELLAMA_CACHE_SIZE": "1MB",
    }
    with server_process(env=env) as (_, url, lines):
        assert [m["id"] for m in Running(None, url).json("/v1/models")[1]["data"]] == [
            "mine",
            "other",
        ]
        body = {"model": "other", "embellama": {"details": True}}
        for cached in (False, True):
            _, value = Running(None, url).json("/v1/embeddings", {"input": "a", **body})
            assert value["embellama"]["texts"][0]["cached"] is cached
        assert embed(url, ["a"] * 6)[0] == 400
        assert embed(url, "a " * 60)[0] == 400
    settings = lines[0]
    assert settings["sources"]["server: max_texts"] == f"file: {file}"
    assert settings["model mine"]["max_batch_requests"] == 2


# ── told to end with work to do ──────────────────────────────────────────────────────────────


def test_what_is_being_answered_is_answered(minilm_path):
    """Requests are in it, some computed and some in line, when the signal comes."""
    long = [f"{n} " + " ".join(SENTENCES[n % 60 : n % 60 + 4]) for n in range(20)]
    with (
        server_process(f"m={minilm_path}", env=ONE_THREAD) as (process, url, lines),
        ThreadPoolExecutor(12) as threads,
    ):
        answers = [threads.submit(embed, url, [f"{n}", *long]) for n in range(12)]
        wait_for_requests(url, 12)
        process.send_signal(signal.SIGTERM)
        done = [answer.result() for answer in answers]
        assert process.wait(END_S) == 0
    assert [status for status, _ in done] == [200] * 12
    assert {len(rows) for _, rows in done} == {21}
    stopping = next(line for line in lines if line["event"] == "embellama.server.stopping")
    assert stopping["n_requests"] > 0


def wait_for_requests(url, n_requests):
    end = time.monotonic() + END_S
    while True:
        page = Running(None, url).request("/metrics")[2].decode()
        gauge = "embellama_requests_in_flight "
        value = next(line for line in page.splitlines() if line.startswith(gauge))
        if float(value.removeprefix(gauge)) >= n_requests:
            return
        assert time.monotonic() < end, value
        time.sleep(0.005)


def test_a_load_that_goes_on_loses_nothing_that_was_taken(minilm_path):
    """Clients ask without a pause, on new connections and old ones; whoever is told 200 has it."""
    n_rounds = 5 if SOAK else 1
    for _ in range(n_rounds):
        with server_process(f"m={minilm_path}", env=ONE_THREAD) as (process, url, lines):
            statuses, stop = [], threading.Event()

            def ask(url=url, statuses=statuses, stop=stop):
                numbers = count()
                while not stop.is_set():
                    status, rows = embed(url, [f"{next(numbers)} {word}" for word in SENTENCES[:9]])
                    statuses.append(status)
                    if status == 200:
                        assert len(rows) == 9
                    elif status == 0:
                        return

            with ThreadPoolExecutor(16) as threads:
                asked = [threads.submit(ask) for _ in range(16)]
                time.sleep(1.0)
                process.send_signal(signal.SIGTERM)
                assert process.wait(END_S) == 0
                stop.set()
                for each in asked:
                    each.result()
        answered = [line for line in lines if line.get("path") == "/v1/embeddings"]
        taken = [line["status"] for line in answered]
        # a new connection is refused after the signal, and nobody was told anything but 200
        assert set(statuses) <= {0, 200}
        assert statuses.count(200) == len(taken) == taken.count(200) > 16


def test_what_is_not_done_in_time_is_told_so(minilm_path):
    long = [f"{n} " + " ".join(SENTENCES[n % 60 : n % 60 + 4]) for n in range(1500)]
    arguments = (f"m={minilm_path}", "--shutdown-timeout", "500ms")
    with (
        server_process(*arguments, env=ONE_THREAD) as (process, url, lines),
        ThreadPoolExecutor(1) as threads,
    ):
        asked = threads.submit(Running(None, url).json, "/v1/embeddings", {"input": long})
        wait_for_requests(url, 1)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(END_S) == 0
        assert time.monotonic() - began < 10
        status, value = asked.result()
    assert (status, value["error"]["code"]) == (503, "stopping")
    assert lines[-1]["event"] == "embellama.server.stopped"


def test_a_second_signal_ends_it_at_once_and_without_a_traceback(minilm_path):
    long = [f"{n} " + " ".join(SENTENCES[n % 60 : n % 60 + 4]) for n in range(1500)]
    with (
        server_process(f"m={minilm_path}", env=ONE_THREAD) as (process, url, lines),
        ThreadPoolExecutor(1) as threads,
    ):
        threads.submit(embed, url, long)
        wait_for_requests(url, 1)
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        process.wait(END_S)
        assert time.monotonic() - began < 10
    assert "Traceback" not in json.dumps(lines)
    assert "embellama.server.stopping" in [line["event"] for line in lines]


# ── what does not start ──────────────────────────────────────────────────────────────────────


def test_a_port_that_is_taken():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        status, _, said = ended("--lazy", "--port", port)
    assert status == 2
    assert said == (
        f"embellama: cannot listen at 127.0.0.1, port {port}: Address already in use; choose "
        "another --host or --port"
    )


def test_an_address_that_is_nobodys():
    status, _, said = ended("--lazy", "--host", "no.such.host.invalid")
    assert status == 2
    assert "cannot listen at no.such.host.invalid, port 8080" in said


def test_a_certificate_that_is_none(tmp_path):
    file = tmp_path / "cert.pem"
    file.write_text("no certificate")
    status, _, said = ended("--lazy", "--port", "0", "--tls-cert", file, "--tls-key", file)
    assert status == 2
    assert f"tls_cert = '{file}'" in said
    assert "PEM" in said


@pytest.mark.parametrize("package", ["uvicorn", "starlette", "httptools"])
def test_the_extra_is_named_where_it_is_missing(package):
    status, _, said = ended("--lazy", blocked=package)
    assert status == 1
    assert said == f"embellama: serve needs {package}: pip install 'embellama[server]'"


def test_an_extra_of_an_extra_is_named():
    status, _, said = ended("--lazy", "--token-ids", "cl100k_base", blocked="tiktoken")
    assert status == 1
    assert "pip install 'embellama[tiktoken]'" in said


def test_two_models_of_one_name(tmp_path):
    status, _, said = ended("m=/a.gguf", "m=/b.gguf")
    assert status == 2
    assert "two models would be called 'm' (/a.gguf and /b.gguf)" in said


def test_an_alias_of_nothing():
    status, _, said = ended("minilm", "--alias", "x=docs")
    assert status == 2
    assert "stands for 'docs', which is not served; there are: minilm" in said


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("m=/none/x.gguf", "'/none/x.gguf', and there is no such file"),
        ("docs=nonsense", "no model named 'nonsense' in the catalogue"),
        ("=minilm", "'=minilm' lacks the name"),
    ],
)
def test_a_model_that_cannot_be_there(given, message):
    status, log, said = ended("--lazy", "--port", "0", given)
    assert status in (1, 2)
    assert message in said
    assert not any("server.started" in line for line in log)


def test_nothing_is_loaded_where_the_port_is_taken(minilm_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        status, log, said = ended("--port", taken.getsockname()[1], f"m={minilm_path}")
    assert status == 2
    assert "cannot listen at 127.0.0.1" in said
    assert not any("model.loaded" in line for line in log)


_SLOW = """
import sys, time
from embellama.cli import main
from embellama.engine import EmbeddingEngine
EmbeddingEngine.load_model = lambda *given, **options: time.sleep(60)
sys.exit(main(sys.argv[1:]))
"""


def test_a_load_that_goes_on_does_not_keep_it(minilm_path):
    arguments = (f"m={minilm_path}", "--port", "0", "--shutdown-timeout", "500ms")
    process = subprocess.Popen(
        [sys.executable, "-c", _SLOW, "serve", *arguments], stderr=subprocess.PIPE, text=True
    )
    with process.stderr:
        for line in process.stderr:
            if "server.started" in line:
                break
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(END_S) == 0
        assert time.monotonic() - began < 10


def test_a_model_that_is_broken_is_said_by_the_log_and_by_ready(tmp_path):
    """Others go on, and it may be mended: the server lives, and is not ready."""
    (tmp_path / "none.gguf").write_bytes(b"GGUF" + bytes(100))
    arguments = (f"m={tmp_path / 'none.gguf'}",)
    with server_process(*arguments, env=ONE_THREAD, ready=False) as (process, url, lines):
        end = time.monotonic() + END_S
        while Running(None, url).json("/ready")[1]["status"] != "failed":
            assert time.monotonic() < end
            time.sleep(0.02)
        status, value = Running(None, url).json("/v1/embeddings", {"input": "a"})
        assert (status, value["error"]["code"]) == (503, "model_load_failed")
        assert "none.gguf" not in value["error"]["message"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(END_S) == 0
    failed = [line for line in lines if line["event"] == "embellama.server.load_failed"]
    assert failed[0]["level"] == "warning"
    assert "none.gguf" in failed[0]["error"]
