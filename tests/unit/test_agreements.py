"""What is kept of comparisons, and that whatever is wrong with it counts as nothing kept."""

import json

import pytest
from structlog.testing import capture_logs

from embellama import agreements
from embellama._native.binding import Kernel
from embellama.agreements import agreement_key, is_remembered, remember

KERNEL = Kernel(0, "avx512", "bf16", 16, 2)
KEY = "ab" * 16


def kept(folder):
    remember(folder, KEY, model="some model", kernel=KERNEL, cosine=0.99999)
    (path,) = folder.iterdir()
    return path


def test_what_is_kept_is_found_by_its_key_alone(tmp_path):
    folder = tmp_path / "cache" / "agreements"
    assert not is_remembered(folder, KEY, 0.999)
    document = json.loads(kept(folder).read_text(encoding="utf-8"))
    assert is_remembered(folder, KEY, 0.999)
    assert not is_remembered(folder, "cd" * 16, 0.999)
    assert (document["model"], document["kernel"]) == ("some model", "avx512, bf16")


def changed(name, value):
    def change(path):
        document = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps(document | {name: value}), encoding="utf-8")

    return change


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-3]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"\xff\xfe"),
        lambda path: path.write_bytes(b"[" * 10_000),
        lambda path: path.write_bytes(b" " * (1 << 15)),
        lambda path: path.write_text("[]"),
        changed("format", "embellama agreement 2"),
        changed("key", "cd" * 16),
        changed("cosine", float("nan")),
        changed("cosine", "much"),
        changed("more", 1),
    ],
)
def test_a_damaged_file_counts_as_none_and_is_written_over(tmp_path, damage):
    damage(kept(tmp_path))
    with capture_logs() as events:
        assert not is_remembered(tmp_path, KEY, 0.999)
    (event,) = events
    assert (event["event"], event["log_level"]) == ("embellama.agreement.refused", "warning")
    kept(tmp_path)
    assert is_remembered(tmp_path, KEY, 0.999)


def test_a_folder_that_cannot_be_written_is_no_failure(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with capture_logs() as events:
        remember(tmp_path / "file", KEY, model="m", kernel=KERNEL, cosine=1.0)
        assert not is_remembered(tmp_path / "file", KEY, 0.999)
    assert [event["event"] for event in events] == [
        "embellama.agreement.forgotten",
        "embellama.agreement.refused",
    ]


def test_a_key_depends_on_all_that_the_outcome_does(tmp_path, monkeypatch):
    library = tmp_path / "kernels.so"
    library.write_bytes(b"one")

    def key(kernel=KERNEL, build="llama 1", pooling="mean", content=("00" * 32,)):
        return agreement_key(kernel, library, build, pooling, content)

    keys = [
        key(),
        key(kernel=Kernel(1, "avx512", "f32", 16, 4)),
        key(kernel=Kernel(1, "avx2", "bf16", 16, 2)),
        key(build="llama 2"),
        key(pooling="cls"),
        key(content=("11" * 32,)),
        key(content=("00" * 32, "11" * 32)),
    ]
    assert key() == keys[0]
    assert (
        key(kernel=Kernel(5, "avx512", "bf16", 16, 2)) == keys[0]
    )  # its place in a list is nothing
    library.write_bytes(b"compiled anew")
    keys.append(key())
    monkeypatch.setattr(agreements, "build_name", lambda: "another build")
    keys.append(key())
    monkeypatch.setattr(agreements, "describe_cpu", lambda n_cores: "another CPU")
    keys.append(key())
    assert len(set(keys)) == len(keys)


def test_what_agreed_less_than_is_wanted_today_is_compared_again(tmp_path):
    folder = tmp_path / "agreements"
    remember(folder, KEY, model="m", kernel=KERNEL, cosine=0.9985)
    assert is_remembered(folder, KEY, 0.998)
    assert not is_remembered(folder, KEY, 0.999)
