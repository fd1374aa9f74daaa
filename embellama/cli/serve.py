"""``embellama serve``: the models behind the APIs people know."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin

import typer
from typer.core import TyperCommand

from embellama.cli.settings import Settings, settings_of
from embellama.errors import MissingDependencyError

SERVE_HELP = """Serve embeddings over HTTP, as OpenAI does.

Clients of text-embeddings-inference, Ollama, Cohere and Jina find what they know as well.

MODEL is as for the other commands, with a name in front where wanted: docs=minilm:Q8_0. The first
is what requests mean that name none. Without any, those of the configuration are served, or minilm.

Under each option stands its variable, with the default. The same can be set in the [server] table
of the TOML file that EMBELLAMA_CONFIG names, by the fields of ServerConfig. What is given here wins
over variables, and they over the file. Several values of a variable stand between commas. Keys
themselves are given by EMBELLAMA_API_KEYS, and not here, where other users of the machine see them.

TIME is in seconds, or written 500ms, 5m or 1h; SIZE is in bytes, or written 256MB or 1GiB.

Options of all commands: --threads, --backend, --cache-path, --offline, -v.
"""


class _Option(NamedTuple):
    """A setting of `ServerConfig` as an option of the command line.

    Its variable, default and choices are added when help is asked for, from `ServerConfig` itself.
    """

    field: str
    flag: str
    metavar: str | None
    help: str
    is_repeated: bool = False

    @property
    def parameter(self) -> inspect.Parameter:
        """As typer reads it from a function."""
        kind: Any = bool | None if self.metavar is None else str | None
        if self.is_repeated:
            kind = list[str] | None
        option = typer.Option(self.flag, metavar=self.metavar, help=self.help)
        return inspect.Parameter(
            self.field,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[kind, option],
        )


OPTIONS = (
    _Option("host", "--host", "ADDRESS", "Listen here."),
    _Option("port", "--port", "N", "Listen at this port; 0 takes a free one."),
    _Option("aliases", "--alias", "NAME=MODEL", "Give a model another name.", True),
    _Option("default_prompts", "--default-prompt", "MODEL=NAME", "Prompt unless asked.", True),
    _Option("lazy", "--lazy/--no-lazy", None, "Load a model when it is first asked for."),
    _Option("keep_alive_s", "--keep-alive", "TIME", "Unload what is idle so long; -1: never."),
    _Option("api_key_file", "--api-key-file", "FILE", "Keys of clients, one a line: [NAME:] KEY."),
    _Option("admin_key_file", "--admin-key-file", "FILE", "Keys of those who may load and unload."),
    _Option("tls_cert", "--tls-cert", "FILE", "Serve HTTPS with this certificate (chain)."),
    _Option("tls_key", "--tls-key", "FILE", "The certificate's private key."),
    _Option("cors_origins", "--cors-origin", "ORIGIN", "Whose pages may ask; * for all.", True),
    _Option("allowed_hosts", "--allowed-host", "NAME", "What else it may be called.", True),
    _Option("max_body_bytes", "--max-body", "SIZE", "Largest body of a request."),
    _Option("max_texts", "--max-texts", "N", "Most texts of a request."),
    _Option("max_request_tokens", "--max-tokens", "N", "Most tokens of a request."),
    _Option("max_requests", "--max-requests", "N", "Most requests that compute or wait."),
    _Option("max_connections", "--max-connections", "N", "Most connections."),
    _Option("max_wait_s", "--max-wait", "TIME", "Refuse what would wait longer in line."),
    _Option("request_timeout_s", "--request-timeout", "TIME", "Longest time to an answer."),
    _Option("read_timeout_s", "--read-timeout", "TIME", "Longest time to send a request."),
    _Option("idle_timeout_s", "--idle-timeout", "TIME", "Longest time between two requests."),
    _Option("shutdown_timeout_s", "--shutdown-timeout", "TIME", "Longest time to finish in."),
    _Option("rate_limit", "--rate-limit", "N", "Most requests a second of each client."),
    _Option("rate_burst", "--rate-burst", "N", "Requests it may make at once; 10 s worth."),
    _Option("overflow", "--overflow", "CHOICE", "What becomes of texts that are too long."),
    _Option("token_ids", "--token-ids", "CHOICE", "What token ids in requests are."),
    _Option("vector_cache_bytes", "--cache-size", "SIZE", "Keep so much of vectors in memory."),
    _Option("vector_cache_path", "--vector-cache", "FILE", "Keep vectors in this file too."),
    _Option("playground", "--playground/--no-playground", None, "Show a page to try it at /."),
    _Option("metrics", "--metrics/--no-metrics", None, "Answer /metrics, for Prometheus."),
    _Option("traces", "--traces/--no-traces", None, "Send OpenTelemetry traces; see OTEL_*."),
    _Option("log_level", "--log-level", "CHOICE", "Log this and what is worse."),
    _Option("log_format", "--log-format", "CHOICE", "Log objects, or lines for people."),
    _Option("access_log", "--access-log/--no-access-log", None, "Log each request."),
)  # fmt: skip
"""All settings but ``models``, the argument, and ``api_keys``."""


class ServeCommand(TyperCommand):
    """The command, whose help says what `ServerConfig` says."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help."""
        from embellama.server.settings import ServerConfig  # noqa: PLC0415

        options = {option.field: option for option in OPTIONS}
        for parameter in self.params:
            option, field = options.get(parameter.name or ""), parameter.name or ""
            if option is None:
                continue
            annotation = ServerConfig.model_fields[field].annotation
            if get_origin(annotation) is Literal:
                parameter.metavar = "|".join(get_args(annotation))
            default = ServerConfig.model_fields[field].get_default(call_default_factory=True)
            shown = _shown(option, default)
            variable = ServerConfig.environment_variables[field] + (f"={shown}" if shown else "")
            # what follows a backspace stays on lines of its own
            parameter.help = f"\b\n{option.help}\n[{variable}]"  # type: ignore[attr-defined]
        super().format_help(ctx, formatter)


