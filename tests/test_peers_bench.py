"""The parts of `benches.peers` that can be wrong without anybody noticing in a table."""

import base64
import json
import os
import re
import subprocess
import sys
import textwrap
import time
from collections import Counter
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benches.peers.bindings import decoded
from benches.peers.figures import Fidelity, Spread, best_of, compare, ratio_to, table
from benches.peers.llama_server import TEXTS_A_REQUEST, LlamaServer
from benches.peers.onnx_peers import padded, pooled, shares_by_operation
from benches.peers.peer import BATCH, Peer, in_sorted_batches
from benches.peers.process import PeerError, PeerProcess
from benches.peers.report import print_report, result_of
from benches.peers.roster import PeerSpec, choose, python_of
from benches.peers.session import Outcome
from benches.peers.turns import Turn, shuffled, take_turns
from benches.works import make_works
from embellama._native.binding import open_library
from tests.conftest import model_file


class Scripted(Peer):
    """A peer whose variant says what it does; each vector is its text's length, 1."""

    how = "one by one"

    def __init__(self, settings):
        self.versions = {"scripted": "1"}
        self._variant = settings["variant"]
        if self._variant == "unopened":
            raise ModuleNotFoundError("No module named 'scripted'\nmore of it")

    def embed(self, texts):
        sys.stdout.write("a library that talks\n")
        if self._variant == "dying":
            sys.stderr.write("out of memory\n")
            os._exit(3)
        if self._variant == "hanging":
            time.sleep(60)
        if self._variant == "failing":
            raise ValueError("no such thing")
        return [[len(text), 1.0] for text in texts]

    def count_tokens(self, texts):
        return sum(len(text) for text in texts)


@pytest.fixture
def opened(tmp_path):
    """Start scripted peers, and open those that can be."""
    works = tmp_path / "works.json"
    works.write_text(json.dumps({"short": ["a", "bb"]}))
    processes = []

    def start(variant, *, timeout_s=30.0):
        spec = PeerSpec("scripted", variant, "tests.test_peers_bench:Scripted", "", "gguf")
        process = PeerProcess(
            spec,
            python=sys.executable,
            n_threads=1,
            log=tmp_path / f"{variant}.log",
            timeout_s=timeout_s,
        )
        processes.append(process)
        return process, {"variant": variant, "works": str(works)}

    yield start
    for process in processes:
        process.close()


# ── processes and turns ─────────────────────────────────────────────────────────────────────


def test_a_peer_answers_from_its_own_process(opened, tmp_path):
    process, settings = opened("plain")
    told = process.ask("open", settings=settings)
    assert told == {"versions": {"scripted": "1"}, "how": "one by one"}
    path = tmp_path / "rows.npy"
    assert process.ask("vectors", work="short", path=str(path)) == {"n_tokens": 3}
    rows = np.load(path)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, [[2**-0.5, 2**-0.5], [2 / 5**0.5, 1 / 5**0.5]], rtol=1e-6)
    answer = process.ask("run", work="short")
    assert 0 < answer["seconds"] < 5
    assert 0 <= answer["idle_cpu_s"] < 5
    assert process.ask("profile", work="short") == {"shares": None}


def test_a_peer_that_cannot_be_opened_says_why_in_one_line(opened):
    process, settings = opened("unopened")
    with pytest.raises(PeerError, match=r"^open: ModuleNotFoundError: No module named 'scripted'$"):
        process.ask("open", settings=settings)


def test_a_peer_that_dies_is_told_with_its_status_and_last_words(opened):
    process, settings = opened("dying")
    process.ask("open", settings=settings)
    with pytest.raises(PeerError, match=r"status 3\); it said: out of memory"):
        process.ask("run", work="short")
    with pytest.raises(PeerError, match="status 3"):
        process.ask("run", work="short")


def test_a_peer_that_hangs_is_given_up_and_ended(opened, monkeypatch):
    monkeypatch.setattr("benches.peers.process.END_TIMEOUT_S", 0.2)
    process, settings = opened("hanging")
    process.ask("open", settings=settings)
    process._timeout_s = 0.2
    with pytest.raises(PeerError, match="no answer in 0 s"):
        process.ask("run", work="short")
    process.close()
    assert process._process.returncode == -9
    process.close()


def test_a_python_that_is_not_there(tmp_path):
    spec = PeerSpec("scripted", "plain", "x:Y", "", "gguf")
    with pytest.raises(PeerError, match="could not be started"):
        PeerProcess(spec, python="/no/python", n_threads=1, log=tmp_path / "log")


