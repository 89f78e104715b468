"""Two hosts and a user's machine, on loopback: an sshd, a home and a token each."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from getpass import getuser
from pathlib import Path

PORT = 2222
HEAD, WORKER = "127.0.0.1", "127.0.0.2"
_VENV = Path(sys.executable).parent
# What says which instructions numpy and torch take. sshd hands no environment on: without these a
# node would train by other kernels than the serial run, and round otherwise.
_KERNELS = ("OPENBLAS_CORETYPE", "NPY_DISABLE_CPU_FEATURES", "ATEN_CPU_CAPABILITY")
_KERNELS += ("MKL_ENABLE_INSTRUCTIONS", "MKL_CBWR", "ONEDNN_MAX_CPU_ISA")

_SSHD = """\
Port {port}
ListenAddress {ip}
HostKey {work}/host_key
AuthorizedKeysFile {work}/user_key.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
SetEnv HOME={home}
"""


@dataclass(frozen=True)
class Place:
    """The test's folder, and what is where in it."""

    work: Path

    def home(self, name: str) -> Path:
        """Return the home of `laptop`, or of a host by its address."""
        return self.work / "homes" / name

    @property
    def tools(self) -> Path:
        """Return the folder of the programs that stand before the machine's own."""
        return self.work / "tools"

    @property
    def path(self) -> str:
        """Return the search path of all three."""
        return f"{self.tools}:{_VENV}:{os.environ['PATH']}"

    @property
    def kernels(self) -> dict[str, str]:
        """Return the caller's choice of kernels, which is the nodes', too."""
        return {name: os.environ[name] for name in _KERNELS if name in os.environ}

    def environment(self) -> dict[str, str]:
        """Return the environment of a command on the user's machine."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "FEDFUSE_"))}
        # The local provider's workers do not come up under autoscaler v2.
        return {
            **kept,
            "HOME": str(self.home("laptop")),
            "PATH": self.path,
            "RAY_AUTH_MODE": "token",
            "RAY_UP_enable_autoscaler_v2": "0",
            "PYTHONUNBUFFERED": "1",
        }


def set_up(place: Place) -> None:
    """Make homes, throw-away keys, and the tools that `ray up` calls."""
    for name in ("laptop", HEAD, WORKER):
        place.home(name).mkdir(parents=True)
    for key in ("host_key", "user_key"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", place.work / key]
        subprocess.run(command, check=True, timeout=20)
    place.tools.mkdir()
    config = place.work / "ssh_config"
    # ssh takes ~ for the user's real home, where the head's copy of the key is not.
    key = "${HOME}/ray_bootstrap_key.pem"
    config.write_text(f"Port {PORT}\nLogLevel ERROR\nIdentityFile {key}\n")
    # With -F, ssh neither reads ~/.ssh nor makes it. Ray asks for a terminal (-tt) first of all,
    # which sshd can't hand out in a user namespace.
    wrapper = f'#!/bin/sh\n[ "$1" = -tt ] && shift\nexec {_found("ssh")} -F {config} "$@"\n'
    _script(place.tools / "ssh", wrapper)
    if shutil.which("rsync") is None:
        print("  no rsync here: a stand-in copies by tar through ssh", flush=True)
        stand_in = Path(__file__).with_name("copying.py")
        _script(place.tools / "rsync", f'#!/bin/sh\nexec {sys.executable} {stand_in} "$@"\n')


@contextmanager
def sshd(place: Place, ip: str) -> Iterator[None]:
    """Be a host: an sshd that lets the user in, to the host's home.

    Raises:
        TimeoutError: It lets nobody in.
    """
    config = place.work / f"sshd-{ip}.conf"
    home = place.home(ip)
    config.write_text(_SSHD.format(port=PORT, ip=ip, work=place.work, home=home))
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    log = place.work / f"sshd-{ip}.log"
    server = subprocess.Popen([_found("sshd"), "-D", "-f", config, "-E", log])
    try:
        _wait_for_login(place, ip, log)
        yield
    finally:
        server.terminate()
        server.wait(10)


def _wait_for_login(place: Place, ip: str, log: Path) -> None:
    key = place.work / "user_key"
    unknown = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
    command = [place.tools / "ssh", "-tt", "-i", key, *unknown, f"{user()}@{ip}", "echo $HOME"]
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        tried = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        if tried.stdout.strip() == str(place.home(ip)):
            return
        time.sleep(0.2)
    raise TimeoutError(
        f"sshd on {ip} lets nobody in: {tried.stdout} {tried.stderr} {log.read_text()}"
    )


def user() -> str:
    """Return the name under which hosts are entered."""
    return getuser()


def _found(program: str) -> str:
    path = shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if path is None:
        raise FileNotFoundError(f"{program} is missing: apt-get install openssh-server")
    return path


def _script(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)
