import dataclasses
import hashlib
import os
import threading
import time

import pytest
import structlog

from embellama import EmbeddingEngine, EngineConfig, ModelConfig, identity
from embellama.errors import ModelLoadError
from embellama.gguf import read_metadata
from embellama.identity import ContentDigests, digest_parts, model_fingerprint
from tests.conftest import QUIET
from tests.tiny_bert import random_weights, write_folder
from tests.tiny_decoder import write_decoder

tells_changes = pytest.mark.skipif(
    os.name == "nt", reason="needs a file system that keeps the time of the last change"
)


class CountingReads:
    """Counts the files that are really read."""

    def __init__(self, read):
        self.read, self.paths = read, []

    def __call__(self, path):
        self.paths.append(path)
        return self.read(path)


@pytest.fixture
def reads(monkeypatch):
    """Remember files at once, however young, and count the reading."""
    counting = CountingReads(identity.sha256_of)
    monkeypatch.setattr(identity, "sha256_of", counting)
    monkeypatch.setattr(identity, "_SETTLED_NS", -(10**12))
    return counting


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"content" * 300_000)
    return path


def rewritten(path, data):
    """Change a file without a trace in its size and time of modification."""
    status = path.stat()
    assert len(data) == status.st_size
    time.sleep(0.02)  # a tick of the file system's clock
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_parts_do_not_run_into_each_other():
    found = {digest_parts(parts) for parts in (["ab", "c"], ["a", "bc"], ["abc"], ["abc", ""])}
    assert len(found) == 4
    assert all(len(digest) == 32 for digest in found)
    assert digest_parts(["\ud800"]) != digest_parts(["\ud801"])


def test_the_digest_is_that_of_the_content(file):
    expected = hashlib.sha256(file.read_bytes()).hexdigest()
    assert ContentDigests().digest(file) == expected


def test_a_file_is_read_once(reads, file, tmp_path):
    digests = ContentDigests()
    first = digests.digest(file)
    link = tmp_path / "link"
    link.symlink_to(file)
    assert digests.digest(file) == digests.digest(link) == first
    assert len(reads.paths) == 1


def test_other_processes_find_what_is_known(reads, file, tmp_path):
    first = ContentDigests(tmp_path / "known" / "digests").digest(file)
    assert ContentDigests(tmp_path / "known" / "digests").digest(file) == first
    assert len(reads.paths) == 1


@pytest.mark.parametrize("damage", [b"", b"0" * 63, b"0" * 65, b"G" * 64, b"\xff" * 64])
def test_a_damaged_note_is_not_believed(reads, file, tmp_path, damage):
    known = tmp_path / "known"
    first = ContentDigests(known).digest(file)
    (note,) = known.iterdir()
    note.write_bytes(damage)
    assert ContentDigests(known).digest(file) == first
    assert note.read_text(encoding="ascii") == first
    assert len(reads.paths) == 2


def test_a_folder_that_cannot_be_is_done_without(reads, file, tmp_path):
    (tmp_path / "known").write_text("a file", encoding="ascii")
    digests = ContentDigests(tmp_path / "known")
    with structlog.testing.capture_logs() as events:
        first = digests.digest(file)
    assert [event["event"] for event in events] == ["embellama.digest.forgotten"]
    assert digests.digest(file) == first == ContentDigests().digest(file)


@tells_changes
def test_a_change_in_place_is_seen(reads, file):
    digests = ContentDigests()
    first = digests.digest(file)
    rewritten(file, b"CONTENT" * 300_000)
    assert digests.digest(file) == hashlib.sha256(b"CONTENT" * 300_000).hexdigest() != first


@tells_changes
def test_another_file_in_the_place_of_one_is_seen(reads, file, tmp_path):
    """As when an archive of a new version, which has one time for all files, is unpacked."""
    os.utime(file, ns=(0, 0))
    digests = ContentDigests()
    first = digests.digest(file)
    file.unlink()
    time.sleep(0.02)
    file.write_bytes(b"CONTENT" * 300_000)  # most file systems give it the inode again
    os.utime(file, ns=(0, 0))
    assert digests.digest(file) != first


def test_a_file_just_written_is_not_remembered(file, tmp_path):
    """It may change again within one tick of the clock, and look the same."""
    os.utime(file, ns=(0, 0))
    digests = ContentDigests(tmp_path / "known")
    digests.digest(file)
    assert not (tmp_path / "known").exists()
    assert digests._known == {}


def test_a_file_that_changes_while_it_is_read_is_refused(reads, file):
    def read_and_change(path, read=reads.read):
        value = read(path)
        path.write_bytes(b"longer")
        return value

    reads.read = read_and_change
    with pytest.raises(ModelLoadError, match="changed while it was read; load it again"):
        ContentDigests().digest(file)


@pytest.mark.parametrize("name", ["missing", "."])
def test_what_cannot_be_read_is_refused(tmp_path, name):
    with pytest.raises(ModelLoadError, match="cannot be read"):
        ContentDigests().digest(tmp_path / name)