def test_one_that_fails_has_no_more_turns_and_the_others_go_on(opened):
    processes = {}
    for variant in ("plain", "failing"):
        processes[variant], settings = opened(variant)
        processes[variant].ask("open", settings=settings)
    failures = []
    turns = list(
        take_turns(processes, ["short"], 3, lambda name, exc: failures.append((name, exc)))
    )
    assert [(turn.round, turn.peer) for turn in turns] == [(n, "plain") for n in range(3)]
    ((name, error),) = failures
    assert name == "failing"
    assert str(error) == "run: ValueError: no such thing"


def test_no_peer_always_comes_after_the_same_other_one():
    peers = ["a", "b", "c"]
    orders = [shuffled(peers, seed) for seed in range(30)]
    assert all(sorted(order) == peers for order in orders)
    after = Counter(pair for order in orders for pair in pairwise(order))
    assert len(after) == 6
    assert max(after.values()) < 20
    assert shuffled([], 4) == []


# ── figures ─────────────────────────────────────────────────────────────────────────────────


def test_the_best_is_the_fastest_of_those_close_enough():
    seconds = {"ours A": {0: 3.0}, "ours B": {0: 1.0}, "ours C": {0: 2.0}, "theirs": {0: 0.5}}
    fidelity = {
        "ours A": Fidelity(1.0, 1.0),
        "ours B": Fidelity(0.9989, 0.99),
        "ours C": Fidelity(0.9999, 0.9),
        "theirs": Fidelity(1.0, 1.0),
    }
    ours = ["ours A", "ours B", "ours C", "ours never measured"]
    assert best_of(ours, seconds, fidelity) == "ours C"
    assert best_of(ours, seconds, {}) is None
    assert best_of(ours, seconds, fidelity, least=0.99995) != "ours C"


def test_ratios_are_taken_within_a_round():
    best, peer = {0: 1.0, 1: 10.0, 2: 2.0}, {0: 2.0, 1: 40.0, 3: 5.0}
    assert ratio_to(best, peer) == Spread(3.0, 2.0, 4.0)
    assert ratio_to(best, {7: 1.0}) is None


def test_a_table_has_speeds_ratios_and_fidelity():
    turns = [
        Turn(0, "short", "ours", 2.0, 0.0),
        Turn(0, "short", "theirs", 4.0, 0.0),
        Turn(0, "passages", "theirs", 9.0, 0.0),
    ]
    best, rows = table(turns, "short", 100, ["ours"], {"ours": Fidelity(1.0, 1.0)})
    assert best == "ours"
    assert rows["ours"].texts_per_s == Spread(50.0, 50.0, 50.0)
    assert rows["theirs"].ratio == Spread(2.0, 2.0, 2.0)
    assert rows["theirs"].fidelity is None


def test_vectors_are_compared_one_by_one():
    reference = np.eye(3, dtype=np.float32)
    assert compare(reference, reference) == Fidelity(1.0, 1.0)
    swapped = reference[[1, 0, 2]]
    assert compare(swapped, reference) == Fidelity(pytest.approx(1 / 3), 0.0)
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(3, 3\)"):
        compare(reference[:2], reference)


@given(st.lists(st.integers(1, 50), max_size=3 * BATCH))
def test_sorted_batches_keep_the_order_of_the_texts(lengths):
    seen = []

    def embed(batch):
        seen.append([lengths[at] for at in batch])
        return np.array([[at] for at in batch], dtype=np.float32)

    rows = in_sorted_batches(lengths, embed, 1)
    assert rows[:, 0].tolist() == list(range(len(lengths)))
    assert list(chain.from_iterable(seen)) == sorted(lengths)
    assert all(len(batch) <= BATCH for batch in seen)


