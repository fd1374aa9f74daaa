"""uvicorn's server: listening, signals, and an end with status 0."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import uvicorn

from embellama.errors import ConfigurationError
from embellama.server.descriptors import allow_connections
from embellama.server.http.connection import Refused, guarded, untold
from embellama.server.limits import Unsent
from embellama.server.settings import ServerConfig


class Server(uvicorn.Server):
    """uvicorn's server, that ends with status 0 when it was told to end.

    Args:
        config: Its settings.
        on_started: Told the addresses it listens at.
        on_stopping: Told that it takes no new connection any more.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        *,
        on_started: Callable[[list[str]], None],
        on_stopping: Callable[[], None],
    ) -> None:
        super().__init__(config)
        self._on_started = on_started
        self._on_stopping = on_stopping

    async def startup(self, sockets: Any = None) -> None:
        """Listen, and tell where.

        Raises:
            ConfigurationError: It cannot listen there.
        """
        try:
            await super().startup(sockets)
        except SystemExit as exc:
            why = exc.__context__
            if not isinstance(why, OSError):
                raise
            # asyncio puts a sentence in place of the system's word
            said = os.strerror(why.errno) if why.errno and why.errno > 0 else why.strerror
            raise ConfigurationError(
                f"cannot listen at {self.config.host}, port {self.config.port}: {said}; choose "
                "another --host or --port"
            ) from why
        if self.started:
            self.lifespan.state.get("on_listening", lambda: None)()
            scheme = "https" if self.config.is_ssl else "http"
            names = [sock.getsockname()[:2] for server in self.servers for sock in server.sockets]
            self._on_started([f"{scheme}://{f'[{h}]' if ':' in h else h}:{p}" for h, p in names])

    async def shutdown(self, sockets: Any = None) -> None:
        """Finish what was begun, within the time there is."""
        self._on_stopping()
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """End on SIGINT and SIGTERM; a second one of them ends it at once."""

        def end(number: int, frame: object) -> None:
            self.force_exit = self.should_exit
            self.should_exit = True

        if threading.current_thread() is not threading.main_thread():
            yield  # nobody but the main thread gets signals
            return
        before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def make_server(
    app: Any,
    config: ServerConfig,
    *,
    on_started: Callable[[list[str]], None],
    on_stopping: Callable[[], None],
    unsent: Unsent | None = None,
    on_refused: Refused = untold,
) -> Server:
    """Make the server of an application; `Server.run` runs it until it is told to end.

    Args:
        app: The application.
        config: Its settings.
        on_started: Told the addresses it listens at.
        on_stopping: Told that it takes no new connection any more.
        unsent: Where it is counted what clients have not read yet.
        on_refused: Told what is refused before the application sees it.

    Raises:
        ConfigurationError: Its certificate and key cannot be used.
    """
    allow_connections(config.max_connections)
    settings = uvicorn.Config(
        app,
        host=config.host,
        port=config.port,
        http=guarded(config, unsent=unsent, on_refused=on_refused),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=max(1, round(config.idle_timeout_s)),
        timeout_graceful_shutdown=max(0, round(config.shutdown_timeout_s)),
        ssl_certfile=config.tls_cert,
        ssl_keyfile=config.tls_key,
    )
    try:
        settings.load()
    except OSError as exc:  # ssl.SSLError is one
        raise ConfigurationError(
            f"tls_cert = {str(config.tls_cert)!r} and tls_key = {str(config.tls_key)!r} are no "
            f"certificate in PEM form and its key ({exc.strerror or exc})"
        ) from exc
    return Server(settings, on_started=on_started, on_stopping=on_stopping)
