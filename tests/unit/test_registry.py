import threading
import time
from contextlib import ExitStack, contextmanager, suppress

import pytest
from structlog.testing import capture_logs

from embellama.errors import ContextError, ModelLoadError, ModelNotFoundError, OverloadedError
from embellama.registry import ModelRegistry


class Weights:
    def __init__(self, memory_bytes: int = 10) -> None:
        self.memory_bytes = memory_bytes
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


def load(registry, name, key="file", *, n_bytes=10):
    return registry.load(name, key, lambda: Weights(n_bytes), n_bytes=n_bytes)


@contextmanager
def leased_elsewhere(registry, name):
    """Hold a model on another thread."""
    holding, release = threading.Event(), threading.Event()

    def hold():
        with registry.lease(name):
            holding.set()
            release.wait(20)

    thread = threading.Thread(target=hold)
    thread.start()
    assert holding.wait(5)
    try:
        yield
    finally:
        release.set()
        thread.join(5)


def test_an_unknown_name_says_what_is_loaded():
    registry = ModelRegistry()
    load(registry, "a")
    with pytest.raises(ModelNotFoundError, match="'b' is loaded; loaded: 'a'"):
        registry.lease("b").__enter__()


def test_the_same_model_is_loaded_once_however_many_threads_ask():
    registry, opened = ModelRegistry(), []

    def open_slowly():
        opened.append(1)
        time.sleep(0.05)
        return Weights()

    threads = [
        threading.Thread(
            target=registry.load, args=("a", "file", open_slowly), kwargs={"n_bytes": 1}
        )
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 1


def test_a_load_that_fails_leaves_what_was_there():
    registry = ModelRegistry()
    first = load(registry, "a")
    with pytest.raises(ModelLoadError):
        registry.load("a", "other", lambda: (_ for _ in ()).throw(ModelLoadError("no")), n_bytes=1)
    with registry.lease("a") as lease:
        assert lease.model is first
    assert not first.closed
    assert load(registry, "a", "third") is not first


def test_another_file_under_a_name_swaps_and_the_old_one_ends_with_its_work():
    registry = ModelRegistry()
    old = load(registry, "a", "one")
    with registry.lease("a") as held:
        new = load(registry, "a", "two")
        with registry.lease("a") as now:
            assert now.model is new
        assert held.model is old
        assert not old.closed
    assert old.closed == 1
    assert not new.closed


def test_an_idle_model_is_freed_by_a_swap_at_once():
    registry = ModelRegistry()
    old = load(registry, "a", "one")
    load(registry, "a", "two")
    assert old.closed == 1


def test_unloading_waits_for_the_work_that_runs():
    registry = ModelRegistry()
    model = load(registry, "a")
    holding, release = threading.Event(), threading.Event()

    def work():
        with registry.lease("a"):
            holding.set()
            release.wait(5)

    worker = threading.Thread(target=work)
    worker.start()
    holding.wait(5)
    unloading = threading.Thread(target=registry.unload, args=("a",), kwargs={"timeout_s": 5})
    unloading.start()
    time.sleep(0.05)
    assert not model.closed
    with pytest.raises(ModelNotFoundError):
        registry.lease("a").__enter__()
    release.set()
    unloading.join(5)
    worker.join(5)
    assert model.closed == 1


def test_unloading_refuses_after_its_time_out_and_the_model_stays():
    registry = ModelRegistry()
    model = load(registry, "a")
    with (
        leased_elsewhere(registry, "a"),
        registry.lease("a"),
        pytest.raises(OverloadedError, match=r"1 call\(s\) after 0\.05 s"),
    ):
        registry.unload("a", timeout_s=0.05)
    assert not model.closed
    registry.unload("a", timeout_s=0)
    assert model.closed == 1


def test_unloading_does_not_wait_for_the_thread_that_unloads():
    """Where an event loop unloads, its own awaited calls cannot end meanwhile."""
    registry = ModelRegistry()
    model = load(registry, "a")
    with registry.lease("a"), registry.lease("a"):
        start = time.monotonic()
        registry.unload("a", timeout_s=20)
        assert time.monotonic() - start < 5
        assert not model.closed
        assert registry.names() == []
        newer = load(registry, "a")
    assert (model.closed, newer.closed) == (1, 0)


def test_unloading_waits_for_a_suspended_lease_of_its_own_thread():
    """A stream that was left open: it may be read on."""
    registry = ModelRegistry()
    model = load(registry, "a")
    with registry.lease("a") as lease:
        lease.suspend()
        with pytest.raises(OverloadedError, match=r"1 call\(s\)"):
            registry.unload("a", timeout_s=0.01)
    assert not model.closed


@pytest.mark.parametrize("is_use", [True, False])
def test_a_model_can_be_freed_on_another_thread_than_its_last_lease_ends_on(is_use):
    registry, closed_on = ModelRegistry(), []
    closed = threading.Event()

    class Noting(Weights):
        def close(self):
            closed_on.append(threading.get_ident())
            closed.set()

    registry.load("a", "one", Noting, n_bytes=1)
    with registry.lease("a", is_use=is_use) as lease:
        if is_use:
            lease.frees_elsewhere = True  # who only looks never frees
        load(registry, "a", "two")
    assert closed.wait(5)
    assert closed_on != [threading.get_ident()]


def test_it_is_freed_all_the_same_where_no_thread_can_be_started(monkeypatch):
    registry = ModelRegistry()
    model = load(registry, "a")

    def refused(self):
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refused)
    with registry.lease("a") as lease:
        lease.frees_elsewhere = True
        registry.unload("a", timeout_s=0)
    assert model.closed == 1


