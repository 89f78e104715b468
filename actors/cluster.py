"""The Ray instance: joined or started once a process, and what its nodes offer."""

from __future__ import annotations

import ctypes
import logging
import os
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.job_config import JobConfig

from actors.packing import Node
from fedfuse_ray.config import ExecutionConfig

LOST = (
    ray.exceptions.RayActorError,
    ray.exceptions.ObjectLostError,
    ray.exceptions.NodeDiedError,
)
"""What a call raises when the process that should answer it, or its answer, is gone."""

_SLICE_SECONDS = 1.0
_M_ARENA_MAX = -8  # malloc.h


def connect(execution: ExecutionConfig, job: Mapping[str, str] | None = None) -> None:
    """Join the cluster that `RAY_ADDRESS` names, or this process's Ray, or start one here.

    A local Ray has as many logical CPUs as this process may use cores.

    Args:
        execution: Whether a local Ray has a dashboard.
        job: What the dashboard says of this process's job; fixed once it has joined.
    """
    if ray.is_initialized():
        return
    _keep_one_arena()
    options: dict[str, Any] = {
        "logging_level": logging.WARNING,
        "log_to_driver": True,
        "job_config": JobConfig(metadata=dict(job or {})),
    }
    if "RAY_ADDRESS" in os.environ:
        ray.init(address="auto", **options)
        return
    # Ray would run workers at nice 15, where any other program on the machine starves them.
    os.environ.setdefault("RAY_worker_niceness", "0")
    # The control store would remember 100,000 tasks, 1.7 KB each; these show the last rounds.
    os.environ.setdefault("RAY_task_events_max_num_task_in_gcs", "500")
    # glibc's malloc has many arenas, and each would keep the memory that was freed in it.
    os.environ.setdefault("MALLOC_ARENA_MAX", "1")
    # Without `local` Ray would join any other one that was started on this machine, and refuse.
    ray.init(
        address="local",
        num_cpus=len(os.sched_getaffinity(0)),
        include_dashboard=execution.dashboard,
        **options,
    )
    _tighten_token()


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

    Args:
        refs: Object references.
        deadline: On the clock of `time.monotonic`.
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
