import pickle

import pytest

from embellama import errors
from embellama.errors import EmbellamaError


def all_errors() -> list[type[EmbellamaError]]:
    found, queue = [], [EmbellamaError]
    while queue:
        cls = queue.pop()
        found.append(cls)
        queue += cls.__subclasses__()
    return [cls for cls in found if cls.__module__ == errors.__name__]


def test_the_drawing_shows_every_error_under_its_parent():
    drawn = errors.__doc__.split("::", 1)[1]
    for cls in all_errors():
        assert cls.__name__ in drawn
    depth = {
        line.split("─ ")[-1].split()[0]: line.index("─ ")
        for line in drawn.splitlines()
        if "─ " in line
    }
    for cls in all_errors():
        parent = cls.__mro__[1]
        if parent is not EmbellamaError and cls is not EmbellamaError:
            assert depth[cls.__name__] > depth[parent.__name__]


def test_codes_are_unique_so_that_a_program_can_tell_errors_apart():
    codes = [cls.code for cls in all_errors()]
    assert len(set(codes)) == len(codes)


@pytest.mark.parametrize(
    ("cls", "builtin"),
    [
        (errors.InvalidInputError, ValueError),
        (errors.InvalidInputTypeError, TypeError),
        (errors.InvalidInputTypeError, ValueError),
        (errors.MissingDependencyError, ImportError),
    ],
)
def test_errors_are_also_the_builtin_a_caller_would_catch(cls, builtin):
    assert issubclass(cls, builtin)


def test_an_error_with_fields_survives_pickling():
    error = errors.InputTooLongError("too long", indices=[3, 5], n_tokens=[600, 700], limit=512)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is errors.InputTooLongError
    assert str(copy) == "too long"
    assert (copy.indices, copy.n_tokens, copy.limit) == ((3, 5), (600, 700), 512)


def test_whether_to_try_again_is_said():
    assert errors.OverloadedError("full").retryable
    assert not errors.ConfigurationError("wrong").retryable
    assert errors.DownloadError("dropped", retryable=True).retryable
