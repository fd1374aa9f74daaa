from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import platformdirs
import pytest

from embellama.errors import ConfigurationError, DownloadError, ModelNotFoundError
from embellama.files import sha256_of
from embellama.hub import store
from embellama.hub.download import fetch_file, list_repository
from embellama.hub.store import (
    cache_directory,
    hub_cache_directory,
    is_intact,
    list_stored,
    read_receipt,
    remove_stored,
    set_aside,
    work_directory,
    write_receipt,
)

REPOSITORY = "owner/model-GGUF"


def put(cache: Path, name: str = "minilm-F16-0123.gguf", label: str = "minilm:F16") -> Path:
    path = cache / "converted" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"GGUF" + name.encode())
    receipt = path.with_name(path.name + ".json")
    write_receipt(path, receipt, name=label, origin="hub", sha256=sha256_of(path))
    return path


def receipt_of(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.setenv("EMBELLAMA_CACHE_PATH", str(tmp_path / "env"))
    assert cache_directory(tmp_path / "explicit") == tmp_path / "explicit"
    assert cache_directory() == tmp_path / "env"
    monkeypatch.setenv("EMBELLAMA_CACHE_PATH", " ")
    assert cache_directory() == platformdirs.user_cache_path("embellama", appauthor=False)


@pytest.mark.parametrize("path", ["~no-such-user/cache", "a\0b"])
def test_a_cache_that_cannot_be_is_an_error_of_ours(path):
    with pytest.raises(ConfigurationError, match="cache directory '(~no-such-user|a.x00b)"):
        cache_directory(Path(path))


def test_where_the_hubs_cache_is(monkeypatch, tmp_path):
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME"):
        monkeypatch.delenv(name, raising=False)
    default = hub_cache_directory()
    assert default.name == "hub"
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    assert hub_cache_directory() == tmp_path / "hub"
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "other"))
    assert hub_cache_directory() == tmp_path / "other"
    monkeypatch.setenv("HF_HUB_CACHE", "~no-such-user/hub")
    with pytest.raises(ConfigurationError, match="HF_HUB_CACHE"):
        hub_cache_directory()


def test_an_untouched_file_is_intact_without_hashing(cache, monkeypatch):
    path = put(cache)
    monkeypatch.setattr(store, "sha256_of", pytest.fail)
    assert is_intact(path, receipt_of(path))


def test_a_touched_file_is_hashed(cache):
    path = put(cache)
    os.utime(path, (1, 1))
    assert is_intact(path, receipt_of(path))
    path.write_bytes(b"GGUX" + path.read_bytes()[4:])
    assert not is_intact(path, receipt_of(path))


@pytest.mark.parametrize("harm", ["shorter", "longer", "no magic", "gone", "no receipt", "garbage"])
def test_a_harmed_file_is_not_intact(cache, harm):
    path = put(cache)
    data, stat = path.read_bytes(), path.stat()
    if harm == "gone":
        path.unlink()
    elif harm == "no receipt":
        receipt_of(path).unlink()
    elif harm == "garbage":
        receipt_of(path).write_text('{"name": 1}')
    else:
        path.write_bytes({"shorter": data[:-1], "longer": data + b"!"}.get(harm, b"X" + data[1:]))
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert not is_intact(path, receipt_of(path))


def test_a_failed_receipt_leaves_nothing(cache, monkeypatch):
    path = put(cache)
    before = receipt_of(path).read_text()

    def refuse(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store.os, "replace", refuse)
    with pytest.raises(OSError, match="No space"):
        write_receipt(path, receipt_of(path), name="other", origin="hub", sha256="0")
    assert receipt_of(path).read_text() == before
    assert sorted(p.name for p in path.parent.iterdir()) == [path.name, path.name + ".json"]


def test_a_work_directory_goes_and_takes_stale_ones_along(cache):
    stale = cache / "work" / "killed"
    stale.mkdir(parents=True)
    (stale / "half.gguf").write_bytes(b"GG")
    fresh = cache / "work" / "running"
    fresh.mkdir()
    long_ago = time.time() - 2 * store.STALE_WORK_S
    os.utime(stale, (long_ago, long_ago))
    with work_directory(cache) as work:
        (work / "half.gguf").write_bytes(b"GG")
        assert not stale.exists()
    assert [path.name for path in (cache / "work").iterdir()] == ["running"]


