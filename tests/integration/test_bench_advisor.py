"""The real model in two types, from the command line to the figures."""

import json

import pytest

from embellama.cli import main
from tests.conftest import model_file

PAIRS = """\
score\tsentence1\tsentence2
5.0\tA man is playing a guitar.\tA man plays the guitar.
4.0\tThe cat sleeps on the sofa.\tA kitten naps on the couch.
2.0\tA woman slices an onion.\tA man is cutting a potato.
1.0\tA boy rides a horse.\tA girl is riding a bicycle.
0.2\tThe stock market fell on Monday.\tA dog runs along the beach.
0.0\tPhotosynthesis happens in leaves.\tHe "forgot" his keys.
"""


@pytest.fixture
def two_types(monkeypatch):
    """Both types made before; two threads of OpenMP on a busy machine wait for each other."""
    monkeypatch.setenv("EMBELLAMA_N_THREADS", "1")
    return {name: model_file(name) for name in ("F16", "Q8_0")}


def test_minilm_in_two_types(two_types, tmp_path, capsys):
    (tmp_path / "pairs.tsv").write_text(PAIRS)
    page = tmp_path / "out.html"
    status = main(
        ["bench", "minilm", "--types", "Q8_0,F16", "--quick", "--json",
         "--pairs", str(tmp_path / "pairs.tsv"), "--report", str(page)]
    )  # fmt: skip
    out = capsys.readouterr().out
    assert status == 0
    found = json.loads(out)
    assert (found["model"], found["reference_type"], found["n_texts"]) == ("minilm", "F16", 12)
    assert found["failed"] == {}
    full, small = found["types"]
    assert (full["file_type"], small["file_type"]) == ("F16", "Q8_0")
    assert full["file_bytes"] == two_types["F16"].stat().st_size
    assert full["tensor_types"] == {"F32": 64, "F16": 37}
    # the weights are in memory, and not ten times over
    assert full["file_bytes"] < full["rss_bytes"] < 20 * full["file_bytes"]
    assert 0.999 < small["fidelity"]["cosine_worst"] < small["fidelity"]["cosine_mean"] < 1
    assert full["fidelity"]["cosine_worst"] == 1
    assert 0.7 < small["fidelity"]["neighbour_overlap"] <= 1
    for one in found["types"]:
        assert one["spearman"] > 0.9
        assert one["ndcg_10"] is None
        assert set(one["speed"]) == {"short", "long", "own"}
        assert one["speed"]["short"]["texts_per_s"] > one["speed"]["long"]["texts_per_s"]
        assert 0 < one["latency"]["p50"] <= one["latency"]["p95"] <= one["latency"]["p99"]
        assert one["load_s"] > 0
    assert found["recommendations"][0]["file_type"] == "Q8_0"
    assert "Q8_0" in page.read_text(encoding="utf-8")


def test_queries_and_judgements(two_types, tmp_path, capsys):
    documents = {
        "d1": "Paris is the capital of France.",
        "d2": "Bread is baked from flour, water and yeast.",
        "d3": "The engine of the car would not start.",
    }
    (tmp_path / "docs.tsv").write_text("".join(f"{n}\t{text}\n" for n, text in documents.items()))
    (tmp_path / "q.tsv").write_text("a\tHow is bread made?\nb\tWhich city governs France?\n")
    (tmp_path / "qrels").write_text("a 0 d2 1\nb 0 d1 1\nb 0 d3 0\n")
    files = {"--texts": "docs.tsv", "--queries": "q.tsv", "--qrels": "qrels"}
    options = [part for name, file in files.items() for part in (name, str(tmp_path / file))]
    assert main(["bench", str(two_types["Q8_0"]), "--types", "Q8_0", "--quick", *options]) == 0
    out = capsys.readouterr().out
    assert "nDCG@10" in out
    assert "1.0000" in out
    assert "Best: Q8_0." in out
