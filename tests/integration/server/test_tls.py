"""HTTPS with a certificate of the user's own."""

import json
import shutil
import socket
import ssl
import subprocess
import time
import urllib.request

import pytest

from embellama.testing import FakeBackend
from tests.integration.server.raw import GET
from tests.integration.server.running import Running, serving


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate of 127.0.0.1 and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command, to make a certificate")
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(
        [*command.split(), *subject, "-keyout", key, "-out", cert], check=True, capture_output=True
    )
    return cert, key


@pytest.fixture
def secured(certificate, tiny_path):
    """A server with HTTPS and short time limits."""
    cert, key = certificate
    config = {"tls_cert": cert, "tls_key": key, "read_timeout_s": 0.5, "idle_timeout_s": 0.5}
    backend = FakeBackend()
    with serving(config, models={"tiny": tiny_path}, backend=backend, wait=False) as running:
        yield running


def context_of(certificate):
    return ssl.create_default_context(cafile=str(certificate[0]))


def test_it_answers_who_knows_the_certificate(secured, certificate):
    assert secured.url.startswith("https://127.0.0.1:")
    request = urllib.request.Request(
        f"{secured.url}/v1/embeddings",
        data=json.dumps({"input": "a"}).encode(),
        headers={"Content-Type": "application/json"},
    )
    end = time.monotonic() + 20
    while not secured.service.engine.is_loaded("tiny"):
        assert time.monotonic() < end
        time.sleep(0.02)
    with urllib.request.urlopen(request, timeout=10, context=context_of(certificate)) as answer:
        assert answer.status == 200
        assert len(json.load(answer)["data"]) == 1
    with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
        urllib.request.urlopen(request, timeout=10)


def test_plain_http_and_silence_do_no_harm(secured, certificate):
    host, port = secured.url.removeprefix("https://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as plain:
        plain.sendall(GET)
        assert b"200" not in plain.recv(1000)
    with (
        socket.create_connection((host, int(port)), timeout=10) as silent,
        context_of(certificate).wrap_socket(silent, server_hostname=host) as client,
    ):
        assert client.recv(1) == b""  # closed when its time is over
    with (
        socket.create_connection((host, int(port)), timeout=10) as slow,
        context_of(certificate).wrap_socket(slow, server_hostname=host) as client,
    ):
        client.sendall(GET[:-4])
        assert client.recv(1000).startswith(b"HTTP/1.1 408 ")
    with (
        socket.create_connection((host, int(port)), timeout=10) as whole,
        context_of(certificate).wrap_socket(whole, server_hostname=host) as client,
    ):
        client.sendall(GET)
        assert client.recv(1000).startswith(b"HTTP/1.1 200 ")


def test_a_plain_server_says_so_to_a_tls_client(tiny_path):
    with serving(models={"tiny": tiny_path}, backend=FakeBackend()) as running:
        assert isinstance(running, Running)
        host, port = running.url.removeprefix("http://").split(":")
        with (
            socket.create_connection((host, int(port)), timeout=10) as plain,
            pytest.raises(ssl.SSLError),
        ):
            ssl.create_default_context().wrap_socket(plain, server_hostname="localhost")
        assert running.json("/health")[0] == 200
