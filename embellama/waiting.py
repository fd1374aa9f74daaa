"""Who waits for the workers of a model, and what they compute next: one line for all callers.

Work comes in groups: the sequences of one call that were planned to share a micro-batch. A worker
that is free takes the group at the head, and with it others that fit into the same micro-batch.
Interactive groups go ahead of bulk ones; within a class, first come is first served.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from embellama.batching import tokens_for_all
from embellama.calls import Call
from embellama.errors import ContextError, EmbellamaError
from embellama.types import SHORT_TOKENS, FloatArray, IntArray, Layout, Layouts, Priority

FAIR_TURNS = 3
"""Interactive micro-batches after which a bulk one has its turn, if it waits."""

SHRINK = 4
"""What a bulk micro-batch is divided by while interactive callers are there: they wait for one."""

PRESENCE_S = 1.0
"""How long after its last call an interactive caller counts as there."""

LOOK_AHEAD = 64
"""Groups that are looked at for a micro-batch; the others wait in any case."""

_MOST_LEFT_OUT = 512
"""Groups nobody waits for that are left out while others wait for the lock: 100 us."""


@dataclass(eq=False)
class Group:
    """Sequences of one call that may share a micro-batch, and the future of their rows.

    Attributes:
        sequences: int32 (n_tokens,) ids each, the longest first.
        token_types: Parallel to them, or None; see `MicroBatch.token_types`.
        call: Whose they are.
        layout: The layout for their kind of work.
        rows: float32 (n_sequences, n_embd), or (n_tokens, n_embd) where nothing is pooled.
        submitted_s: When they came, on the clock of `time.perf_counter`.
        queue_s: Seconds until a worker began; 0 before.
        inference_s: Seconds of computing, their share of micro-batches that others had part in.
        n_taken: How many of them workers have taken.
        is_wanted: Whether the caller waits for the rows.
    """

    sequences: Sequence[IntArray]
    token_types: Sequence[IntArray] | None
    call: Call
    layout: Layout
    rows: Future[FloatArray] = field(default_factory=Future)
    submitted_s: float = field(default_factory=time.perf_counter)
    queue_s: float = 0.0
    inference_s: float = 0.0
    n_taken: int = 0
    is_wanted: bool = True

    def __post_init__(self) -> None:
        self.lengths = [len(ids) for ids in self.sequences]
        self.n_waiting_tokens = sum(self.lengths)
        self._arriving = threading.Lock()
        self._arrived: dict[int, FloatArray] = {}
        self._n_arrived = 0

    def begin(self) -> bool:
        """Say that a worker takes from it; False if its rows are done or cancelled."""
        if self.n_taken == 0:
            if not self.rows.set_running_or_notify_cancel():
                return False
            self.queue_s = time.perf_counter() - self.submitted_s
        return not self.rows.done()

    def give_up(self) -> None:
        """Tell whoever holds the future that nobody computes the rest: it is over."""
        if self.n_taken == 0:
            self.rows.cancel()
        else:
            self.fail(ContextError("the call is over"))

    def deliver(
        self, start: int, n_sequences: int, rows: FloatArray, *, inference_s: float = 0.0
    ) -> None:
        """Bring the rows of some sequences; all of them make the result."""
        with self._arriving:
            if self.rows.done() or start in self._arrived:
                return
            self.inference_s += inference_s
            self._arrived[start] = rows
            self._n_arrived += n_sequences
            if self._n_arrived < len(self.sequences):
                return
        if len(self._arrived) > 1:
            rows = np.concatenate([self._arrived[at] for at in sorted(self._arrived)])
        self.rows.set_result(rows)

    def fail(self, error: EmbellamaError) -> None:
        """Tell the caller what went wrong; only the first error of a group is told."""
        with self._arriving:
            if not self.rows.done():
                self.rows.set_exception(error)


@dataclass(frozen=True, slots=True)
class Part:
    """Sequences ``start`` to ``stop`` of a group, computed together."""

    group: Group
    start: int
    stop: int

    @property
    def sequences(self) -> Sequence[IntArray]:
        """The ids of each."""
        return self.group.sequences[self.start : self.stop]

    @property
    def token_types(self) -> Sequence[IntArray] | None:
        """The token types of each, where there are any."""
        types = self.group.token_types
        return types[self.start : self.stop] if types is not None else None

    @property
    def n_tokens(self) -> int:
        """Tokens of all of them."""
        return sum(self.group.lengths[self.start : self.stop])


@dataclass(frozen=True, slots=True)
class Work:
    """One micro-batch for one worker.

    Attributes:
        parts: Whose sequences it has.
        n_tokens: Of all parts.
        n_threads: CPU threads to compute it with.
    """

    parts: Sequence[Part]
    n_tokens: int
    n_threads: int


class WaitingLine:
    """The groups that wait for the workers of one model. Safe to use from any thread.

    Args:
        layouts: How the cores are shared out.
        max_batch_requests: Most sequences of a micro-batch.
        worker_tokens: For each worker, the most tokens of a micro-batch that it takes.
    """

    def __init__(
        self, layouts: Layouts, *, max_batch_requests: int, worker_tokens: Sequence[int]
    ) -> None:
        self._layouts = layouts
        self._n_threads = layouts.n_threads
        self._max_batch_requests = max_batch_requests
        self._worker_tokens = list(worker_tokens)
        self._lock = threading.Lock()
        # a dict finds its first key by walking over all that were removed before it
        self._lanes: dict[Priority, OrderedDict[Group, None]] = {
            "interactive": OrderedDict(),
            "bulk": OrderedDict(),
        }
        self._unwanted: deque[Group] = deque()
        self._gates = [threading.Lock() for _ in worker_tokens]
        for gate in self._gates:
            gate.acquire()
        self._idle: set[int] = set()
        self._running: dict[int, Work] = {}
        self._turns = [0] * len(self._worker_tokens)
        self._interactive: dict[object, float] = {}
        self._is_closed = False

    def put(self, groups: Sequence[Group]) -> None:
        """Let groups of one call wait.

        Raises:
            ContextError: The line is closed.
        """
        with self._lock:
            if self._is_closed:
                raise ContextError("the model is being unloaded")
            if self._unwanted:
                self._leave_out_unwanted()
            for group in groups:
                self._lanes[group.call.priority][group] = None
            if groups and groups[0].call.priority == "interactive":
                self._note_interactive(groups[0].call.caller)
            self._wake_one()

    def take(self, worker: int) -> Work | None:
        """Wait for the next micro-batch of a worker, which is done with its last one.

        Returns:
            None when the line is closed.
        """
        while True:
            over: list[Group] = []
            is_idle = False
            with self._lock:
                self._running.pop(worker, None)
                self._idle.discard(worker)
                if self._is_closed:
                    return None
                if self._unwanted:
                    self._leave_out_unwanted()
                work = self._next_work(worker, over)
                if work is not None:
                    self._running[worker] = work
                    self._wake_one()  # which wakes the next one, as long as there is work
                elif not over and not self._unwanted:
                    is_idle = True
                    self._idle.add(worker)
                    self._wake_one()  # which may take what this one may not, with its threads
            for group in over:
                group.give_up()
            if work is not None:
                return work
            if is_idle:
                self._gates[worker].acquire()  # until somebody opens it; it closes behind

    def take_back(self, groups: Sequence[Group]) -> None:
        """Have groups left out whose futures were cancelled before a worker took from them.

        Who comes to the line next does it. Here nobody may wait for the lock: the garbage
        collector, which ends streams that were dropped, may run on the thread that holds it.
        """
        self._unwanted.extend(groups)

    def close(self) -> None:
        """Fail what waits, and send the workers home. May be called again."""
        with self._lock:
            self._is_closed = True
            waiting = [group for lane in self._lanes.values() for group in lane]
            for lane in self._lanes.values():
                lane.clear()
            for worker in self._idle:
                self._open(worker)
        for group in waiting:
            if group.n_taken or group.rows.set_running_or_notify_cancel():
                group.fail(ContextError("the model was unloaded before this was run"))

    # ── with the lock held ───────────────────────────────────────────────────────────────────

    def _wake_one(self) -> None:
        """Wake the first idle worker that has something to take, and may take it."""
        for worker in sorted(self._idle):
            if self._head(worker) is not None:
                self._open(worker)
                return

    def _open(self, worker: int) -> None:
        """Let a worker look at the line; once more than needed does no harm.

        It leaves the idle ones by itself: Ctrl-C on the way here loses neither it nor the work.
        """
        if self._gates[worker].locked():
            self._gates[worker].release()

    def _leave_out_unwanted(self) -> None:
        for _ in range(min(len(self._unwanted), _MOST_LEFT_OUT)):
            group = self._unwanted.popleft()
            self._lanes[group.call.priority].pop(group, None)

    def _next_work(self, worker: int, over: list[Group]) -> Work | None:
        """Make the next micro-batch; none when many groups were over, which it adds to a list."""
        while (head := self._head(worker)) is not None:
            if not head.is_wanted or head.call.is_over:
                self._leave(head)
                over.append(head)
                if len(over) < _MOST_LEFT_OUT:
                    continue
                return None  # telling them takes longer, and others wait for the lock
            parts = self._share(worker, head)
            if parts:
                self._count_turn(worker, head.call.priority)
                n_tokens = sum(part.n_tokens for part in parts)
                return Work(parts, n_tokens, self._threads_for(head.layout, n_tokens))
        return None

    def _head(self, worker: int) -> Group | None:
        """Return the group whose turn it is, of those that a worker can take now."""
        heads = [self._first(worker, "interactive"), self._first(worker, "bulk")]
        if self._turns[worker] >= FAIR_TURNS:
            heads.reverse()
        return next((head for head in heads if head is not None and self._may_run(head)), None)

    def _first(self, worker: int, lane: Priority) -> Group | None:
        most = self._worker_tokens[worker]
        waiting = self._lanes[lane]
        return next((group for group in waiting if group.lengths[group.n_taken] <= most), None)

    def _count_turn(self, worker: int, taken: Priority) -> None:
        if taken == "bulk":
            self._turns[worker] = 0
        elif self._lanes["bulk"]:
            self._turns[worker] += 1

    @property
    def _n_free_threads(self) -> int:
        return self._n_threads - sum([work.n_threads for work in self._running.values()])

    def _may_run(self, head: Group) -> bool:
        """Tell whether there is a thread for a group, or it should not wait for one.

        A long text may keep all cores for seconds, and somebody waits for an interactive one.
        """
        if self._n_free_threads > 0:
            return True
        budget = head.layout.max_batch_tokens
        others_are_long = any(work.n_tokens > budget for work in self._running.values())
        return others_are_long and head.call.priority == "interactive"

    def _threads_for(self, layout: Layout, n_tokens: int) -> int:
        """Choose the threads of a micro-batch that was just taken.

        All of them when there is nothing else to do, and those of the layout when every other
        worker has something to do too.
        """
        free = max(self._n_free_threads, 1)
        n_others = sum(1 for idle in self._idle if self._head(idle) is not None)
        is_short = n_tokens <= SHORT_TOKENS
        most = self._layouts.single.n_threads if is_short else self._layouts.most_threads
        return min(max(layout.n_threads, min(free // (1 + n_others), most)), free)

    def _share(self, worker: int, head: Group) -> list[Part]:
        """Make a micro-batch of the head and of what fits beside it; nothing if it is done."""
        if not head.begin():
            self._leave(head)
            return []
        budget = bulk_budget = head.layout.max_batch_tokens
        if head.call.priority == "bulk" and self._is_awaited_beside(head.call.caller):
            bulk_budget = max(budget // SHRINK, 1)
        parts = [self._taken(head, _fitting(head, bulk_budget, self._max_batch_requests))]
        others = self._candidates(head)
        if not others:
            return parts
        n_tokens = parts[0].n_tokens
        n_waiting = n_tokens + sum(group.n_waiting_tokens for group in others)
        n_idle = len(self._idle - {worker})
        fair = tokens_for_all(n_waiting, n_contexts=1 + n_idle, max_batch_tokens=budget)
        most = min(fair, self._worker_tokens[worker])
        room = self._max_batch_requests - len(parts[0].sequences)
        # a call alone gets the same micro-batches every time, and so the same last digits
        calls = {head.call}
        for group in others:
            limit = min(most, bulk_budget) if group.call.priority == "bulk" else most
            n_sequences = len(group.lengths) - group.n_taken
            fits = n_tokens + group.n_waiting_tokens <= limit and n_sequences <= room
            if not fits or group.call in calls:
                continue
            is_over = not group.is_wanted or group.call.is_over
            if is_over or not group.begin():
                self._leave(group)
                if is_over:
                    group.give_up()
                continue
            calls.add(group.call)
            parts.append(self._taken(group, len(group.lengths)))
            n_tokens += parts[-1].n_tokens
            room -= n_sequences
        return parts

    def _taken(self, group: Group, stop: int) -> Part:
        part = Part(group, group.n_taken, stop)
        group.n_taken = stop
        group.n_waiting_tokens -= part.n_tokens
        if stop == len(group.lengths):
            self._leave(group)
        return part

    def _leave(self, group: Group) -> None:
        del self._lanes[group.call.priority][group]

    def _candidates(self, head: Group) -> list[Group]:
        """List what may go with the head: never bulk groups with an interactive one."""
        lanes = [self._lanes["interactive"]]
        if head.call.priority == "bulk":
            lanes.append(self._lanes["bulk"])
        if len(lanes[0]) + len(lanes[-1]) == 0:
            return []
        plain = head.token_types is None
        waiting = (group for lane in lanes for group in lane)
        return [
            group
            for group in islice(waiting, LOOK_AHEAD)
            if group is not head and (group.token_types is None) == plain
        ]

    def _note_interactive(self, caller: object) -> None:
        """Remember the last two interactive callers: one of them is not the one that asks."""
        self._interactive.pop(caller, None)
        self._interactive[caller] = time.monotonic()
        if len(self._interactive) > 2:
            del self._interactive[next(iter(self._interactive))]

    def _is_awaited_beside(self, caller: object) -> bool:
        """Tell whether other callers, interactive ones, are there or were a moment ago."""
        since = time.monotonic() - PRESENCE_S
        return any(other != caller and seen > since for other, seen in self._interactive.items())


def _fitting(group: Group, room_tokens: int, room: int) -> int:
    """Return up to where a group's next sequences fit into a micro-batch; at least one does."""
    stop, end = group.n_taken + 1, min(len(group.lengths), group.n_taken + room)
    room_tokens -= group.lengths[group.n_taken]
    while stop < end and group.lengths[stop] <= room_tokens:
        room_tokens -= group.lengths[stop]
        stop += 1
    return stop
