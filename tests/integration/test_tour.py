"""README.md's tour, pasted line by line into a shell beside `holdfast up`."""

import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from app.demo.stage import without_settings

README = Path(__file__).resolve().parents[2] / "README.md"
START_SECONDS = 60
TOUR_SECONDS = 60

# Notes the status of each call; what the reader sees stays as it is.
RECORD = r"""
set -e
curl() {
  command curl -w '%{stderr}status %{http_code}\n' "$@" 2>> statuses.txt
}
"""


def _tour() -> tuple[str, list[int]]:
    """The commands, and the statuses that the text before them promises, in order."""
    section = README.read_text().partition("\n## A tour")[2].partition("\n## ")[0]
    commands, promised = [], []
    for prose, block in re.findall(r"(.*?)```sh\n(.*?)```", section, re.DOTALL):
        commands.append(block)
        promised += [int(status) for status in re.findall(r"`(\d{3})`", prose) if "curl" in block]
    return "".join(commands), promised


@contextmanager
def running_up(folder: Path, *arguments: str, before: str = "") -> Iterator[str]:
    """`holdfast up` in `folder`, from a shell that has run `before`; its URL."""
    command = f"{before}\nexec .venv/bin/holdfast up --port 0 {' '.join(arguments)}"
    with subprocess.Popen(
        ["/bin/bash", "-c", command],
        cwd=folder, env=without_settings(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as up:  # fmt: skip
        assert up.stdout is not None
        try:
            ready = next((line for line in up.stdout if line.startswith("ready ")), None)
            assert ready is not None, "holdfast up did not start"
            yield ready.split()[1]
        finally:
            up.send_signal(signal.SIGINT)
            up.wait(START_SECONDS)


@pytest.fixture
def folder() -> Iterator[Path]:
    """With `.venv`, as `make install` leaves it."""
    folder = Path(tempfile.mkdtemp(prefix="holdfast-tour-", dir="/tmp"))
    folder.chmod(0o711)  # Postgres may have to run as another user than this process
    (folder / ".venv").symlink_to(sys.prefix)
    yield folder
    shutil.rmtree(folder)


def run(folder: Path, script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/bash", "-c", script],
        cwd=folder, env=without_settings(), capture_output=True, text=True, timeout=TOUR_SECONDS, check=False,
    )  # fmt: skip


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_tour_answers_as_the_text_says(folder: Path) -> None:
    commands, promised = _tour()
    assert len(promised) > 10
    with running_up(folder) as url:
        done = run(folder, RECORD + commands.replace("http://127.0.0.1:8000", url))
    assert done.returncode == 0, done.stdout + (folder / "statuses.txt").read_text()
    statuses = [int(line.split()[1]) for line in (folder / "statuses.txt").read_text().splitlines()]
    assert statuses == promised
    assert "idempotent-replayed: true" in done.stdout
    assert '"persisted":true' in done.stdout
    assert '"code":"sold_out"' in done.stdout
    assert '"code":"sale_paused"' in done.stdout
    assert '"ok":true' in done.stdout
    assert "Audit of friday" in done.stdout
    assert re.search(r"^\d+ order\.confirmed \{", done.stdout, re.MULTILINE)
    assert [path.name for path in folder.iterdir() if not path.name.startswith(".")] == ["statuses.txt"]


def test_a_shell_that_exports_the_env_of_an_installation_starts_it_again_and_others_beside_it(
    folder: Path,
) -> None:
    exporting = "set -a; . .holdfast/env; set +a"
    with running_up(folder):
        first = (folder / ".holdfast/env").read_text()
    audit = run(folder, f"{exporting}; .venv/bin/holdfast audit --data .holdfast")
    assert audit.returncode == 0, audit.stderr
    with running_up(folder, before=exporting):
        assert (folder / ".holdfast/env").read_text() == first
        with running_up(folder, "--data", "other", before=exporting):
            other = (folder / "other/env").read_text()
    assert not set(first.splitlines()) & set(other.splitlines()), "two installations share a store or a key"
