import logging

import pytest

from embellama.cli.settings import Settings, log_to_stderr, with_global_options_first
from embellama.errors import ConfigurationError


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["embed", "m", "x"], ["embed", "m", "x"]),
        (["embed", "m", "--offline"], ["--offline", "embed", "m"]),
        (["embed", "--threads", "2", "m"], ["--threads", "2", "embed", "m"]),
        (["embed", "m", "--cache-path=/c", "-v"], ["--cache-path=/c", "-v", "embed", "m"]),
        (["embed", "m", "--", "--offline"], ["embed", "m", "--", "--offline"]),
        (["embed", "m", "--backend", "llama"], ["--backend", "llama", "embed", "m"]),
        (["embed", "m", "--threads"], ["--threads", "embed", "m"]),
        ([], []),
    ],
)
def test_global_options_may_stand_anywhere(given, expected):
    assert with_global_options_first(given) == expected


def test_options_of_the_command_line_win(monkeypatch, tmp_path):
    monkeypatch.setenv("EMBELLAMA_CACHE_PATH", "/elsewhere")
    monkeypatch.setenv("EMBELLAMA_N_THREADS", "7")
    settings = Settings(cache_path=tmp_path, offline=True, n_threads=2)
    assert settings.engine_config().cache_path == tmp_path
    assert settings.engine_config().offline is True
    assert settings.model_config("minilm").n_threads == 2


def test_the_environment_counts_where_the_command_line_is_silent(monkeypatch):
    monkeypatch.setenv("EMBELLAMA_N_THREADS", "7")
    assert Settings().model_config("minilm").n_threads == 7


def test_a_model_of_the_configuration_file_is_known_by_its_name(monkeypatch, tmp_path):
    file = tmp_path / "embellama.toml"
    file.write_text('[[models]]\nmodel_name = "mine"\nmodel_path = "/m.gguf"\nn_ctx = 64\n')
    monkeypatch.setenv("EMBELLAMA_CONFIG", str(file))
    config = Settings(n_threads=3).model_config("mine")
    assert (config.model_path, config.n_ctx, config.n_threads) == ("/m.gguf", 64, 3)
    assert Settings().model_config("other").model_path is None


def test_a_backend_that_is_given_wins_over_the_environment(monkeypatch):
    assert Settings().model_config("minilm").backend == "auto"
    monkeypatch.setenv("EMBELLAMA_BACKEND", "llama")
    assert Settings().model_config("minilm").backend == "llama"
    assert Settings(backend="native").model_config("minilm").backend == "native"


def test_threads_that_cannot_be_are_refused():
    with pytest.raises(ConfigurationError, match="n_threads = 0"):
        Settings(n_threads=0).model_config("minilm")


@pytest.mark.parametrize(("verbosity", "n_lines"), [(0, 0), (1, 1), (2, 2)])
def test_the_log_goes_to_standard_error_only_if_asked(capsys, verbosity, n_lines):
    logger = logging.getLogger("embellama")
    before = (logger.level, list(logger.handlers))
    end = log_to_stderr(verbosity)
    logger.info("done")
    logger.debug("detail")
    end()
    assert len(capsys.readouterr().err.splitlines()) == n_lines
    assert (logger.level, list(logger.handlers)) == before