def test_threads_agree(reads, file, tmp_path):
    digests, found, start = ContentDigests(tmp_path / "known"), [], threading.Barrier(8)

    def digest():
        start.wait()
        found.append(digests.digest(file))

    threads = [threading.Thread(target=digest) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [hashlib.sha256(file.read_bytes()).hexdigest()] * 8
    assert len(list((tmp_path / "known").iterdir())) == 1  # nothing partial is left


def test_a_flag_that_is_not_there_is_not_the_word_none(tiny_path):
    metadata = dataclasses.replace(read_metadata(tiny_path), pre_tokenizer=None)
    named = dataclasses.replace(metadata, pre_tokenizer="None")
    assert model_fingerprint(metadata, ["a"], "mean") != model_fingerprint(named, ["a"], "mean")


# ── through the engine ──────────────────────────────────────────────────────────────────────


@pytest.fixture
def engine(tmp_path):
    with EmbeddingEngine(EngineConfig(cache_path=tmp_path / "cache")) as engine:
        yield engine


def fingerprint_of(engine, path, config=QUIET):
    if engine.is_loaded("m"):
        engine.unload_model("m")
    return engine.load_model(path, name="m", config=config).fingerprint


def test_a_file_is_the_same_at_another_path(engine, tiny_path, tmp_path):
    first = fingerprint_of(engine, tiny_path)
    copy = tmp_path / "elsewhere" / "another name.gguf"
    copy.parent.mkdir()
    copy.write_bytes(tiny_path.read_bytes())
    link = tmp_path / "link.gguf"
    link.symlink_to(tiny_path)
    assert copy.stat().st_ino != tiny_path.stat().st_ino
    assert fingerprint_of(engine, copy) == fingerprint_of(engine, link) == first
    vectors = engine.embed_detailed("m", ["a"])
    assert vectors.model_fingerprint == first
    engine.load_model(tiny_path, name="n", config=QUIET)
    assert engine.embed_detailed("n", ["a"]).fingerprint == vectors.fingerprint != first


@tells_changes
def test_a_file_changed_in_place_and_reloaded_is_another(reads, engine, tiny_path, tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(tiny_path.read_bytes())
    first = fingerprint_of(engine, path)
    before = engine.embed("m", "a b c")
    data = bytearray(path.read_bytes())
    data[-8:] = b"\x00\x00\x80\x3f" * 2  # the last two weights become 1
    rewritten(path, bytes(data))
    assert fingerprint_of(engine, path) != first
    assert (engine.embed("m", "a b c") != before).any()


def test_each_part_of_a_split_file_counts(reads, engine, tmp_path):
    write_decoder(tmp_path / "split.gguf", tensors_a_part=8)
    parts = sorted(tmp_path.glob("split-*.gguf"))
    assert len(parts) >= 3
    first = fingerprint_of(engine, parts[0])
    for part in parts:
        data = part.read_bytes()
        part.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        assert fingerprint_of(engine, parts[0]) != first, part.name
        part.write_bytes(data)
    assert fingerprint_of(engine, parts[0]) == first


def test_a_split_file_is_the_same_at_another_path(engine, tmp_path):
    write_decoder(tmp_path / "split.gguf", tensors_a_part=8)
    first = fingerprint_of(engine, sorted(tmp_path.glob("split-*.gguf"))[0])
    folder = tmp_path / "moved"
    folder.mkdir()
    for part in tmp_path.glob("split-*.gguf"):
        part.rename(folder / part.name.replace("split", "other"))
    assert fingerprint_of(engine, sorted(folder.glob("other-*.gguf"))[0]) == first


def test_other_weights_and_other_pooling_are_others(engine, tiny_path, tmp_path):
    from embellama.hub.convert import convert_folder

    folder = write_folder(tmp_path / "folder", weights=random_weights(seed=8))
    other = convert_folder(folder, tmp_path / "other.gguf", file_type="F32").path
    found = [
        fingerprint_of(engine, tiny_path),
        fingerprint_of(engine, other),
        *(
            fingerprint_of(engine, tiny_path, ModelConfig(pooling_type=pooling, n_threads=1))
            for pooling in ("cls", "last", "max", "mean_sqrt_len", "none")
        ),
    ]
    assert len(set(found)) == len(found)
    said = fingerprint_of(engine, tiny_path, ModelConfig(pooling_type="mean", n_threads=1))
    assert said == found[0]  # whoever chose it


def test_how_the_model_is_run_is_no_part(engine, tiny_path):
    found = {
        fingerprint_of(engine, tiny_path, config)
        for config in (
            QUIET,
            ModelConfig(n_threads=2, n_contexts=3, n_ctx=7),
            ModelConfig(max_batch_tokens=3, max_batch_requests=1),
            ModelConfig(use_mmap=False, flash_attn=True, use_gpu=False),
            ModelConfig(normalization="none", prompts={"query": "c "}),
        )
    }
    assert len(found) == 1


def test_attention_that_may_be_fused_and_exact_attention_are_two(engine, tiny_path):
    fused, exact = (
        fingerprint_of(engine, tiny_path, ModelConfig(flash_attn=flash_attn, n_threads=1))
        for flash_attn in ("auto", False)
    )
    assert fused != exact
