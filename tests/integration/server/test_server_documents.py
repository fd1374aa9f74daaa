"""What docs/server.md and docs/deploy say: every request in them sent, every table held up."""

import ast
import gc
import json
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from embellama import EmbeddingCache, EngineConfig
from embellama.cli.serve import OPTIONS
from embellama.config import CONFIG_FILE_VARIABLE
from embellama.errors import EmbellamaError, ModelError
from embellama.server.app import ENDPOINTS
from embellama.server.schemas.common import Extension
from embellama.server.schemas.rerank import RerankExtension
from embellama.server.settings import ServerConfig
from tests.conftest import model_file
from tests.integration.server.running import serving
from tests.tiny_cross_encoder import write_cross_encoder

ROOT = Path(__file__).parents[3]
GUIDE = (ROOT / "docs" / "server.md").read_text(encoding="utf-8")
DEPLOYING = (ROOT / "docs" / "deploy" / "README.md").read_text(encoding="utf-8")
ADDRESS = "http://127.0.0.1:8080"
ADMIN_KEY = "admin-key-of-a-test"

_FENCED = re.compile(r"^```(\w+)\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)
_RUN_THEN_SHOWN = re.compile(
    r"^```python\n(?P<code>.*?)^```\n\n```text\n(?P<output>.*?)^```", re.MULTILINE | re.DOTALL
)


def fenced(language, text=GUIDE):
    return [body for found, body in _FENCED.findall(text) if found == language]


def table_after(heading, text=GUIDE):
    """Return the rows of the first table behind a line: a list of cells each."""
    lines = text[text.index(heading) :].splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("| ---"))
    rows = []
    for line in lines[start + 1 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split(" |")])
    return rows


# ── what can be run ──────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def documented(minilm_path, tmp_path_factory):
    """A server as the guide has it: two models, a cache, a key for administrators."""
    model_file("Q8_0")  # what the guide has an administrator load
    folder = tmp_path_factory.mktemp("documented")
    (folder / "admin-keys").write_text(f"admin: {ADMIN_KEY}\n", encoding="utf-8")
    config = {"admin_key_file": folder / "admin-keys"}
    judge = write_cross_encoder(folder / "judge.gguf")
    models = {"minilm": minilm_path, "ms-marco-minilm-l6-v2": judge}
    with (
        EmbeddingCache.in_memory() as cache,
        serving(config, models=models, cache=cache) as running,
    ):
        yield running


def requests():
    lines = [line for body in fenced("sh") for line in body.splitlines()]
    return [pytest.param(line, id=line[-60:]) for line in lines if line.startswith("curl ")]


def test_the_guide_shows_requests():
    assert len(requests()) > 20


