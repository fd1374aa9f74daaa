"""Keys, and where they are shown."""

import hmac

import pytest

from embellama.errors import ConfigurationError
from embellama.server.keys import Keys, shown_key


def written(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "keys"
    path.write_bytes(text.encode(encoding))
    return path


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

    monkeypatch.setattr("embellama.server.keys.hmac", Watched)
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
