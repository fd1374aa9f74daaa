"""One call's view of a cache that other calls use at the same moment."""

from dataclasses import dataclass

import numpy as np
import pytest

from embellama.cache.flight import Flights
from embellama.calls import Call
from embellama.lookup import CacheAccess
from embellama.types import CachedVector

N_EMBD = 3


@dataclass
class Encoder:
    prompt: str = ""


@dataclass
class Request:
    """As much of a request as keys depend on."""

    encoder: Encoder
    cache_policy: str = "error"


class DictCache:
    def __init__(self):
        self.values = {}
        self.asked = []

    def get_many(self, keys):
        self.asked.append(list(keys))
        return [self.values.get(key) for key in keys]

    def put_many(self, items):
        self.values.update(items)


def vector(number, n_embd=N_EMBD):
    return CachedVector(np.full(n_embd, number, dtype=np.float32), 5)


def access_to(cache, flights, *, fingerprint="f", prompt="", policy="error"):
    request = Request(Encoder(prompt), policy)
    return CacheAccess(
        cache, flights, model_fingerprint=fingerprint, request=request, n_embd=N_EMBD
    )


@pytest.fixture
def cache():
    return DictCache()


@pytest.fixture
def access(cache):
    return access_to(cache, Flights())


def test_keys_differ_by_model_prompt_policy_and_input(cache):
    flights = Flights()
    ids = np.array([1, 2], np.int32)
    views = [
        access_to(cache, flights),
        access_to(cache, flights, fingerprint="g"),
        access_to(cache, flights, prompt="p"),
        access_to(cache, flights, policy="truncate"),
    ]
    keys = [key for view in views for key in view.keys(["a", "b", ids])]
    assert len(set(keys)) == 12


def test_a_call_computes_what_is_not_there_and_keeps_it(cache, access):
    keys = access.keys(["a", "b"])
    cache.values[keys[0]] = vector(1)
    with access.call(Call()) as call:
        call.claim(keys)
        assert call.found == {keys[0]: cache.values[keys[0]]}
        assert call.missing == [keys[1]]
        call.keep([(keys[1], vector(2))])
        assert call.wait() == ({}, [])
    assert access.look_up(keys)[keys[1]].vector[0] == 2


@pytest.mark.parametrize("shape", [(2,), (4,), (1, 3), ()])
def test_a_vector_of_another_shape_is_missing(cache, access, shape):
    (key,) = access.keys(["a"])
    cache.values[key] = CachedVector(np.zeros(shape, dtype=np.float32), 5)
    assert access.look_up([key]) == {}
    with access.call(Call()) as call:
        call.claim([key])
        assert call.missing == [key]


def test_what_another_call_computes_is_waited_for(access):
    keys = access.keys(["a", "b", "c"])
    with access.call(Call()) as first, access.call(Call()) as second:
        first.claim(keys[:2])
        _another_threads(second)
        second.claim(keys)
        assert second.missing == [keys[2]]
        first.keep([(keys[0], vector(1)), (keys[1], vector(2))])
        arrived, left = second.wait()
    assert {key: value.vector[0] for key, value in arrived.items()} == {keys[0]: 1, keys[1]: 2}
    assert left == []


def _another_threads(call):
    """Let a call look as if another thread had begun it, whose end it may wait for."""
    call._flight._thread += 1


def test_what_another_call_gave_up_is_left_to_claim_anew(access):
    keys = access.keys(["a"])
    with access.call(Call()) as second:
        _another_threads(second)
        with pytest.raises(RuntimeError, match="gone"), access.call(Call()) as first:
            first.claim(keys)
            second.claim(keys)
            assert second.missing == []
            raise RuntimeError("gone")
        assert second.wait() == ({}, keys)
        second.claim(keys)
        assert second.missing == keys


def test_what_came_between_the_question_and_the_claim_is_found(cache, access):
    """Another call ends after this one has asked the cache and before it claims."""
    (key,) = access.keys(["a"])
    first, second = access.call(Call()), access.call(Call())
    get_many = cache.get_many
    with first, second:
        first.claim([key])

        def late(keys):
            found = get_many(keys)
            if len(cache.asked) == 2:  # the second call's first question: nothing yet
                first.keep([(key, vector(9))])
            return found

        cache.get_many = late
        second.claim([key])
        assert second.missing == []
        assert second.found[key].vector[0] == 9
    with access.call(Call()) as third:  # and the claim made meanwhile is not left behind
        cache.values.clear()
        third.claim([key])
        assert third.missing == [key]


def test_a_cache_that_raises_leaves_no_claim(cache, access):
    keys = access.keys(["a"])

    def fail(items):
        raise OSError("full")

    cache.put_many = fail
    with pytest.raises(OSError, match="full"), access.call(Call()) as call:
        call.claim(keys)
        call.keep([(keys[0], vector(1))])
    with access.call(Call()) as other:
        _another_threads(other)
        other.claim(keys)
        assert other.missing == keys
