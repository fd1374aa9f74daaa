"""What is put before a text: the prompt that was chosen, exactly, and never twice or unasked."""

import asyncio
import warnings

import numpy as np
import pytest

from embellama import EmbeddingEngine, ModelConfig
from embellama.chunks import Chunk
from embellama.errors import (
    ConfigurationError,
    EmbellamaWarning,
    EmptyInputError,
    InputTooLongError,
)
from embellama.hub.catalog import find
from embellama.hub.resolve import ResolvedModel
from tests.architectures import qwen3
from tests.conftest import QUIET
from tests.published_prompts import PUBLISHED, TASKS

TEXTS = ["the capital of Spain", " two  spaces,\nand a line", "a", "Query: query: день 東京 🙂"]
WITH_PROMPTS = [name for name, row in PUBLISHED.items() if row.query]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A decoder of bytes and pairs of them: to it a space more or less is another text."""
    (tiny,) = qwen3.MODELS
    return tiny.write(tmp_path_factory.mktemp("prompts") / "tiny.gguf")


@pytest.fixture
def engine():
    with EmbeddingEngine() as engine:
        yield engine


@pytest.fixture
def load_row(engine, path, monkeypatch):
    """Load the tiny file as if it were the file of a catalogue's row."""

    def resolve(model, **_):
        return ResolvedModel(path=path, name=model, entry=find(model))

    def load(name, **settings):
        monkeypatch.setattr("embellama.host.resolve_model", resolve)
        config = QUIET.model_copy(update=settings) if settings else QUIET
        return engine.load_model(name, config=config)

    return load


def load(engine, path, *, name="m", **prompts):
    return engine.load_model(path, name=name, config=configured(**prompts))


def configured(**prompts):
    return ModelConfig(n_threads=1, prompts=prompts)


def plain(engine, texts):
    return engine.embed_batch("m", texts, prompt="")


def prefixed(prompt, texts=TEXTS):
    return [prompt + text for text in texts]


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_rows_prompts_are_put_before_the_text_and_nothing_else(name, engine, load_row):
    load_row(name)
    for kind in ("query", "document"):
        prompt = getattr(PUBLISHED[name], kind)
        by_hand = engine.embed_batch(name, prefixed(prompt), prompt="")
        assert np.array_equal(engine.embed_batch(name, TEXTS, kind=kind), by_hand)
        assert np.array_equal(engine.embed_batch(name, TEXTS, prompt_name=kind), by_hand)


@pytest.mark.parametrize(("name", "task"), [(name, task) for name in TASKS for task in TASKS[name]])
def test_a_rows_other_prompts_are_chosen_by_name(name, task, engine, load_row):
    info = load_row(name)
    prompt = TASKS[name][task].prompt
    assert info.prompts[task] == prompt
    by_hand = engine.embed_batch(name, prefixed(prompt), prompt="")
    assert np.array_equal(engine.embed_batch(name, TEXTS, prompt_name=task), by_hand)


@pytest.mark.parametrize("change", [str.rstrip, str.upper, lambda prompt: f"{prompt} "])
def test_a_changed_prompt_changes_the_vector(change, engine, path):
    """The comparison above would see a lost space, a changed letter and a space too many."""
    load(engine, path, query="search_query: ")
    changed = engine.embed("m", "the sea", prompt=change("search_query: "))
    assert not np.allclose(engine.embed("m", "the sea", kind="query"), changed, atol=1e-4)


def test_every_verb_puts_the_same_prompt_in_front(engine, path):
    load(engine, path, query="query: ", document="passage: ")
    queries = plain(engine, prefixed("query: "))
    passages = plain(engine, prefixed("passage: "))
    equal = np.array_equal
    for text in TEXTS:  # one by one: in another batch the last digits are others
        by_hand = engine.embed("m", f"query: {text}", prompt="")
        assert equal(engine.embed("m", text, kind="query"), by_hand)
        assert equal(engine.embed_query("m", text), by_hand)
    assert equal(engine.embed_documents("m", TEXTS), passages)
    assert equal(engine.embed_detailed("m", TEXTS, kind="query").vectors, queries)
    assert equal(np.stack(list(engine.embed_stream("m", TEXTS, kind="query"))), queries)
    chunks = [Chunk(id=str(number), text=text) for number, text in enumerate(TEXTS)]
    assert equal(np.stack([c.vector for c in engine.embed_chunks("m", chunks)]), passages)


