"""Where a run took place: versions, the code's commit, the hardware."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from fedfuse_ray.report.units import plain

_PACKAGES = (
    "fedfuse-ray",
    "ray",
    "torch",
    "torchvision",
    "numpy",
    "pyarrow",
    "opacus",
    "dp-accounting",
)


def environment() -> dict[str, Any]:
    """Collect what `environment.json` holds. Nothing heavy is imported for it.

    Returns:
        `time` (UTC, ISO 8601), `versions` by package (null where not installed), `git`
        (`commit` and `dirty`, or null outside a checkout), `hardware` (`cpu`, `cores`, the cores
        this process may use as `usable_cores`, `memory_bytes`, `gpus`), and `platform`.
    """
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "platform": platform.platform(),
        "versions": _versions(),
        "git": _git(Path(__file__).resolve().parent),
        "hardware": {
            "cpu": _cpu_model(),
            "cores": os.cpu_count(),
            "usable_cores": _usable_cores(),
            "memory_bytes": _memory_bytes(),
            "gpus": _gpu_names(),
        },
    }


def machine(environment: Mapping[str, Any]) -> str:
    """Return the cores and GPUs of what `environment` collected, in a few words."""
    hardware = environment.get("hardware", {})
    gpus = hardware.get("gpus") or []
    return f"{hardware.get('usable_cores', 'some')} cores, {len(gpus) or 'no'} GPU"


def machine_facts(environment: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what `environment` collected as names and texts."""
    return [(name, _flat(value)) for name, value in environment.items() if value is not None]


def _flat(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {plain(v)}" for k, v in value.items() if v not in (None, []))
    return plain(value)


def _versions() -> dict[str, str | None]:
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def _git(folder: Path) -> dict[str, Any] | None:
    """Return the commit of the checkout that this code is part of.

    A wheel installed below somebody else's repository must not report that repository's commit:
    the file that asks has to be tracked there.
    """
    if _run_git(folder, "ls-files", "--error-unmatch", Path(__file__).name) is None:
        return None
    commit = _run_git(folder, "rev-parse", "HEAD")
    changed = _run_git(folder, "status", "--porcelain", "--untracked-files=no")
    return None if commit is None else {"commit": commit, "dirty": bool(changed)}


def _run_git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _usable_cores() -> int | None:
    affinity = getattr(os, "sched_getaffinity", None)  # Linux alone has it
    return len(affinity(0)) if affinity else os.cpu_count()


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None


def _gpu_names() -> list[str]:
    """Name the GPUs, if torch is loaded already; importing it here would cost seconds."""
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    if cuda is None or not cuda.is_available():
        return []
    return [str(cuda.get_device_name(index)) for index in range(cuda.device_count())]
