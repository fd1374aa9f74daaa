import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from embellama.cache.flight import Flights
from embellama.cache.memory import MemoryCache
from embellama.calls import Call
from tests.unit.cache.vectors import is_right, key_of, keys_of, value_of

NUMBERS = {key_of(number): number for number in range(100)}


class Computer:
    """Computes keys, counts how often each was, and can be held up."""

    def __init__(self) -> None:
        self.computed: list[int] = []
        self.begun = threading.Event()
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.error: BaseException | None = None

    def __call__(self, keys):
        self.begun.set()
        assert self.may_go_on.wait(20)
        if self.error is not None:
            raise self.error
        self.computed += [NUMBERS[key] for key in keys]
        return [value_of(NUMBERS[key]) for key in keys]


def get_or_compute(cache, flights, keys, compute):
    """Go the whole way of a call: the cache, its own keys, and then those of others."""
    found = {}

    def take_cached(keys):
        values = zip(keys, cache.get_many(keys), strict=True)
        found.update((key, value) for key, value in values if value is not None)
        return [key for key in keys if key not in found]

    with flights.call() as call:
        wanted = take_cached(keys)
        while wanted:
            mine, others = call.claim(wanted)
            if call.may_have_missed():
                absent = take_cached(mine)
                call.fulfil([(key, found[key]) for key in mine if key in found])
                mine = absent
            if mine:
                fresh = list(zip(mine, compute(mine), strict=True))
                cache.put_many(fresh)
                call.fulfil(fresh)
                found.update(fresh)
            arrived, wanted = call.wait(others)
            found.update(arrived)
    return [found[key] for key in keys]


@pytest.fixture
def flights():
    return Flights()


@pytest.fixture
def cache():
    return MemoryCache()


def test_repeated_keys_are_computed_once_and_come_in_order(flights, cache):
    compute = Computer()
    values = get_or_compute(cache, flights, keys_of([3, 1, 3, 2, 1]), compute)
    assert all(map(is_right, values, [3, 1, 3, 2, 1]))
    assert compute.computed == [3, 1, 2]
    get_or_compute(cache, flights, keys_of([1, 2, 4]), compute)
    assert compute.computed == [3, 1, 2, 4]
    assert flights.claims == {}


def test_threads_that_miss_the_same_keys_compute_them_once(flights, cache):
    compute = Computer()

    def work(seed: int) -> None:
        numbers = [(n * seed) % 97 for n in range(97)]
        for start in range(0, 97, 13):
            some = numbers[start : start + 13]
            assert all(map(is_right, get_or_compute(cache, flights, keys_of(some), compute), some))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, [1, 2, 3, 5, 8, 13, 21, 34]))
    assert sorted(compute.computed) == list(range(97))
    assert flights.claims == {}


def test_a_call_that_asked_the_cache_too_early_asks_again(flights, cache):
    """One that misses, is overtaken by a whole computation, and only then claims."""
    first, second = Computer(), Computer()

    class Overtaken(MemoryCache):
        asked = False

        def get_many(self, keys):
            found = cache.get_many(keys)
            if not self.asked:
                self.asked = True
                get_or_compute(cache, flights, keys, first)
            return found

    values = get_or_compute(Overtaken(), flights, keys_of([1, 2]), second)
    assert all(map(is_right, values, [1, 2]))
    assert (first.computed, second.computed) == ([1, 2], [])


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), KeyboardInterrupt()])
def test_a_waiter_whose_leader_failed_computes_itself(flights, cache, error):
    leader, waiter = Computer(), Computer()
    leader.may_go_on.clear()
    leader.error = error

    def lead() -> None:
        with pytest.raises(type(error)):
            get_or_compute(cache, flights, keys_of([1, 2]), leader)

    with ThreadPoolExecutor(2) as pool:
        leading = pool.submit(lead)
        assert leader.begun.wait(20)
        waiting = pool.submit(get_or_compute, cache, flights, keys_of([2, 3]), waiter)
        assert waiter.begun.wait(20)
        leader.may_go_on.set()
        leading.result(20)
        assert all(map(is_right, waiting.result(20), [2, 3]))
    assert sorted(waiter.computed) == [2, 3]
    assert flights.claims == {}