def _shown(option: _Option, default: Any) -> str:
    """Write a default as a variable would say it."""
    if isinstance(default, bool):
        return str(default).lower()
    if option.metavar == "SIZE":
        return default.human_readable().replace(".0", "") if default else "0"
    if option.metavar == "TIME":
        return f"{default:g}" if default < 0 else f"{default:g}s"
    return str(default) if default else ""


def _with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options above, so that each is said once."""
    own = [
        parameter
        for parameter in inspect.signature(command, eval_str=True).parameters.values()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    ]
    parameters = [*own, *(option.parameter for option in OPTIONS)]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {each.name: each.annotation for each in parameters}
    return command


@_with_options
def serve_command(
    ctx: typer.Context,
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="MODEL", help="What to serve. [EMBELLAMA_MODELS]"),
    ] = None,
    memory_limit: Annotated[
        str | None,
        typer.Option(
            "--memory-limit",
            metavar="SIZE",
            help="\b\nMost memory for all models together.\n[EMBELLAMA_MEMORY_LIMIT]",
        ),
    ] = None,
    **options: Any,
) -> None:
    """Serve embeddings over HTTP."""
    given = {name: value for name, value in options.items() if value not in (None, [])}
    if models:
        given["models"] = tuple(models)
    _serve(settings_of(ctx), given, memory_limit)


def _serve(settings: Settings, given: dict[str, Any], memory_limit: str | None) -> None:
    from embellama.server.settings import ServerConfig  # noqa: PLC0415

    config = ServerConfig(**given)
    try:
        from embellama.server.run import serve  # noqa: PLC0415
    except ModuleNotFoundError as exc:
        package = (exc.name or "embellama").partition(".")[0]
        if package == "embellama":
            raise
        raise MissingDependencyError(
            f"serve needs {package}: pip install 'embellama[server]'", extra="server"
        ) from exc
    serve(
        config,
        settings.engine_config(memory_limit=memory_limit),
        model_settings=settings.model_settings(),
    )