def test_a_name_taken_while_an_unload_waited_keeps_its_new_model():
    registry = ModelRegistry()
    old = load(registry, "a")
    with registry.lease("a"):
        failed = []

        def unload():
            try:
                registry.unload("a", timeout_s=0.2)
            except OverloadedError as exc:
                failed.append(exc)

        thread = threading.Thread(target=unload)
        thread.start()
        while registry.names():
            time.sleep(0.001)
        new = load(registry, "a", "two")
        thread.join()
        assert failed
    assert old.closed == 1
    with registry.lease("a") as lease:
        assert lease.model is new


def test_the_least_recently_used_idle_model_makes_room():
    registry = ModelRegistry(memory_limit_bytes=25)
    a, b = load(registry, "a"), load(registry, "b")
    with registry.lease("a"):
        pass
    load(registry, "c")
    assert registry.names() == ["a", "c"]
    assert (a.closed, b.closed) == (0, 1)


def test_looking_at_a_model_does_not_make_it_a_recently_used_one():
    registry = ModelRegistry(memory_limit_bytes=25)
    load(registry, "a")
    load(registry, "b")
    with registry.lease("a", is_use=False):
        pass
    load(registry, "c")
    assert registry.names() == ["b", "c"]


def test_a_model_counts_once_at_every_moment_of_its_load(monkeypatch):
    """Else a load of another one at the same time is refused wrongly."""
    registry = ModelRegistry(memory_limit_bytes=20)
    publish = registry._publish

    def publish_and_load_another(name, entry):
        idle = publish(name, entry)
        monkeypatch.undo()
        load(registry, "b")
        return idle

    monkeypatch.setattr(registry, "_publish", publish_and_load_another)
    load(registry, "a")
    assert registry.names() == ["a", "b"]


def test_a_load_that_ends_leaves_the_next_ones_reservation(monkeypatch):
    """Between publishing and the end of a load, another load of that name may have begun."""
    registry = ModelRegistry(memory_limit_bytes=100)
    publish, opening, opened = registry._publish, threading.Event(), threading.Event()

    def open_slowly():
        opening.set()
        assert opened.wait(5)
        return Weights()

    def load_again():
        registry.load("a", "two", open_slowly, n_bytes=90)

    thread = threading.Thread(target=load_again)

    def publish_and_load_again(name, entry):
        idle = publish(name, entry)
        monkeypatch.undo()
        thread.start()
        assert opening.wait(5)
        return idle

    monkeypatch.setattr(registry, "_publish", publish_and_load_again)
    load(registry, "a", "one")
    with pytest.raises(OverloadedError):
        load(registry, "b", n_bytes=20)
    opened.set()
    thread.join(5)
    assert registry.names() == ["a"]


def test_models_in_use_are_not_evicted():
    registry = ModelRegistry(memory_limit_bytes=15)
    load(registry, "a")
    with (
        registry.lease("a"),
        pytest.raises(OverloadedError, match="needs about 10 bytes, 10 of the 15"),
    ):
        load(registry, "b")
    load(registry, "b")
    assert registry.names() == ["b"]


def test_a_load_may_wait_for_memory_that_is_in_use():
    registry = ModelRegistry(memory_limit_bytes=15)
    load(registry, "a")
    with ExitStack() as held:
        held.enter_context(leased_elsewhere(registry, "a"))
        threading.Timer(0.1, held.close).start()
        registry.load("b", "file", Weights, n_bytes=10, wait_s=60.0)
    assert registry.names() == ["b"]


def test_a_load_waits_for_memory_no_longer_than_it_may():
    registry = ModelRegistry(memory_limit_bytes=15)
    load(registry, "a")
    with registry.lease("a"):
        start = time.monotonic()
        with pytest.raises(OverloadedError):
            registry.load("b", "file", Weights, n_bytes=10, wait_s=0.1)
        assert 0.1 <= time.monotonic() - start < 10.0


