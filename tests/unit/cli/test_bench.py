import io
import json
import sys

import pytest

from embellama.bench import advisor
from embellama.cli import main
from tests.unit.bench.findings_made_up import bench_findings, type_findings


@pytest.fixture
def planned(monkeypatch):
    """Run the command with findings made up; gives the plans it was asked to carry out."""
    plans = []

    def compare(plan, *, report):
        plans.append(plan)
        report("making F32", 0, 2)
        report("making F32", 1, 2)
        report("fetching", 0, 0)
        return bench_findings(type_findings("F32"), type_findings("Q8_0", cosine=0.9996))

    monkeypatch.setattr(advisor, "compare_types", compare)
    return plans


def test_options_become_a_plan(planned, tmp_path, capsys):
    texts = tmp_path / "mine.txt"
    texts.write_text("a\nb\n")
    assert main(["bench", "minilm", "--types", "F16,q8_0", "--texts", str(texts), "--quick",
                 "--tolerance", "0.99", "--offline", "--threads", "1"]) == 0  # fmt: skip
    (plan,) = planned
    assert (plan.model, plan.name, plan.file_types) == ("minilm", "minilm", ("F16", "Q8_0"))
    assert (plan.data.texts, plan.tolerance, plan.effort.n_rounds) == (("a", "b"), 0.99, 2)
    assert (plan.engine.offline, plan.config.n_threads) == (True, 1)
    out, err = capsys.readouterr()
    assert "Fidelity" in out
    assert err == "making F32\nfetching\n"


def test_json_is_all_there_is_on_standard_output(planned, capsys):
    assert main(["bench", "minilm", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["file_type"] for one in found["types"]] == ["F32", "Q8_0"]
    assert planned[0].effort.n_rounds > 2
    assert len(planned[0].file_types) == 8


def test_a_report_is_written_beside_the_tables(planned, tmp_path, capsys):
    path = tmp_path / "out.html"
    assert main(["bench", "minilm", "--report", str(path)]) == 0
    out, err = capsys.readouterr()
    assert "Fidelity" in out
    assert f"{path} written" in err
    page = path.read_text(encoding="utf-8")
    assert "<svg" in page
    assert "Q8_0" in page
    assert [file.name for file in tmp_path.iterdir()] == ["out.html"]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_person_sees_a_bar(planned, monkeypatch, capsys):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    assert main(["bench", "minilm", "--json"]) == 0
    assert "fetching" in terminal.getvalue()
    json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--types", "Q9"], "'Q9' is not a GGUF file type"),
        (["--texts", "missing.txt"], "cannot read 'missing.txt'"),
        (["--pairs", "bad.tsv"], "no column score"),
        (["--queries", "bad.tsv"], "--queries needs --qrels"),
        (["--report", "no/folder/out.html"], "is not there or cannot be written"),
        (["--report", "."], "is a folder; name a file in it"),
    ],
)
def test_bad_input_is_refused_before_anything_is_made(
    planned, tmp_path, monkeypatch, capsys, arguments, words
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.tsv").write_text("a\tb\n")
    assert main(["bench", "minilm", *arguments]) == 2
    out, err = capsys.readouterr()
    assert words in err
    assert (out, planned) == ("", [])


def test_the_command_is_wired():
    assert main(["bench", "--help"]) == 0
