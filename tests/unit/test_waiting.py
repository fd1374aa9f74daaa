"""The line of one model, with the test in the place of its workers."""

import threading
import time

import numpy as np
import pytest

from embellama import waiting
from embellama.calls import Call
from embellama.errors import ContextError, DecodeError
from embellama.types import Layout, Layouts
from embellama.waiting import FAIR_TURNS, SHRINK, Group, WaitingLine

BUDGET, FULL, SIDE = 400, 4000, 800
WAIT_S = 3.0


def line_of(n_workers=2, *, n_threads=2, side=SIDE, max_batch_requests=32, single=None):
    many = Layout(n_workers, n_threads // n_workers, BUDGET)
    layouts = Layouts(many, many, single or Layout(1, n_threads, BUDGET))
    return WaitingLine(
        layouts,
        max_batch_requests=max_batch_requests,
        worker_tokens=[FULL, *[side] * (n_workers - 1)],
    )


def group(*lengths, priority="bulk", call=None, types=False):
    """Sequences whose ids are their numbers, of a call from a caller of its own."""
    sequences = [np.full(length, number, np.int32) for number, length in enumerate(lengths)]
    call = call or Call(priority, caller=object())
    return Group(sequences, sequences if types else None, call, Layout(2, 1, BUDGET))


def rows_of(part):
    """Rows that name each sequence of a part: its number, and its length."""
    return np.array([[ids[0], len(ids)] for ids in part.sequences], np.float32)


def answer(work):
    for part in work.parts:
        part.group.deliver(part.start, part.stop - part.start, rows_of(part))


class Worker:
    """A worker that takes once, on a thread of its own, since it may have to wait."""

    def __init__(self, line, number):
        self.work = None
        self.is_done = threading.Event()
        self._thread = threading.Thread(target=self._take, args=(line, number), daemon=True)
        self._thread.start()

    def _take(self, line, number):
        self.work = line.take(number)
        self.is_done.set()

    def waits(self, seconds=0.05):
        return not self.is_done.wait(seconds)

    def got(self):
        assert self.is_done.wait(WAIT_S), "nothing was there for the worker"
        return self.work


def take(line, number):
    return Worker(line, number).got()


def taken(line, number):
    """The groups of the worker's next micro-batch."""
    return [part.group for part in take(line, number).parts]


# ── whose turn it is ─────────────────────────────────────────────────────────────────────────


def test_first_come_is_first_served_within_a_class():
    for priority in ("interactive", "bulk"):
        line = line_of(1)
        groups = [group(BUDGET, priority=priority) for _ in range(5)]
        for each in groups:
            line.put([each])
        assert [taken(line, 0) for _ in groups] == [[each] for each in groups]


def test_interactive_groups_go_ahead_of_bulk_ones():
    line = line_of(1)
    bulk, single = group(BUDGET), group(BUDGET, priority="interactive")
    line.put([bulk])
    line.put([single])
    assert taken(line, 0) == [single]
    assert taken(line, 0) == [bulk]


def test_a_bulk_group_has_its_turn_after_some_interactive_ones():
    line = line_of(1)
    bulk = [group(BUDGET), group(BUDGET)]
    line.put(bulk)
    line.put([group(BUDGET, priority="interactive") for _ in range(20)])
    order = [taken(line, 0)[0].call.priority for _ in range(2 * (FAIR_TURNS + 1))]
    assert order == 2 * (["interactive"] * FAIR_TURNS + ["bulk"])


def test_turns_are_counted_only_while_a_bulk_group_waits():
    line = line_of(1)
    line.put([group(BUDGET, priority="interactive") for _ in range(2 * FAIR_TURNS)])
    for _ in range(FAIR_TURNS + 1):
        take(line, 0)
    line.put([group(BUDGET)])
    assert taken(line, 0)[0].call.priority == "interactive"


def test_a_long_bulk_text_gets_its_turn_when_only_one_worker_can_take_it():
    """Whatever the other worker takes meanwhile: that is not this one's turn."""
    line = line_of(single=Layout(1, 1, BUDGET), max_batch_requests=1)
    long = group(SIDE + 1)
    line.put([long])
    for turn in range(6 * FAIR_TURNS):
        line.put([group(5, priority="interactive"), group(5, priority="interactive")])
        line.put([group(5)])
        if long in taken(line, turn % 2):
            return
    pytest.fail("the long text starves")


# ── what shares a micro-batch ────────────────────────────────────────────────────────────────


def test_groups_of_different_calls_share_a_micro_batch():
    line = line_of(1)
    groups = [group(9, 5, priority="interactive") for _ in range(4)]
    for each in groups:
        line.put([each])
    work = take(line, 0)
    assert [part.group for part in work.parts] == groups
    assert work.n_tokens == 4 * 14
    answer(work)
    for each in groups:
        np.testing.assert_array_equal(each.rows.result(0), [[0, 9], [1, 5]])


def test_groups_of_one_call_never_do_so_that_it_gets_the_same_digits_every_time():
    line, call = line_of(1), Call()
    groups = [group(10, call=call) for _ in range(3)]
    line.put(groups)
    assert [taken(line, 0) for _ in groups] == [[each] for each in groups]


def test_a_shared_micro_batch_keeps_the_token_budget():
    line = line_of(1)
    for length in (300, 100, 1, 200, 150):
        line.put([group(length)])
    shared = [[part.n_tokens for part in take(line, 0).parts] for _ in range(2)]
    assert shared == [[300, 100], [1, 200, 150]]


def test_a_shared_micro_batch_keeps_to_the_number_of_sequences():
    line = line_of(1, max_batch_requests=4)
    for n_sequences in (2, 3, 1, 1, 1):
        line.put([group(*[2] * n_sequences)])
    counts = [[len(part.sequences) for part in take(line, 0).parts] for _ in range(2)]
    assert counts == [[2, 1, 1], [3, 1]]


def test_a_group_that_does_not_fit_stays_whole_and_keeps_its_place():
    line = line_of(1)
    first, wide, later = group(300), group(90, 80), group(100)
    for each in (first, wide, later):
        line.put([each])
    assert taken(line, 0) == [first, later]
    assert taken(line, 0) == [wide]


def test_bulk_groups_do_not_ride_with_interactive_ones_but_these_with_them():
    line = line_of(1)
    line.put([group(10), group(10)])
    for _ in range(FAIR_TURNS + 2):
        line.put([group(BUDGET, priority="interactive")])
    for _ in range(FAIR_TURNS):
        assert [part.call.priority for part in taken(line, 0)] == ["interactive"]
    line.put([rider := group(20, priority="interactive")])
    assert rider in taken(line, 0)


def test_pairs_and_plain_texts_do_not_share():
    line = line_of(1)
    groups = [group(4, types=True), group(4), group(4, types=True), group(4)]
    for each in groups:
        line.put([each])
    work = take(line, 0)
    assert [part.group for part in work.parts] == [groups[0], groups[2]]
    assert all(part.token_types is not None for part in work.parts)
    assert taken(line, 0) == [groups[1], groups[3]]


def test_little_work_is_shared_among_idle_workers():
    line = line_of(2)
    workers = [Worker(line, number) for number in range(2)]
    assert all(worker.waits() for worker in workers)
    line.put([group(50, priority="interactive") for _ in range(8)])
    assert [worker.got().n_tokens for worker in workers] == [200, 200]


# ── bulk work while interactive callers are there ────────────────────────────────────────────


@pytest.fixture
def visited():
    """A line that an interactive caller has just been at."""
    line = line_of(1)
    line.put([group(1, priority="interactive")])
    answer(take(line, 0))
    return line


def test_a_bulk_group_is_divided_while_interactive_callers_are_there(visited):
    lengths = range(28, 0, -1)
    divided = group(*lengths)
    visited.put([divided])
    works = []
    while not divided.rows.done():
        works.append(take(visited, 0))
        answer(works[-1])
    assert len(works) > SHRINK
    assert max(work.n_tokens for work in works) <= BUDGET // SHRINK
    np.testing.assert_array_equal(divided.rows.result(0), list(enumerate(lengths)))


def test_the_bulk_call_of_an_interactive_caller_is_not_divided_for_its_own_sake():
    """It waits for this call now; and what it gets must not depend on what it asked before."""
    line, caller = line_of(1), object()
    line.put([group(1, call=Call("interactive", caller=caller))])
    answer(take(line, 0))
    line.put([group(*[100] * 4, call=Call("bulk", caller=caller))])
    assert take(line, 0).n_tokens == BUDGET


def test_parts_may_come_back_in_any_order(visited):
    divided = group(*[BUDGET // SHRINK] * 5)
    visited.put([divided])
    works = [take(visited, 0) for _ in range(5)]
    for number in (3, 0, 4, 2):
        answer(works[number])
        assert not divided.rows.done()
    answer(works[1])
    np.testing.assert_array_equal(divided.rows.result(0)[:, 0], range(5))


def test_other_bulk_calls_do_not_fill_up_what_was_made_small(visited):
    for _ in range(8):
        visited.put([group(BUDGET // 8)])
    assert take(visited, 0).n_tokens <= BUDGET // SHRINK


def test_bulk_groups_are_whole_again_when_interactive_callers_are_gone(visited, monkeypatch):
    monkeypatch.setattr(waiting, "PRESENCE_S", 0.0)
    whole = group(*[BUDGET // 4] * 4)
    visited.put([whole])
    assert take(visited, 0).n_tokens == BUDGET


def test_a_text_over_the_small_budget_goes_alone(visited):
    visited.put([group(BUDGET, 3)])
    assert [take(visited, 0).n_tokens for _ in range(2)] == [BUDGET, 3]


def test_a_part_that_fails_fails_its_group_and_the_rest_is_not_computed(visited):
    divided, other = group(100, 100, 100), group(90)
    visited.put([divided])
    first = take(visited, 0)
    divided.fail(DecodeError("no", status=-3))
    divided.fail(ContextError("told second, and so not told"))
    answer(first)
    visited.put([other])
    assert taken(visited, 0) == [other]
    assert isinstance(divided.rows.exception(0), DecodeError)


def test_the_rest_of_a_divided_group_is_not_computed_when_its_call_is_cancelled(visited):
    divided, other = group(100, 100, 100), group(90)
    visited.put([divided])
    answer(take(visited, 0))
    divided.call.cancel()
    visited.put([other])
    assert taken(visited, 0) == [other]
    assert isinstance(divided.rows.exception(0), ContextError)


# ── what nobody waits for ────────────────────────────────────────────────────────────────────


def test_what_is_over_before_it_is_taken_is_left_out():
    line = line_of(1)
    cancelled, late = group(10), group(10, call=Call(timeout_s=0))
    taken_back, wanted, rider = group(10), group(10), group(10)
    line.put([cancelled, late])
    for each in (taken_back, wanted, rider):
        line.put([each])
    cancelled.call.cancel()
    taken_back.rows.cancel()
    assert taken(line, 0) == [wanted, rider]
    for each in (cancelled, late, taken_back):
        assert each.rows.cancelled()
        assert each.queue_s == 0.0


def test_riders_that_are_over_take_no_room():
    line = line_of(1)
    groups = [group(BUDGET // 2) for _ in range(4)]
    for each in groups:
        line.put([each])
    groups[1].call.cancel()
    assert taken(line, 0) == [groups[0], groups[2]]


def test_a_worker_waits_when_all_that_waited_is_over():
    line = line_of(1)
    late = group(5, call=Call(timeout_s=0))
    line.put([late])
    worker = Worker(line, 0)
    assert worker.waits()
    line.put([wanted := group(5)])
    assert [part.group for part in worker.got().parts] == [wanted]


def test_many_that_are_over_do_not_keep_others_from_the_line():
    """What was linear in the front of a dict was quadratic in all."""
    line, call = line_of(1), Call("interactive", caller=object())
    line.put([group(5, call=call) for _ in range(50_000)])
    call.cancel()  # which takes none of them out
    worker = Worker(line, 0)
    longest = 0.0
    while (left := len(line._lanes["interactive"])) > 1:
        start = time.perf_counter()
        line.put([group(BUDGET)])
        longest = max(longest, time.perf_counter() - start)
        time.sleep(0.001)
        assert len(line._lanes["interactive"]) <= left
    assert longest < 0.5
    assert worker.got().parts[0].group.call is not call


def test_what_is_taken_back_leaves_with_the_next_visit():
    line = line_of(1)
    groups = [group(10) for _ in range(4)]
    line.put(groups)
    with line._lock:  # as when the garbage collector ends a dropped stream on such a thread
        line.take_back(groups[:1])
    line.put([another := group(10)])
    assert [*line._lanes["bulk"]] == [*groups[1:], another]
    line.take_back(groups[:2])  # once more does no harm
    assert taken(line, 0) == [groups[2], groups[3], another]


def test_however_many_are_taken_back_a_worker_that_waits_holds_none():
    line = line_of(1)
    groups = [group(10) for _ in range(5000)]
    line.put(groups)
    line.take_back([each for each in groups if each.rows.cancel()])
    worker = Worker(line, 0)
    assert worker.waits()
    end = time.monotonic() + 10.0
    while line._unwanted:  # some hundred are left out at a time
        assert time.monotonic() < end
        time.sleep(0.01)
    line.put([wanted := group(5)])
    assert [part.group for part in worker.got().parts] == [wanted]


# ── threads ──────────────────────────────────────────────────────────────────────────────────


def test_a_text_alone_gets_all_threads():
    for length in (5, 300, FULL):
        line = line_of(4, n_threads=4)
        line.put([group(length, priority="interactive")])
        assert take(line, 0).n_threads == 4


def test_a_short_text_alone_gets_no_more_threads_than_are_good_for_one():
    line = line_of(4, n_threads=4, single=Layout(1, 2, BUDGET))
    line.put([group(5, priority="interactive")])
    assert take(line, 0).n_threads == 2


def test_threads_that_were_set_for_every_kind_of_work_are_not_exceeded():
    many = Layout(2, 1, BUDGET)
    line = WaitingLine(Layouts.of_one(many), max_batch_requests=8, worker_tokens=[FULL, FULL])
    for length in (5, 300, FULL):
        line.put([group(length, priority="interactive")])
        assert take(line, 0).n_threads == 1


def test_with_something_to_do_for_all_each_worker_gets_its_share():
    line = line_of(4, n_threads=4)
    workers = [Worker(line, number) for number in range(4)]
    assert all(worker.waits() for worker in workers)
    line.put([group(300) for _ in range(8)])
    assert [worker.got().n_threads for worker in workers] == [1] * 4
    assert [take(line, number).n_threads for number in range(4)] == [1] * 4


def test_bulk_work_waits_for_a_thread():
    line = line_of(2)
    line.put([group(300)])
    assert take(line, 0).n_threads == 2
    line.put([second := group(300)])
    other = Worker(line, 1)
    assert other.waits()
    assert taken(line, 0) == [second]


def test_interactive_texts_do_not_wait_for_a_long_one_that_holds_all_threads():
    """However many of them come, and whatever else waits."""
    line = line_of(2)
    line.put([group(FULL)])
    assert take(line, 0).n_threads == 2
    line.put([group(50)])
    for _ in range(2 * FAIR_TURNS):
        line.put([single := group(5, priority="interactive")])
        work = take(line, 1)
        assert [part.group for part in work.parts] == [single]
        assert work.n_threads == 1


def test_side_workers_never_get_a_text_over_their_limit():
    line = line_of(2)
    lengths = [SIDE + 1, 3, FULL, SIDE, 2000, 7]
    groups = [group(length, priority="interactive") for length in lengths]
    for each in groups:
        line.put([each])
    assert taken(line, 1) == [groups[1], groups[5]]
    assert taken(line, 1) == [groups[3]]
    assert [taken(line, 0) for _ in range(3)] == [[groups[0]], [groups[2]], [groups[4]]]


# ── waking ───────────────────────────────────────────────────────────────────────────────────


def test_one_text_wakes_one_worker():
    line = line_of(4, n_threads=4)
    workers = [Worker(line, number) for number in range(4)]
    assert all(worker.waits() for worker in workers)
    line.put([group(5, priority="interactive")])
    assert workers[0].got().n_tokens == 5
    assert all(worker.waits() for worker in workers[1:])
    line.close()
    assert [worker.got() for worker in workers[1:]] == [None] * 3


def test_a_worker_that_can_take_nothing_wakes_one_that_can():
    """The first worker waits for a thread that the second one holds, who cannot take the text."""
    line = line_of(2)
    line.put([group(SIDE)])
    assert take(line, 1).n_threads == 2
    first = Worker(line, 0)
    assert first.waits()
    line.put([long := group(FULL)])
    second = Worker(line, 1)
    assert [part.group for part in first.got().parts] == [long]
    assert second.waits()


def test_workers_that_wait_for_threads_are_woken_when_these_are_free():
    line = line_of(3, n_threads=3)
    line.put([group(300)])
    assert take(line, 0).n_threads == 3
    waiting_ones = [Worker(line, number) for number in (1, 2)]
    line.put([group(300) for _ in range(3)])
    assert all(worker.waits() for worker in waiting_ones)
    assert take(line, 0).n_tokens == 300
    assert [worker.got().n_tokens for worker in waiting_ones] == [300, 300]


# ── the end ──────────────────────────────────────────────────────────────────────────────────


def test_a_closed_line_fails_what_waits_and_sends_workers_home(visited):
    divided, whole, gone = group(100, 100, 100), group(10), group(10)
    visited.put([divided])
    begun = take(visited, 0)
    visited.put([whole, gone])
    gone.rows.cancel()
    visited.close()
    visited.close()
    answer(begun)  # it was on its way; there is nobody left to give it to
    for each in (divided, whole):
        with pytest.raises(ContextError, match="unloaded before"):
            each.rows.result(0)
    assert gone.rows.cancelled()
    assert take(visited, 0) is None
    with pytest.raises(ContextError, match="being unloaded"):
        visited.put([group(3)])


def test_what_a_worker_has_begun_is_delivered_after_the_line_is_closed():
    line = line_of(1)
    line.put([begun := group(5, 3)])
    work = take(line, 0)
    line.close()
    answer(work)
    np.testing.assert_array_equal(begun.rows.result(0), [[0, 5], [1, 3]])
