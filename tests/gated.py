"""A backend that computes when the test says so, and a loop that complains of lost errors."""

import asyncio
import gc
import threading
from contextlib import contextmanager

import numpy as np

from embellama import DecodeError

WAIT_S = 10.0


class Gate:
    """A backend's callable: rows (first id, length), held back while the gate is shut."""

    def __init__(self):
        self.is_open = threading.Event()
        self.is_open.set()
        self.was_entered = threading.Event()
        self.computed = []

    def __call__(self, batch):
        self.was_entered.set()
        assert self.is_open.wait(WAIT_S), "the test never opened the gate"
        firsts = batch.input_ids[batch.offsets[:-1]]
        self.computed += firsts.tolist()
        if 666 in firsts:
            raise DecodeError("scripted", status=-3)
        return np.stack([firsts, np.diff(batch.offsets)], axis=1).astype(np.float32)

    def shut(self):
        self.is_open.clear()
        self.was_entered.clear()

    async def entered(self):
        while not self.was_entered.is_set():
            await asyncio.sleep(0.001)

    @contextmanager
    def held(self):
        self.shut()
        try:
            yield
        finally:
            self.is_open.set()


def run(main):
    """Run a coroutine function; fail if the loop was told of an error that nobody awaited."""
    complaints = []

    async def watched():
        asyncio.get_running_loop().set_exception_handler(lambda _, what: complaints.append(what))
        result = await asyncio.wait_for(main(), WAIT_S)
        gc.collect()  # an exception that was never retrieved is told of when its future is freed
        await asyncio.sleep(0)
        return result

    result = asyncio.run(watched())
    assert complaints == []
    return result
