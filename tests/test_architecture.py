"""The house rules, checked on the source: who may import whom, and how large things get."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import embellama

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "embellama"

LAYERS = (
    {"errors", "types"},
    {"calls", "cpu", "logs", "progress", "files", "config", "gguf_header", "gguf_checks", "gguf"}
    | {"batching", "pooling", "wordpiece", "precision", "similarity"}
    | {"memory_estimate"},
    {"_parallel", "_llama", "_native", "cache", "identity", "spans"},
    {"tokenization", "encoding", "inputs", "model_info", "testing", "backends", "agreements"}
    | {"layout", "waiting", "worker", "scheduler", "tuning"}
    | {"statistics", "results", "request", "chunks"},
    {"hub"},
    {
        "loaded_model",
        "loading",
        "registry",
        "lookup",
        "pipeline",
        "embedding",
        "streaming",
        "tokens",
        "text_tokens",
        "rerank",
    }
    | {"presets"},
    {"host"},
    {"text_verbs"},
    {"async_verbs"},
    {"engine"},
    {"bench"},
    {"server"},
    {"__init__"},
    {"cli"},
    {"__main__"},
)
"""Rooms (a module, or a package) from the ground up. Imports point down, or to a neighbour."""

HOMES = {
    "llama_cpp": "_llama/",
    "joblib": "_parallel.py",
    "sklearn": "similarity/clusters.py",
    "torch": "hub/torch_weights.py",
    "starlette": "server/app.py",
    "uvicorn": "server/http/",
    "httptools": "server/http/",
    "orjson": "server/exchange.py",
    "prometheus_client": "server/metrics.py",
    "tiktoken": "server/token_ids.py",
    "opentelemetry": "server/tracing.py",
}
"""Dependencies that one place alone imports; every optional one is here."""

IMPORTED_AS = {
    "kmeans": {"sklearn"},
    "server": {"httptools", "orjson", "prometheus_client", "starlette", "uvicorn"},
    "otel": {"opentelemetry"},
}
"""Extras that are not called as what they install is imported."""

NOT_AT_IMPORT = {"joblib", "huggingface_hub", "llama_cpp", "numpy", "pydantic", "torch", "typer"}
"""What `import embellama` leaves for later."""

NOT_BEFORE_A_MODEL = {"llama_cpp", "safetensors", "sklearn", "torch", "typer"}
"""What waits for an engine: native code, and what converting and the command line need."""

MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 80

MODULES = sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    """Give a module's dotted name below the package: ``hub.store``, ``cli``, ``__init__``."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def room_of(module: str) -> str:
    return module.partition(".")[0]


def floor_of(module: str) -> int:
    return next(floor for floor, rooms in enumerate(LAYERS) if room_of(module) in rooms)


def imported_names(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Yield every imported dotted name with its line, also those inside functions.

    Imports for type checkers alone are no arrows: they do not happen.
    """
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute here"
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            argument = node.args[0]
            if ast.unparse(argument)[2:].startswith("{__name__}."):
                continue  # names of the package's own, said in full for type checkers
            assert isinstance(argument, ast.Constant), f"line {node.lineno}: what is imported?"
            yield argument.value, node.lineno


def own_module(name: str) -> str | None:
    """Give the module of ours that an imported dotted name leads to, None for others'."""
    parts = name.split(".")
    if parts[0] != "embellama":
        return None
    below = ".".join(parts[1:])
    while below and below not in KNOWN:
        below = below.rpartition(".")[0]
    return below or "__init__"


KNOWN = {name_of(path) for path in MODULES}
TREES = {name_of(path): ast.parse(path.read_text(encoding="utf-8")) for path in MODULES}
PATHS = {name_of(path): path.relative_to(PACKAGE).as_posix() for path in MODULES}


def test_every_room_has_a_floor():
    rooms = [room for floor in LAYERS for room in floor]
    assert len(rooms) == len(set(rooms))
    assert {room_of(module) for module in KNOWN} == set(rooms)


@pytest.mark.parametrize("module", sorted(KNOWN))
def test_imports_point_down(module):
    upward = [
        f"line {line}: {name}"
        for name, line in imported_names(TREES[module])
        if (own := own_module(name)) is not None and floor_of(own) > floor_of(module)
    ]
    assert not upward, f"{module} imports from a floor above its own"


def test_no_import_leads_in_a_circle():
    arrows = {
        module: {own for name, _ in imported_names(tree) if (own := own_module(name))} - {module}
        for module, tree in TREES.items()
    }
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as exc:
        pytest.fail(f"imports in a circle: {' → '.join(exc.args[1])}")


@pytest.mark.parametrize("dependency", HOMES)
def test_a_dependency_stays_in_its_home(dependency):
    importers = {
        PATHS[module]
        for module, tree in TREES.items()
        for name, _ in imported_names(tree)
        if name.split(".")[0] == dependency
    }
    assert importers, f"nothing imports {dependency}; drop it here and in pyproject.toml"
    assert all(path.startswith(HOMES[dependency]) for path in importers), importers


def test_every_import_is_declared_or_has_a_home():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {
        re.match(r"[\w-]+", line)[0].lower().replace("-", "_") for line in project["dependencies"]
    }
    declared = declared - {"llama_cpp_python"} | {"llama_cpp"}
    extras = set(project["optional-dependencies"]) - {"test", "dev"}
    optional = {name for extra in extras for name in IMPORTED_AS.get(extra, {extra})}
    assert optional <= HOMES.keys()
    used = {name.split(".")[0] for tree in TREES.values() for name, _ in imported_names(tree)}
    used -= {"embellama", *sys.stdlib_module_names}
    assert used - declared == optional
    assert declared <= used


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_files_and_functions_stay_readable(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_FILE_LINES
    long = {
        node.name: length
        for node in ast.walk(TREES[name_of(path)])
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or 0) - node.lineno + 1) > MAX_FUNCTION_LINES
    }
    assert not long


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import embellama", NOT_AT_IMPORT),
        ("from embellama import *", NOT_BEFORE_A_MODEL),
    ],
)
def test_importing_is_light_and_silent(statement, absent):
    code = (
        f"{statement}\n"
        "import sys, threading\n"
        f"print(sorted({absent!r} & set(sys.modules)), threading.active_count())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] 1"
    assert done.stderr == ""


def test_every_public_name_is_there_and_known_to_type_checkers():
    (guarded,) = [node for node in TREES["__init__"].body if isinstance(node, ast.If)]
    typed = {alias.asname or alias.name for node in guarded.body for alias in node.names}
    assert typed | {"__version__"} == set(embellama.__all__)
    assert [name for name in embellama.__all__ if not hasattr(embellama, name)] == []
    assert not hasattr(embellama, "no_such_name")


def test_the_code_map_names_every_module():
    text = (ROOT / "DEVELOPMENT.md").read_text(encoding="utf-8")
    code_map = text.partition("## Code map")[2].partition("\n## ")[0]
    named = set(re.findall(r"^\| `([\w/.]+)`", code_map, flags=re.MULTILINE))
    # an __init__ that says no more than its package's name needs no line
    trivial = {path for path in PATHS.values() if path.endswith("/__init__.py")}
    there = set(PATHS.values()) | {"hub/catalog.toml"}
    assert there - named <= trivial
    assert named <= there