@pytest.mark.filterwarnings("ignore::embellama.errors.EmbellamaWarning")  # MiniLM has no roles
@pytest.mark.parametrize("line", requests())
def test_a_request_of_the_guide_is_answered(line, documented, monkeypatch):
    if shutil.which("curl") is None:
        pytest.skip("needs curl")
    assert ADDRESS in line
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    words = shlex.split(line.replace(ADDRESS, documented.url).replace("$ADMIN_KEY", ADMIN_KEY))
    done = subprocess.run(
        [*words, "--noproxy", "*", "--fail-with-body"],
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout
    if "/metrics" not in line:
        json.loads(done.stdout)


def programs():
    return [
        pytest.param(match["code"], match["output"], id=match["code"].split("\n", 1)[0])
        for match in _RUN_THEN_SHOWN.finditer(GUIDE)
    ]


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # programs leave their connections open
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(("code", "output"), programs())
def test_a_client_of_the_guide_shows_what_it_says(code, output, documented, capsys):
    code = code.replace(ADDRESS, documented.url)
    exec(compile(code, "guide", "exec"), {"__name__": "guide"})
    gc.collect()
    assert capsys.readouterr().out == output


def test_all_programs_of_the_guide_have_their_output():
    assert len(programs()) == len(fenced("python")) == 4


def test_the_toml_of_the_guide_is_a_configuration(tmp_path, monkeypatch):
    (block,) = fenced("toml")
    path = tmp_path / "embellama.toml"
    path.write_text(block, encoding="utf-8")
    monkeypatch.setenv(CONFIG_FILE_VARIABLE, str(path))
    config = ServerConfig()
    assert config.models == ("minilm", "docs=minilm:Q8_0")
    assert config.max_wait_s == 5.0
    assert EngineConfig().memory_limit_bytes == 2_000_000_000


# ── tables ───────────────────────────────────────────────────────────────────────────────────


def settings_rows():
    return {row[2].strip("`"): row for row in table_after("## Configuration")}


def test_the_table_of_settings_has_every_setting_once():
    rows = table_after("## Configuration")
    assert sorted(row[2].strip("`") for row in rows) == sorted(ServerConfig.model_fields)
    assert all(row[4] for row in rows)


@pytest.mark.parametrize("name", ServerConfig.model_fields)
def test_a_setting_has_the_flag_the_variable_and_the_default_of_the_table(name):
    flag, variable, _, default, _ = settings_rows()[name]
    flags = {option.field: option.flag.partition("/")[0] for option in OPTIONS}
    flags |= {"models": "MODEL...", "api_keys": ""}
    assert flag.strip("`") == flags[name]
    assert variable.strip("`") == ServerConfig.environment_variables[name]
    given = {} if default == "unset" else tomllib.loads(f"{name} = {default.strip('`')}")
    assert getattr(ServerConfig(**given), name) == ServerConfig.model_fields[name].get_default(
        call_default_factory=True
    )
    assert (default == "unset") == (ServerConfig.model_fields[name].default is None)


def test_the_extensions_fields_are_all_told():
    told = {name for row in table_after("### What is embellama") for name in quoted(row[0])}
    assert told == set(Extension.model_fields)
    line = re.search(r"^For rerank it has (.*)$", GUIDE, flags=re.MULTILINE)[1]
    assert quoted(line) == set(RerankExtension.model_fields)


def quoted(text):
    return set(re.findall(r"`([^`]+)`", text))


def test_every_path_is_told():
    told = " ".join(quoted(_FENCED.sub("", GUIDE))).split()
    missing = {
        endpoint.path.replace(":path", "")
        for endpoint in ENDPOINTS
        if not endpoint.path.startswith("/playground")
    } - set(told)
    assert not missing


def test_every_code_of_a_refusal_is_told():
    codes = set()
    for path in (ROOT / "embellama" / "server").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Problem":
                codes |= {
                    argument.value
                    for argument in node.args[1:2]
                    if isinstance(argument, ast.Constant)
                }
    told = {code for row in table_after("## Limits") for code in quoted(row[1])}
    assert codes - told == {"client_closed"}  # nobody gets it


def test_every_code_of_the_engine_is_told():
    codes, found = set(), [EmbellamaError]
    while found:
        error = found.pop()
        codes.add(error.code)
        found += error.__subclasses__()
    told = {code for row in table_after("## Limits") for code in quoted(row[1])}
    assert {"model_load", "timeout"} < codes
    assert codes - told == {EmbellamaError.code, ModelError.code}  # which others are made of


def test_every_metric_is_told_and_there(documented):
    documented.json("/v1/embeddings", {"input": "A text, so that there is something to count."})
    _, _, page = documented.request("/metrics")
    there = {
        re.sub(r"_(bucket|count|sum)$", "", line.partition("{")[0].partition(" ")[0])
        for line in page.decode().splitlines()
        if not line.startswith("#")
    }
    families = set(re.findall(r"^# TYPE (\S+) ", page.decode(), flags=re.MULTILINE))
    told = {name for row in table_after("| Metric") for name in quoted(row[0])}
    assert told == there | families
    for name in re.findall(r"\b(embellama_(?:queue|requests)_\w+)", DEPLOYING):
        assert name in told


def test_headers_of_answers_are_those_of_the_table(documented):
    told = {name for row in table_after("| Header") for name in quoted(row[0])}
    body = {"inputs": "word " * 700, "truncate": True}
    status, headers, _ = documented.request("/embed", body)
    assert status == 200
    assert told - {"Retry-After"} <= {name.lower() for name in headers}
