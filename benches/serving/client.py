"""A client that asks at a fixed rate and never waits for an answer before it asks again.

One event loop, bodies made beforehand, and no more of HTTP than the answers need, so that it measures
the server and not itself.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import cast

LOST = 0
"""The status of a request whose connection ended before its answer, or was not to be had."""

CLOSED = -1
"""The status of a request that found nobody listening."""


@dataclass(slots=True)
class Asked:
    """A request and what came of it, on the clock of `time.perf_counter`.

    Attributes:
        number: Which one it is; its ``x-request-id`` ends with it.
        due_s: When it should have been sent.
        sent_s: When it was sent, or connecting for it began.
        done_s: When its answer was there, or it was clear that none comes; 0 before.
        status: The answer's, or `LOST`, or `CLOSED`.
    """

    number: int
    due_s: float
    sent_s: float
    done_s: float = 0.0
    status: int = LOST

    @property
    def latency_s(self) -> float:
        """From sending to the end of the answer."""
        return self.done_s - self.sent_s


class _Connection(asyncio.Protocol):
    """One connection; one request at a time."""

    def __init__(self, on_free: Callable[[_Connection], None]) -> None:
        self._on_free = on_free
        self._asked: Asked | None = None
        self._answered: asyncio.Future[None] | None = None
        self._received = bytearray()
        self._missing = -1
        self.transport: asyncio.Transport | None = None

    @property
    def is_open(self) -> bool:
        return self.transport is not None and not self.transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is none by its class

    def ask(self, asked: Asked, request: bytes) -> asyncio.Future[None]:
        """Send a request; what is returned is done when its answer is there, or none comes."""
        assert self.transport is not None
        self._asked = asked
        self._answered = asyncio.get_running_loop().create_future()
        self._received.clear()
        self._missing = -1
        self.transport.write(request)
        return self._answered

    def data_received(self, data: bytes) -> None:
        received = self._received
        if self._missing < 0:
            received += data
            end = received.find(b"\r\n\r\n")
            if end < 0:
                return
            self._missing = end + 4 + _content_length(bytes(received[:end]).lower()) - len(received)
        else:
            self._missing -= len(data)
        if self._missing <= 0 and self._asked is not None:
            self._asked.status = int(received[9:12])
            self._end()
            if self.is_open and b"connection: close" not in received.lower():
                self._on_free(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()

    def _end(self) -> None:
        asked, self._asked = self._asked, None
        if asked is None:
            return
        asked.done_s = time.perf_counter()
        assert self._answered is not None
        if not self._answered.done():
            self._answered.set_result(None)


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name == b"content-length":
            return int(value)
    return 0


@dataclass
class Client:
    """Connections to a server, and all that was asked of it.

    A request takes an idle connection, or opens one: it never waits for another request.

    Args:
        port: Where the server listens.
        path: What is asked for.
        bodies: What is posted, in turns.
        name: What its requests' ids begin with.
    """

    port: int
    path: str
    bodies: Sequence[bytes]
    name: str
    asked: list[Asked] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._idle: list[_Connection] = []
        self._connections: list[_Connection] = []
        self._numbers = itertools.count()
        self._under_way: set[asyncio.Task[None]] = set()

    def _request(self, number: int) -> bytes:
        body = self.bodies[number % len(self.bodies)]
        return (
            b"POST %b HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
            b"x-request-id: %b\r\ncontent-length: %d\r\n\r\n%b"
            % (self.path.encode(), self.id_of(number).encode(), len(body), body)
        )

    def id_of(self, number: int) -> str:
        """Return the id of a request."""
        return f"{self.name}-{number}"

    async def ask(self, due_s: float | None = None) -> Asked:
        """Ask once, and wait for the answer."""
        now = time.perf_counter()
        asked = Asked(next(self._numbers), now if due_s is None else due_s, now)
        self.asked.append(asked)
        connection = await self._connection(asked)
        if connection is not None:
            await connection.ask(asked, self._request(asked.number))
        return asked

    async def _connection(self, asked: Asked) -> _Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open:
                return connection
        loop = asyncio.get_running_loop()
        try:
            _, connection = await loop.create_connection(
                lambda: _Connection(self._idle.append), "127.0.0.1", self.port
            )
            self._connections.append(connection)
        except ConnectionRefusedError:
            asked.status = CLOSED
        except OSError:
            asked.status = LOST
        else:
            return connection
        asked.done_s = time.perf_counter()
        return None

    async def at_rate(self, per_s: float, seconds: float) -> None:
        """Ask so often for so long; returns when the last one was sent, not answered."""
        start = time.perf_counter()
        for number in range(round(per_s * seconds)):
            due_s = start + number / per_s
            ahead_s = due_s - time.perf_counter()
            if ahead_s > 0:
                await asyncio.sleep(ahead_s)
            elif number % 16 == 0:
                await asyncio.sleep(0)  # behind: answers have to be read all the same
            task = asyncio.ensure_future(self._asking(due_s))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    async def _asking(self, due_s: float) -> None:
        await self.ask(due_s)

    async def in_turns(self, n_clients: int, seconds: float) -> None:
        """Have so many clients ask for so long, each its next question when it has its answer."""
        until = time.perf_counter() + seconds

        async def one() -> None:
            while time.perf_counter() < until:
                asked = await self.ask()
                if asked.status != 200:
                    await asyncio.sleep(0.05)  # as a client that was refused

        await asyncio.gather(*(one() for _ in range(n_clients)))

    async def all_answered(self, timeout_s: float) -> None:
        """Wait for what was asked at a rate; what is not answered in time stays `LOST`."""
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=timeout_s)

    @asynccontextmanager
    async def ended(self) -> AsyncIterator[None]:
        """Close all connections at the end of a block."""
        try:
            yield
        finally:
            for task in self._under_way:
                task.cancel()
            for connection in self._connections:
                if connection.transport is not None:
                    connection.transport.abort()
            await asyncio.sleep(0)  # until they are closed

    def answers(self, since_s: float, until_s: float) -> Iterator[Asked]:
        """Yield what was answered with 200 in some time."""
        return (one for one in self.asked if one.status == 200 and since_s <= one.done_s < until_s)
