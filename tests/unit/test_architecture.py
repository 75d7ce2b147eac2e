"""The rules of CONTRIBUTING.md that a program can check."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
FOLDERS = ("app", "loadtests", "lua", "migrations", "tests")
FILE_LINES = 300
FUNCTION_LINES = 60


def files(*suffixes: str) -> Iterator[Path]:
    for folder in FOLDERS:
        yield from (path for path in sorted((PROJECT / folder).rglob("*")) if path.suffix in suffixes)


def test_files_are_short() -> None:
    lines = {
        str(path.relative_to(PROJECT)): len(path.read_text().splitlines()) for path in files(".py", ".lua")
    }
    assert len(lines) > 100
    assert {name: count for name, count in lines.items() if count >= FILE_LINES} == {}


def test_functions_fit_a_screen() -> None:
    long = {
        f"{path.relative_to(PROJECT)}:{node.lineno} {node.name}": node.end_lineno - node.lineno + 1
        for path in files(".py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno >= FUNCTION_LINES
    }
    assert long == {}


def test_every_named_query_is_used() -> None:
    sql = "".join(path.read_text() for path in (PROJECT / "app/sql").glob("*.sql"))
    code = "".join(path.read_text() for path in (PROJECT / "app").rglob("*.py"))
    names = re.findall(r"^-- name: (\w+)$", sql, re.MULTILINE)
    assert names
    assert [name for name in names if f'"{name}"' not in code] == []