def gone_before_it_is_looked_at(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Remove paths of these names at the moment their state is asked for."""
    stat = Path.stat

    def remove_first(path: Path, **kwargs: bool) -> os.stat_result:
        if path.name in names:
            shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)
        return stat(path, **kwargs)

    monkeypatch.setattr(Path, "stat", remove_first)


def test_a_work_directory_of_another_process_may_go_meanwhile(cache, monkeypatch):
    (cache / "work" / "other").mkdir(parents=True)
    gone_before_it_is_looked_at(monkeypatch, "other")
    with work_directory(cache) as work:
        assert [path.name for path in (cache / "work").iterdir()] == [work.name]


def test_files_that_go_while_they_are_listed_are_left_out(cache, monkeypatch):
    kept = put(cache)
    put(cache, "minilm-Q8_0-0123.gguf")
    half = cache / "work" / "other" / "half.gguf"
    half.parent.mkdir(parents=True)
    half.write_bytes(b"GG")
    gone_before_it_is_looked_at(monkeypatch, "half.gguf", "minilm-Q8_0-0123.gguf")
    assert [file.path for file in list_stored()] == [kept]


def test_folders_that_go_while_they_are_listed_are_left_out(cache, monkeypatch):
    kept = put(cache)
    for name in ("first", "second"):
        (cache / "work" / name).mkdir(parents=True)
        (cache / "work" / name / "half.gguf").write_bytes(b"GG")
    scandir = os.scandir

    def remove_first(folder):
        if isinstance(folder, str | Path) and Path(folder).parent.name == "work":
            shutil.rmtree(folder)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", remove_first)
    assert [file.path for file in list_stored()] == [kept]


def test_a_name_that_is_no_text_is_listed_as_its_bytes(cache):
    path = cache / "work" / os.fsdecode(b"m\xff.gguf")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"GG")
    assert [(file.name, file.path) for file in list_stored()] == [(r"m\udcff.gguf", path)]


def test_listing_says_what_takes_room(hub, cache):
    hub.repositories[REPOSITORY] = {"sub/m-F16.gguf": b"GGUF" * 10, "README.md": b"no model"}
    fetched = fetch_file(list_repository(REPOSITORY), "sub/m-F16.gguf", cache=cache)
    kept = put(cache)
    corrupt = set_aside(put(cache, "minilm-Q8_0-0123.gguf", "minilm:Q8_0"))
    half = cache / "work" / "killed" / "made.gguf"
    half.parent.mkdir(parents=True)
    half.write_bytes(b"GG")
    commit = hub.commit_of(REPOSITORY)[:12]
    assert {(file.name, file.kind, file.path, file.size_bytes) for file in list_stored()} == {
        ("minilm:F16", "converted", kept, kept.stat().st_size),
        (corrupt.name, "set_aside", corrupt, corrupt.stat().st_size),
        ("made.gguf", "unfinished", half, 2),
        (f"hf:{REPOSITORY}@{commit}/sub/m-F16.gguf", "hub", fetched, 40),
    }
    assert all(file.modified.tzinfo is not None for file in list_stored())


def test_nothing_stored(cache):
    assert list_stored() == []
    assert remove_stored() == 0


def test_removing_by_name(cache):
    first, second = put(cache), put(cache, "minilm-Q8_0-0123.gguf", "minilm:Q8_0")
    other = put(cache, "bge-small-F16-0123.gguf", "bge-small:F16")
    assert remove_stored("minilm:F16") == 4 + len(first.name)
    assert not first.exists()
    assert not receipt_of(first).exists()
    assert remove_stored("MiniLM") == 4 + len(second.name)
    assert remove_stored(other.name) == 4 + len(other.name)
    with pytest.raises(ModelNotFoundError, match="no stored model 'minilm'; stored: nothing"):
        remove_stored("minilm")


def test_an_alias_removes_too(cache):
    path = put(cache)
    assert remove_stored("all-MiniLM-L6-v2") == 4 + len(path.name)


def test_removing_everything_leaves_the_shared_cache_alone(hub, cache):
    hub.repositories[REPOSITORY] = {"m-F16.gguf": b"GGUF" * 10}
    fetched = fetch_file(list_repository(REPOSITORY), "m-F16.gguf", cache=cache)
    put(cache)
    remove_stored()
    assert [file.kind for file in list_stored()] == ["hub"]
    content = fetched.resolve()
    assert remove_stored(hub=True) == 40
    assert not content.exists()
    assert list_stored() == []


def test_content_that_another_revision_shares_stays(hub, cache):
    hub.repositories[REPOSITORY] = {"m-F16.gguf": b"GGUF" * 10}
    old = fetch_file(list_repository(REPOSITORY), "m-F16.gguf", cache=cache)
    old_name = list_stored()[0].name
    hub.repositories[REPOSITORY]["README.md"] = b"new"
    new = fetch_file(list_repository(REPOSITORY), "m-F16.gguf", cache=cache)
    assert old != new
    assert remove_stored(old_name) == 0
    assert new.read_bytes() == b"GGUF" * 10


def test_a_link_out_of_the_cache_is_not_followed(cache, tmp_path):
    outside = tmp_path / "mine.gguf"
    outside.write_bytes(b"GGUF")
    link = cache / "converted" / "link.gguf"
    link.parent.mkdir(parents=True)
    link.symlink_to(outside)
    assert remove_stored() == 0
    assert outside.exists()


def test_a_file_that_cannot_be_removed(cache, monkeypatch):
    put(cache)

    def refuse(self, missing_ok=False):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(DownloadError, match=r"Permission denied.*EMBELLAMA_CACHE_PATH"):
        remove_stored()


def test_a_receipt_survives_a_copy_of_the_cache(cache, tmp_path):
    path = put(cache)
    shutil.copytree(cache, tmp_path / "copy")
    copied = tmp_path / "copy" / "converted" / path.name
    assert is_intact(copied, receipt_of(copied))
    assert read_receipt(receipt_of(copied)) == read_receipt(receipt_of(path))
