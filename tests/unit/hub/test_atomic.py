"""The target of a conversion appears complete or not at all."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from embellama.errors import ConversionError
from embellama.hub.convert import convert_folder
from embellama.hub.quantize import quantize_file


def nothing_left(target: Path) -> bool:
    return not target.parent.exists() or not any(target.parent.iterdir())


def test_an_interrupt_leaves_nothing(folder, target):
    def interrupt(done: int, total: int) -> None:
        assert len(list(target.parent.glob(".m.gguf.*.partial"))) == 1
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert_folder(folder, target, progress=interrupt)
    assert nothing_left(target)


def test_an_older_file_stays_until_the_new_one_is_complete(folder, target):
    convert_folder(folder, target, file_type="F32")
    before = target.read_bytes()

    def fail(done: int, total: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(ConversionError, match=r"No space left.*bytes are needed, \d+ are free"):
        convert_folder(folder, target, progress=fail)
    assert target.read_bytes() == before
    convert_folder(folder, target, file_type="F16")
    assert [path.name for path in target.parent.iterdir()] == ["m.gguf"]
    assert len(target.read_bytes()) < len(before)


def test_too_little_room_is_said_before_anything_is_written(folder, target, monkeypatch):
    usage = shutil.disk_usage(folder)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(ConversionError, match=r"no room.*\d{5,} bytes are needed, 1000 are free"):
        convert_folder(folder, target)
    assert nothing_left(target)


def test_a_target_that_is_a_folder(folder, target):
    target.mkdir(parents=True)
    with pytest.raises(ConversionError, match="cannot be written"):
        convert_folder(folder, target)
    assert [path.name for path in target.parent.iterdir()] == ["m.gguf"]


def test_targets_that_no_file_can_have(folder, tmp_path):
    for name, said in (("a\0b.gguf", "has a NUL"), ("x" * 300, "cannot be written")):
        with pytest.raises(ConversionError, match=said):
            convert_folder(folder, tmp_path / name)
        with pytest.raises(ConversionError, match=said):
            quantize_file(convert_folder(folder, tmp_path / "m").path, tmp_path / name, "Q8_0")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m", folder.name]


def test_a_folder_that_cannot_be_made(folder, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConversionError, match="cannot be written"):
        convert_folder(folder, tmp_path / "file" / "m.gguf")


@pytest.mark.skipif(sys.platform == "win32", reason="needs setrlimit, which Windows lacks")
def test_a_write_that_the_system_cuts_short_leaves_nothing(folder, target):
    program = (
        "import resource, signal, sys, pathlib\n"
        "from embellama.hub.convert import convert_folder\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        "convert_folder(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, folder, target], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1
    assert "ConversionError" in ended.stderr
    assert "File too large" in ended.stderr
    assert nothing_left(target)
