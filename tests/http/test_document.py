"""The OpenAPI document says what the service does."""

import re

from app.http.problems import PROBLEMS
from tests.http.conftest import Api


async def test_the_document_names_every_call_body_and_error(api: Api) -> None:
    document = (await api.call("GET", "/openapi.json", by=None)).json()
    calls = {f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods}
    assert len([call for call in calls if "/v1/" in call]) == 23
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert operation["description"], path
            codes = {
                code
                for response in operation["responses"].values()
                for part in response.get("content", {})
                .get("application/problem+json", {})
                .get("schema", {})
                .get("allOf", [])
                for code in part.get("properties", {}).get("code", {}).get("enum", [])
            }
            assert codes <= set(PROBLEMS)
            assert ("unauthorized" in codes) == path.startswith("/v1/")
            assert ("requestBody" in operation) == ("malformed_json" in codes), (method, path)
    assert "HTTPValidationError" not in str(document)


async def test_every_link_of_the_document_leads_to_a_call_and_fills_its_path(api: Api) -> None:
    document = (await api.call("GET", "/openapi.json", by=None)).json()
    operations = {
        operation["operationId"]: {part["name"] for part in operation.get("parameters", [])}
        for methods in document["paths"].values()
        for operation in methods.values()
    }
    paths = {
        operation["operationId"]: set(re.findall(r"{(\w+)}", path))
        for path, methods in document["paths"].items()
        for operation in methods.values()
    }
    links = [
        link
        for methods in document["paths"].values()
        for operation in methods.values()
        for response in operation["responses"].values()
        for link in response.get("links", {}).values()
    ]
    assert len(links) > 50
    for link in links:
        assert paths[link["operationId"]] <= link["parameters"].keys() <= operations[link["operationId"]], (
            link
        )


async def test_the_document_says_what_each_refusal_carries(api: Api) -> None:
    document = (await api.call("GET", "/openapi.json", by=None)).json()
    responses = document["paths"]["/v1/sales/{sale_id}/reservations"]["post"]["responses"]
    members = {
        status: set(response["content"]["application/problem+json"]["schema"]["allOf"][1]["properties"])
        for status, response in responses.items()
        if status >= "400"
    }
    assert members["401"] == {"code"}
    assert members["404"] == {"code", "sku"}
    assert members["409"] == {
        "code", "state", "opens_at", "sku", "requested", "available", "held", "limit", "taken",
    }  # fmt: skip
    assert members["422"] == {"code", "errors"}
    for status, header in (("401", "WWW-Authenticate"), ("405", "Allow"), ("429", "Retry-After")):
        assert header in responses[status]["headers"]
    assert "Retry-After" in document["paths"]["/readyz"]["get"]["responses"]["503"]["headers"]
    models = document["components"]["schemas"]
    assert models["ConfirmRequest"]["properties"]["metadata"]["default"] == {}
    assert "FieldError" in models
