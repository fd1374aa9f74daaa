"""What would cost more than it seems to, refused: prompts, windows, counts, unread answers."""

import asyncio
import threading
import time

import pytest

from embellama.server.counting import CHARS_A_PIECE, count_tokens, on_thread_to_its_end
from tests.integration.server.running import serving

OPENAI = "/v1/embeddings"


def refused(server, path, body, **options):
    status, value = server.json(path, body, **options)
    assert status == 400, value
    return value["error"]


@pytest.mark.parametrize(
    ("extra", "param", "says"),
    [
        ({"prompt": "x" * 8193}, "embellama.prompt", "at most 8192 characters"),
        ({"prompt_name": "x" * 257}, "embellama.prompt_name", "at most 256 characters"),
        ({"prompt_name": "nobody"}, "embellama.prompt_name", "the prompts of model"),
        ({"overflow": "window", "window_overlap": 300}, "embellama.window_overlap", "at most half"),
        (
            {"overflow": "window", "prompt": "a " * 400},
            "embellama.window_overlap",
            "402 are the prompt",
        ),
        ({"overflow": "window", "max_tokens": 8}, "embellama.max_tokens", "the least is 16"),
        ({"unheard": 1}, "embellama.unheard", "there are kind, prompt"),
    ],
)
def test_options_that_cost_too_much_or_are_unknown(server, extra, param, says):
    error = refused(server, OPENAI, {"input": "a", "embellama": extra})
    assert error["param"] == param
    assert says in error["message"]


def test_windows_that_share_less_than_half_are_embedded(server):
    extra = {"overflow": "window", "window_overlap": 250, "details": True}
    status, value = server.json(OPENAI, {"input": "a b " * 600, "embellama": extra})
    assert status == 200
    assert value["embellama"]["texts"][0]["n_windows"] == 4


def test_advice_is_in_the_words_of_the_api(server):
    error = refused(server, OPENAI, {"input": "a", "dimensions": 7})
    assert error["param"] == "dimensions"
    assert '"embellama": {"force_dimensions": true}' in error["message"]
    assert (
        "vectors of 1 to" in refused(server, OPENAI, {"input": "a", "dimensions": 9999})["message"]
    )
    error = refused(server, OPENAI, {"input": "a " * 600})
    assert '"embellama": {"overflow": "truncate"}' in error["message"]
    for path, field in (("/embed", "inputs"), ("/api/embed", "input")):
        body = {field: ["a " * 600] * 7, "model": "minilm", "truncate": False}
        _, value = server.json(path, body)
        assert '"truncate": true' in value["error"]
        assert "0 (602 tokens)" in value["error"]
        assert "and 2 more" in value["error"]


def test_a_prompt_counts_for_each_text(minilm_path):
    config = {"max_request_tokens": 100}
    with serving(config, models={"minilm": minilm_path}) as server:
        body = {"input": ["a"] * 10}
        assert server.json(OPENAI, body)[0] == 200
        error = refused(server, OPENAI, body | {"embellama": {"prompt": "word " * 20}})
        assert error["code"] == "too_many_tokens"


def test_a_compressed_body_is_told_so(server):
    status, value = server.json(OPENAI, {"input": "a"}, headers={"Content-Encoding": "gzip"})
    assert (status, value["error"]["code"]) == (415, "unsupported_media_type")
    assert "compressed" in value["error"]["message"]
    body = {"input": "a"}
    assert server.json(OPENAI, body, headers={"Content-Encoding": "identity"})[0] == 200


def test_a_count_ends_when_it_is_enough(server):
    name, text = "minilm", "ab c " * (CHARS_A_PIECE // 2)

    def count(most, **options):
        return asyncio.run(
            count_tokens(server.service, name, [text, "a", [1, 2]], most=most, **options)
        )

    exact = server.service.engine.count_tokens(name, text) + 3 + 2
    assert count(10**9) == exact
    assert 100 < count(100) < exact / 2
    assert count(10**9, most_each=50) == 50 + 3 + 2
    unbroken = asyncio.run(count_tokens(server.service, name, ["x" * 200_000], most=10**9))
    assert unbroken >= 3


def test_who_leaves_is_waited_for_by_what_it_began():
    gone, ended = threading.Event(), []

    def work():
        gone.wait(10.0)
        time.sleep(0.05)
        ended.append(True)

    async def leave():
        working = asyncio.ensure_future(on_thread_to_its_end(work, gone))
        await asyncio.sleep(0.05)
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working
        assert ended == [True]

    asyncio.run(leave())
