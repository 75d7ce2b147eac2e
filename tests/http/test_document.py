"""The OpenAPI document says what the service does."""

from app.http.problems import PROBLEMS
from tests.http.conftest import Api


async def test_the_document_names_every_call_body_and_error(api: Api) -> None:
    document = (await api.call("GET", "/openapi.json", by=None)).json()
    calls = {f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods}
    assert len([call for call in calls if "/v1/" in call]) == 22
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
