"""The options of ``embellama serve``: each a setting, and what its help says of it."""

import inspect
import re
import sys
from types import SimpleNamespace

import pytest

from embellama.cli import main
from embellama.cli.serve import OPTIONS
from embellama.config import EngineConfig
from embellama.server.settings import ServerConfig

DEFAULTS = {
    "host": "=127.0.0.1",
    "port": "=8080",
    "lazy": "=false",
    "keep_alive_s": "=-1",
    "max_body_bytes": "=32MiB",
    "max_wait_s": "=10s",
    "token_ids": "=refuse",
    "vector_cache_bytes": "=0",
    "rate_limit": "",
    "aliases": "",
    "default_prompts": "",
    "cors_origins": "",
    "tls_cert": "",
    "playground": "=true",
}


@pytest.fixture
def served(monkeypatch):
    """Catch what would be served."""
    caught = SimpleNamespace()

    def serve(config, engine_config, *, model_settings=None):
        caught.config, caught.engine_config = config, engine_config
        caught.model_settings = model_settings

    monkeypatch.setitem(sys.modules, "embellama.server.run", SimpleNamespace(serve=serve))
    return caught


def test_every_setting_has_an_option_but_models_and_keys():
    fields = [option.field for option in OPTIONS]
    assert len(fields) == len(set(fields))
    assert set(fields) == ServerConfig.model_fields.keys() - {"models", "api_keys"}


def test_help_shows_each_option_with_its_variable_and_default(capsys):
    assert main(["serve", "--help"]) == 0
    shown = capsys.readouterr().out
    for option in OPTIONS:
        pattern = (
            rf"  {option.flag.split('/')[0]} [^\[]*{re.escape(option.help)}\n +\[([A-Z_]+)(.*)\]"
        )
        found = re.search(pattern, shown)
        assert found, option.flag
        assert found[1] == ServerConfig.environment_variables[option.field]
        if option.field in DEFAULTS:
            assert found[2] == DEFAULTS[option.field]
    assert "--token-ids refuse|model|cl100k_base" in shown
    assert re.search(r"--memory-limit SIZE [^\[]*\[EMBELLAMA_MEMORY_LIMIT\]", shown)
    assert (
        "  Options of all commands: --threads, --backend, --cache-path, --offline, -v.\n" in shown
    )
    assert "--log-level debug|info|warning|error" in shown
    assert shown == (main(["serve", "-h"]), capsys.readouterr().out)[1]


def test_no_line_of_the_help_is_too_wide_for_a_terminal(capsys):
    main(["serve", "--help"])
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_options_are_settings(served):
    arguments = [
        "serve", "minilm", "docs=minilm:Q8_0", "--host", "::1", "--port", "0", "--alias",
        "x=minilm", "--alias", "y=docs", "--lazy", "--keep-alive", "5m", "--cors-origin", "http://a",
        "--cors-origin", "http://b", "--max-body", "1MiB", "--rate-limit", "2.5", "--no-playground",
        "--default-prompt", "x=query", "--default-prompt", "docs=document",
        "--token-ids", "model", "--log-format", "text", "--threads", "3", "--offline",
    ]  # fmt: skip
    assert main(arguments) == 0
    config = served.config
    assert config.models == ("minilm", "docs=minilm:Q8_0")
    assert (config.host, config.port) == ("::1", 0)
    assert config.aliases == {"x": "minilm", "y": "docs"}
    assert config.default_prompts == {"x": "query", "docs": "document"}
    assert (config.lazy, config.keep_alive_s, config.max_body_bytes) == (True, 300.0, 1 << 20)
    assert config.cors_origins == ("http://a", "http://b")
    assert (config.rate_limit, config.playground, config.metrics) == (2.5, False, True)
    assert (config.token_ids, config.log_format) == ("model", "text")
    assert config.sources["port"] == "explicit"
    assert config.sources["metrics"] == "default"
    assert served.model_settings == {"n_threads": 3}
    assert served.engine_config.offline is True


def test_the_flag_for_memory_wins_over_its_variable_and_that_over_the_file(
    served, monkeypatch, tmp_path
):
    file = tmp_path / "embellama.toml"
    file.write_text('memory_limit_bytes = "1GB"\n')
    monkeypatch.setenv("EMBELLAMA_CONFIG", str(file))
    for arguments, n_bytes, origin in (
        ([], 10**9, f"file: {file}"),
        (["--offline"], 2 * 10**9, "environment: EMBELLAMA_MEMORY_LIMIT"),
        (["--memory-limit", "3GB"], 3 * 10**9, "explicit"),
    ):
        assert main(["serve", *arguments]) == 0
        assert served.engine_config.memory_limit_bytes == n_bytes
        assert served.engine_config.sources["memory_limit_bytes"] == origin
        monkeypatch.setenv("EMBELLAMA_MEMORY_LIMIT", "2GB")


def test_switches_that_are_not_given_leave_variables_alone(served, monkeypatch):
    monkeypatch.setenv("EMBELLAMA_PLAYGROUND", "false")
    monkeypatch.setenv("EMBELLAMA_LAZY", "true")
    monkeypatch.setenv("EMBELLAMA_MODELS", "a,b")
    assert main(["serve", "--no-lazy"]) == 0
    assert (served.config.playground, served.config.lazy) == (False, False)
    assert served.config.models == ("a", "b")
    assert isinstance(served.engine_config, EngineConfig)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--port", "abc"], "port = 'abc'"),
        (["--keep-alive", "soon"], "keep_alive_s = 'soon'"),
        (["--token-ids", "x"], "token_ids = 'x'"),
        (["--alias", "x"], "an alias is written name=model"),
        (["--default-prompt", "x"], "a default prompt is written model=name"),
        (["--memory-limit", "much"], "memory_limit_bytes = 'much'"),
    ],
)
def test_a_wrong_value_is_wrong_usage(served, capsys, arguments, message):
    assert main(["serve", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("embellama: ")
    assert error.count("\n") == 1


def test_a_fault_of_our_own_is_not_taken_for_a_missing_extra(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "embellama.server.run", None)
    assert main(["serve"]) == 1
    assert "pip install" not in capsys.readouterr().err


def test_the_command_imports_nothing_of_the_server_by_itself():
    import embellama.cli.serve as module

    top = [line for line in inspect.getsource(module).splitlines() if line.startswith("from ")]
    assert not any("embellama.server" in line for line in top)
