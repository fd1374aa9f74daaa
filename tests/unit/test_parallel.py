import threading
import time

import pytest

from embellama._parallel import available_cores, map_threads


def test_order_is_kept_and_threads_are_used():
    seen = set()

    def slow_square(value):
        seen.add(threading.get_ident())
        time.sleep(0.01)
        return value * value

    assert map_threads(slow_square, list(range(20)), n_jobs=4) == [n * n for n in range(20)]
    assert len(seen) > 1


@pytest.mark.parametrize(("items", "n_jobs"), [([3], 4), ([3, 4, 5], 1), ([], 4)])
def test_little_work_stays_on_the_calling_thread(items, n_jobs):
    here = threading.get_ident()
    assert map_threads(lambda item: (item, threading.get_ident()), items, n_jobs=n_jobs) == [
        (item, here) for item in items
    ]


def test_an_error_is_raised():
    with pytest.raises(ZeroDivisionError):
        map_threads(lambda value: 1 / value, [1, 0, 2], n_jobs=2)


def test_there_is_a_core():
    assert available_cores() >= available_cores(physical=True) >= 1
