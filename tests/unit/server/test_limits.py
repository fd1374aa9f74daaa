"""Keys, token buckets and room."""

import hmac

import pytest

from embellama.errors import ConfigurationError
from embellama.server import limits
from embellama.server.limits import (
    BODIES_AT_ONCE,
    FREE_BODY_BYTES,
    MAX_CLIENTS,
    MAX_UNSENT_BYTES,
    Keys,
    Room,
    TokenBuckets,
    shown_key,
)
from embellama.server.problems import Problem


def written(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "keys"
    path.write_bytes(text.encode(encoding))
    return path


# ── keys ────────────────────────────────────────────────────────────────────────────────────


def test_a_file_of_keys_has_names_comments_and_blank_lines(tmp_path):
    path = written(
        tmp_path,
        "# who\n\nsearch: sk-search-1\n  sk-second-2  \n#x\nops: sk-third-33\na:b:c:fourth\n",
    )
    keys = Keys.read(path, ["sk-from-env", "ci: sk-of-the-ci"])
    assert keys.name_of(b"sk-search-1") == "search"
    assert keys.name_of(b"sk-second-2") == "key2"
    assert keys.name_of(b"sk-third-33") == "ops"
    assert keys.name_of(b"a:b:c:fourth") == "key4"  # no space, no name
    assert keys.name_of(b"sk-from-env") == "key5"
    assert keys.name_of(b"sk-of-the-ci") == "ci"
    assert keys.name_of(b"search") is None
    assert keys.name_of(b"") is None
    assert keys.name_of(None) is None
    assert keys


def test_what_windows_puts_before_a_file_is_no_part_of_a_key(tmp_path):
    keys = Keys.read(written(tmp_path, "sk-search-1\r\nb: sk-second-2\r\n", "utf-8-sig"))
    assert keys.name_of(b"sk-search-1") == "key1"
    assert keys.name_of(b"sk-second-2") == "b"


def test_no_keys_are_no_keys():
    keys = Keys.read(None)
    assert not keys
    assert keys.name_of(b"anything-at-all") is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: secret\n", "line 1"),
        ("a: with some blanks in it\n", "line 1"),
        ("a: schlüssel-geheim\n", "line 1"),
        ("a: secret-number-1\nb: secret-number-1\n", "line 2"),
        ("a: secret-number-1\n\na: secret-number-2\n", "line 3"),
        ("# nothing but words\n", "no key in it"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_without_saying_a_key(tmp_path, text, said):
    with pytest.raises(ConfigurationError, match=said) as caught:
        Keys.read(written(tmp_path, text))
    for secret in ("secret", "blanks", "geheim"):
        assert secret not in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match="nowhere"):
        Keys.read(tmp_path / "nowhere")
    with pytest.raises(ConfigurationError, match="keys"):
        Keys.read(written(tmp_path, "schlüssel-geheim", "latin-1"))


def test_every_key_is_compared_in_constant_time_whichever_it_is(monkeypatch):
    compared = []

    def compare(one, other):
        compared.append((len(one), len(other)))
        return hmac.compare_digest(one, other)

    class Watched:
        compare_digest = staticmethod(compare)

    monkeypatch.setattr(limits, "hmac", Watched)
    keys = Keys({"a": "sk-first-1", "b": "sk-second-2", "c": "sk-third-3"})
    for key in (b"sk-first-1", b"sk-third-3", b"x", None):
        compared.clear()
        keys.name_of(key)
        assert compared == [(32, 32)] * 3


def test_a_key_is_not_kept_as_it_is():
    keys = Keys({"a": "sk-first-1"})
    assert "sk-first-1" not in repr(vars(keys))


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        ({b"authorization": b"Bearer sk-1"}, b"sk-1"),
        ({b"authorization": b"bearer   sk-1 "}, b"sk-1"),
        ({b"authorization": b"BEARER sk-1"}, b"sk-1"),
        ({b"x-api-key": b"sk-1"}, b"sk-1"),
        ({b"authorization": b"Bearer sk-1", b"x-api-key": b"sk-2"}, b"sk-1"),
        ({b"authorization": b"Basic sk-1", b"x-api-key": b"sk-2"}, b"sk-2"),
        ({b"authorization": b"Bearer "}, None),
        ({b"authorization": b"sk-1"}, None),
        ({}, None),
    ],
)
def test_where_a_key_is_shown(headers, key):
    assert shown_key(headers) == key


