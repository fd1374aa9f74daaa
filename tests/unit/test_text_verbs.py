"""The verbs take the same options; what they do is in the integration tests."""

import inspect
from dataclasses import fields

import pytest

from embellama import EmbeddingEngine
from embellama.request import EmbedOptions

DEFAULTS = {field.name: field.default for field in fields(EmbedOptions)}
WHOLE = ("embed", "embed_batch", "embed_detailed", "embed_stream", "aembed", "aembed_batch")
SHORT = ("embed_query", "embed_documents", "embed_chunks", "embed_tokens", "embed_late")
INTERACTIVE = ("embed", "embed_query", "rerank", "aembed")
BULK = sorted({*WHOLE, *SHORT} - {*INTERACTIVE})


def keywords_of(verb):
    parameters = inspect.signature(getattr(EmbeddingEngine, verb)).parameters.values()
    return {each.name: each.default for each in parameters if each.kind is each.KEYWORD_ONLY}


def options_of(verb):
    apart = ("progress", "priority", "timeout_s")
    return {name: value for name, value in keywords_of(verb).items() if name not in apart}


@pytest.mark.parametrize("verb", WHOLE)
def test_a_whole_verb_takes_every_option_with_its_default(verb):
    assert options_of(verb) == DEFAULTS


@pytest.mark.parametrize("verb", SHORT)
def test_a_short_verb_takes_some_of_them_with_the_same_defaults(verb):
    keywords = options_of(verb)
    if verb == "embed_tokens":  # rows are given as they come
        assert keywords.pop("normalization") == "none"
    assert keywords.items() <= DEFAULTS.items()


@pytest.mark.parametrize("verb", [*INTERACTIVE, *BULK])
def test_single_texts_are_interactive_and_many_are_bulk(verb):
    keywords = keywords_of(verb)
    assert keywords["priority"] == ("interactive" if verb in INTERACTIVE else "bulk")
    if verb != "embed_stream":  # which takes as long as its reader
        assert keywords["timeout_s"] is None
