"""A place of its own for the cluster test: processes, network and mounts that nobody else sees.

`ray down` ends every Ray process that it can see, so the test runs where it sees its own alone.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import struct
import subprocess
import sys
from pathlib import Path

ANYWAY = "FEDFUSE_CLUSTER_TEST_ANYWAY"
_STAGE = "FEDFUSE_CLUSTER_TEST_STAGE"
_UNSHARE = ["unshare", "--pid", "--mount", "--net", "--fork", "--kill-child", "--mount-proc"]
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 0x1


def isolated(work: Path, seconds: float) -> int | None:
    """Run this very command again in namespaces of its own.

    Args:
        work: A folder for the test, which is new and empty.
        seconds: After which all of it is ended.

    Returns:
        The exit status of the isolated command, to be passed on; None where this is already it.
    """
    stage = os.environ.get(_STAGE)
    if stage == "test":
        return None
    if stage == "init":
        _prepare(work)
        return _as_init(
            _stage("test", work, _back_to(*map(int, os.environ["FEDFUSE_IDS"].split())))
        )
    ids = f"{os.getuid()} {os.getgid()}"
    outer = [*_UNSHARE, *([] if os.getuid() == 0 else ["--user", "--map-root-user"])]
    why_not = _refused(outer)
    if why_not is None:
        print("isolation: own processes, network and mounts (unshare)", flush=True)
        command = _stage("init", work, outer)
    elif os.environ.get(ANYWAY) == "1":
        print(
            f"isolation: NONE ({ANYWAY}=1): `ray down` ends every Ray on this machine", flush=True
        )
        command = _stage("test", work, [])
    else:
        print(
            f"isolation: not allowed here ({why_not}).\nThe test would end every Ray process on "
            f"this machine; where that is all right, set {ANYWAY}=1."
        )
        return 2
    environment = {**os.environ, "FEDFUSE_IDS": ids}
    return subprocess.run(command, env=environment, timeout=seconds, check=False).returncode


def _refused(unshare: list[str]) -> str | None:
    """Return why namespaces can't be made; None where they can."""
    if shutil.which("unshare") is None:
        return "unshare is missing"
    tried = subprocess.run(
        [*unshare, "true"], capture_output=True, text=True, timeout=20, check=False
    )
    return None if tried.returncode == 0 else tried.stderr.strip()


def _stage(stage: str, work: Path, prefix: list[str]) -> list[str]:
    return [*prefix, "env", f"{_STAGE}={stage}", sys.executable, *sys.argv[:1], str(work)]


def _back_to(user: int, group: int) -> list[str]:
    """Return what makes "root" of a user namespace the user again, as whom sshd must run."""
    if user == 0:
        return []
    return ["unshare", "--user", f"--map-user={user}", f"--map-group={group}"]


def _prepare(work: Path) -> None:
    """Bring loopback up, and hide the machine's /tmp/ray and /run."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP))
    Path("/tmp/ray").mkdir(exist_ok=True)
    for place in ("/tmp/ray", "/run"):
        hidden = work / "hidden" / place.replace("/", "-")
        hidden.mkdir(parents=True)
        subprocess.run(["mount", "--bind", hidden, place], check=True, timeout=10)


def _as_init(command: list[str]) -> int:
    """Run a command as the first process of its namespace must: bury whoever dies."""
    child = subprocess.Popen(command)
    while True:
        pid, status = os.wait()
        if pid == child.pid:
            child.returncode = os.waitstatus_to_exitcode(status)
            return child.returncode


def remove(work: Path) -> None:
    """Remove the test's folder."""
    shutil.rmtree(work, ignore_errors=True)
