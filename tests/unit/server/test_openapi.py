"""The description of all endpoints."""

import json
import re

import jsonschema_rs
import pytest
from schemathesis.specs.openapi.definitions import OPENAPI_31

from embellama.server.app import ENDPOINTS
from embellama.server.openapi import EXAMPLES, describe


@pytest.fixture(scope="module", params=[True, False], ids=["keys", "no keys"])
def description(request):
    return describe(ENDPOINTS, has_keys=request.param)


def references(value):
    if isinstance(value, dict):
        for key, part in value.items():
            if key == "$ref":
                yield part
            else:
                yield from references(part)
    elif isinstance(value, list):
        for part in value:
            yield from references(part)


def test_it_is_openapi_3_1(description):
    jsonschema_rs.validate(OPENAPI_31, description)
    assert description["openapi"].startswith("3.1.")
    json.dumps(description, allow_nan=False)


def test_all_that_is_named_is_there(description):
    for reference in set(references(description)):
        found = description
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]
        assert found


def test_each_schema_is_one(description):
    whole = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    for schema in description["components"]["schemas"].values():
        jsonschema_rs.meta.validate(whole | schema)


def test_every_endpoint_is_there_but_the_files_of_the_page(description):
    described = {
        (method.upper(), path) for path, item in description["paths"].items() for method in item
    }
    for endpoint in ENDPOINTS:
        path = re.sub(r":\w+\}", "}", endpoint.path)
        is_file = path.startswith("/playground/") and endpoint.reply is None
        assert ((endpoint.method, path) in described) != is_file, path


def test_operations_have_names_of_their_own(description):
    names = [
        operation["operationId"]
        for item in description["paths"].values()
        for operation in item.values()
    ]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z][A-Za-z0-9_]*", name) for name in names)


def test_components_have_readable_names(description):
    names = list(description["components"]["schemas"])
    assert "TEIEmbedRequest" in names
    assert "OllamaEmbedRequest" in names
    assert not [name for name in names if "__" in name]


def test_examples_fit_what_is_taken():
    endpoints = {e.path: e for e in ENDPOINTS if e.body is not None}
    assert endpoints.keys() == EXAMPLES.keys()
    for path, example in EXAMPLES.items():
        endpoints[path].adapter.validate_json(json.dumps(example))


def test_errors_are_described_as_their_api_writes_them(description):
    posts = {path: item["post"] for path, item in description["paths"].items() if "post" in item}
    statuses = {path: set(operation["responses"]) for path, operation in posts.items()}
    common = {"200", "400", "404", "408", "413", "415", "429", "431", "503", "504"}
    for path in ("/v1/embeddings", "/api/embed", "/v1/rerank", "/embed"):
        assert statuses[path] >= common
    assert "500" in statuses["/v1/embeddings"]
    assert {"422", "424"} <= statuses["/embed"]
    assert not {"422", "424"} & statuses["/v1/embeddings"]
    assert posts["/embed"]["responses"]["422"] == {"$ref": "#/components/responses/TEIError422"}
    responses = description["components"]["responses"]
    for name in ("OpenAIError429", "TEIError429"):
        assert responses[name]["headers"].keys() == {"x-request-id", "retry-after"}


def test_keys_are_asked_for_where_there_are_any():
    for has_keys in (True, False):
        paths = describe(ENDPOINTS, has_keys=has_keys)["paths"]
        operation = paths["/v1/embeddings"]["post"]
        assert ("security" in operation) == has_keys
        assert ("401" in operation["responses"]) == has_keys
        assert "security" not in paths["/health"]["get"]
        assert "403" in paths["/admin/models"]["get"]["responses"]