def test_token_vectors_and_late_chunks_begin_with_the_prompt(engine, path):
    load(engine, path, query="query: ")
    (tokens,) = engine.embed_tokens("m", ["the sea"], kind="query")
    (by_hand,) = engine.embed_tokens("m", ["query: the sea"], prompt="")
    assert tokens.input_ids.tolist() == engine.tokenize("m", "query: the sea").tolist()
    assert np.array_equal(tokens.vectors, by_hand.vectors)
    late = engine.embed_late("m", ["the sea", " and the ships"], kind="query")
    assert np.array_equal(
        late, engine.embed_late("m", ["query: the sea", " and the ships"], prompt="")
    )


def test_a_prompt_given_in_the_call_wins_over_the_models(engine, path):
    load(engine, path, query="query: ", document="passage: ")
    own = "Instruct: Given a ship, find its sea\nQuery:"
    assert np.array_equal(engine.embed_batch("m", TEXTS, prompt=own), plain(engine, prefixed(own)))


@pytest.mark.parametrize(
    "options",
    [
        {"kind": "query", "prompt": ""},
        {"kind": "query", "prompt_name": "query"},
        {"prompt": "a", "prompt_name": "query"},
    ],
)
def test_two_choices_of_a_prompt_contradict_each_other(options, engine, path):
    load(engine, path, query="query: ")
    with pytest.raises(ConfigurationError, match=" and ".join(options)):
        engine.embed("m", "a", **options)


def test_a_name_without_a_prompt_is_refused_and_the_names_are_said(engine, path):
    load(engine, path, query="query: ", clustering="cluster: ")
    with pytest.raises(ConfigurationError, match="'STS'.*'query', 'clustering'"):
        engine.embed("m", "a", prompt_name="STS")
    with pytest.raises(ConfigurationError, match="kind = 'passage'.*'query', 'document'"):
        engine.embed("m", "a", kind="passage")
    with pytest.raises(ConfigurationError, match="prompt has to be a str, not int"):
        engine.embed("m", "a", prompt=7)


def test_a_kind_without_a_prompt_leaves_the_text_as_it_is(engine, path):
    load(engine, path, query="query: ")
    assert np.array_equal(engine.embed_documents("m", TEXTS), plain(engine, TEXTS))


# ── configuration over catalogue ────────────────────────────────────────────────────────────


def test_configured_prompts_replace_the_catalogues_name_by_name(engine, load_row):
    prompts = {"query": "find: ", "mine": "mine: "}
    info = load_row("nomic-embed-text-v1.5", prompts=prompts)
    row = find("nomic-embed-text-v1.5")
    assert info.prompts == {**row.prompts, **prompts}
    assert info.prompts["document"] == "search_document: "
    name = info.name
    assert np.array_equal(engine.embed_query(name, "a"), engine.embed(name, "find: a", prompt=""))


def test_an_empty_configured_prompt_takes_the_catalogues_away(engine, load_row):
    info = load_row("bge-small-en-v1.5", prompts={"query": ""})
    assert not any(info.prompts.values())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        engine.embed(info.name, "a")


# ── the limit ───────────────────────────────────────────────────────────────────────────────


def test_the_prompts_tokens_count_in_the_limit(engine, path):
    load(engine, path, query="query: ")
    text = "the sea and the ships"
    n_tokens = len(engine.tokenize("m", f"query: {text}"))
    assert n_tokens > len(engine.tokenize("m", text))
    (report,) = engine.embed_detailed("m", [text], kind="query", max_tokens=n_tokens).texts
    assert (report.n_tokens, report.truncated) == (n_tokens, False)
    with pytest.raises(InputTooLongError, match=f"{n_tokens} tokens"):
        engine.embed("m", text, kind="query", max_tokens=n_tokens - 1)
    engine.embed("m", text, prompt="", max_tokens=n_tokens - 1)


@pytest.mark.parametrize(("side", "kept"), [("left", slice(-9, None)), ("right", slice(9))])
def test_a_cut_leaves_the_prompt(side, kept, engine, path):
    load(engine, path, query="query: ")
    start, text, end = [engine.tokenize("m", part) for part in ("query: ", "0123456789" * 5, "")]
    start, text = start[:-1], text[:-1]  # without the EOS
    limit = len(start) + 9 + len(end)
    result = engine.embed_detailed(
        "m",
        ["0123456789" * 5],
        kind="query",
        overflow="truncate",
        truncate_side=side,
        max_tokens=limit,
    )
    by_hand = engine.embed("m", np.concatenate([start, text[kept], end]), prompt="")
    assert np.array_equal(result.vectors[0], by_hand)
    assert result.texts[0].n_dropped == len(text) - 9


def test_a_prompt_that_leaves_no_room_is_refused(engine, path):
    load(engine, path, query="query: ")
    with pytest.raises(ConfigurationError, match="leaves no room for text.*raise max_tokens"):
        engine.embed("m", "a", kind="query", max_tokens=3)


def test_a_prompt_is_no_text(engine, path):
    load(engine, path, query="query: ")
    with pytest.raises(EmptyInputError):
        engine.embed("m", "", kind="query")


