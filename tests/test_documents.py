"""What the documents say, held against the project: commands, names, links, messages, Python."""

import ast
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from embellama import EmbeddingEngine, EngineConfig, ModelConfig
from embellama.cli import app
from embellama.config import CONFIG_FILE_VARIABLE
from embellama.model_info import ModelInfo
from tests.conftest import QUIET
from tests.tiny_cross_encoder import write_cross_encoder

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "models/*.md", ".github/*.md")
    for path in ROOT.glob(pattern)
)
README = ROOT / "README.md"
DEVELOPMENT = ROOT / "DEVELOPMENT.md"

_FENCED = re.compile(r"^```(\w+)\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)
_RUN_THEN_SHOWN = re.compile(
    r"^```python\n(?P<code>.*?)^```\n(?:\n```text\n(?P<output>.*?)^```)?", re.MULTILINE | re.DOTALL
)
_LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([\w-]+))?\)", flags=re.DOTALL)


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


# ── links ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_links_lead_somewhere(document):
    for target, anchor in _LINK.findall(text_of(document)):
        path = (document.parent / target) if target else document
        assert path.exists(), f"{target} is not there"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", text_of(path), flags=re.MULTILINE)
            anchors = [re.sub(r"[^\w -]", "", line.lower()).replace(" ", "-") for line in headings]
            assert anchor in anchors


def test_files_named_in_the_development_guide_are_there():
    paths = re.findall(r"`((?:tests|embellama|docs|examples)/[\w/.-]+)`", text_of(DEVELOPMENT))
    assert paths
    missing = [path for path in paths if not (ROOT / path).exists()]
    assert not missing


# ── commands ────────────────────────────────────────────────────────────────────────────────


def commands() -> Iterator[str]:
    """Yield every use of our command line: in shell blocks, and in inline code."""
    for document in DOCUMENTS:
        text = text_of(document)
        blocks = [body for language, body in _FENCED.findall(text) if language == "sh"]
        lines = [line for body in blocks for line in re.split(r"\n|&&", body)]
        for code in (*lines, *re.findall(r"`([^`\n]+)`", _FENCED.sub("", text))):
            if found := re.match(r"\s*(?:[A-Z_]+=\S* )*(embellama [^#|]+)", code):
                yield found[1].strip()


@pytest.mark.parametrize("line", sorted(set(commands())))
def test_commands_and_their_options_exist(line):
    command = typer.main.get_command(app)
    options = {option for param in command.params for option in param.opts} | {"--help"}
    for word in shlex.split(line)[1:]:
        children = getattr(command, "commands", None)
        if word.startswith("--"):
            assert word in options | {option for param in command.params for option in param.opts}
        elif children is not None:
            assert word in children, f"no such command: {word}"
            command = children[word]


def test_modules_to_run_are_there():
    modules = {
        name
        for path in DOCUMENTS
        for name in re.findall(r"python -m ((?:benches|tests|embellama)[\w.]*)", text_of(path))
    }
    assert modules
    paths = {name: ROOT / name.replace(".", "/") for name in modules}
    run = {name: path / "__main__.py" if path.is_dir() else path for name, path in paths.items()}
    assert [name for name, path in run.items() if not path.with_suffix(".py").exists()] == []


def test_the_tools_of_the_two_commands_are_in_the_extras():
    sections = text_of(ROOT / "pyproject.toml")
    for tool in ("pytest-cov", "pdoc", "ruff", "mypy", "pip-audit", "pre-commit"):
        assert f'"{tool}>=' in sections


def test_ci_runs_the_readmes_test_command():
    line = next(line for line in text_of(README).splitlines() if "pytest --cov" in line)
    script = text_of(ROOT / ".ci" / "run")
    for command in ("pip install -e '.[test]'", "pytest --cov"):
        assert command in line
        assert re.search(rf"^ *{re.escape(command)}", script, flags=re.MULTILINE)
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


# ── names ───────────────────────────────────────────────────────────────────────────────────


def source_text() -> str:
    folders = ("embellama", "tests")
    return "\n".join(text_of(path) for folder in folders for path in (ROOT / folder).rglob("*.py"))


