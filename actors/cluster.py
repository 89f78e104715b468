"""The Ray instance: joined or started once a process, and what its nodes offer."""

from __future__ import annotations

import ctypes
import logging
import os
import platform
import socket
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
import ray
from ray.job_config import JobConfig

from actors.packing import Node
from fedfuse_ray.config import ExecutionConfig
from fedfuse_ray.errors import ResourceError
from fedfuse_ray.stopping import keeping_handlers

LOST = (
    ray.exceptions.RayActorError,
    ray.exceptions.ObjectLostError,
    ray.exceptions.NodeDiedError,
)
"""What a call raises when the process that should answer it, or its answer, is gone."""

_SLICE_SECONDS = 1.0
_ANSWER_SECONDS = 20.0
_SOCKET = "ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
_LONGEST_SOCKET = 103 if sys.platform == "darwin" else 107
_M_ARENA_MAX = -8  # malloc.h


def connect(execution: ExecutionConfig, job: Mapping[str, str] | None = None) -> None:
    """Join the cluster that `RAY_ADDRESS` names, or this process's Ray, or start one here.

    A local Ray has as many logical CPUs as this process may use cores. `job` is what its dashboard
    says of this process's job; fixed once it has joined.

    Raises:
        ResourceError: Nobody answers at the address, or Ray could not start.
    """
    if ray.is_initialized():
        return
    _keep_one_arena()
    options: dict[str, Any] = {
        "logging_level": logging.WARNING,
        "log_to_driver": True,
        "job_config": JobConfig(metadata=dict(job or {})),
    }
    if address := os.environ.get("RAY_ADDRESS"):
        _check_answers(address, min(execution.startup_seconds, _ANSWER_SECONDS))
        _init(f"RAY_ADDRESS={address}", address="auto", **options)
        return
    _check_sockets(Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()))
    # Ray would run workers at nice 15, where any other program on the machine starves them.
    os.environ.setdefault("RAY_worker_niceness", "0")
    # The control store would remember 100,000 tasks, 1.7 KB each; these show the last rounds.
    os.environ.setdefault("RAY_task_events_max_num_task_in_gcs", "500")
    # glibc's malloc has many arenas, and each would keep the memory that was freed in it.
    os.environ.setdefault("MALLOC_ARENA_MAX", "1")
    # Without `local` Ray would join any other one that was started on this machine, and refuse.
    _init(
        "Ray",
        address="local",
        num_cpus=len(os.sched_getaffinity(0)),
        include_dashboard=execution.dashboard,
        **options,
    )
    _tighten_token()


def _init(named: str, **options: Any) -> None:
    """Start or join Ray; what fails is one line.

    Raises:
        ResourceError: It did not start, or nothing that answers is Ray.
    """
    try:
        # Ray puts a handler of its own in SIGTERM's place.
        with keeping_handlers():
            ray.init(**options)
    except (OSError, RuntimeError, ValueError) as error:
        said = " ".join(str(error).split())
        raise ResourceError(f"{named} could not be joined or started: {said}") from error


def _check_answers(address: str, seconds: float) -> None:
    """Find out whether anybody answers at an address, for Ray itself would wait for minutes.

    Raises:
        ResourceError: Nobody does, in time.
    """
    host, _, port = address.rpartition(":")
    if "://" in address or not (host and port.isdecimal()):
        return
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=seconds):
            pass
        if os.environ.get("RAY_USE_TLS", "0") != "1":
            with grpc.insecure_channel(address) as channel:
                grpc.channel_ready_future(channel).result(timeout=seconds)
    except (OSError, OverflowError, grpc.FutureTimeoutError) as error:
        reason = getattr(error, "strerror", None) or "no Ray answers there"
        raise ResourceError(
            f"RAY_ADDRESS={address}: {reason} (waited at most {seconds:g} s); start that cluster, "
            "or unset RAY_ADDRESS to start Ray on this machine"
        ) from None


def _check_sockets(folder: Path) -> None:
    """Refuse a temporary folder whose name is too long for the sockets that Ray makes in it.

    Raises:
        ResourceError: It is.
    """
    if len(os.fsencode(folder / _SOCKET)) > _LONGEST_SOCKET:
        raise ResourceError(
            f"{folder} is too long a name for Ray's sockets, which may have {_LONGEST_SOCKET} "
            "bytes; set RAY_TMPDIR to a shorter folder, as /tmp"
        )


def _keep_one_arena() -> None:
    """Do for this process what `MALLOC_ARENA_MAX=1` does for those that it starts."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def nodes() -> tuple[Node, ...]:
    """Return what each live node offers in all, whoever uses it now."""
    return tuple(
        Node(
            name=str(entry["NodeManagerHostname"]),
            num_cpus=float(entry["Resources"].get("CPU", 0.0)),
            num_gpus=float(entry["Resources"].get("GPU", 0.0)),
        )
        for entry in ray.nodes()
        if entry["Alive"]
    )


def wait(refs: Sequence[Any], deadline: float) -> list[Any]:
    """Wait until all are ready, or some are and a second has passed; empty after the deadline.

    The deadline is on the clock of `time.monotonic`.
    """
    while True:
        left = deadline - time.monotonic()
        timeout = max(0.0, min(_SLICE_SECONDS, left))
        ready, _ = ray.wait(list(refs), num_returns=len(refs), timeout=timeout)
        if ready or left <= 0:
            return list(ready)


def _tighten_token() -> None:
    """Let nobody else on this machine read Ray's access token, where Ray has written one."""
    token = Path.home() / ".ray" / "auth_token"
    if token.is_file() and token.stat().st_mode & 0o077:
        token.chmod(0o600)
