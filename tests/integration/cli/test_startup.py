import re
import subprocess
import sys

import pytest

from embellama import __version__

COMMANDS = (
    "embed", "similar", "rerank", "models", "pull", "cache", "info", "convert", "quantize",
    "doctor", "tune", "bench", "serve",
)  # fmt: skip


def test_the_version_is_shown(run):
    outcome = run("--version")
    assert (outcome.status, outcome.out) == (0, f"embellama {__version__}\n")


def test_help_names_every_command(run):
    outcome = run("--help")
    assert outcome.status == 0
    for command in COMMANDS:
        assert re.search(rf"^  {command} ", outcome.out, re.MULTILINE)


@pytest.mark.parametrize("command", [*COMMANDS, "cache list", "cache remove", "cache path"])
def test_every_command_has_help_whose_summary_fits(run, command):
    outcome = run(*command.split(), "--help")
    assert outcome.status == 0
    assert f"Usage: embellama {command} " in outcome.out
    assert "..." not in run("--help").out.partition("Commands:")[2]


def test_no_command_shows_the_help(run):
    outcome = run()
    assert outcome.status == 2
    assert "Commands:" in outcome.out + outcome.err


def test_help_does_without_the_native_library():
    program = (
        "import sys\n"
        "from embellama.cli import main\n"
        "main(['embed', '--help'])\n"
        "print([m for m in ('llama_cpp', 'numpy', 'safetensors', 'tqdm.auto') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("command", ["models", "cache list", "cache path", "info minilm"])
def test_a_listing_works_as_the_first_thing_a_process_does(command, tmp_path):
    """What another command has imported before must not be what makes it work."""
    done = subprocess.run(
        [sys.executable, "-m", "embellama", "--cache-path", str(tmp_path), *command.split()],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout or "nothing is stored" in done.stderr
