"""README.md against the code: what it lists is what there is."""

import ast
import importlib
import pkgutil
import re
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml  # type: ignore[import-untyped]
from prometheus_client import REGISTRY
from pydantic import SecretStr

import app
from app.cli import app as command
from app.settings import Settings

PROJECT = Path(__file__).resolve().parents[2]
README = (PROJECT / "README.md").read_text()
DOCUMENTS = sorted([*PROJECT.glob("*.md"), *(PROJECT / "docs").glob("*.md")])
PROGRAM = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?\)")


def _default(value: Any) -> str:
    plain = value.get_secret_value() if isinstance(value, SecretStr) else value
    if plain in (None, "", ()):
        return ""
    if isinstance(plain, bool):
        return f"`{int(plain)}`"
    if isinstance(plain, Enum):
        return f"`{plain.value}`"
    return f"`{plain:g}`" if isinstance(plain, float) else f"`{plain}`"


def settings_table() -> str:
    """What README.md must say of the settings."""
    rows = [
        f"| `HOLDFAST_{name.upper()}` | {_default(field.default)} | {field.description} |"
        for name, field in Settings.model_fields.items()
    ]
    return "\n".join(["| Variable | Default | |", "|---|---|---|", *rows])


def metrics_table() -> str:
    """What README.md must say of the metrics."""
    for module in pkgutil.walk_packages(app.__path__, "app."):
        if not module.name.startswith("app.demo"):  # the shoppers' library patches sockets and threads
            importlib.import_module(module.name)
    rows = []
    for metric in sorted(REGISTRY.collect(), key=lambda metric: metric.name):
        if metric.name.startswith("holdfast_"):
            suffix = "_total" if metric.type == "counter" else ""
            text = metric.documentation.removesuffix(".")
            rows.append(f"| `{metric.name}{suffix}` | {metric.type} | {text} |")
    return "\n".join(["| Metric | Type | |", "|---|---|---|", *rows])


def test_every_setting_is_described() -> None:
    assert all(field.description for field in Settings.model_fields.values())


def test_readme_has_the_table_of_settings() -> None:
    table = settings_table()
    assert table in README, f"README.md needs this table:\n{table}"


def test_readme_has_the_table_of_metrics() -> None:
    table = metrics_table()
    assert table in README, f"README.md needs this table:\n{table}"


def _commands(group: Any, prefix: str) -> list[str]:
    names = []
    for name, each in group.commands.items():
        inner = getattr(each, "commands", None)
        names += _commands(each, f"{prefix} {name}") if inner else [f"{prefix} {name}"]
    return names


def test_readme_names_every_command() -> None:
    missing = [name for name in _commands(typer.main.get_command(command), "holdfast") if name not in README]
    assert not missing


def test_every_command_and_target_in_the_documents_exists() -> None:
    commands = set(_commands(typer.main.get_command(command), "holdfast"))
    targets = set(re.findall(r"^([a-z-]+):.*## ", (PROJECT / "Makefile").read_text(), re.MULTILINE))
    for document in DOCUMENTS:
        text = document.read_text()
        for words in re.findall(r"`(?:\.venv/bin/)?(holdfast (?:keys |rejects )?[a-z]+)", text):
            assert words in commands or words in ("holdfast keys", "holdfast rejects"), (
                f"{document.name}: {words}"
            )
        for target in re.findall(r"`make ([a-z]+)", text):
            assert target in targets, f"{document.name}: make {target}"


def test_every_setting_in_the_documents_exists() -> None:
    known = {f"HOLDFAST_{name.upper()}" for name in Settings.model_fields}
    for document in DOCUMENTS:
        if document.name != "loadtests.md":  # its variables are the load test's own
            found = set(re.findall(r"HOLDFAST_[A-Z_]*[A-Z]", document.read_text()))
            assert found <= known, f"{document.name}: {found - known}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for target, anchor in LINK.findall(document.read_text()):
        file = document.parent / target if target else document
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
            slugs = [re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings]
            assert anchor in slugs, f"{target}#{anchor}"


def test_security_names_tests_that_exist() -> None:
    named = re.findall(r"`(\w+/test_\w+\.py)`", (PROJECT / "SECURITY.md").read_text())
    assert named
    assert not [name for name in named if not (PROJECT / "tests" / name).exists()]


def test_compose_file_sets_what_there_is() -> None:
    services = yaml.safe_load((PROJECT / "compose.yaml").read_text())["services"]
    known = {f"HOLDFAST_{name.upper()}" for name in Settings.model_fields}
    for name, service in services.items():
        variables = {key for key in service.get("environment", {}) if key.startswith("HOLDFAST_")}
        assert variables <= known, name
    commands = {f"holdfast {service['command'][0]}" for service in services.values() if "build" in service}
    assert commands == {"holdfast migrate", "holdfast serve", "holdfast worker"}
    assert "noeviction" in services["redis"]["command"]
    assert "always" in services["redis"]["command"]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_programs_in_the_documents_find_what_they_import(document: Path) -> None:
    for program in PROGRAM.findall(document.read_text()):
        for node in ast.walk(ast.parse(program)):
            if isinstance(node, ast.ImportFrom):
                names = vars(importlib.import_module(node.module or ""))
                assert {alias.name for alias in node.names} <= names.keys(), node.module
