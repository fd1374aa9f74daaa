"""`ServerConfig`: what ``embellama serve`` is told by flags, the environment or a TOML file."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ByteSize, ConfigDict, Field, SecretStr, ValidationInfo, field_validator

from embellama.config import LayeredConfig
from embellama.errors import ConfigurationError
from embellama.types import Overflow

TokenIds = Literal["refuse", "model", "cl100k_base"]
LogLevel = Literal["debug", "info", "warning", "error"]

_DURATION = re.compile(r"(-?\d+(?:\.\d+)?)(ms|s|m|h)?")
_SECONDS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def seconds(value: object) -> object:
    """Return the seconds of ``"5m"``, ``"90"`` or ``90``.

    Raises:
        ValueError: It is a string, but no duration.
    """
    if not isinstance(value, str):
        return value
    parts = _DURATION.fullmatch(value.strip())
    if parts is None:
        raise ValueError("a time is a number of seconds, or written 500ms, 30s, 5m or 1h")
    return float(parts[1]) * _SECONDS[parts[2] or "s"]


class ServerConfig(LayeredConfig):
    """Settings of the server. Those of the engine and of the models stay where they are.

    Attributes:
        host: The address to listen at.
        port: The port; 0 takes a free one, which is logged.
        models: What to serve: ``"minilm"``, ``"minilm:Q8_0"``, a path, ``"hf:owner/repo:TYPE"``,
            each with a name of its own in front where wanted: ``"docs=minilm:Q8_0"``. The first is
            what requests mean that name none.
        aliases: Other names of models, as clients know them.
        default_prompts: By what clients call a model, its name or an alias: which of the model's
            prompts is put in front of texts where a request chooses none, e.g. ``"query"``.
        lazy: Load a model when it is first asked for. The ``lazy`` at the top of the TOML file
            holds where ``[server]`` says nothing.
        keep_alive_s: Seconds without a request after which a model is unloaded, until it is asked
            for again; -1: never.
        api_key_file: A file of keys, one a line, each with a name in front where wanted:
            ``"search: sk-…"``. Lines that begin with # are left out.
        api_keys: Keys beside those of the file.
        admin_key_file: The same for ``/admin`` and the cache; without it any key may do that, and
            without any key nobody.
        tls_cert: A file with the certificate and its chain. Needs ``tls_key``.
        tls_key: A file with its private key.
        cors_origins: Origins of pages that may call from a browser; ``"*"``: all.
        allowed_hosts: What clients may call a server without keys that listens at loopback alone,
            besides localhost and addresses; ``"*"``: anything.
        max_body_bytes: Most bytes of a request's body.
        max_texts: Most texts of a request. Source of the default: OpenAI's limit.
        max_request_tokens: Most tokens of a request. Source of the default: OpenAI's limit.
        max_connections: Most connections at the same time.
        max_requests: Most requests that compute or wait; one more is answered with 503.
        max_wait_s: A request that would have to wait longer than this is answered with 503.
        request_timeout_s: Seconds a request may take, from its last byte to its answer.
        read_timeout_s: Seconds a client may take to send a request.
        idle_timeout_s: Seconds a connection may be idle between requests.
        shutdown_timeout_s: Seconds that running requests have when the server is told to end.
        rate_limit: Requests a second that each key may make, in the long run; None: any number.
            Where there are no keys, each client address.
        rate_burst: Requests that it may make at once; None: ten seconds' worth.
        overflow: What becomes of a text over a model's limit where neither the request nor its API
            says it: an error, a cut at its end, or the mean of its windows.
        token_ids: What token ids in a request are: refused, the model's own, or tiktoken's
            ``cl100k_base``, which are decoded to text first.
        vector_cache_bytes: Memory for vectors that were computed before; 0: none is kept.
        vector_cache_path: A file where they are kept too, for all processes.
        playground: Whether ``/`` shows the page to try the models with.
        metrics: Whether ``/metrics`` answers.
        traces: Send OpenTelemetry traces, to where the ``OTEL_*`` variables say.
        log_level: What is logged.
        log_format: ``"json"``: an object a line; ``"text"``: for people.
        access_log: Log each request.
    """

    # pydantic's own errors, which a traceback shows, say no values then
    model_config = ConfigDict(hide_input_in_errors=True)

    secrets: ClassVar[frozenset[str]] = frozenset({"api_keys"})
    environment_variables: ClassVar[Mapping[str, str]] = {
        "host": "EMBELLAMA_HOST",
        "port": "EMBELLAMA_PORT",
        "models": "EMBELLAMA_MODELS",
        "aliases": "EMBELLAMA_ALIASES",
        "default_prompts": "EMBELLAMA_DEFAULT_PROMPTS",
        "lazy": "EMBELLAMA_LAZY",
        "keep_alive_s": "EMBELLAMA_KEEP_ALIVE",
        "api_key_file": "EMBELLAMA_API_KEY_FILE",
        "api_keys": "EMBELLAMA_API_KEYS",
        "admin_key_file": "EMBELLAMA_ADMIN_KEY_FILE",
        "tls_cert": "EMBELLAMA_TLS_CERT",
        "tls_key": "EMBELLAMA_TLS_KEY",
        "cors_origins": "EMBELLAMA_CORS_ORIGINS",
        "allowed_hosts": "EMBELLAMA_ALLOWED_HOSTS",
        "max_body_bytes": "EMBELLAMA_MAX_BODY_BYTES",
        "max_texts": "EMBELLAMA_MAX_TEXTS",
        "max_request_tokens": "EMBELLAMA_MAX_REQUEST_TOKENS",
        "max_connections": "EMBELLAMA_MAX_CONNECTIONS",
        "max_requests": "EMBELLAMA_MAX_REQUESTS",
        "max_wait_s": "EMBELLAMA_MAX_WAIT",
        "request_timeout_s": "EMBELLAMA_REQUEST_TIMEOUT",
        "read_timeout_s": "EMBELLAMA_READ_TIMEOUT",
        "idle_timeout_s": "EMBELLAMA_IDLE_TIMEOUT",
        "shutdown_timeout_s": "EMBELLAMA_SHUTDOWN_TIMEOUT",
        "rate_limit": "EMBELLAMA_RATE_LIMIT",
        "rate_burst": "EMBELLAMA_RATE_BURST",
        "overflow": "EMBELLAMA_OVERFLOW",
        "token_ids": "EMBELLAMA_TOKEN_IDS",
        "vector_cache_bytes": "EMBELLAMA_CACHE_SIZE",
        "vector_cache_path": "EMBELLAMA_VECTOR_CACHE",
        "playground": "EMBELLAMA_PLAYGROUND",
        "metrics": "EMBELLAMA_METRICS",
        "traces": "EMBELLAMA_TRACES",
        "log_level": "EMBELLAMA_LOG_LEVEL",
        "log_format": "EMBELLAMA_LOG_FORMAT",
        "access_log": "EMBELLAMA_ACCESS_LOG",
    }

    host: str = Field(default="127.0.0.1", min_length=1)
    port: int = Field(default=8080, ge=0, le=65535)
    models: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    aliases: Mapping[str, str] = Field(default_factory=dict)
    default_prompts: Mapping[str, str] = Field(default_factory=dict)
    lazy: bool = False
    keep_alive_s: float = Field(default=-1.0, ge=-1.0, le=10**9)
    api_key_file: Path | None = None
    api_keys: tuple[SecretStr, ...] = ()
    admin_key_file: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    cors_origins: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    max_body_bytes: ByteSize = Field(default=ByteSize(32 << 20), ge=1)
    max_texts: int = Field(default=2048, ge=1)
    max_request_tokens: int = Field(default=300_000, ge=1)
    max_connections: int = Field(default=4096, ge=1)
    max_requests: int = Field(default=1024, ge=1)
    max_wait_s: float = Field(default=10.0, gt=0.0, le=10**6)
    request_timeout_s: float = Field(default=60.0, gt=0.0, le=10**6)
    read_timeout_s: float = Field(default=20.0, gt=0.0, le=10**6)
    idle_timeout_s: float = Field(default=75.0, gt=0.0, le=10**6)
    shutdown_timeout_s: float = Field(default=30.0, ge=0.0, le=10**6)
    rate_limit: float | None = Field(default=None, gt=0.0, le=10**6)
    rate_burst: int | None = Field(default=None, ge=1)
    overflow: Overflow = "error"
    token_ids: TokenIds = "refuse"
    vector_cache_bytes: ByteSize = Field(default=ByteSize(0), ge=0)
    vector_cache_path: Path | None = None
    playground: bool = True
    metrics: bool = True
    traces: bool = False
    log_level: LogLevel = "info"
    log_format: Literal["json", "text"] = "json"
    access_log: bool = True

    @classmethod
    def _file_values(cls, document: Mapping[str, Any]) -> Mapping[str, Any]:
        table = document.get("server", {})
        if not isinstance(table, dict):
            raise ConfigurationError(
                f"'server' in the configuration file is {table!r}, not a table"
            )
        # the engine's own is no use to a server, which decides what it loads: one word for both
        return {"lazy": document["lazy"], **table} if "lazy" in document else table

    @field_validator("models", "api_keys", "cors_origins", "allowed_hosts", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        """Take what an environment variable can say: parts between commas."""
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return tuple(value) if isinstance(value, list) else value

    @field_validator("log_level", "log_format", mode="before")
    @classmethod
    def _lower_case(cls, value: object) -> object:
        """Take INFO, as most programs write it."""
        return value.lower() if isinstance(value, str) else value

    @field_validator("allowed_hosts")
    @classmethod
    def _names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name != "*" and (not name or not name.isascii() or set(name) & set("/*[] ")):
                raise ValueError(
                    f"a host is a name such as search.example, in ASCII and without a scheme, or * "
                    f"alone for any, not {name!r}"
                )
        return value

    @field_validator("aliases", "default_prompts", mode="before")
    @classmethod
    def _paired(cls, value: object, info: ValidationInfo) -> object:
        """Take ``name=model`` pairs, between commas or in a sequence."""
        if isinstance(value, str):
            value = [part.strip() for part in value.split(",") if part.strip()]
        if isinstance(value, list | tuple):
            pairs = [str(part).partition("=") for part in value]
            if not all(name and of_it for name, _, of_it in pairs):
                raise ValueError(
                    "an alias is written name=model"
                    if info.field_name == "aliases"
                    else "a default prompt is written model=name, such as e5=query"
                )
            return {name.strip(): of_it.strip() for name, _, of_it in pairs}
        return value

    @field_validator(
        "keep_alive_s",
        "max_wait_s",
        "request_timeout_s",
        "read_timeout_s",
        "idle_timeout_s",
        "shutdown_timeout_s",
        mode="before",
    )
    @classmethod
    def _in_seconds(cls, value: object) -> object:
        return seconds(value)

    @field_validator("api_key_file", "admin_key_file", "tls_cert", "tls_key", "vector_cache_path")
    @classmethod
    def _at_home(cls, value: Path | None) -> Path | None:
        return None if value is None else value.expanduser()

    def _check_together(self) -> None:
        if (self.tls_cert is None) != (self.tls_key is None):
            given, missing = ("tls_cert", "tls_key") if self.tls_cert else ("tls_key", "tls_cert")
            raise ConfigurationError(f"{given} needs {missing} too; give both or none")
        for name in ("tls_cert", "tls_key"):
            path = getattr(self, name)
            if path is not None and not path.is_file():
                raise ConfigurationError(f"{name} = {str(path)!r} is no file that is there")
        if self.rate_burst is not None and self.rate_limit is None:
            raise ConfigurationError(
                f"rate_burst = {self.rate_burst} means nothing without rate_limit; give both"
            )

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return False

    def described(self) -> dict[str, Any]:
        """Return every setting with where it came from, without secrets."""
        values = self.model_dump(mode="json", exclude={"api_keys"})
        shown = {
            name: {"value": value, "from": self.sources[name]} for name, value in values.items()
        }
        shown["api_keys"] = {
            "value": f"{len(self.api_keys)} given",
            "from": self.sources["api_keys"],
        }
        return shown