def test_a_wordpiece_model_counts_its_prompt_too(engine, tiny_path):
    """Sixteen positions: CLS, SEP, and what the prompt leaves."""
    load(engine, tiny_path, query="a c a c ")
    assert np.array_equal(
        engine.embed("m", "c " * 10, kind="query"), plain(engine, ["a c a c " + "c " * 10])[0]
    )
    with pytest.raises(InputTooLongError):
        engine.embed("m", "c " * 11, kind="query")


# ── results say which prompt made them ──────────────────────────────────────────────────────


def test_a_prompt_is_part_of_the_results_fingerprint_and_not_of_the_models(engine, path):
    load(engine, path, query="query: ", document="passage: ")
    results = [
        engine.embed_detailed("m", ["a"], **options)
        for options in ({"kind": "query"}, {"kind": "document"}, {"prompt": ""})
    ]
    assert len({result.fingerprint for result in results}) == 3
    assert len({result.model_fingerprint for result in results}) == 1
    same = engine.embed_detailed("m", ["a"], prompt="query: ")
    assert same.fingerprint == results[0].fingerprint


# ── the warning ─────────────────────────────────────────────────────────────────────────────


async def awaited(verb, given):
    return await verb("m", given)


CALLS = {
    "embed": lambda engine: engine.embed("m", "a"),
    "embed_batch": lambda engine: engine.embed_batch("m", ["a"]),
    "embed_detailed": lambda engine: engine.embed_detailed("m", ["a"]),
    "embed_stream": lambda engine: list(engine.embed_stream("m", ["a"])),
    "embed_tokens": lambda engine: engine.embed_tokens("m", ["a"]),
    "embed_late": lambda engine: engine.embed_late("m", ["a"]),
    "aembed": lambda engine: asyncio.run(awaited(engine.aembed, "a")),
    "aembed_batch": lambda engine: asyncio.run(awaited(engine.aembed_batch, ["a"])),
}


def warnings_of(engine, *calls):
    """Return what the calls warn of, one after the other."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for call in calls:
            call(engine)
    assert all(warning.category is EmbellamaWarning for warning in caught)
    return caught


@pytest.mark.parametrize("verb", CALLS)
def test_no_choice_with_a_model_that_has_prompts_warns_once(verb, engine, path):
    load(engine, path, query="query: ", document="passage: ")
    (warning,) = warnings_of(engine, CALLS[verb], *CALLS.values())
    assert warning.filename == __file__
    message = str(warning.message)
    assert "query: 'query: ', document: 'passage: '" in message
    assert "kind='query' or kind='document'" in message
    assert "prompt=''" in message


def test_no_choice_means_no_prompt(engine, path):
    load(engine, path, query="query: ", document="passage: ")
    with pytest.warns(EmbellamaWarning, match="'m' was trained with prompts"):
        unchosen = engine.embed_batch("m", TEXTS)
    assert np.array_equal(unchosen, plain(engine, TEXTS))


@pytest.mark.parametrize("name", WITH_PROMPTS)
def test_the_warning_names_the_catalogues_prompts(name, engine, load_row):
    load_row(name)
    with pytest.warns(EmbellamaWarning) as caught:
        engine.embed(name, "a")
    assert repr(PUBLISHED[name].query) in str(caught[0].message)


def test_a_role_of_a_model_without_known_prompts_is_warned_of_once(engine, path):
    engine.load_model(path, name="m", config=ModelConfig(n_threads=1))
    call = lambda engine: engine.embed_query("m", "a")  # noqa: E731
    (warning,) = warnings_of(engine, call, call)
    assert "no prompts are known for model 'm'" in str(warning)


def test_each_model_has_a_warning_of_its_own(engine, path, tiny_path):
    load(engine, path, name="one", query="query: ")
    load(engine, tiny_path, name="two", query="a ")
    calls = [lambda engine, name=name: engine.embed(name, "a") for name in ("one", "two")]
    assert len(warnings_of(engine, *calls, *calls)) == 2


@pytest.mark.parametrize(
    "options", [{"prompt": ""}, {"prompt": "x: "}, {"kind": "document"}, {"prompt_name": "query"}]
)
def test_a_choice_does_not_warn(options, engine, path):
    load(engine, path, query="query: ")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        engine.embed("m", "a", **options)
        engine.embed_batch("m", ["a"], **options)


def test_a_model_without_prompts_and_warming_up_do_not_warn(engine, path, load_row):
    load(engine, path)
    load_row("bge-m3")
    load_row("qwen3-embedding-0.6b")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        engine.embed("m", "a")
        engine.embed("bge-m3", "a")
        engine.warmup_model("qwen3-embedding-0.6b")
