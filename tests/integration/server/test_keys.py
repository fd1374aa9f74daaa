"""Who may ask, how often, and from which pages."""

import json
import time

import pytest

from embellama.testing import FakeBackend
from tests.integration.server.running import server_process, serving

KEY, OTHER, ADMIN = "sk-search-1234", "sk-second-5678", "sk-admin-9999"
BODY = {"input": "hello there"}


def bearer(key):
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture(scope="module")
def keyed(tiny_path, tmp_path_factory):
    """A server with keys of each kind."""
    folder = tmp_path_factory.mktemp("keys")
    (folder / "keys").write_text(f"# ours\nsearch: {KEY}\n")
    (folder / "admin").write_text(f"root: {ADMIN}\n")
    config = {
        "api_key_file": folder / "keys",
        "api_keys": (OTHER,),
        "admin_key_file": folder / "admin",
    }
    with serving(config, models={"tiny": tiny_path}, backend=FakeBackend()) as running:
        yield running


@pytest.mark.parametrize(
    "headers", [bearer(KEY), bearer(OTHER), {"x-api-key": KEY}, bearer(ADMIN), bearer(f" {KEY} ")]
)
def test_who_has_a_key_may_ask(keyed, headers):
    assert keyed.json("/v1/embeddings", BODY, headers=headers)[0] == 200


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "missing_api_key"),
        ({"Authorization": "Bearer"}, "missing_api_key"),
        ({"Authorization": KEY}, "missing_api_key"),
        (bearer("sk-search-1235"), "invalid_api_key"),
        (bearer("search"), "invalid_api_key"),
        (bearer(KEY.upper()), "invalid_api_key"),
        (bearer(KEY[:-1]), "invalid_api_key"),
        ({"x-api-key": f"{KEY}x"}, "invalid_api_key"),
        ({"x-api-key": "\xff"}, "invalid_api_key"),
        (bearer("a" * 10_000), "invalid_api_key"),
    ],
)
def test_who_has_none_may_not_and_is_not_told_what_was_wrong_with_it(keyed, headers, code):
    status, answered, data = keyed.request("/v1/embeddings", BODY, headers=headers)
    assert status == 401
    assert answered["www-authenticate"] == "Bearer"
    assert json.loads(data)["error"]["code"] == code
    for value in headers.values():
        assert value == "Bearer" or value.split()[-1] not in data.decode()


def test_every_endpoint_asks_for_a_key_but_those_for_probes(keyed):
    paths = keyed.json("/openapi.json")[1]["paths"]
    is_open = {
        path
        for path, methods in paths.items()
        for method in methods
        if keyed.request(path.replace("{id}", "tiny"), method=method.upper())[0] != 401
    }
    assert is_open == {"/health", "/ready", "/openapi.json", "/"}
    assert "post" in paths["/"]
    assert keyed.request("/", {"inputs": "a"})[0] == 401


def test_who_may_ask_may_not_administrate(keyed):
    assert keyed.json("/admin/models")[0] == 401
    assert keyed.json("/admin/models", headers=bearer(KEY))[0] == 403
    assert keyed.json("/admin/models", headers=bearer(ADMIN))[0] == 200


def test_without_any_key_nobody_administrates(tiny_path):
    with serving(models={"tiny": tiny_path}, backend=FakeBackend()) as running:
        assert running.json("/v1/embeddings", BODY)[0] == 200
        status, value = running.json("/admin/models")
        assert (status, value["error"]["code"]) == (403, "no_admin_key")


def test_each_key_has_its_own_rate_and_gets_it_back(tiny_path):
    config = {"api_keys": (KEY, OTHER), "rate_limit": 5.0, "rate_burst": 3}
    with serving(config, models={"tiny": tiny_path}, backend=FakeBackend()) as running:
        seen = [running.request("/v1/embeddings", BODY, headers=bearer(KEY)) for _ in range(10)]
        statuses = [status for status, _, _ in seen]
        assert statuses[:3] == [200] * 3
        assert statuses.count(429) >= 5
        _, headers, data = seen[statuses.index(429)]
        assert headers["retry-after"] == "1"
        assert json.loads(data)["error"]["code"] == "rate_limited"
        # neither another key nor who watches the server is held up by it
        assert running.request("/v1/embeddings", BODY, headers=bearer(OTHER))[0] == 200
        assert running.request("/health")[0] == 200
        time.sleep(1.0)
        again = [running.request("/v1/embeddings", BODY, headers=bearer(KEY))[0] for _ in range(3)]
        assert again == [200] * 3


