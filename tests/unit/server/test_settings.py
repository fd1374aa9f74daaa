"""Settings of the server: every one from a flag, a variable and the file, and errors in words."""

import json
import traceback
from pathlib import Path

import pytest

from embellama import ConfigurationError, EngineConfig
from embellama.server.settings import ServerConfig, seconds

SECRET = "sk-very-secret-indeed"

SAID = {
    "host": ("0.0.0.0", "0.0.0.0"),
    "port": ("9090", 9090),
    "models": ("a, b=minilm:Q8_0", ("a", "b=minilm:Q8_0")),
    "aliases": ("x=a, y=b", {"x": "a", "y": "b"}),
    "default_prompts": ("x=query, b=document", {"x": "query", "b": "document"}),
    "lazy": ("true", True),
    "keep_alive_s": ("5m", 300.0),
    "api_key_file": ("/keys", Path("/keys")),
    "api_keys": (f"{SECRET}, web:{SECRET}2", None),
    "admin_key_file": ("/admin", Path("/admin")),
    "tls_cert": ("CERT", None),
    "tls_key": ("KEY", None),
    "cors_origins": ("http://a, http://b", ("http://a", "http://b")),
    "allowed_hosts": ("a.example,b.example", ("a.example", "b.example")),
    "max_body_bytes": ("1MiB", 1 << 20),
    "max_texts": ("7", 7),
    "max_request_tokens": ("8", 8),
    "max_connections": ("9", 9),
    "max_requests": ("10", 10),
    "max_wait_s": ("500ms", 0.5),
    "request_timeout_s": ("1m", 60.0),
    "read_timeout_s": ("2", 2.0),
    "idle_timeout_s": ("1.5h", 5400.0),
    "shutdown_timeout_s": ("0", 0.0),
    "rate_limit": ("2.5", 2.5),
    "rate_burst": ("3", 3),
    "overflow": ("window", "window"),
    "token_ids": ("model", "model"),
    "vector_cache_bytes": ("256MB", 256_000_000),
    "vector_cache_path": ("/vectors", Path("/vectors")),
    "playground": ("0", False),
    "metrics": ("no", False),
    "traces": ("on", True),
    "log_level": ("DEBUG", "debug"),
    "log_format": ("Text", "text"),
    "access_log": ("false", False),
}
"""What a variable says of each field, and what is meant."""


@pytest.fixture
def said(tmp_path):
    """`SAID`, with files that are there."""
    values = dict(SAID)
    for name in ("tls_cert", "tls_key"):
        path = tmp_path / name
        path.touch()
        values[name] = (str(path), path)
    return values


def check(config, said, origin):
    for name, (_, meant) in said.items():
        if name == "api_keys":
            keys = [key.get_secret_value() for key in config.api_keys]
            assert keys == [SECRET, f"web:{SECRET}2"]
        else:
            assert getattr(config, name) == meant, name
    assert set(config.sources.values()) == {origin}


def test_every_field_has_a_variable(said, monkeypatch):
    assert SAID.keys() == ServerConfig.model_fields.keys()
    assert ServerConfig.environment_variables.keys() == ServerConfig.model_fields.keys()
    for name, (text, _) in said.items():
        monkeypatch.setenv(ServerConfig.environment_variables[name], text)
    config = ServerConfig()
    for name, variable in ServerConfig.environment_variables.items():
        assert config.sources[name] == f"environment: {variable}"
    config._sources = dict.fromkeys(SAID, "environment")
    check(config, said, "environment")


def test_every_field_can_be_given(said):
    check(ServerConfig(**{name: text for name, (text, _) in said.items()}), said, "explicit")


def test_every_field_can_stand_in_the_file(said, monkeypatch, tmp_path):
    file = tmp_path / "embellama.toml"
    lines = [f"{name} = {json.dumps(text)}" for name, (text, _) in said.items()]
    file.write_text("\n".join(["memory_limit_bytes = 9", "[server]", *lines]))
    monkeypatch.setenv("EMBELLAMA_CONFIG", str(file))
    check(ServerConfig(), said, f"file: {file}")
    assert EngineConfig().memory_limit_bytes == 9  # whose file it is too


