"""Twenty processes killed at random, from outside, in one run: it ends as if nothing had been."""

from __future__ import annotations

import os
import random
import signal
import threading

import pytest

from benchmarks.machine import name_of, tree
from fedfuse_ray.runs.running import Silent, run
from tests.support.federations import rows_of, scores_of, tiny

pytestmark = [pytest.mark.ray, pytest.mark.slow]
ROUNDS, KILLS = 60, 20


class RandomKiller(Silent):
    """Kills twenty processes: rounds, victims and moments come from a seed.

    Args:
        seed: Of the choices.
        latest_seconds: A moment falls this long, at most, after the round before was told.
    """

    def __init__(self, seed, latest_seconds):
        self.random = random.Random(seed)
        self.rounds = set(self.random.sample(range(1, ROUNDS - 1), KILLS))
        self.latest_seconds = latest_seconds
        self.killed = []
        self.timers = []

    def advanced(self, done, total, what, accuracy):
        if done in self.rounds:
            delay = self.random.uniform(0, self.latest_seconds)
            self.timers.append(threading.Timer(delay, self.kill))
            self.timers[-1].start()

    def kill(self):
        """Kill one of the actors' processes, each with the same chance; the server is one."""
        actors = {pid: name_of(pid) for pid in tree(os.getpid())}
        victims = sorted(pid for pid, name in actors.items() if "Actor" in name)
        if victims:
            victim = self.random.choice(victims)
            os.kill(victim, signal.SIGKILL)
            self.killed.append(actors[victim])


@pytest.mark.parametrize("per_actor", [1, "auto"])
@pytest.mark.parametrize(
    ("paradigm", "settings"),
    [("fedfuse_nonprivate", ("strategy.kind=scaffold",)), ("fedfuse", ())],
)
def test_twenty_random_kills_change_nothing(ray_address, tmp_path, paradigm, settings, per_actor):
    settings = (*settings, f"training.rounds={ROUNDS}")
    run(tiny(*settings, paradigm=paradigm), tmp_path / "whole")
    on_ray = ("execution.executor=ray", f"execution.institutions_per_actor={per_actor}")
    killer = RandomKiller(seed=20, latest_seconds=0.05)
    run(tiny(*settings, *on_ray, paradigm=paradigm), tmp_path / "killed", progress=killer)
    for timer in killer.timers:
        timer.join()
    assert len(killer.killed) == KILLS
    assert len(set(killer.killed)) == 2, killer.killed
    assert scores_of(tmp_path / "killed") == scores_of(tmp_path / "whole")
    for table in ("institutions.parquet", "privacy_ledger.jsonl"):
        if table.endswith("parquet"):
            assert rows_of(tmp_path / "killed", table) == rows_of(tmp_path / "whole", table)
        else:
            ledgers = [(tmp_path / f / table).read_text() for f in ("killed", "whole")]
            assert ledgers[0] == ledgers[1]
