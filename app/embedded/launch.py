"""Prepares a child process and becomes its command: `python launch.py OPTIONS COMMAND...`.

It is run by its path, as one of the few things that must happen between fork and exec (the same could be a
`preexec_fn`, which is not safe in a process with threads). So it imports only what is cheap and always there.
OPTIONS is JSON: pid_file, signal, parent, and, or null, uid, gid; needs_name.
"""

import ctypes
import json
import os
import pwd
import signal
import sys

_PR_SET_PDEATHSIG = 1
_CLONE_NEWUSER = 0x10000000


def identity(pid: int) -> str | None:
    """Tells this process from a later one with the same id; None if it has ended."""
    if not os.path.exists("/proc/self/stat"):
        return os.popen(f"ps -o lstart= -p {pid:d}").read().strip() or None  # noqa: S605
    try:
        with open(f"/proc/{pid}/stat") as stat, open("/proc/sys/kernel/random/boot_id") as boot:
            state, *fields = stat.read().rpartition(")")[2].split()
            return None if state in "ZX" else f"{boot.read().strip()}-{fields[18]}"
    except (FileNotFoundError, ProcessLookupError):
        return None


def die_with_parent(signal_number: int, parent: int) -> None:
    """Have the kernel send `signal_number` when `parent` ends, however it ends. Only Linux can.

    The kernel forgets this when the process changes its user or namespace, and it watches the thread that
    forked.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0)
        if os.getppid() != parent:
            raise SystemExit("the parent ended first")


def _borrow_a_name() -> None:
    """initdb looks its user up. Without an entry it appears, to itself, as the last user with one."""
    uid, gid = os.geteuid(), os.getegid()
    try:
        pwd.getpwuid(uid)
    except KeyError:
        named = pwd.getpwall()[-1]
    else:
        return
    if sys.platform != "linux" or ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWUSER) != 0:
        raise SystemExit(f"user id {uid} has no name here, which initdb needs: add one to /etc/passwd")
    for file, text in [
        ("setgroups", "deny"),
        ("uid_map", f"{named.pw_uid} {uid} 1"),
        ("gid_map", f"{named.pw_gid} {gid} 1"),
    ]:
        with open(f"/proc/self/{file}", "w") as handle:
            handle.write(text)


def main() -> None:
    options = json.loads(sys.argv[1])
    command = sys.argv[2:]
    # Written before anything can go wrong, so that no child is ever without one.
    partial = f"{options['pid_file']}.new"
    with open(partial, "w") as file:
        file.write(f"{os.getpid()} {options['signal']} {identity(os.getpid())}")
    os.replace(partial, options["pid_file"])
    if options["uid"] is not None:
        os.setgroups([])
        os.setgid(options["gid"])
        os.setuid(options["uid"])
    if options["needs_name"]:
        _borrow_a_name()
    die_with_parent(options["signal"], options["parent"])
    # Python ignores these; what is ignored stays so across exec.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    os.execv(command[0], command)  # noqa: S606


if __name__ == "__main__":
    main()
