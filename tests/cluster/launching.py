"""`ray up` and `ray down` of docs/cluster/on-premise.yaml, with loopback's addresses in it."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from hosts import HEAD, WORKER, Place, user

ROOT = Path(__file__).resolve().parents[2]
DASHBOARD = "http://127.0.0.1:18265"
_SOURCE = ROOT / "docs" / "cluster" / "on-premise.yaml"
_CPUS = 2


def configuration(place: Place) -> dict[str, Any]:
    """Return the on-premise file with this test's hosts; all that was changed is in here."""
    config: dict[str, Any] = yaml.safe_load(_SOURCE.read_text())
    config["cluster_name"] = f"test-{place.work.name}"
    config["provider"] |= {"head_ip": HEAD, "worker_ips": [WORKER]}
    config["auth"] = {"ssh_user": user(), "ssh_private_key": str(place.work / "user_key")}
    # There is no network to install from: the nodes use this machine's packages, but the project
    # that `ray up` copied to each.
    kernels = "".join(f" {name}={shlex.quote(value)}" for name, value in place.kernels.items())
    config["setup_commands"] = [
        f"echo 'export PATH={place.path} PYTHONPATH=$HOME/fedfuse_ray RAY_AUTH_MODE=token'"
        f'"{kernels}"'
        " >> ~/.bashrc",
        "python -c \"import os, fedfuse_ray; assert os.environ['HOME'] in fedfuse_ray.__file__\"",
        config["setup_commands"][-1],
    ]
    stop, head = config["head_start_ray_commands"]
    head = head.replace("--node-ip-address=10.0.0.1", f"--node-ip-address={HEAD}")
    config["head_start_ray_commands"] = [stop, f"{head} --num-cpus={_CPUS}"]
    # Both hosts see the same processes and ports: `ray stop` on the worker would end the head.
    _, worker = config["worker_start_ray_commands"]
    own = f"--node-ip-address={WORKER} --dashboard-agent-listen-port=52366 --num-cpus={_CPUS}"
    config["worker_start_ray_commands"] = [f"{worker} {own}"]
    return config


class Cluster:
    """The two-node cluster, as its user drives it from a third machine."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._environment = place.environment()
        self._work = place.work
        self.file = place.work / "cluster.yaml"
        self.file.write_text(yaml.safe_dump(configuration(place), sort_keys=False))

    def ray(self, *arguments: object, seconds: float) -> str:
        """Run a `ray` command on the user's machine; returns what it printed.

        Raises:
            RuntimeError: It failed, or took longer.
        """
        command = ["ray", *map(str, arguments)]
        return run(command, self._environment, seconds)

    def up(self) -> None:
        """Make the token, bring the head up, and wait for the worker to join."""
        self.ray("get-auth-token", "--generate", seconds=60)
        self.ray("up", "-y", "--no-config-cache", self.file, seconds=150)

    def down(self) -> None:
        """Take the cluster down."""
        self.ray("down", "-y", self.file, seconds=90)

    @contextmanager
    def dashboard(self) -> Iterator[None]:
        """Hold the dashboard's tunnel open, as a user does in a second terminal."""
        port = DASHBOARD.rpartition(":")[2]
        log = (self._work / "tunnel.log").open("w")
        tunnel = subprocess.Popen(
            ["ray", "dashboard", "--port", port, str(self.file)],
            env=self._environment,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        try:
            _until("the dashboard answers", 60, lambda: status_without_token() is not None)
            yield
        finally:
            tunnel.terminate()
            tunnel.wait(10)
            log.close()

    def wait_for_nodes(self, count: int, seconds: float) -> None:
        """Wait until as many nodes are alive.

        Raises:
            TimeoutError: They were not in time.
        """
        _until(f"{count} nodes are alive", seconds, lambda: len(self._alive()) == count)

    def _alive(self) -> list[dict[str, Any]]:
        return [n for n in self.listed("nodes") if n["state"] == "ALIVE"]

    def listed(self, what: str) -> list[dict[str, Any]]:
        """Return what the cluster tells of its nodes or actors."""
        text = self.ray(
            "list",
            what,
            "--detail",
            "--format=json",
            "--limit=1000",
            "--address",
            DASHBOARD,
            seconds=60,
        )
        found: list[dict[str, Any]] = json.loads(text[text.index("[") :])
        return found

    def submit(self, *entrypoint: object, seconds: float) -> str:
        """Run a job to its end on the cluster; returns its log.

        Raises:
            RuntimeError: It failed, or took longer.
        """
        return self.ray("job", "submit", "--address", DASHBOARD, "--", *entrypoint, seconds=seconds)


def run(command: Sequence[str], environment: dict[str, str], seconds: float) -> str:
    """Run a command in the checkout; returns what it printed on standard output.

    Raises:
        RuntimeError: It failed, or took longer; carries all that it printed.
    """
    said = " ".join(command[:3])
    try:
        done = subprocess.run(
            command,
            env=environment,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        output = (late.stdout or b"") + (late.stderr or b"")
        raise RuntimeError(f"{said} took longer than {seconds:g} s\n{output.decode()}") from None
    if done.returncode:
        raise RuntimeError(f"{said} failed ({done.returncode})\n{done.stdout}\n{done.stderr}")
    return done.stdout


def serial_run(place: Place, out: Path, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start the same run in one process on the user's machine, to compare with."""
    command = [sys.executable, "-m", "fedfuse_ray", "run", *arguments, "--executor", "serial"]
    return subprocess.Popen(
        [*command, "--out", str(out), "--no-progress"],
        cwd=ROOT,
        env={**place.environment(), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
    )


def status_without_token() -> int | None:
    """Return the dashboard's answer to somebody without the token; None where it has none."""
    try:
        with urllib.request.urlopen(f"{DASHBOARD}/api/jobs/", timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


def _until(what: str, seconds: float, holds: Any) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:g} s: {what}")
        time.sleep(1)
