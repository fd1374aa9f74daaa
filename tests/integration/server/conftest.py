"""Fixtures: servers that several tests share, and so leave as they are."""

from __future__ import annotations

import pytest

from tests.integration.server.running import serving


@pytest.fixture(scope="session")
def server(minilm_path):
    """A server with MiniLM F16 as "minilm", in this process."""
    with serving(models={"minilm": minilm_path}) as running:
        yield running
