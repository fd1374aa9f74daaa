"""Bodies that are no JSON, or of another form, or made to keep the server busy."""

import time
from contextlib import suppress

import pytest

from embellama.server.app import ENDPOINTS
from embellama.server.bodies import parsed
from embellama.server.problems import Problem


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "invalid_json"),
        (b"\xff\xfe", 400, "invalid_json"),
        (b'{"input": "\xc3\x28"}', 400, "invalid_json"),
        ('{"input": "é"}'.encode("utf-16"), 400, "invalid_json"),
        (b'\xef\xbb\xbf{"input": "a"}', 400, "invalid_json"),
        (b'{"input": "a"} {"input": "b"}', 400, "invalid_json"),
        (b'{"input": "a",}', 400, "invalid_json"),
        (b'{"input": "\\ud800"}', 400, "invalid_json"),
        (b'{"input": "\\udc00\\ud800"}', 400, "invalid_json"),
        (b'{"input": "a", "x": ' + b"[" * 100_000, 400, "invalid_json"),
        (b'{"input": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400, "invalid_json"),
        (b'{"a":' * 100_000, 400, "invalid_json"),
        (b'{"input": "a", "dimensions": 1' + b"0" * 400 + b"}", 400, "invalid_request"),
        (b'{"input": "a", "dimensions": 1' + b"0" * 4290 + b"}", 400, "invalid_request"),
        (b'{"input": "a", "dimensions": ' + b"9" * 500_000 + b"}", 400, "invalid_json"),
        (b'{"input": "a", "dimensions": 1e400}', 400, "invalid_request"),
        (b'{"input": "a", "dimensions": NaN}', 400, "invalid_request"),
        (b'{"input": [NaN]}', 400, "invalid_request"),
        (b'{"input": "a", "embellama": {"timeout_s": Infinity}}', 400, "invalid_request"),
        (b'{"input": "a", "dimensions": true}', 400, "invalid_request"),
        (b'{"input": "a", "model": "' + b"m" * 1000 + b'"}', 400, "invalid_request"),
        (b'{"input": "a", "model": "../../etc/passwd"}', 404, "model_not_found"),
        (b'{"input": "a", "model": "\\u0000"}', 404, "model_not_found"),
        (b'{"input": ""}', 400, "empty_input"),
        (b'{"input": "a", "embellama": {' + b'"x":0,' * 2000 + b'"y":0}}', 400, "invalid_request"),
        (b"null", 400, "invalid_request"),
        (b"[]", 400, "invalid_request"),
        (b'"a"', 400, "invalid_request"),
        (b"[" + b"0," * 300_000 + b"0]", 413, "too_many_parts"),
        (b'{"input": "a", "input": 1}', 400, "invalid_request"),
        (b'{"input": 1, "input": "a", "input": "b"}', 200, None),  # the last one counts
        (b'{"input": "a", "unknown": NaN}', 200, None),
        (b'{"input": "a\\u0000b"}', 200, None),
        ('{"input": "\U0001f9ea\u202e\ufeff"}'.encode(), 200, None),
    ],
)
def test_odd_bodies_are_answered_clearly(guarded, body, status, code):
    found, value = guarded.json("/v1/embeddings", body)
    assert found == status, value
    if code is None:
        assert len(value["data"]) == 1
    else:
        assert value["error"]["code"] == code
        assert len(value["error"]["message"]) < 500


@pytest.mark.parametrize(
    "texts", [["a\x00b"], ["\x00"], ["\ud83e\uddea", "\u202e"], ["\uffff" * 9]]
)
def test_the_real_model_answers_odd_texts(server, texts):
    status, value = server.json("/v1/embeddings", {"input": texts})
    assert status in (200, 400)
    if status == 400:
        assert value["error"]["code"] == "empty_input"


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "a" * 5000]
)
def test_another_content_type_is_refused(guarded, kind):
    status, value = guarded.json(
        "/v1/embeddings", b'{"input": "a"}', headers={"Content-Type": kind}
    )
    assert (status, value["error"]["code"]) == (415, "unsupported_media_type")
    assert len(value["error"]["message"]) < 300


N_PARTS = 30_000
"""A twentieth of what the default limits let through."""


@pytest.mark.parametrize(
    "endpoint", [e for e in ENDPOINTS if e.body is not None], ids=lambda e: e.path
)
def test_no_body_holds_everybody_up_for_long(endpoint):
    """Each wrong part that an error tells of costs a hundred times what its two bytes do."""
    for field in endpoint.body.model_fields:
        for part in ("0.5", "[]"):
            listed = f"[{','.join([part] * N_PARTS)}]"
            keyed = ",".join(f'"{number}":{part}' for number in range(N_PARTS))
            for value in (listed, f"{{{keyed}}}"):
                body = f'{{"{field}":{value}}}'.encode()
                start = time.thread_time()
                with suppress(Problem):
                    parsed(endpoint, body)
                assert time.thread_time() - start < 1.0, (field, part)
