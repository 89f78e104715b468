"""What breaks a run off in the middle."""

from __future__ import annotations

from fedfuse_ray.runs.progress import Silent


class PowerCut(Exception):
    """What breaks a run off in these tests."""


class CutAfter(Silent):
    """Breaks the run off once so many rounds, or participants, are done."""

    def __init__(self, count):
        self.count = count

    def advanced(self, done, total, what, rows):
        if done == self.count:
            raise PowerCut
