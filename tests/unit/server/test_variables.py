"""Variables that are misspelt are found, and those that something reads are not."""

import pytest

from embellama.config import EngineConfig, ModelConfig
from embellama.server.settings import ServerConfig
from embellama.server.variables import unknown_variables


@pytest.mark.parametrize("config", [ServerConfig, EngineConfig, ModelConfig])
def test_what_a_setting_reads_is_known(config):
    assert config.environment_variables
    assert unknown_variables(config.environment_variables.values()) == {}


def test_what_others_read_is_none_of_ours():
    assert unknown_variables(["EMBELLAMA_CONFIG", "EMBELLAMA_ISA", "PATH", "LLAMA_PORT"]) == {}


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("EMBELLAMA_API_KEY", "EMBELLAMA_API_KEYS"),
        ("EMBELLAMA_APIKEYS", "EMBELLAMA_API_KEYS"),
        ("EMBELLAMA_APIKEY_FILE", "EMBELLAMA_API_KEY_FILE"),
        ("EMBELLAMA_MAX_TEXT", "EMBELLAMA_MAX_TEXTS"),
        ("EMBELLAMA_THREADS", "EMBELLAMA_N_THREADS"),
        ("EMBELLAMA_LOGLEVEL", "EMBELLAMA_LOG_LEVEL"),
        ("EMBELLAMA_SOMETHING_ELSE", None),
        ("EMBELLAMA_X", None),
    ],
)
def test_a_misspelt_one_is_told_with_what_may_be_meant(name, meant):
    assert unknown_variables([name, "EMBELLAMA_PORT"]) == {name: meant}
