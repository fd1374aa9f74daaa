import pytest

from embellama.config import EngineConfig, ModelConfig
from embellama.errors import ConfigurationError


def test_a_value_given_wins_over_environment_file_and_default(monkeypatch, tmp_path):
    path = tmp_path / "embellama.toml"
    path.write_text("[model]\nn_threads = 5\nn_ctx = 50\nmax_batch_requests = 5\nn_contexts = 5\n")
    monkeypatch.setenv("EMBELLAMA_CONFIG", str(path))
    monkeypatch.setenv("EMBELLAMA_N_THREADS", "4")
    monkeypatch.setenv("EMBELLAMA_BATCH_SIZE", "4")
    config = ModelConfig(n_threads=3)
    assert (config.n_threads, config.max_batch_requests, config.n_contexts) == (3, 4, 5)
    assert config.max_batch_tokens == 256
    assert config.n_ctx == config.context_size == 50
    sources = config.sources
    assert sources["n_threads"] == "explicit"
    assert sources["max_batch_requests"] == "environment: EMBELLAMA_BATCH_SIZE"
    assert sources["n_contexts"] == sources["context_size"] == f"file: {path}"
    assert sources["max_batch_tokens"] == "default"


def test_none_means_unset_so_the_environment_speaks(monkeypatch):
    monkeypatch.setenv("EMBELLAMA_N_THREADS", "2")
    assert ModelConfig(n_threads=None).n_threads == 2


@pytest.mark.parametrize(
    ("name", "value", "field", "expected"),
    [
        ("EMBELLAMA_CONTEXT_SIZE", "128", "n_ctx", 128),
        ("EMBELLAMA_CONTEXT_SIZE", "128", "context_size", 128),
        ("EMBELLAMA_N_THREADS", "7", "n_threads", 7),
        ("EMBELLAMA_USE_GPU", "false", "use_gpu", False),
        ("EMBELLAMA_USE_GPU", "auto", "use_gpu", "auto"),
        ("EMBELLAMA_BATCH_SIZE", "9", "max_batch_requests", 9),
        ("EMBELLAMA_BACKEND", "llama", "backend", "llama"),
    ],
)
def test_model_variables(monkeypatch, name, value, field, expected):
    monkeypatch.setenv(name, value)
    config = ModelConfig()
    assert getattr(config, field) == expected
    assert config.sources[field] == f"environment: {name}"


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("EMBELLAMA_MODEL_PATH", "model_path"),
        ("EMBELLAMA_MODEL_NAME", "model_name"),
        ("EMBELLAMA_CACHE_PATH", "cache_path"),
    ],
)
def test_engine_variables(monkeypatch, name, field):
    monkeypatch.setenv(name, "somewhere")
    assert str(getattr(EngineConfig(), field)) == "somewhere"


