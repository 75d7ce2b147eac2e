"""The data folder of an embedded installation: its lock, and where sockets go."""

import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from typing import IO

from app.embedded.accounts import Account
from app.embedded.supervisor import end_leftovers
from app.errors import ConfigurationError

_SOCKET_PATH_BYTES_MAX = 100
"""The kernel's bound is 104 (macOS) or 108 (Linux), with the closing zero."""
_LOG_BYTES_MAX = 10_000_000


class Workspace:
    """Belongs to one process at a time, from open() to close().

    `run/` has pid files and, where their paths are short enough, sockets; `logs/` what the servers print;
    `tmp/`, emptied at each start, is for what services write for as long as they run.
    """

    def __init__(self, data: Path) -> None:
        self.data = data.absolute()
        self.run = self.data / "run"
        self.logs = self.data / "logs"
        self.temporary = self.data / "tmp"
        self._lock: IO[str] | None = None
        self._scratch: Path | None = None

    def open(self) -> None:
        """Lock the folder, made if missing, and clear what a killed owner left.

        Raises ConfigurationError if another process has it, or it cannot be written.
        """
        try:
            for folder in (self.data, self.run, self.logs):
                folder.mkdir(parents=True, exist_ok=True)
            self._lock = _lock(self.data)
            end_leftovers(self.run)
            self._remove_scratch()
            shutil.rmtree(self.temporary, ignore_errors=True)
            self.temporary.mkdir(exist_ok=True)
        except PermissionError as error:
            self.close()
            raise ConfigurationError(
                f"cannot use {self.data} ({error.strerror}: {error.filename}): it may belong to another user"
            ) from error

    def close(self) -> None:
        if self._lock is not None:
            self._remove_scratch()
            self._lock.close()
            self._lock = None

    def log(self, name: str) -> Path:
        """The log file of a server, put aside once it has grown large."""
        path = self.logs / f"{name}.log"
        if path.exists() and path.stat().st_size > _LOG_BYTES_MAX:
            path.rename(path.with_suffix(".log.1"))
        return path

    def socket_folder(self, name: str, socket: str, account: Account | None) -> Path:
        """A 0700 folder for `socket`, of `account` or this process' own user."""
        folder = self.run / name
        too_long = len(os.fsencode(folder / socket)) >= _SOCKET_PATH_BYTES_MAX
        if too_long or (account and not account.can_enter(self.run)):
            folder = self.scratch / name
        folder.mkdir(mode=0o700, exist_ok=True)
        if account:
            account.own(folder)
        return folder

    @property
    def scratch(self) -> Path:
        """A temporary folder with a short path that any user may pass through, gone after close()."""
        if self._scratch is None:
            self._scratch = Path(tempfile.mkdtemp(prefix="holdfast-", dir="/tmp"))
            self._scratch.chmod(0o711)
            self._scratch_link.symlink_to(self._scratch)
        return self._scratch

    @property
    def _scratch_link(self) -> Path:
        """Remembers the folder, so that the next start can remove what a killed process could not."""
        return self.run / "scratch"

    def _remove_scratch(self) -> None:
        if self._scratch_link.is_symlink():
            shutil.rmtree(self._scratch_link.readlink(), ignore_errors=True)
            self._scratch_link.unlink()
        self._scratch = None


def clear_leftovers(data: Path) -> None:
    """End what a killed owner of the folder left running, such as a server that still has its port.

    Raises ConfigurationError as Workspace.open() does.
    """
    if data.exists():
        workspace = Workspace(data)
        workspace.open()
        workspace.close()


def is_in_use(data: Path) -> bool:
    """Whether a process has this data folder open."""
    try:
        _lock(data).close()
    except FileNotFoundError:
        return False
    except ConfigurationError:
        return True
    return False


def _lock(data: Path) -> IO[str]:
    """An advisory lock, which the kernel drops however its owner ends."""
    file = (data / "lock").open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.seek(0)
        owner = file.read().strip()
        file.close()
        if not isinstance(error, BlockingIOError):
            raise
        raise ConfigurationError(
            f"{data} is in use by another holdfast (process {owner}): stop that one, or choose another --data"
        ) from None
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file
