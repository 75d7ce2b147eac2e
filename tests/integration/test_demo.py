"""`holdfast demo` as a user runs it: it adds up, says so last, and leaves nothing behind."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil

LAST_LINE = "no unit oversold, no unit lost"


class Demo:
    """A running demo; remembers every process that it had, and its folder."""

    def __init__(self, *arguments: str) -> None:
        self.lines: list[str] = []
        self.descendants: set[psutil.Process] = set()
        self.folders: set[Path] = set()
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "app.cli", "demo", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )

    def follow(self, each_line: Callable[[str], None] = lambda _: None) -> int:
        """Reads all that it prints; its exit code."""
        assert self.process.stdout
        root = psutil.Process(self.process.pid)
        with self.process.stdout as output:
            for line in output:
                self.lines.append(line.rstrip())
                for child in root.children(recursive=True):
                    self.descendants.add(child)
                    self._remember_folder(child)
                each_line(line)
        return self.process.wait(timeout=30)

    def _remember_folder(self, child: psutil.Process) -> None:
        try:
            words = " ".join(child.cmdline())
        except psutil.Error:  # it has ended
            return
        self.folders |= {Path(found) for found in re.findall(r"/tmp/holdfast-demo-\w+", words)}

    def assert_nothing_left(self) -> None:
        assert len(self.descendants) >= 4, "Redis, Postgres, API and worker were not seen"
        assert self.folders
        _, alive = psutil.wait_procs(self.descendants, timeout=5)
        assert not alive
        assert not [folder for folder in self.folders if folder.exists()]


def test_small_demo_adds_up_and_leaves_nothing() -> None:
    demo = Demo("--buyers", "300", "--stock", "50", "--seconds", "4")
    assert demo.follow() == 0, "\n".join(demo.lines)
    assert demo.lines[-1] == LAST_LINE
    assert "✗" not in "".join(demo.lines)
    assert any("300 shoppers for 50 units" in line for line in demo.lines)
    demo.assert_nothing_left()


def test_interrupted_demo_leaves_nothing() -> None:
    demo = Demo("--buyers", "2000", "--stock", "100")

    def interrupt_while_selling(line: str) -> None:
        if "requests" in line and demo.process.poll() is None and len(demo.lines) == 3:
            demo.process.send_signal(signal.SIGINT)

    assert demo.follow(interrupt_while_selling) == 130, "\n".join(demo.lines)
    assert LAST_LINE not in demo.lines
    demo.assert_nothing_left()
