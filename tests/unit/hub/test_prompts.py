"""The catalogue's prompts against what was published, and what could not be checked."""

import pytest

from embellama.hub.catalog import load_catalog
from tests.published_prompts import NONE_PUBLISHED, PUBLISHED, TASKS

ROWS = load_catalog()
ROLES = {"query", "document"}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_roles_prompts_are_those_of_the_card(name):
    row, published = ROWS[name], PUBLISHED[name]
    assert row.source == published.source
    assert row.prompts["query"] == published.query
    assert row.prompts["document"] == published.document


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_prompts_for_other_tasks_are_those_of_the_card(name):
    others = {key: text for key, text in ROWS[name].prompts.items() if key not in ROLES}
    assert others == {key: task.prompt for key, task in TASKS.get(name, {}).items()}


def test_no_row_is_left_out():
    assert ROWS.keys() == PUBLISHED.keys() | NONE_PUBLISHED
    assert TASKS.keys() <= PUBLISHED.keys()


@pytest.mark.parametrize("name", sorted(NONE_PUBLISHED))
def test_a_model_without_published_prompts_has_none(name):
    assert ROWS[name].prompts == {"query": "", "document": ""}


def test_what_was_compared_with_nothing_but_the_card_says_why():
    published = {(name, ""): row for name, row in PUBLISHED.items()}
    tasks = {(name, key): task for name, tasks in TASKS.items() for key, task in tasks.items()}
    unchecked = {where: row for where, row in {**published, **tasks}.items() if row.checked is None}
    assert set(unchecked) == {
        ("embeddinggemma-300m", "question_answering"),
        ("embeddinggemma-300m", "fact_checking"),
    }
    assert all(row.unchecked for row in unchecked.values())


def test_a_prompt_ends_where_the_text_may_follow():
    """Only Qwen's ends without a space: its card puts the text right after the colon."""
    prompts = [(name, text) for name, row in ROWS.items() for text in row.prompts.values() if text]
    tight = {name for name, text in prompts if not text.endswith(": ")}
    assert tight == {"qwen3-embedding-0.6b", "qwen3-embedding-4b", "qwen3-embedding-8b"}
    assert all(text.endswith("\nQuery:") for name, text in prompts if name in tight)
    assert all(text == text.lstrip() for _, text in prompts)