# ── how often ───────────────────────────────────────────────────────────────────────────────


def test_a_bucket_empties_and_fills():
    buckets = TokenBuckets(2.0, 3)
    for _ in range(3):
        buckets.take("a", now=0.0)
    with pytest.raises(Problem) as caught:
        buckets.take("a", now=0.1)
    assert (caught.value.status, caught.value.code) == (429, "rate_limited")
    assert caught.value.retry_after_s == pytest.approx(0.4)
    buckets.take("b", now=0.1)
    buckets.take("a", now=0.5)
    with pytest.raises(Problem):
        buckets.take("a", now=0.5)
    for _ in range(3):  # never more than a full one
        buckets.take("a", now=1000.0)
    with pytest.raises(Problem):
        buckets.take("a", now=1000.0)


def test_without_a_rate_there_is_no_limit():
    buckets = TokenBuckets(None)
    for _ in range(1000):
        buckets.take("a", now=0.0)


def test_a_burst_is_ten_seconds_worth_unless_it_is_said():
    buckets = TokenBuckets(0.01)
    buckets.take("a", now=0.0)
    with pytest.raises(Problem):
        buckets.take("a", now=0.0)


def test_no_number_of_clients_fills_the_memory():
    buckets = TokenBuckets(1.0, 1)
    for number in range(MAX_CLIENTS + 50):
        buckets.take(str(number), now=0.0)
    assert len(buckets._buckets) == MAX_CLIENTS


# ── room ────────────────────────────────────────────────────────────────────────────────────


def test_one_request_more_than_the_limit_is_refused_and_says_when_to_come_again():
    room = Room(max_requests=2, max_wait_s=10.0)
    with room.admitted("m", cost=10, n_texts=1, priority="bulk"):
        with room.admitted("m", cost=10, n_texts=1, priority="bulk"):
            with (
                pytest.raises(Problem) as caught,
                room.admitted("m", cost=10, n_texts=1, priority="bulk"),
            ):
                pytest.fail("there was no room")
            assert (caught.value.status, caught.value.code) == (503, "overloaded")
            assert caught.value.retry_after_s >= 1.0
        with room.admitted("m", cost=10, n_texts=1, priority="bulk"):
            assert room.n_requests == 2
    assert room.n_requests == room.n_texts == 0
    assert room.wait_s() == 0.0


def test_texts_that_wait_are_bounded_by_their_bytes(monkeypatch):
    monkeypatch.setattr(limits, "MAX_WAITING_COST", 100)
    room = Room(max_requests=10, max_wait_s=10.0)
    with (
        room.admitted("m", cost=1000, n_texts=1, priority="bulk"),  # one alone is always taken
        pytest.raises(Problem, match="1,000 bytes wait"),
        room.admitted("m", cost=1, n_texts=1, priority="bulk"),
    ):
        pytest.fail("there was no room")


def test_large_bodies_share_their_memory_and_small_ones_always_come():
    limit = 10 * FREE_BODY_BYTES
    room = Room(max_requests=10, max_wait_s=10.0)
    with room.body(limit) as first:
        first(FREE_BODY_BYTES)
        assert room.n_body_bytes == 0
        for _ in range(3):
            first(limit)
        assert room.n_body_bytes == limit
        holding = [room.body(limit) for _ in range(BODIES_AT_ONCE - 1)]
        for body in holding:
            body.__enter__()(limit)
        assert room.n_body_bytes == BODIES_AT_ONCE * limit
        with pytest.raises(Problem, match="large bodies"), room.body(limit) as another:
            another(FREE_BODY_BYTES)
            another(FREE_BODY_BYTES + 1)
        for body in holding:
            body.__exit__(None, None, None)
    assert room.n_body_bytes == 0


# ── answers that nobody reads ───────────────────────────────────────────────────────────────


class Behind:
    """A transport whose client does not read."""

    def get_write_buffer_size(self):
        return MAX_UNSENT_BYTES // 2 + 1


def test_no_work_is_taken_while_too_much_is_not_read():
    room = Room(max_requests=1, max_wait_s=1.0)
    first, second = Behind(), Behind()
    room.unsent.add(first)
    room.check_unsent()
    room.unsent.add(second)
    with pytest.raises(Problem, match="not read by their clients") as found:
        room.check_unsent()
    assert (found.value.status, found.value.code) == (503, "overloaded")
    room.unsent.drop(first)
    room.unsent.drop(first)
    room.check_unsent()
