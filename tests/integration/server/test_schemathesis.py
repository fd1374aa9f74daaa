"""The server does what its OpenAPI description says, whatever is sent to it."""

from __future__ import annotations

import pytest
import schemathesis
from schemathesis.checks import load_all_checks
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import from_schema
from schemathesis.engine.events import FatalError, NonFatalError, ScenarioFinished

from embellama.cache import EmbeddingCache
from tests.conftest import SOAK
from tests.integration.server.running import serving

KEY = "a-key-for-schemathesis"
BEARER = {"Authorization": f"Bearer {KEY}"}

UNREAD = ("no sound JSON", "Input should", "Field required", "commas and brackets")

load_all_checks()


@schemathesis.check
def is_understood(ctx, response, case):
    """What fits the description is understood: refused, if at all, for what it asks."""
    assert "something went wrong here" not in response.text
    is_meant = case.meta is not None and case.meta.generation.mode.is_positive
    # 1.0 is an integer in JSON Schema, and not here
    if is_meant and not has_whole_floats(case.body):
        assert response.status_code not in (405, 408, 415, 431), response.text
        if response.status_code >= 400:
            assert not any(said in response.text for said in UNREAD), response.text


def has_whole_floats(value):
    if isinstance(value, dict):
        return any(map(has_whole_floats, value.values()))
    if isinstance(value, list):
        return any(map(has_whole_floats, value))
    return isinstance(value, float) and value.is_integer()


def configured(seed):
    """Return all checks, and a number of examples that takes seconds or, as a soak, minutes."""
    settings = {
        "auth": {"openapi": {"bearer": {"bearer": KEY}}},
        "continue-on-failure": True,
        "request-timeout": 30,
        "generation": {
            "max-examples": 400 if SOAK else 5,
            "deterministic": not SOAK,
            "database": "none",
        },
        "phases": {"stateful": {"enabled": SOAK}},
        "checks": {
            # 504 is what a client asks for that gives the server 5e-324 s
            "not_a_server_error": {"expected-statuses": ["2xx", "3xx", "4xx", "504"]},
            # no schema says what a vocabulary takes for a text, or what is served: `is_understood`
            "positive_data_acceptance": {"enabled": False},
        },
    }
    return SchemathesisConfig.from_dict(settings | ({"seed": seed} if seed else {}))


@pytest.mark.timeout(3600 if SOAK else 120)
@pytest.mark.soak
def test_every_answer_is_as_described(minilm_path):
    config = {"api_keys": (KEY,), "max_request_tokens": 20_000}
    failures, n_cases = [], 0
    with (
        EmbeddingCache.in_memory(max_bytes=1 << 20) as cache,
        serving(config, models={"minilm": minilm_path}, cache=cache) as running,
    ):
        schema = schemathesis.openapi.from_url(
            f"{running.url}/openapi.json", config=configured(None if SOAK else 1)
        )
        for event in from_schema(schema).execute():
            if isinstance(event, NonFatalError | FatalError):
                failures.append(str(getattr(event, "value", getattr(event, "exception", event))))
            elif isinstance(event, ScenarioFinished):
                n_cases += len(event.recorder.cases)
                failures.extend(told(event.recorder))
        assert running.json("/v1/embeddings", {"input": "a"}, headers=BEARER)[0] == 200
        assert running.service.room.n_requests == 0
    assert not failures, "\n".join(failures[:10])
    assert n_cases > 1000


def told(recorder):
    """Yield what failed: the check, what was sent, and what came back."""
    for case_id, checks in recorder.checks.items():
        for check in checks:
            if check.failure_info is None:
                continue
            case = recorder.cases[case_id].value
            interaction = recorder.interactions.get(case_id)
            answer = interaction.response if interaction is not None else None
            came = "nothing" if answer is None else (answer.status_code, answer.content[:300])
            yield (
                f"{check.name} of {recorder.label}: {check.failure_info.failure}; sent "
                f"{case.path_parameters} {case.query} {case.body!r:.400}; came {came}"
            )
