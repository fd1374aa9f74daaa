"""The verbs take the same options; what they do is in the integration tests."""

import inspect
from dataclasses import fields

import pytest

from embellama import EmbeddingEngine
from embellama.request import EmbedOptions

DEFAULTS = {field.name: field.default for field in fields(EmbedOptions)}
WHOLE = ("embed", "embed_batch", "embed_detailed", "embed_stream")
SHORT = ("embed_query", "embed_documents", "embed_chunks", "embed_tokens", "embed_late")


def keywords_of(verb):
    parameters = inspect.signature(getattr(EmbeddingEngine, verb)).parameters.values()
    return {each.name: each.default for each in parameters if each.kind is each.KEYWORD_ONLY}


@pytest.mark.parametrize("verb", WHOLE)
def test_a_whole_verb_takes_every_option_with_its_default(verb):
    keywords = keywords_of(verb)
    keywords.pop("progress", None)
    assert keywords == DEFAULTS


@pytest.mark.parametrize("verb", SHORT)
def test_a_short_verb_takes_some_of_them_with_the_same_defaults(verb):
    keywords = keywords_of(verb)
    keywords.pop("progress", None)
    if verb == "embed_tokens":  # rows are given as they come
        assert keywords.pop("normalization") == "none"
    assert keywords.items() <= DEFAULTS.items()