def test_closing_ends_a_wait_for_memory():
    registry, ended = ModelRegistry(memory_limit_bytes=15), []
    load(registry, "a")

    def ask():
        with pytest.raises(ContextError, match="closed while 'b'"):
            registry.load("b", "file", Weights, n_bytes=10, wait_s=60.0)
        ended.append(True)

    thread = threading.Thread(target=ask)
    with leased_elsewhere(registry, "a"):
        thread.start()
        time.sleep(0.05)
        registry.close()
        thread.join(10)
        assert ended


def test_who_waits_for_memory_takes_what_another_one_loaded_meanwhile():
    registry, loaded = ModelRegistry(memory_limit_bytes=15), []
    load(registry, "a")

    def ask():
        loaded.append(registry.load("b", "file", Weights, n_bytes=10, wait_s=60.0))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    with leased_elsewhere(registry, "a"):
        for thread in threads:
            thread.start()
        time.sleep(0.05)
    for thread in threads:
        thread.join(10)
    assert len(loaded) == 3
    assert len(set(map(id, loaded))) == 1


def test_a_model_over_the_limit_is_refused_with_the_numbers():
    registry = ModelRegistry(memory_limit_bytes=15)
    with pytest.raises(ModelLoadError, match="needs about 20 bytes and the memory limit is 15"):
        load(registry, "a", n_bytes=20)


def test_the_model_under_the_name_itself_goes_last_for_room():
    registry = ModelRegistry(memory_limit_bytes=25)
    old, other = load(registry, "a"), load(registry, "b")
    load(registry, "a", "two")
    assert (old.closed, other.closed) == (1, 1)
    assert registry.names() == ["a"]


def test_models_that_end_with_their_work_still_count():
    registry = ModelRegistry(memory_limit_bytes=25)
    load(registry, "a", "one")
    with registry.lease("a"):
        load(registry, "a", "two")
        with registry.lease("a"), pytest.raises(OverloadedError, match="20 of the 25"):
            load(registry, "b")


@pytest.mark.parametrize("timeout_s", [float("inf"), 1e20])
def test_an_endless_time_out_is_one(timeout_s):
    registry = ModelRegistry()
    model = load(registry, "a")
    registry.unload("a", timeout_s=timeout_s)
    assert model.closed == 1


def test_an_unload_that_is_interrupted_keeps_the_model(monkeypatch):
    registry = ModelRegistry()
    model = load(registry, "a")

    def interrupted(*args):
        raise KeyboardInterrupt

    with registry.lease("a"), monkeypatch.context() as patch:
        patch.setattr(registry, "_wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            registry.unload("a", timeout_s=5)
    assert registry.names() == ["a"]
    registry.close()
    assert model.closed == 1


def test_closing_frees_the_idle_and_waits_for_the_rest():
    registry = ModelRegistry()
    idle, busy = load(registry, "idle"), load(registry, "busy")
    holding, release = threading.Event(), threading.Event()

    def work():
        with registry.lease("busy"):
            holding.set()
            release.wait(5)

    worker = threading.Thread(target=work)
    worker.start()
    holding.wait(5)
    with capture_logs() as logs:
        registry.close(timeout_s=0.05)
    assert (idle.closed, busy.closed) == (1, 0)
    assert logs == [
        {
            "event": "embellama.engine.outlived",
            "log_level": "warning",
            "n_calls": 1,
            "timeout_s": 0.05,
        }
    ]
    release.set()
    worker.join(5)
    assert busy.closed == 1
    registry.close()


def test_closing_does_not_wait_for_what_is_suspended():
    registry = ModelRegistry()
    model = load(registry, "a")
    with registry.lease("a") as lease:
        lease.suspend()
        start = time.monotonic()
        registry.close(timeout_s=30)
        assert time.monotonic() - start < 5
        assert not model.closed
    assert model.closed == 1


def test_a_load_that_ends_after_closing_is_freed_and_told():
    registry, opened = ModelRegistry(), []

    def open_late():
        registry.close()
        opened.append(Weights())
        return opened[0]

    with pytest.raises(ContextError, match="closed while 'a' was being loaded"):
        registry.load("a", "file", open_late, n_bytes=1)
    assert opened[0].closed == 1


@pytest.mark.parametrize("n_calls", range(1, 9))
def test_an_interrupt_at_any_step_of_a_lease_leaves_none_behind(n_calls):
    """Ctrl-C may end any call: here it ends one of the first that the registry's lock gets."""
    registry = ModelRegistry()
    model = load(registry, "a")
    left = [n_calls]

    class Interrupted(threading.Condition):
        def __exit__(self, *exc_info):
            super().__exit__(*exc_info)
            left[0] -= 1
            if left[0] == 0:
                raise KeyboardInterrupt

    registry._changed = Interrupted()
    with suppress(KeyboardInterrupt), registry.lease("a") as lease:
        lease.suspend()
        lease.resume()
    left[0] = 0
    start = time.monotonic()
    registry.close(timeout_s=20)
    assert time.monotonic() - start < 5
    assert model.closed == 1