def test_an_empty_variable_counts_as_unset(monkeypatch):
    monkeypatch.setenv("EMBELLAMA_N_THREADS", "  ")
    assert ModelConfig().n_threads is None


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"n_threads": 0}, "n_threads = 0"),
        ({"n_threads": -4}, "n_threads = -4"),
        ({"n_threads": 100_000}, "n_threads = 100000"),
        ({"max_batch_requests": 257}, "max_batch_requests = 257"),
        ({"max_batch_tokens": 0}, "max_batch_tokens = 0"),
        ({"n_ctx": 0}, "n_ctx = 0"),
        ({"n_ctx": 1 << 40}, "n_ctx = "),
        ({"n_contexts": 0}, "n_contexts = 0"),
        ({"pooling_type": "median"}, "pooling_type = 'median'"),
        ({"use_gpu": "maybe"}, "use_gpu"),
        ({"model_name": ""}, "model_name = ''"),
        ({"n_thread": 4}, "n_thread is not a setting"),
        ({"n_ctx": 128, "context_size": 64}, "two names of one setting"),
        ({"use_gpu": False, "n_gpu_layers": 4}, "n_gpu_layers = 4 needs a GPU"),
        ({"use_gpu": True, "n_gpu_layers": 0}, "puts nothing on the GPU"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_with_its_value(values, said):
    with pytest.raises(ConfigurationError, match=said):
        ModelConfig(**values)


def test_a_wrong_variable_is_named(monkeypatch):
    monkeypatch.setenv("EMBELLAMA_N_THREADS", "many")
    with pytest.raises(ConfigurationError, match="from environment: EMBELLAMA_N_THREADS"):
        ModelConfig()


def test_a_config_cannot_be_changed():
    config = ModelConfig()
    with pytest.raises(Exception, match="frozen"):
        config.n_threads = 3


def test_the_short_form_is_one_model():
    config = EngineConfig(
        model_path="a.gguf", model_name="a", context_size=64, n_threads=2, use_gpu=False
    )
    (model,) = config.all_models
    assert (model.model_path, model.model_name, model.n_ctx) == ("a.gguf", "a", 64)
    assert (model.n_threads, model.use_gpu) == (2, False)
    assert model.sources["n_threads"] == "explicit"


def test_the_short_form_comes_before_the_list():
    config = EngineConfig(model_path="a.gguf", models=(ModelConfig(model_path="b.gguf"),))
    assert [model.model_path for model in config.all_models] == ["a.gguf", "b.gguf"]


def test_a_name_alone_is_a_catalogue_name():
    (model,) = EngineConfig(model_name="minilm").all_models
    assert model.model_path == model.model_name == "minilm"


def test_settings_of_no_model_are_refused():
    with pytest.raises(ConfigurationError, match="n_threads describe one model"):
        EngineConfig(n_threads=2)


def test_models_may_be_given_in_the_file(monkeypatch, tmp_path):
    path = tmp_path / "embellama.toml"
    path.write_text('memory_limit_bytes = 10\n[[models]]\nmodel_path = "a.gguf"\nn_ctx = 7\n')
    monkeypatch.setenv("EMBELLAMA_CONFIG", str(path))
    config = EngineConfig()
    assert config.memory_limit_bytes == 10
    assert config.models[0].n_ctx == 7
    assert config.sources["models"] == f"file: {path}"


def test_an_error_in_a_listed_model_says_which_setting():
    with pytest.raises(ConfigurationError, match="n_ctx = -3"):
        EngineConfig(models=({"model_path": "a", "n_ctx": -3},))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("n_threads = [", "not valid TOML"),
        ("model = 3\n", "not a table"),
        ("[model]\nfoo = 3\n", "foo is not a setting"),
    ],
)
def test_a_wrong_file_is_named(monkeypatch, tmp_path, content, said):
    path = tmp_path / "embellama.toml"
    path.write_text(content)
    monkeypatch.setenv("EMBELLAMA_CONFIG", str(path))
    with pytest.raises(ConfigurationError, match=said):
        ModelConfig()


def test_a_missing_file_is_an_error_not_a_default(monkeypatch, tmp_path):
    monkeypatch.setenv("EMBELLAMA_CONFIG", str(tmp_path / "none.toml"))
    with pytest.raises(ConfigurationError, match=r"none\.toml"):
        EngineConfig()


@pytest.fixture
def file_and_variables(monkeypatch, tmp_path):
    path = tmp_path / "embellama.toml"
    path.write_text(
        'model_path = "a.gguf"\ncontext_size = 128\nn_threads = 1\n'
        '[[models]]\nmodel_path = "b.gguf"\nn_ctx = 64\nn_threads = 2\nn_contexts = 3\n'
    )
    monkeypatch.setenv("EMBELLAMA_CONFIG", str(path))
    monkeypatch.setenv("EMBELLAMA_CONTEXT_SIZE", "256")
    monkeypatch.setenv("EMBELLAMA_N_THREADS", "7")
    return path


def test_variables_win_over_the_file_for_the_short_form(file_and_variables):
    model = EngineConfig().all_models[0]
    assert (model.n_ctx, model.context_size, model.n_threads) == (256, 256, 7)
    assert model.sources["n_ctx"] == "environment: EMBELLAMA_CONTEXT_SIZE"
    assert model.sources["n_threads"] == "environment: EMBELLAMA_N_THREADS"
    assert model.sources["model_path"] == f"file: {file_and_variables}"


def test_variables_win_over_the_file_for_listed_models(file_and_variables):
    model = EngineConfig().all_models[1]
    assert (model.n_ctx, model.n_threads, model.n_contexts) == (256, 7, 3)
    assert model.sources["n_ctx"] == "environment: EMBELLAMA_CONTEXT_SIZE"
    assert model.sources["n_contexts"] == f"file: {file_and_variables}"


def test_what_is_given_wins_over_both(file_and_variables):
    model = EngineConfig(context_size=32, n_threads=3).all_models[0]
    assert (model.n_ctx, model.n_threads) == (32, 3)
    assert model.sources["n_ctx"] == model.sources["n_threads"] == "explicit"


def test_variables_about_a_model_need_none_in_the_engine(monkeypatch):
    monkeypatch.setenv("EMBELLAMA_N_THREADS", "7")
    config = EngineConfig()
    assert config.n_threads is None
    assert config.all_models == ()