def test_padding_and_pooling_leave_padding_out():
    feeds = padded([[5, 6, 7], [8]])
    assert feeds["input_ids"].tolist() == [[5, 6, 7], [8, 0, 0]]
    assert feeds["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    states = np.array([[[1, 0], [0, 1], [2, 2]], [[0, 4], [9, 9], [9, 9]]], dtype=np.float32)
    rows = pooled(states, feeds["attention_mask"], "mean")
    np.testing.assert_allclose(rows, [[2**-0.5, 2**-0.5], [0, 1]], rtol=1e-6)
    np.testing.assert_allclose(pooled(states, feeds["attention_mask"], "cls"), [[1, 0], [0, 1]])


def test_a_profile_counts_kernels_alone():
    events = [
        {"cat": "Session", "name": "model_run", "dur": 900},
        {"cat": "Node", "name": "m_kernel_time", "dur": 30, "args": {"op_name": "MatMul"}},
        {"cat": "Node", "name": "m_fence_before", "dur": 50, "args": {"op_name": "MatMul"}},
        {"cat": "Node", "name": "g_kernel_time", "dur": 70, "args": {"op_name": "Gelu"}},
    ]
    assert list(shares_by_operation(events).items()) == [("Gelu", 0.7), ("MatMul", 0.3)]


# ── who takes part, and with what ───────────────────────────────────────────────────────────


def test_embellama_always_takes_part_and_the_others_as_asked():
    names = [spec.name for spec in choose(["F16"], ["OnnxRuntime int8", "fastembed"])]
    ours = ["embellama F16", "embellama native F16"]
    assert names == [*ours, "onnxruntime int8", "fastembed float32"]
    assert [spec.name for spec in choose(["F16"], ["embellama"])] == ["embellama F16"]
    for wanted in ("Embellama Native", "embellama native F16"):
        assert [spec.name for spec in choose(["F16"], [wanted])] == ["embellama native F16"]
    families = [spec.family for spec in choose(["F32", "BF16"], [])]
    assert families[:4] == ["embellama", "embellama", "embellama native", "embellama native"]
    assert len(choose(["F32"], [])) > 10
    with pytest.raises(ValueError, match="no peer 'infinity'; there are: Llama.embed"):
        choose(["F16"], ["infinity"])


def test_pythons_for_one_family_and_for_all_the_others():
    assert python_of("fastembed", [], "own") == "own"
    assert python_of("fastembed", ["/a/python"], "own") == "/a/python"
    assert python_of("Llama.embed", ["/a/python"], "own") == "own"
    assert python_of("embellama native", ["/a/python"], "own") == "own"
    assert python_of("fastembed", ["FastEmbed=/b/python", "/a/python"], "own") == "/b/python"
    assert python_of("llama-server", ["llama-server=/c"], "own") == "/c"


def test_works_repeat_no_text():
    works = make_works({"short": 50, "mixed": 45, "passages": 5})
    assert {work: len(texts) for work, texts in works.items()} == {
        "short": 50,
        "mixed": 45,
        "passages": 5,
    }
    assert all(len(set(texts)) == len(texts) for texts in works.values())
    long = [len(text) > 300 for text in works["mixed"]]
    assert sum(long) == 10
    assert long[3]
    assert long[8]
    with pytest.raises(ValueError, match="no work novels; there are: short, mixed, passages"):
        make_works({"novels": 1})


# ── the client of llama-server ──────────────────────────────────────────────────────────────

SERVER = """\
    #!{python}
    import base64, json, struct, sys
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    class Handler(BaseHTTPRequestHandler):
        def answer(self, found):
            body = json.dumps(found).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self):
            self.answer({{"status": "ok"}})

        def do_POST(self):
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            rows = [struct.pack("<2f", len(text), 1.0) for text in asked["input"]]
            found = [
                {{"index": at, "embedding": base64.b64encode(row).decode()}}
                for at, row in enumerate(rows)
            ]
            self.answer({{"data": found[::-1]}})

    if "--version" in sys.argv:
        print("version: 1 (scripted)")
    elif "broken.gguf" in sys.argv:
        sys.exit(1)
    else:
        port = int(sys.argv[sys.argv.index("--port") + 1])
        ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


@pytest.fixture
def server_settings(tmp_path):
    program = tmp_path / "llama-server"
    program.write_text(textwrap.dedent(SERVER).format(python=sys.executable))
    program.chmod(0o755)
    return {"llama_server": str(program), "gguf": "m.gguf", "n_threads": 1, "n_ctx": 512}


def test_answers_of_a_server_are_put_in_order(server_settings, capfd):
    texts = ["x" * (7 * n % 101 + 1) for n in range(TEXTS_A_REQUEST + 9)]
    peer = LlamaServer(server_settings)
    try:
        rows = peer.rows(peer.embed(texts))
    finally:
        peer.close()
    assert peer.versions == {"llama-server": "version: 1 (scripted)"}
    assert (rows[:, 0] / rows[:, 1]).tolist() == pytest.approx([len(text) for text in texts])
    assert peer._server.returncode is not None


def test_a_server_that_ends_at_once_is_not_waited_for(server_settings):
    with pytest.raises(RuntimeError, match="exit status 1"):
        LlamaServer({**server_settings, "gguf": "broken.gguf"})


def test_rows_in_base64():
    row = base64.b64encode(np.array([3, 4], dtype="<f4").tobytes()).decode()
    np.testing.assert_allclose(decoded([row]), [[0.6, 0.8]], rtol=1e-6)


# ── what is written ─────────────────────────────────────────────────────────────────────────


class _Plan:
    class row:  # noqa: N801
        name = "minilm"

    n_threads, n_rounds, works = 2, 1, {"short": ["a"] * 100}


@pytest.fixture
def result():
    turns = [
        Turn(0, "short", "onnxruntime int8", 0.1, 0.9),
        Turn(0, "short", "embellama BF16", 0.2, 0.0),
    ]
    fidelity = {
        "embellama BF16": Fidelity(0.99999, 0.9999),
        "onnxruntime int8": Fidelity(0.96, 0.9),
    }
    told = {"versions": {"x": "1"}, "how": "sorted", "python": "python"}
    outcome = Outcome(
        peers={"embellama BF16": told, "onnxruntime int8": told, "never measured": told},
        absent={"fastembed float32": "ModuleNotFoundError: no fastembed"},
        n_tokens={"short": 1400},
        fidelity={"short": fidelity},
        turns=turns,
        profiles={"onnxruntime int8": {"short": {f"Op{n}": 0.1 for n in range(10)}}},
    )
    tables = {"short": table(turns, "short", 100, ["embellama BF16"], fidelity)}
    return result_of(_Plan, outcome, "a machine", tables)


def test_texts_one_by_one_are_told_by_their_median():
    turns = [Turn(n, "single", "embellama BF16", 1.0, 0.0, p50_s=0.002) for n in range(3)]
    turns += [Turn(n, "single", "slow", 1.0, 0.0, p50_s=0.005) for n in range(3)]
    fidelity = {"embellama BF16": Fidelity(0.99999, 0.9999)}
    best, rows = table(turns, "single", 100, ["embellama BF16"], fidelity)
    assert best == "embellama BF16"
    assert rows["embellama BF16"].texts_per_s.median == pytest.approx(500)
    assert rows["slow"].ratio is not None
    assert rows["slow"].ratio.median == pytest.approx(2.5)


def test_a_result_keeps_raw_rounds_and_is_plain_data(result):
    read = json.loads(json.dumps(result))
    assert read["turns"][0] == {
        "round": 0,
        "work": "short",
        "peer": "onnxruntime int8",
        "seconds": 0.1,
        "idle_cpu_s": 0.9,
        "p50_s": None,
    }
    assert list(read["tables"]["short"]["rows"]) == ["embellama BF16", "onnxruntime int8"]
    assert [peer["name"] for peer in read["peers"]] == ["embellama BF16", "onnxruntime int8"]


def test_the_report_says_what_was_seen_and_what_is_missing(result, capsys):
    print_report(result, {"fastembed float32": "pip install fastembed"})
    said = capsys.readouterr().out
    assert "short: 100 texts, 14.0 tokens a text" in said
    assert "best of embellama (embellama BF16) ÷ it" in said
    (row,) = re.findall(r"^  onnxruntime int8  .*\.\..*", said, flags=re.MULTILINE)
    figures = "1000.0 1000.0..1000.0 14000 0.96000 0.90000 0.50 (0.50..0.50)"
    assert row.split()[2:] == figures.split()
    assert "Op7 10.0%, others 20.0%" in said
    assert "out of turn, of 0 s measured: onnxruntime int8 0.9 s" in said
    assert "absent: fastembed float32: ModuleNotFoundError: no fastembed" in said
    assert "pip install fastembed" in said


def test_a_result_can_be_drawn(result, tmp_path):
    pytest.importorskip("matplotlib", reason="needs matplotlib")
    from benches.peers.plot import draw

    draw(result, tmp_path / "out.png")
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")


def test_the_command_measures_and_names_who_is_absent(tmp_path):
    for file_type in ("F32", "F16"):
        model_file(file_type)
    written = tmp_path / "out.json"
    options = ["--works", "short", "--n-short", "3", "--rounds", "2", "--types", "F16", "--profile"]
    options += ["--only", "llama-server", "Llama.embed F16", "--json", str(written)]
    options += ["--llama-server", str(tmp_path / "none")]
    done = subprocess.run(
        [sys.executable, "-m", "benches.peers", *options],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[1],
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(written.read_text())
    rows = result["tables"]["short"]["rows"]
    ours = ["embellama F16", *(["embellama native F16"] if open_library() else [])]
    assert list(rows) == [*ours, "Llama.embed F16"]
    assert all(row["fidelity"]["worst"] > 0.9999 for row in rows.values())
    assert result["tables"]["short"]["best"] in ours
    assert len(result["turns"]) == 2 * len(rows)
    how = {peer["name"]: peer["how"].partition(";")[0] for peer in result["peers"]}
    assert how["embellama F16"] == "llama.cpp"
    for name in ours:
        assert 0 < sum(result["profiles"][name]["short"].values()) < 2
        assert how[name].startswith("native (") == ("native" in name)
    assert "absent: llama-server F16" in done.stdout
    assert result["works"]["short"]["n_tokens"] > 30
