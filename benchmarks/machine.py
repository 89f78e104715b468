"""The processes of a run and the machine under it, read from /proc: memory, processor time, noise.

Only a given process and its descendants are looked into; of others nothing is used but who their
parent is, and what the kernel counts for the machine as a whole.
"""

from __future__ import annotations

import os
import threading
import time
from collections import defaultdict
from pathlib import Path
from types import TracebackType

_TICK = os.sysconf("SC_CLK_TCK")
_NOT_BUSY = (3, 4)  # idle, iowait
_GUEST = 8  # guest time is counted in user time already


def tree(root: int) -> list[int]:
    """Return a process and all of its descendants."""
    children: dict[int, list[int]] = defaultdict(list)
    for path in Path("/proc").glob("[0-9]*/stat"):
        if fields := _fields(path):
            children[int(fields[1])].append(int(path.parent.name))
    found, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        waiting += children[pid]
    return found


def pss_bytes(pid: int) -> int:
    """Return a process's proportional set size: shared pages are divided among their users.

    0 where the process is gone.
    """
    for line in _text(Path(f"/proc/{pid}/smaps_rollup")).splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def own_bytes(pid: int) -> int:
    """Return the memory that a process alone has written to; 0 where it is gone.

    Pages of programs and libraries don't count: whether they are its alone depends on what else
    runs on the machine, and the kernel takes them back when it likes.
    """
    lines = _text(Path(f"/proc/{pid}/smaps_rollup")).splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_Dirty:"))


def name_of(pid: int) -> str:
    """Return what a process is: an actor's or agent's name, or its program's."""
    words = _text(Path(f"/proc/{pid}/cmdline")).replace("\0", " ").split()
    if not words:
        return "gone"
    if words[0].startswith("ray::"):
        return words[0].partition(".")[0]
    programs = [Path(word).name for word in words[:4] if not word.startswith("-")]
    script = next((name for name in programs if name.endswith(".py")), None)
    return script or ("driver" if programs[0].startswith("python") else programs[0])


def processor_seconds(root: int) -> float:
    """Return the processor time of a process tree, with that of children which have ended."""
    ticks = 0
    for pid in tree(root):
        ticks += sum(map(int, _fields(Path(f"/proc/{pid}/stat"))[11:15]))
    return ticks / _TICK


def busy_seconds() -> float:
    """Return the time that the machine's processors have been busy, with whatever it was."""
    line = _text(Path("/proc/stat")).partition("\n")[0].split()[1:]
    counted = [int(t) for i, t in enumerate(line[:_GUEST]) if i not in _NOT_BUSY]
    return sum(counted) / _TICK


class Noise:
    """Measures how many processors others kept busy during a `with` block, in `others`."""

    def __enter__(self) -> Noise:
        self.others = 0.0
        self._began = time.perf_counter()
        self._start = busy_seconds() - processor_seconds(os.getpid())
        return self

    def __exit__(self, *_: object) -> None:
        foreign = busy_seconds() - processor_seconds(os.getpid()) - self._start
        self.others = max(0.0, foreign) / (time.perf_counter() - self._began)


def wait_for_quiet(patience_seconds: float, most: float) -> float:
    """Wait until others have used at most `most` processors for a second; returns what was waited.

    Returns as well when the patience has run out.
    """
    began = time.monotonic()
    while time.monotonic() - began < patience_seconds:
        with Noise() as noise:
            time.sleep(1.0)
        if noise.others <= most:
            break
    return time.monotonic() - began


class MemoryMeter:
    """Samples the memory of a process tree from a thread.

    Args:
        root: The process whose tree is measured.
        interval_seconds: Pause between samples.

    Attributes:
        peak_bytes: Largest sum of PSS over the tree.
        at_peak: Name to (number of processes, bytes) at that moment.
        samples: How often it was looked at.
    """

    def __init__(self, root: int, interval_seconds: float = 0.25) -> None:
        self._root, self._interval = root, interval_seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.peak_bytes, self.samples = 0, 0
        self.at_peak: dict[str, tuple[int, int]] = {}

    def __enter__(self) -> MemoryMeter:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._interval):
            parts = {pid: pss_bytes(pid) for pid in tree(self._root)}
            self.samples += 1
            if (total := sum(parts.values())) > self.peak_bytes:
                self.peak_bytes, self.at_peak = total, _by_name(parts)


def _by_name(parts: dict[int, int]) -> dict[str, tuple[int, int]]:
    sums: dict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
    for pid, size in parts.items():
        name = name_of(pid)
        count, total = sums[name]
        sums[name] = (count + 1, total + size)
    return dict(sums)


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:  # The process has ended.
        return ""


def _fields(stat: Path) -> list[str]:
    """Return what follows the name in a `stat` file: state, parent, ..."""
    return _text(stat).rpartition(")")[2].split()
