"""Who called: until when, how urgent, and whether there is room for one more."""

import threading
import time
from concurrent.futures import CancelledError

import numpy as np
import pytest

from embellama.calls import Admission, Call
from embellama.errors import ConfigurationError, EmbeddingTimeoutError, OverloadedError


def test_a_call_takes_any_time_unless_told():
    call = Call()
    assert call.priority == "bulk"
    assert not call.is_over
    assert call.remaining_s() is None
    assert call.remaining_s(at_most=3.0) == 3.0
    call.check()


@pytest.mark.parametrize("timeout_s", [-1, -0.001, float("nan"), "1", True, [1]])
def test_a_time_that_is_none_is_refused(timeout_s):
    with pytest.raises(ConfigurationError, match="timeout_s"):
        Call(timeout_s=timeout_s)


@pytest.mark.parametrize("priority", ["urgent", "", None, 1, ["bulk"]])
def test_a_priority_that_does_not_exist_is_refused(priority):
    with pytest.raises(ConfigurationError, match="'interactive' or 'bulk'"):
        Call(priority)


@pytest.mark.parametrize("timeout_s", [1e-9, 5, np.float64(2.5), 1e18, float("inf")])
def test_any_number_of_seconds_can_be_waited_for(timeout_s):
    left = Call(timeout_s=timeout_s).remaining_s()
    assert 0 <= left <= min(timeout_s, threading.TIMEOUT_MAX)
    threading.Event().wait(min(left, 0.001))


def test_no_time_at_all_is_over_at_once_and_says_so():
    call = Call("interactive", 0)
    assert call.is_over
    assert call.remaining_s() == 0
    with pytest.raises(EmbeddingTimeoutError, match="timeout_s = 0") as caught:
        call.check()
    assert caught.value.timeout_s == 0
    assert caught.value.retryable
    assert isinstance(caught.value, TimeoutError)


def test_what_remains_is_the_less_of_two():
    call = Call(timeout_s=100)
    assert 99 < call.remaining_s() <= 100
    assert call.remaining_s(at_most=7.0) == 7.0
    assert Call(timeout_s=1).remaining_s(at_most=60.0) <= 1


def test_a_cancelled_call_takes_its_work_back_once_and_is_over():
    call, told = Call(timeout_s=0), []
    call.on_cancel(lambda: told.append("work"))
    call.cancel()
    call.cancel()
    assert told == ["work"]
    assert call.is_over
    with pytest.raises(CancelledError):  # not the time-out, which nobody waits for
        call.check()


def test_work_of_a_call_that_was_cancelled_before_is_taken_back_at_once():
    call, told = Call(), []
    call.cancel()
    call.on_cancel(lambda: told.append("late"))
    assert told == ["late"]


def test_what_is_done_is_not_taken_back():
    """Two windows of a pipeline may be on their way and a wait for others; a call has thousands."""
    call, told = Call(), []
    ways = [lambda number=number: told.append(number) for number in range(1000)]
    for way in ways:
        call.on_cancel(way)
    for way in ways[:997]:
        call.off_cancel(way)
        call.off_cancel(way)  # no harm
    call.cancel()
    assert told == [997, 998, 999]
    call.off_cancel(ways[-1])


def test_taking_back_may_cancel_again_without_a_deadlock():
    call, told = Call(), []

    def take_back():
        call.cancel()
        call.on_cancel(lambda: told.append("inner"))

    call.on_cancel(take_back)
    done = threading.Thread(target=call.cancel, daemon=True)
    done.start()
    done.join(5)
    assert not done.is_alive()
    assert told == ["inner"]


def test_work_is_taken_back_however_submitting_and_cancelling_meet():
    for _ in range(300):
        call, told, start = Call(), [], threading.Barrier(2)

        def cancel(call=call, start=start):
            start.wait(5)
            call.cancel()

        thread = threading.Thread(target=cancel)
        thread.start()
        start.wait(5)
        call.on_cancel(lambda told=told: told.append(1))
        thread.join(5)
        assert told == [1]


def test_a_call_that_is_cancelled_while_it_is_checked_is_cancelled():
    class CancelledMeanwhile(Call):
        @property
        def is_over(self):
            self.cancel()
            return super().is_over

    with pytest.raises(CancelledError):
        CancelledMeanwhile().check()


def test_one_call_too_many_is_refused_and_room_is_given_back():
    admission = Admission(2)
    with admission:
        with admission, pytest.raises(OverloadedError, match="2 calls run or wait") as caught:
            admission.__enter__()
        assert caught.value.retryable
        with admission:
            pass


def test_room_is_given_back_after_an_error():
    admission = Admission(1)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt), admission:
            raise KeyboardInterrupt
    with admission:
        pass


def test_no_more_than_the_limit_are_inside_whoever_comes():
    admission, lock = Admission(3), threading.Lock()
    inside, most, refused = 0, 0, 0

    def come():
        nonlocal inside, most, refused
        for _ in range(50):
            try:
                with admission:
                    with lock:
                        inside += 1
                        most = max(most, inside)
                    time.sleep(0)
                    with lock:
                        inside -= 1
            except OverloadedError:
                with lock:
                    refused += 1

    threads = [threading.Thread(target=come) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert inside == 0
    assert 1 <= most <= 3
    with admission, admission, admission:
        pass
