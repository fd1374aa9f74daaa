r"""Compare tests/published_prompts.py with the wheels that it names. Run by hand.

::

    pip download --no-deps mteb==2.26.24 fastembed==0.9.1 FlagEmbedding==1.4.2 \
        langchain-qwen3==0.1.2
    python -m tests.data.check_published_prompts *.whl
"""

import ast
import re
import sys
import zipfile
from collections.abc import Iterator

from tests.published_prompts import PUBLISHED, TASKS, Published

Prompts = dict[str, str]

MTEB = "mteb/models/model_implementations/"
MTEB_ROLES = {"PromptType.query.value": "query", "PromptType.document.value": "document"}


def mteb_prompts(source: str) -> Iterator[tuple[str, Prompts]]:
    """Yield the repository and the prompts of every model that a file of mteb's describes."""
    tree = ast.parse(source)
    named = {
        node.targets[0].id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and ast.unparse(node.func) == "ModelMeta"):
            continue
        given = {keyword.arg: keyword.value for keyword in node.keywords}
        prompts = [
            keyword.value
            for keyword in getattr(given.get("loader_kwargs"), "keywords", [])
            if keyword.arg == "model_prompts"
        ]
        if prompts and isinstance(given["name"], ast.Constant):
            value = named[prompts[0].id] if isinstance(prompts[0], ast.Name) else prompts[0]
            keys = [
                MTEB_ROLES.get(ast.unparse(key), getattr(key, "value", "")) for key in value.keys
            ]
            texts = map(ast.literal_eval, value.values)
            yield given["name"].value, dict(zip(keys, texts, strict=True))


def mteb_problems(wheel: zipfile.ZipFile, rows: dict[str, Published]) -> Iterator[str]:
    missing = {
        repository
        for repository, row in rows.items()
        if row.query and str(row.checked).startswith("mteb ") and "qwen3" not in str(row.checked)
    }
    for member in ("e5", "bge", "nomic", "mixedbread_ai"):
        source = wheel.read(f"{MTEB}{member}_models.py").decode()
        for repository, prompts in mteb_prompts(source):
            if (row := rows.get(repository)) is None:
                continue
            missing.discard(repository)
            found = (prompts.get("query", ""), prompts.get("document", ""))
            print(f"mteb {repository}: {found}")
            if found != (row.query, row.document):
                yield f"mteb {repository}: {found}"
            for name, task in TASKS.get(repository.partition("/")[2], {}).items():
                print(f"mteb {repository}: {name} {prompts.get(name.capitalize())!r}")
                if prompts.get(name.capitalize()) != task.prompt:
                    yield f"mteb {repository}: {name}"
    yield from (f"mteb {repository}: no prompts" for repository in missing)
    template = wheel.read(f"{MTEB}qwen3_models.py").decode()
    if r'return f"Instruct: {instruction}\nQuery:"' not in template:
        yield "mteb: Qwen's template"


def flag_embedding_problems(wheel: zipfile.ZipFile, rows: dict[str, Published]) -> Iterator[str]:
    (metadata,) = [name for name in wheel.namelist() if name.endswith("METADATA")]
    text = wheel.read(metadata).decode()
    for repository, row in rows.items():
        if not repository.startswith("BAAI/"):
            continue
        (cell,) = re.findall(rf"^\| \[{re.escape(repository)}\].*\|([^|]*)\|\s*$", text, re.M)
        print(f"FlagEmbedding {repository}: {cell.strip()!r}")
        if cell.strip().strip("`") != row.query:
            yield f"FlagEmbedding {repository}: {cell}"
    mapping = wheel.read("FlagEmbedding/inference/embedder/model_mapping.py").decode()
    found = re.findall(
        r'"(Qwen3-Embedding-[^"]+)".*\n.*query_instruction_format="([^"]+)"', mapping
    )
    print(f"FlagEmbedding {found}")
    if {template for _, template in found} != {r"Instruct: {}\nQuery:{}"}:
        yield f"FlagEmbedding: {found}"


def text_problems(name: str, text: str, *expected: str) -> Iterator[str]:
    for part in expected:
        print(f"{name} has {part!r}: {part in text}")
        if part not in text:
            yield f"{name}: {part!r}"


def problems(path: str) -> Iterator[str]:
    """Yield every difference between a wheel and the table."""
    rows = {row.repository: row for row in PUBLISHED.values()}
    with zipfile.ZipFile(path) as wheel:
        names = set(wheel.namelist())
        if f"{MTEB}e5_models.py" in names:
            yield from mteb_problems(wheel, rows)
        if "FlagEmbedding/inference/embedder/model_mapping.py" in names:
            yield from flag_embedding_problems(wheel, rows)
        if (member := "fastembed/text/builtin_sentence_embedding.py") in names:
            gemma = rows["google/embeddinggemma-300m"]
            document = gemma.document.replace("none", "{title | 'none'}")
            expected = (f"`{gemma.query}{{content}}`", f"`{document}{{content}}`")
            yield from text_problems("fastembed", wheel.read(member).decode(), *expected)
        if (member := "langchain_qwen3/embeddings.py") in names:
            task = rows["Qwen/Qwen3-Embedding-0.6B"].query.split("\n")[0].partition(": ")[2]
            expected = (f"'{task}'", r"f'Instruct: {task_description}\nQuery:{query}'")
            yield from text_problems("langchain-qwen3", wheel.read(member).decode(), *expected)


if __name__ == "__main__":
    found = [problem for path in sys.argv[1:] for problem in problems(path)]
    sys.exit("\n".join(["differences:", *found]) if found else 0)
