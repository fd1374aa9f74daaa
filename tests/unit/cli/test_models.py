from datetime import UTC, datetime
from pathlib import Path

from embellama.cli.models import stored_types
from embellama.hub.catalog import find, load_catalog
from embellama.hub.store import StoredFile


def stored(name, path, kind):
    return StoredFile(Path(path), name, kind, 1, datetime.now(UTC))


def test_files_converted_here_count_under_their_type():
    files = [
        stored("minilm:F16", "/c/minilm-F16-1.gguf", "converted"),
        stored("minilm-l12:F32", "/c/minilm-l12-F32-1.gguf", "converted"),
        stored("minilm-F16.gguf.corrupt", "/c/minilm-F16-1.gguf.corrupt", "set_aside"),
    ]
    assert stored_types(find("minilm"), files) == ["F16"]


def test_files_of_the_hub_count_under_the_type_of_the_catalogue():
    entry = next(entry for entry in load_catalog().values() if entry.gguf_file_types)
    file_type = next(iter(entry.gguf_file_types))
    file = entry.gguf_file(file_type)
    known = stored(f"hf:{entry.gguf_repository}@0123/{file}", f"/h/{file}", "hub")
    other = stored(f"hf:{entry.gguf_repository}@0123/odd.gguf", "/h/odd.gguf", "hub")
    foreign = stored(f"hf:some/one@0123/{file}", f"/h/{file}", "hub")
    assert stored_types(entry, [known, other, foreign]) == sorted([file_type, "odd.gguf"])
