from __future__ import annotations

import errno
import shutil
import socket
import time
from collections import namedtuple

import huggingface_hub
import pytest

from embellama.errors import ConfigurationError, DownloadError, ModelNotFoundError
from embellama.hub import download
from embellama.hub.download import (
    fetch_file,
    find_stored,
    hub_endpoint,
    is_checked,
    is_offline,
    list_repository,
)
from tests.hub_server import Fault, HubServer, digest_of

REPOSITORY = "owner/model-GGUF"
WEIGHTS = b"GGUF" + bytes(range(256)) * 4096
NAME = "model-Q8_0.gguf"


@pytest.fixture
def served(hub: HubServer) -> HubServer:
    hub.repositories[REPOSITORY] = {NAME: WEIGHTS, "sub/model-F16.gguf": b"GGUF1", "a.json": b"{}"}
    return hub


def test_a_listing_has_sizes_and_digests(served):
    listing = list_repository(REPOSITORY)
    assert listing.commit == served.commit_of(REPOSITORY)
    assert listing.names == [NAME, "sub/model-F16.gguf", "a.json"]
    assert listing.find(NAME).size_bytes == len(WEIGHTS)
    assert listing.find(NAME).digest == digest_of(NAME, WEIGHTS)
    assert listing.find("a.json").digest == digest_of("a.json", b"{}")


def test_a_file_comes_whole_and_is_not_fetched_twice(served, cache, capfd):
    listing = list_repository(REPOSITORY)
    path = fetch_file(listing, NAME, cache=cache)
    assert path.read_bytes() == WEIGHTS
    assert fetch_file(listing, NAME, cache=cache) == path
    assert served.count("GET", NAME) == 1
    assert find_stored(REPOSITORY)[NAME] == path
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("asked", [True, False])
def test_a_progress_bar_is_drawn_only_where_it_is_asked_for(
    served, cache, capfd, monkeypatch, asked
):
    monkeypatch.setenv("TQDM_POSITION", "-1")  # huggingface-hub's way to draw without a terminal
    fetch_file(list_repository(REPOSITORY), NAME, cache=cache, progress_bar=asked)
    out, err = capfd.readouterr()
    assert out == ""
    assert ("100%" in err) == asked


def test_a_file_in_a_folder_at_a_tag(served, cache):
    path = fetch_file(list_repository(REPOSITORY, "v1"), "sub/model-F16.gguf", cache=cache)
    assert path.read_bytes() == b"GGUF1"
    assert find_stored(REPOSITORY, "v1") == {"sub/model-F16.gguf": path}
    assert find_stored(REPOSITORY, served.commit_of(REPOSITORY)) == {"sub/model-F16.gguf": path}
    assert find_stored(REPOSITORY, "v2") == {}


def test_a_dropped_connection_is_resumed_where_it_broke(served, cache, capfd, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 1 << 16)
    served.faults.append(Fault(NAME, "GET", drop_after=300_000, times=1))
    path = fetch_file(list_repository(REPOSITORY), NAME, cache=cache)
    assert path.read_bytes() == WEIGHTS
    ranges = [sent for method, path, sent in served.requests if method == "GET" and NAME in path]
    assert ranges == [None, f"bytes={4 << 16}-"]
    assert capfd.readouterr() == ("", "")