def test_variables_of_the_environment_exist():
    mentioned = {
        name for path in DOCUMENTS for name in re.findall(r"\bEMBELLAMA_[A-Z_]+\b", text_of(path))
    }
    assert len(mentioned) > 8
    source = source_text()
    assert [name for name in sorted(mentioned) if name not in source] == []


def test_every_variable_is_in_the_readme():
    variables = {*EngineConfig.environment_variables.values()}
    variables |= {
        *ModelConfig.environment_variables.values(),
        CONFIG_FILE_VARIABLE,
    }
    assert [name for name in sorted(variables) if f"`{name}`" not in text_of(README)] == []


def test_methods_and_fields_exist():
    for document in DOCUMENTS:
        text = text_of(document)
        for method in re.findall(r"\bengine\.(\w+)\(", text):
            assert hasattr(EmbeddingEngine, method), f"{named(document)}: {method}"
        for field in re.findall(r"`ModelInfo\.(\w+)`", text):
            assert field in {*ModelInfo.__slots__, "memory_bytes"}, f"{named(document)}: {field}"


def test_every_method_is_in_the_readme():
    names = [name for name in dir(EmbeddingEngine) if not name.startswith("_")]
    shown = {
        name: f"`{name}(" if callable(getattr(EmbeddingEngine, name)) else f"`{name}`"
        for name in names
    }
    assert [name for name, text in shown.items() if text not in text_of(README)] == []


def said_by_the_package() -> list[str]:
    """Every piece of text in the source, f-strings without what they insert."""
    return [
        node.value
        for path in (ROOT / "embellama").rglob("*.py")
        for node in ast.walk(ast.parse(text_of(path)))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]


def test_messages_in_the_troubleshooting_guide_are_real():
    guide = text_of(ROOT / "docs" / "troubleshooting.md")
    headings = re.findall(r"^### (`.+`)$", guide, flags=re.MULTILINE)
    quoted = [message for heading in headings for message in re.findall(r"`([^`]+)`", heading)]
    assert len(quoted) > 25
    pieces = said_by_the_package()
    assert [message for message in quoted if not any(message in piece for piece in pieces)] == []


# ── what runs ───────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def cross_encoder(tmp_path_factory) -> Path:
    """A tiny one in the place of the real one."""
    return write_cross_encoder(tmp_path_factory.mktemp("rerank") / "tiny.gguf")


def python_blocks() -> list[Any]:
    return [
        pytest.param(match["code"], match["output"], id=f"{named(path)}-{number}")
        for path in (README, ROOT / "docs" / "tuning.md")
        for number, match in enumerate(_RUN_THEN_SHOWN.finditer(text_of(path)), start=1)
    ]


@pytest.mark.parametrize(("code", "output"), python_blocks())
def test_python_in_the_documents_runs(
    code, output, minilm_path, cross_encoder, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    code = code.replace('"ms-marco-minilm-l6-v2"', repr(str(cross_encoder)))  # not fetched for this
    exec(compile(code, "document", "exec"), {"__name__": "document"})
    assert capsys.readouterr().out == (output or "")


def test_the_toml_in_the_readme_is_a_configuration(tmp_path, monkeypatch):
    (block,) = [body for lang, body in _FENCED.findall(text_of(README)) if lang == "toml"]
    path = tmp_path / "embellama.toml"
    path.write_text(block, encoding="utf-8")
    monkeypatch.setenv("EMBELLAMA_CONFIG", str(path))
    config = EngineConfig()
    assert config.lazy
    assert [model.model_name for model in config.all_models] == [None, "small"]
    assert {model.n_threads for model in config.all_models} == {4}


@pytest.mark.parametrize(("backend", "tolerance"), [("llama", 5e-4), ("auto", 3e-3)])
def test_the_vector_in_the_readme_is_the_real_one(minilm_path, backend, tolerance):
    shown = re.search(r"```text\n\[([-\d.,]+),[-\d.]+…", text_of(README))[1]
    config = QUIET.model_copy(update={"backend": backend})
    with EmbeddingEngine() as engine:
        engine.load_model(minilm_path, name="minilm", config=config)
        vector = engine.embed("minilm", "Hello, world!")
    for index, number in enumerate(shown.split(",")):
        assert float(number) == pytest.approx(float(vector[index]), abs=tolerance)
