"""What the gate lets go of."""

import threading

import pytest

from embellama.server.gate import _let_go


def raised(error):
    with pytest.raises(type(error)):
        raise error
    assert error.__traceback__ is not None
    return error


def test_errors_behind_an_error_are_let_go_of_too():
    cause, context, last = (raised(KeyError(name)) for name in ("cause", "context", "last"))
    last.__cause__, last.__context__ = cause, context
    _let_go(last)
    assert [error.__traceback__ for error in (cause, context, last)] == [None] * 3


def test_an_error_that_is_behind_itself_is_no_endless_way():
    one, other = raised(KeyError("one")), raised(OSError("other"))
    one.__cause__, other.__context__ = other, one
    other.__cause__ = one
    letting = threading.Thread(target=_let_go, args=(one,), daemon=True)
    letting.start()
    letting.join(5)
    assert not letting.is_alive()
    assert one.__traceback__ is other.__traceback__ is None