def test_a_connection_that_drops_for_good_leaves_nothing(served, cache, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # huggingface-hub's waits
    served.faults.append(Fault(NAME, "GET", drop_after=300_000, times=1))
    served.faults.append(Fault(NAME, "GET", drop_after=0))
    with pytest.raises(DownloadError) as caught:
        fetch_file(list_repository(REPOSITORY), NAME, cache=cache)
    assert caught.value.retryable
    assert find_stored(REPOSITORY) == {}


def test_wrong_bytes_are_refused_and_deleted(served, cache):
    served.faults.append(Fault(NAME, "GET", body=WEIGHTS[:-1] + b"!", times=1))
    listing = list_repository(REPOSITORY)
    with pytest.raises(DownloadError, match="other content than the hub lists") as caught:
        fetch_file(listing, NAME, cache=cache)
    assert caught.value.status is None
    assert find_stored(REPOSITORY) == {}
    assert fetch_file(listing, NAME, cache=cache).read_bytes() == WEIGHTS


def test_wrong_bytes_of_a_small_file_are_refused_too(served, cache):
    served.faults.append(Fault("a.json", "GET", body=b"[]"))
    with pytest.raises(DownloadError, match="it was deleted"):
        fetch_file(list_repository(REPOSITORY), "a.json", cache=cache)


def test_a_file_that_changed_on_the_disk_is_fetched_again(served, cache):
    listing = list_repository(REPOSITORY)
    path = fetch_file(listing, NAME, cache=cache)
    path.resolve().write_bytes(WEIGHTS[:-1] + b"!")
    assert fetch_file(listing, NAME, cache=cache).read_bytes() == WEIGHTS
    assert served.count("GET", NAME) == 2


def test_another_programs_download_is_checked_once(served, cache, monkeypatch):
    path = fetch_file(list_repository(REPOSITORY), NAME, cache=cache)
    shutil.rmtree(cache)
    assert is_checked(path, cache=cache)
    monkeypatch.setattr(download, "sha256_of", pytest.fail)
    assert is_checked(path, cache=cache)


@pytest.mark.parametrize(
    ("repository", "revision", "words"),
    [
        ("owner/none", None, "repository owner/none at 'main' is not on"),
        (REPOSITORY, "v9", "repository owner/model-GGUF at 'v9' is not on"),
    ],
)
def test_404_says_what_was_looked_for(served, repository, revision, words):
    with pytest.raises(ModelNotFoundError, match=words):
        list_repository(repository, revision)


def test_a_missing_file_names_those_that_are_there(served, cache):
    with pytest.raises(ModelNotFoundError, match=r"model-Q8_0.gguf, sub/model-F16.gguf") as caught:
        fetch_file(list_repository(REPOSITORY), "model-Q4_0.gguf", cache=cache)
    assert "model-Q4_0.gguf" in str(caught.value)


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("part", ["/api/", "/resolve/"])
def test_a_refusal_speaks_of_the_token(served, cache, status, part):
    served.faults.append(Fault(part, status=status))
    with pytest.raises(DownloadError, match="HF_TOKEN") as caught:
        fetch_file(list_repository(REPOSITORY), NAME, cache=cache)
    assert caught.value.status == status
    assert not caught.value.retryable


@pytest.mark.parametrize(
    ("part", "status"), [("/api/", 500), ("/api/", 429), ("/resolve/", 500), ("/resolve/", 503)]
)
def test_a_hub_in_trouble_is_reported_at_once(served, cache, status, part, capfd):
    served.faults.append(Fault(part, status=status))
    started = time.monotonic()
    with pytest.raises(DownloadError, match=str(status)) as caught:
        fetch_file(list_repository(REPOSITORY), NAME, cache=cache)
    assert time.monotonic() - started < 5
    assert caught.value.status == status
    assert caught.value.retryable
    assert capfd.readouterr() == ("", "")


def test_the_token_is_sent(served, monkeypatch):
    seen = []
    original = huggingface_hub.hf_api.get_session
    monkeypatch.setenv("HF_TOKEN", "hf_secret")

    def spy():
        session = original()
        get = session.get

        def recorded(*args, **kwargs):
            seen.append(kwargs["headers"].get("authorization"))
            return get(*args, **kwargs)

        monkeypatch.setattr(session, "get", recorded)
        return session

    monkeypatch.setattr(huggingface_hub.hf_api, "get_session", spy)
    list_repository(REPOSITORY)
    assert seen == ["Bearer hf_secret"]


def test_an_answer_that_is_no_hubs(hub, cache):
    hub.repositories[REPOSITORY] = {}
    hub.faults.append(Fault("/api/", status=200))
    with pytest.raises(DownloadError, match="HF_ENDPOINT"):
        list_repository(REPOSITORY)


def test_a_refused_connection_costs_no_time(cache, monkeypatch):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_TELEMETRY", True)
    started = time.monotonic()
    with pytest.raises(DownloadError, match="not reachable") as caught:
        list_repository(REPOSITORY)
    assert caught.value.retryable
    assert time.monotonic() - started < 2


def test_a_host_without_an_address_costs_seconds(cache, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://no-such-host.invalid")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_TELEMETRY", True)
    started = time.monotonic()
    with pytest.raises(DownloadError, match="not reachable"):
        list_repository(REPOSITORY)
    assert time.monotonic() - started < 10


def test_a_host_that_swallows_packets_costs_seconds(cache, monkeypatch):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(0)
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        started = time.monotonic()
        with pytest.raises(DownloadError, match=r"not reachable after \d"):
            list_repository(REPOSITORY)
        assert time.monotonic() - started < 10


def test_a_name_server_that_never_answers_costs_seconds(cache, monkeypatch):
    monkeypatch.setattr(download, "CONNECT_TIMEOUT_S", 0.2)
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.invalid")
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: time.sleep(2) or [])
    started = time.monotonic()
    with pytest.raises(DownloadError, match=r"no answer within 0.4 s"):
        list_repository(REPOSITORY)
    assert time.monotonic() - started < 1.5


def test_a_file_in_place_of_the_directory_is_named_with_the_setting(served, cache, tmp_path):
    (tmp_path / "hf").write_text("not a directory")
    with pytest.raises(DownloadError, match="HF_HOME") as caught:
        fetch_file(list_repository(REPOSITORY), NAME, cache=cache)
    assert str(tmp_path / "hf") in str(caught.value)


def test_a_disk_without_room_is_seen_before_a_byte_is_fetched(served, cache, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 1000))
    with pytest.raises(DownloadError, match=r"1.0 MB are needed below .* 0.0 MB are free.*HF_HOME"):
        fetch_file(list_repository(REPOSITORY), NAME, cache=cache)
    assert served.count("GET", NAME) == 0


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_disk_that_refuses_halfway_is_named_with_the_setting(
    served, cache, monkeypatch, tmp_path, number
):
    def refuse(*args, **kwargs):
        raise OSError(number, "scripted")

    monkeypatch.setattr(huggingface_hub.file_download, "http_get", refuse)
    with pytest.raises(DownloadError, match=r"scripted.*HF_HOME") as caught:
        fetch_file(list_repository(REPOSITORY), NAME, cache=cache)
    assert str(tmp_path / "hf" / "hub") in str(caught.value)
    assert find_stored(REPOSITORY) == {}


@pytest.mark.parametrize("value", ["huggingface.co", "ftp://host", "http://", "http://[half"])
def test_an_endpoint_that_is_no_address(monkeypatch, value):
    monkeypatch.setenv("HF_ENDPOINT", value)
    with pytest.raises(ConfigurationError, match="HF_ENDPOINT"):
        hub_endpoint()


def test_offline_by_argument_or_environment(monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    assert is_offline(True)
    assert not is_offline()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert is_offline()