def test_calls_that_want_each_others_keys_do_not_wait_for_ever(flights, cache):
    with ThreadPoolExecutor(2) as pool:
        for _ in range(200):
            compute = Computer()
            forth = pool.submit(get_or_compute, cache, flights, keys_of(range(6)), compute)
            back = pool.submit(get_or_compute, cache, flights, keys_of(range(5, -1, -1)), compute)
            assert all(map(is_right, forth.result(20), range(6)))
            assert all(map(is_right, back.result(20), range(5, -1, -1)))
            assert sorted(compute.computed) == list(range(6))
            cache.clear()


def test_a_call_inside_which_another_runs_is_not_waited_for(flights):
    with flights.call() as outer:
        outer.claim(keys_of([1]))
        with flights.call() as inner:
            assert inner.claim(keys_of([1, 2])) == (keys_of([1, 2]), {})


def test_a_leader_that_hangs_is_waited_for_only_so_long(flights):
    claimed, done = threading.Event(), threading.Event()

    def hang() -> None:
        with flights.call() as call:
            call.claim(keys_of([1]))
            claimed.set()
            assert done.wait(20)

    thread = threading.Thread(target=hang)
    thread.start()
    assert claimed.wait(20)
    with flights.call() as call:
        mine, others = call.claim(keys_of([1]))
        assert (mine, list(others)) == ([], keys_of([1]))
        assert call.wait(others, timeout_s=0.05) == ({}, keys_of([1]))
        assert call.claim(keys_of([1])) == (keys_of([1]), {})
        call.fulfil([(key_of(1), value_of(1))])  # nobody waits for a claim that is not registered
    done.set()
    thread.join()
    assert flights.claims == {}


def test_a_leader_is_waited_for_as_long_as_vectors_arrive(flights):
    """Ten of them take over twice as long as is waited for one."""
    numbers = range(10)
    claimed = threading.Event()

    def lead() -> None:
        with flights.call() as call:
            call.claim(keys_of(numbers))
            claimed.set()
            for number in numbers:
                time.sleep(0.25)
                call.fulfil([(key_of(number), value_of(number))])

    with ThreadPoolExecutor(1) as pool:
        leading = pool.submit(lead)
        assert claimed.wait(20)
        with flights.call() as call:
            _, others = call.claim(keys_of(numbers))
            start = time.monotonic()
            arrived, left = call.wait(others, timeout_s=1.0)
            assert time.monotonic() - start > 2.0
        leading.result(20)
    assert (list(arrived), left) == (keys_of(numbers), [])


def test_what_arrived_before_a_leader_hangs_is_taken(flights):
    claimed, awaited, done = threading.Event(), threading.Event(), threading.Event()

    def lead() -> None:
        with flights.call() as call:
            call.claim(keys_of([1, 2]))
            claimed.set()
            assert awaited.wait(20)
            call.fulfil([(key_of(1), value_of(1))])
            assert done.wait(20)

    with ThreadPoolExecutor(1) as pool:
        leading = pool.submit(lead)
        assert claimed.wait(20)
        with flights.call() as call:
            _, others = call.claim(keys_of([1, 2]))
            awaited.set()
            arrived, left = call.wait(others, timeout_s=0.5)
            assert (list(arrived), left) == (keys_of([1]), keys_of([2]))
            assert call.claim(left) == (keys_of([2]), {})
        done.set()
        leading.result(20)


def test_what_a_call_computes_itself_it_has_not_missed(flights):
    with flights.call() as call:
        call.claim(keys_of([1]))
        call.fulfil([(key_of(1), value_of(1))])
        assert not call.may_have_missed()
        with flights.call() as other:
            other.claim(keys_of([2]))
        assert call.may_have_missed()
        assert not call.may_have_missed()


def test_an_interactive_call_computes_what_a_bulk_call_may_reach_much_later():
    flights, keys = Flights(), keys_of(range(3))
    calls = [flights.call(Call(kind)) for kind in ("bulk", "interactive", "bulk", "interactive")]
    for number, call in enumerate(calls):
        call._thread = number  # as if each ran on a thread of its own
    bulk, urgent, third, fourth = calls
    assert bulk.claim(keys) == (keys, {})
    assert urgent.claim(keys[2:]) == (keys[2:], {})
    urgent.fulfil([(keys[2], value_of(2))])
    mine, others = third.claim(keys)  # the first one's claims stand
    assert (mine, list(others)) == ([], keys)
    other = key_of(9)
    fourth.claim([other])
    assert list(third.claim([other])[1]) == [other]
