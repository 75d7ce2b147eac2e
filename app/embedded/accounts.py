"""Under which user Postgres runs: it refuses root."""

import os
import pwd
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from app.errors import ConfigurationError


@dataclass(frozen=True)
class Account:
    """An unprivileged user that root starts a server as."""

    name: str
    uid: int
    gid: int

    def can_enter(self, folder: Path) -> bool:
        """Whether every folder on the way lets this user through."""
        return self.can_run(["/bin/sh", "-c", 'cd "$0"', str(folder.absolute())])

    def can_run(self, command: Sequence[str]) -> bool:
        """Whether `command`, something quick and harmless, works as this user."""
        try:
            done = subprocess.run(
                command,
                user=self.uid,
                group=self.gid,
                extra_groups=[],
                cwd="/",
                capture_output=True,
                check=False,
            )
        except (OSError, subprocess.SubprocessError):
            return False
        return done.returncode == 0

    def own(self, folder: Path) -> None:
        """Give `folder` and all below it to this user, if they are not its own yet."""
        if folder.stat().st_uid == self.uid:
            return
        for parent, folders, files in os.walk(folder):
            for name in (*folders, *files):
                os.chown(os.path.join(parent, name), self.uid, self.gid, follow_symlinks=False)
        # Last, so that an interrupted run is repeated.
        os.chown(folder, self.uid, self.gid)


def unprivileged_account() -> Account | None:
    """The user for Postgres when this process is root's, else None: its own.

    Raises ConfigurationError if the machine has no such user, or root may not become it.
    """
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        account = Account(name, entry.pw_uid, entry.pw_gid)
        if account.can_run(["/bin/sh", "-c", ":"]):
            return account
        raise ConfigurationError(
            f"Postgres refuses to run as root, and this root may not start it as {name}: "
            "start holdfast as an ordinary user"
        )
    raise ConfigurationError(
        "Postgres refuses to run as root, and there is no user `postgres` or `nobody`: "
        "start holdfast as an ordinary user"
    )