def test_the_file_may_use_its_own_types(monkeypatch, tmp_path):
    file = tmp_path / "embellama.toml"
    file.write_text(
        '[server]\nport = 1\nkeep_alive_s = 90\nmax_wait_s = 0.5\nmodels = ["a", "b"]\n'
        'lazy = true\naliases = {x = "a"}\nmax_body_bytes = 1000\ncors_origins = ["*"]\n'
    )
    monkeypatch.setenv("EMBELLAMA_CONFIG", str(file))
    config = ServerConfig()
    assert (config.port, config.keep_alive_s, config.max_wait_s) == (1, 90.0, 0.5)
    assert (config.models, config.lazy, config.aliases) == (("a", "b"), True, {"x": "a"})
    assert (config.max_body_bytes, config.cors_origins) == (1000, ("*",))


def test_the_engines_word_for_lazy_holds_where_the_server_has_none(monkeypatch, tmp_path):
    file = tmp_path / "embellama.toml"
    monkeypatch.setenv("EMBELLAMA_CONFIG", str(file))
    file.write_text("lazy = true\n[server]\nport = 1\n")
    assert (ServerConfig().lazy, ServerConfig().sources["lazy"]) == (True, f"file: {file}")
    assert ServerConfig(lazy=False).lazy is False
    file.write_text("lazy = true\n[server]\nlazy = false\n")
    assert ServerConfig().lazy is False
    file.write_text("lazy = true\n")
    assert ServerConfig().lazy is True
    monkeypatch.setenv("EMBELLAMA_LAZY", "false")
    assert ServerConfig().lazy is False


@pytest.mark.parametrize(
    ("text", "n_bytes"), [("2GB", 2_000_000_000), ("512MiB", 512 << 20), ("9000", 9000)]
)
def test_the_memory_of_all_models_is_a_size(monkeypatch, text, n_bytes):
    monkeypatch.setenv("EMBELLAMA_MEMORY_LIMIT", text)
    config = EngineConfig()
    assert config.memory_limit_bytes == n_bytes
    assert config.sources["memory_limit_bytes"] == "environment: EMBELLAMA_MEMORY_LIMIT"
    assert EngineConfig(memory_limit_bytes=7).memory_limit_bytes == 7
    monkeypatch.setenv("EMBELLAMA_MEMORY_LIMIT", "lots")
    with pytest.raises(ConfigurationError, match="'lots' .from environment: EMBELLAMA_MEMORY"):
        EngineConfig()


def test_what_is_given_wins_over_variables_and_they_over_the_file(monkeypatch, tmp_path):
    file = tmp_path / "embellama.toml"
    file.write_text("[server]\nport = 1\nmax_texts = 1\nmax_requests = 1\n")
    monkeypatch.setenv("EMBELLAMA_CONFIG", str(file))
    monkeypatch.setenv("EMBELLAMA_PORT", "2")
    monkeypatch.setenv("EMBELLAMA_MAX_TEXTS", "2")
    config = ServerConfig(port=3)
    assert (config.port, config.max_texts, config.max_requests) == (3, 2, 1)
    assert (config.max_connections, config.sources["max_connections"]) == (4096, "default")