def test_no_key_is_in_the_log(minilm_path, tmp_path):
    (tmp_path / "keys").write_text(f"search: {KEY}\n")
    env = {"EMBELLAMA_API_KEYS": OTHER}
    arguments = (f"minilm={minilm_path}", "--api-key-file", tmp_path / "keys", "--log-level")
    with server_process(*arguments, "debug", env=env) as (_, url, lines):
        from tests.integration.server.running import Running

        running = Running(None, url)
        for headers in (bearer(KEY), bearer(OTHER), bearer("sk-wrong-0000"), {}):
            running.request("/v1/embeddings", BODY, headers=headers)
        running.request(f"/v1/models/{OTHER}x", headers=bearer(KEY))
    answered = [line for line in lines if line["event"] == "embellama.request.answered"]
    assert {line["client"] for line in answered} >= {"search", "key2", "127.0.0.1"}
    logged = json.dumps(lines)
    for secret in (KEY, "sk-wrong-0000", BODY["input"]):
        assert secret not in logged


# ── pages ───────────────────────────────────────────────────────────────────────────────────

PAGE = "https://app.example"


def asked(running, origin):
    return running.request(
        "/v1/embeddings",
        method="OPTIONS",
        headers={
            "Origin": origin,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type,x-stainless-os",
        },
    )


def test_no_page_may_ask_unless_it_was_said(keyed):
    status, headers, _ = asked(keyed, PAGE)
    assert status == 405
    assert not [name for name in headers if name.lower().startswith("access-control")]
    _, headers, _ = keyed.request("/v1/embeddings", BODY, headers={"Origin": PAGE, **bearer(KEY)})
    assert not [name for name in headers if name.lower().startswith("access-control")]


def test_pages_that_were_named_may_ask_and_read(tiny_path):
    config = {"cors_origins": (PAGE,), "api_keys": (KEY,)}
    with serving(config, models={"tiny": tiny_path}, backend=FakeBackend()) as running:
        status, headers, _ = asked(running, PAGE)
        assert status == 200
        assert headers["access-control-allow-origin"] == PAGE
        assert "x-stainless-os" in headers["access-control-allow-headers"]
        assert "POST" in headers["access-control-allow-methods"]
        assert asked(running, "https://evil.example")[0] == 400
        for key, status in ((KEY, 200), ("sk-wrong-0000", 401)):
            found, headers, _ = running.request(
                "/v1/embeddings", BODY, headers={"Origin": PAGE, **bearer(key)}
            )
            assert found == status
            assert headers["access-control-allow-origin"] == PAGE
            assert "retry-after" in headers["access-control-expose-headers"]
        _, headers, _ = running.request(
            "/v1/embeddings", BODY, headers={"Origin": "https://evil.example", **bearer(KEY)}
        )
        assert headers["access-control-allow-origin"] is None


# ── what the server is called ───────────────────────────────────────────────────────────────


def called(running, host, path="/v1/models", **options):
    return running.json(path, headers={"Host": host} | options.pop("headers", {}), **options)


def test_a_page_whose_name_was_made_to_mean_this_machine_gets_nothing(tiny_path):
    config = {"allowed_hosts": ("search.example",)}
    with serving(config, models={"tiny": tiny_path}, backend=FakeBackend()) as running:
        for path in ("/v1/models", "/metrics", "/info", "/playground/stats"):
            status, error = called(running, "evil.example", path)
            assert status == 403
            assert "--allowed-host" in json.dumps(error)
        status, error = called(running, "evil.example:80", "/v1/embeddings", body=BODY)
        assert (status, error["error"]["code"]) == (403, "host_refused")
        assert error["error"]["type"] == "permission_error"
        for path in ("/health", "/ready", "/"):  # which tell nobody anything
            assert running.request(path, headers={"Host": "evil.example"})[0] == 200
        for host in ("search.example", "localhost:9999", "127.0.0.1"):
            assert called(running, host)[0] == 200


def test_with_keys_it_may_be_called_anything(keyed):
    assert called(keyed, "evil.example", headers=bearer(KEY))[0] == 200
    assert called(keyed, "evil.example")[0] == 401
