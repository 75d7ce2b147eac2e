"""/docs and /problems/…: pages that need nothing from elsewhere."""

import json
from base64 import b64encode
from collections.abc import Iterator, Mapping
from hashlib import sha256
from html import escape
from typing import Any

from app.http.problems import PROBLEMS, Problem

_STYLE = """
:root{color-scheme:light dark}
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
code,pre{font:14px/1.45 ui-monospace,monospace}
pre{overflow:auto;padding:.75rem;border:1px solid #8886;border-radius:.4rem}
table{border-collapse:collapse;width:100%}
td,th{text-align:left;vertical-align:top;padding:.25rem .75rem .25rem 0;border-bottom:1px solid #8884}
details{border:1px solid #8886;border-radius:.4rem;margin:.5rem 0;padding:.5rem .75rem}
summary{cursor:pointer}
.method{display:inline-block;min-width:4.5rem;font-weight:700}
"""
STYLE_HASH = "sha256-" + b64encode(sha256(_STYLE.encode()).digest()).decode()
"""For the Content-Security-Policy: browsers apply this style, and nothing else that could get into a page."""


def _page(title: str, body: str) -> str:
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>'
        f"<body>{body}</body></html>"
    )


def problem_page(problem: Problem) -> str:
    advice = f"<p>{escape(problem.advice)}</p>" if problem.advice else ""
    return _page(
        problem.title,
        f"<h1>{escape(problem.title)}</h1><p><code>{problem.code}</code>, status {problem.status}</p>{advice}"
        '<p><a href="/problems/">All problems</a> · <a href="/docs">API</a></p>',
    )


def problems_page() -> str:
    rows = "".join(
        f'<tr><td>{one.status}</td><td><a href="{one.type}"><code>{one.code}</code></a></td>'
        f"<td>{escape(one.title)}</td></tr>"
        for one in sorted(PROBLEMS.values(), key=lambda one: (one.status, one.code))
    )
    return _page(
        "Problems",
        f"<h1>Problems</h1><table><tr><th>Status</th><th>Code</th><th>Meaning</th></tr>{rows}</table>",
    )


def docs_page(document: Mapping[str, Any]) -> str:
    """The OpenAPI document as one page."""
    parts = [
        f"<h1>{escape(document['info']['title'])} {escape(document['info']['version'])}</h1>",
        *(f"<p>{_text(part)}</p>" for part in document["info"]["description"].split("\n\n")),
        '<p><a href="/openapi.json">openapi.json</a> · <a href="/problems/">Problems</a></p>',
    ]
    for tag in document["tags"]:
        parts.append(f"<h2>{escape(tag['name'])}</h2><p>{_text(tag['description'])}</p>")
        parts += _operations(document, tag["name"])
    parts.append("<h2>Schemas</h2>")
    for name, schema in sorted(document["components"]["schemas"].items()):
        shown = escape(name)
        parts.append(
            f'<details id="{shown}"><summary><code>{shown}</code></summary>{_json(schema)}</details>'
        )
    return _page("Holdfast API", "".join(parts))


def _operations(document: Mapping[str, Any], tag: str) -> Iterator[str]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if tag in operation["tags"]:
                yield _operation(path, method.upper(), operation)


def _operation(path: str, method: str, operation: Mapping[str, Any]) -> str:
    text, _, more = operation.get("description", operation["summary"]).partition("\n")
    parts = [
        f'<details id="{operation["operationId"]}"><summary><span class="method">{method}</span> '
        f"<code>{escape(path)}</code> {_text(text)}</summary><p>{_text(more)}</p>"
    ]
    rows = [
        f"<tr><td><code>{escape(p['name'])}</code></td><td>{p['in']}</td>"
        f"<td>{'required' if p.get('required') else ''}</td>"
        f"<td>{_text(p.get('description', ''))} {_constraint(p['schema'])}</td></tr>"
        for p in operation.get("parameters", [])
    ]
    if rows:
        parts.append(f"<h4>Parameters</h4><table>{''.join(rows)}</table>")
    for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
        parts.append(f"<h4>Body</h4><p>{escape(media_type)}: {_schema(content['schema'])}</p>")
    parts.append(f"<h4>Answers</h4><table>{''.join(_answers(operation))}</table></details>")
    return "".join(parts)


def _answers(operation: Mapping[str, Any]) -> Iterator[str]:
    for status, response in sorted(operation["responses"].items()):
        shown = " ".join(
            _schema(one["schema"]) for one in response.get("content", {}).values() if "schema" in one
        )
        yield f"<tr><td>{status}</td><td>{shown}</td><td>{_text(response['description'])}</td></tr>"


def _schema(schema: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#{name}"><code>{name}</code></a>'
    codes = [code for part in schema.get("allOf", []) for code in _codes(part)]
    return " ".join(f'<a href="/problems/{code}"><code>{code}</code></a>' for code in codes)


def _codes(part: Mapping[str, Any]) -> list[str]:
    codes: list[str] = part.get("properties", {}).get("code", {}).get("enum", [])
    return codes


def _constraint(schema: Mapping[str, Any]) -> str:
    shown = {name: value for name, value in schema.items() if name not in ("title", "type", "examples")}
    return f"<code>{escape(json.dumps(shown))}</code>" if shown else ""


def _json(value: Any) -> str:
    return f"<pre>{escape(json.dumps(value, indent=2))}</pre>"


def _text(text: str) -> str:
    """Prose with `code` in it."""
    pieces = escape(text).split("`")
    return "".join(f"<code>{piece}</code>" if i % 2 else piece for i, piece in enumerate(pieces))