def test_a_server_that_is_no_table_is_refused(monkeypatch, tmp_path):
    file = tmp_path / "embellama.toml"
    file.write_text("server = 5\n")
    monkeypatch.setenv("EMBELLAMA_CONFIG", str(file))
    with pytest.raises(ConfigurationError, match="'server' .* is 5, not a table"):
        ServerConfig()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"port": "abc"}, "port = 'abc'.*valid integer"),
        ({"port": 70000}, "port = 70000.*less than or equal to 65535"),
        ({"models": [""]}, "models.0 = ''"),
        ({"aliases": "a"}, "aliases = 'a'.*an alias is written name=model"),
        ({"aliases": ["=a"]}, "an alias is written name=model"),
        ({"aliases": 5}, "aliases = 5.*dictionary"),
        ({"default_prompts": "a"}, "default_prompts = 'a'.* prompt is written model=name, such as"),
        ({"lazy": "perhaps"}, "lazy = 'perhaps'.*boolean"),
        ({"keep_alive_s": "soon"}, "keep_alive_s = 'soon': a time is .*500ms, 30s, 5m or 1h"),
        ({"keep_alive_s": -2}, "greater than or equal to -1"),
        ({"keep_alive_s": float("nan")}, "keep_alive_s = nan"),
        ({"max_wait_s": 0}, "greater than 0"),
        ({"max_body_bytes": "lots"}, "max_body_bytes = 'lots'.*byte"),
        ({"max_body_bytes": 0}, "greater than or equal to 1"),
        ({"token_ids": "gpt2"}, "'refuse', 'model' or 'cl100k_base'"),
        ({"log_level": "loud"}, "'debug', 'info', 'warning' or 'error'"),
        ({"rate_limit": float("inf")}, "rate_limit = inf"),
        ({"rate_burst": 3}, "rate_burst = 3 means nothing without rate_limit"),
        ({"tls_cert": "/c"}, "tls_cert needs tls_key too"),
        ({"tls_key": "/k"}, "tls_key needs tls_cert too"),
        ({"tls_key": "/k", "tls_cert": "/c"}, "tls_cert = '/c' is no file that is there"),
        ({"prot": 1}, "prot is not a setting; ServerConfig has: access_log, .*port"),
    ],
)
def test_what_cannot_be_is_named_with_what_can(settings, message):
    with pytest.raises(ConfigurationError, match=message):
        ServerConfig(**settings)


def test_an_error_names_the_variable(monkeypatch):
    monkeypatch.setenv("EMBELLAMA_MAX_WAIT", "1 day")
    with pytest.raises(ConfigurationError, match="from environment: EMBELLAMA_MAX_WAIT"):
        ServerConfig()


@pytest.mark.parametrize(
    "wrong", [{"name": SECRET}, [SECRET, {SECRET: 1}], [SECRET, 5], {SECRET: SECRET}]
)
def test_a_secret_is_in_no_error_and_no_traceback(wrong):
    with pytest.raises(ConfigurationError, match="api_keys") as caught:
        ServerConfig(api_keys=wrong)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_secrets_are_not_shown():
    config = ServerConfig(api_keys=f"a:{SECRET},{SECRET}2")
    shown = config.described()
    assert shown["api_keys"] == {"value": "2 given", "from": "explicit"}
    assert shown["port"] == {"value": 8080, "from": "default"}
    assert shown.keys() == ServerConfig.model_fields.keys()
    for text in (json.dumps(shown), repr(config), str(config), config.model_dump_json()):
        assert SECRET not in text


@pytest.mark.parametrize(
    ("given", "expected"),
    [("90", 90.0), (" 5m ", 300.0), ("-1", -1.0), ("250ms", 0.25), ("2h", 7200.0), (7, 7)],
)
def test_durations(given, expected):
    assert seconds(given) == expected


@pytest.mark.parametrize("given", ["", "5 m", "1d", "m", "1.s", "1e3", "nan", "٣s x"])
def test_what_is_no_duration(given):
    with pytest.raises(ValueError, match="a time is"):
        seconds(given)


@pytest.mark.parametrize(
    ("host", "is_loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("localhost", True),
        ("::1", True),
        ("[::1]", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.2", False),
        ("example.org", False),
    ],
)
def test_only_this_machine(host, is_loopback):
    assert ServerConfig(host=host).is_loopback is is_loopback


def test_paths_may_begin_at_home():
    config = ServerConfig(vector_cache_path="~/vectors", api_key_file="~/keys")
    assert config.vector_cache_path == Path.home() / "vectors"
    assert config.api_key_file == Path.home() / "keys"


@pytest.mark.parametrize("name", ["https://a.example", "*.a.example", "bücher.example", "[::1]"])
def test_a_host_is_a_plain_name(name):
    with pytest.raises(ConfigurationError, match="a host is a name such as search.example"):
        ServerConfig(allowed_hosts=(name,))
