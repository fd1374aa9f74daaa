"""The command line: one file per group of commands, wired together here.

Nothing heavy is imported before a command runs, so that help and completion answer at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from embellama.cli.bench import bench_command
from embellama.cli.cache import cache_app
from embellama.cli.convert import convert_command, quantize_command
from embellama.cli.doctor import doctor_command
from embellama.cli.embed import EMBED_HELP, embed_command
from embellama.cli.errors import GuardedGroup, finish_streams
from embellama.cli.info import info_command
from embellama.cli.models import models_command, pull_command
from embellama.cli.rerank import rerank_command
from embellama.cli.serve import SERVE_HELP, ServeCommand, serve_command
from embellama.cli.settings import (
    BackendName,
    Settings,
    log_to_stderr,
    with_global_options_first,
)
from embellama.cli.similar import similar_command
from embellama.cli.tune import tune_command

_HELP = """Local text embeddings from GGUF models.

MODEL is a name of the catalogue (minilm, minilm:Q8_0), the path of a GGUF, hf:owner/repo:QUANT or
hf:owner/repo@revision/file.gguf. What is not stored yet is fetched first.

Exit status: 0 done, 1 failed, 2 wrong usage or input, 130 interrupted, 141 the reader of the
output went away."""

_EPILOG = "The options above may also stand behind the command's name."

app = typer.Typer(
    name="embellama",
    cls=GuardedGroup,
    help=_HELP,
    epilog=_EPILOG,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

app.command("embed", help=EMBED_HELP)(embed_command)
for _name, _command in (
    ("similar", similar_command),
    ("rerank", rerank_command),
    ("models", models_command),
    ("pull", pull_command),
    ("info", info_command),
    ("convert", convert_command),
    ("quantize", quantize_command),
    ("doctor", doctor_command),
    ("bench", bench_command),
    ("tune", tune_command),
):
    app.command(_name)(_command)
app.command("serve", cls=ServeCommand, help=SERVE_HELP)(serve_command)
app.add_typer(cache_app, name="cache")


def _print_version(wanted: bool) -> None:
    if wanted:
        from embellama import __version__  # noqa: PLC0415

        typer.echo(f"embellama {__version__}")
        raise typer.Exit


@app.callback()
def _global_options(
    ctx: typer.Context,
    cache_path: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Where converted models are kept. [env: EMBELLAMA_CACHE_PATH]"
        ),
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Use only what is stored.")] = False,
    threads: Annotated[
        int | None,
        typer.Option(metavar="N", help="CPU threads; the physical cores unless given."),
    ] = None,
    backend: Annotated[
        BackendName | None,
        typer.Option(
            help="What computes: native kernels where they fit (auto), llama.cpp, or an error "
            "where the kernels do not fit (native). [env: EMBELLAMA_BACKEND]"
        ),
    ] = None,
    verbose: Annotated[
        int,
        typer.Option(
            "--verbose",
            "-v",
            count=True,
            show_default=False,
            help="Log to standard error and show tracebacks; twice for llama.cpp's own lines too.",
        ),
    ] = 0,
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    ctx.obj = Settings(
        cache_path=cache_path,
        offline=offline,
        n_threads=threads,
        verbosity=verbose,
        backend=backend,
    )
    ctx.call_on_close(log_to_stderr(verbose))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit status.

    Args:
        arguments: What follows the program's name; the process's own arguments if not given.
    """
    given = sys.argv[1:] if arguments is None else arguments
    try:
        app(args=with_global_options_first(given), prog_name="embellama")
        status = 0
    except SystemExit as exc:
        status = exc.code if isinstance(exc.code, int) else int(exc.code is not None)
    return finish_streams(status)
