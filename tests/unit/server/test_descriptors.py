"""The limit of open files."""

import sys

import pytest
from structlog.testing import capture_logs

from embellama.server.descriptors import OTHERS, allow_connections

if sys.platform == "win32":
    pytest.skip("needs a system with limits of open files", allow_module_level=True)

import resource


@pytest.fixture
def limits(monkeypatch):
    """Soft and hard limit, as the test sets them."""
    found = [1024, 4096]
    monkeypatch.setattr(resource, "getrlimit", lambda kind: tuple(found))
    monkeypatch.setattr(resource, "setrlimit", lambda kind, given: found.__setitem__(0, given[0]))
    return found


@pytest.mark.parametrize(
    ("hard", "n_connections", "soft"),
    [
        (4096, 100, 1024),
        (4096, 2000, 2000 + OTHERS),
        (resource.RLIM_INFINITY, 9000, 9000 + OTHERS),
    ],
)
def test_it_is_raised_as_far_as_needed(limits, hard, n_connections, soft):
    limits[1] = hard
    with capture_logs() as events:
        allow_connections(n_connections)
    assert limits[0] == soft
    assert events == []


def test_where_the_system_allows_less_it_is_said(limits):
    with capture_logs() as events:
        allow_connections(9000)
    assert limits[0] == 4096
    assert events[0]["event"] == "embellama.server.limited"
    assert events[0]["log_level"] == "warning"
    assert (events[0]["max_connections"], events[0]["n_open_files"]) == (9000, 4096)
