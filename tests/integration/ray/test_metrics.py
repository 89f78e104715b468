"""What a run tells Ray's metrics is what its tables hold."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest

from actors import metrics
from actors.metrics import METRICS, RUN, RayMetrics
from fedfuse_ray.runs.running import run
from tests.support.federations import tiny
from tests.support.watching import DEADLINE, NO_COLLUDERS, SLOW

PRIVATE = (
    SLOW,
    DEADLINE,
    NO_COLLUDERS,
    "privacy.target_epsilon=3.0",
    "privacy.scores=shown",
)


class Recorded:
    """Stands for Ray's gauges and counters: the last value, or the sum, by labels."""

    made: dict[str, Recorded] = {}  # noqa: RUF012 - one world a test

    def __init__(self, name, description, labels):
        self.labels, self.values = set(labels), {}
        self.made[name] = self

    def _at(self, tags):
        assert set(tags) == self.labels
        assert all(isinstance(value, str) for value in tags.values())
        return tuple(v for k, v in sorted(tags.items()) if k not in RUN)

    def set(self, value, tags):
        self.values[self._at(tags)] = value

    def inc(self, value, tags):
        assert value > 0
        key = self._at(tags)
        self.values[key] = self.values.get(key, 0.0) + value


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """Run a private federation with a straggler; returns its folder, and what was recorded."""
    folder = tmp_path_factory.mktemp("metrics")
    Recorded.made = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "Gauge", Recorded)
        patch.setattr(metrics, "Counter", Recorded)
        experiment = tiny(*PRIVATE, paradigm="fedfuse")
        run(experiment, folder, progress=RayMetrics(experiment, "demo"))
    return folder, {name: entry.values for name, entry in Recorded.made.items()}


def rows(folder, table):
    return pq.read_table(folder / f"{table}.parquet").to_pylist()


def test_every_metric_is_told(told):
    _, values = told
    assert {m.name for m in METRICS} == set(values)
    assert [name for name, known in values.items() if not known] == []


def test_gauges_are_the_last_round(told):
    folder, values = told
    last = rows(folder, "rounds")[-1]
    assert values["fedfuse_round"] == {(): 3.0}
    assert values["fedfuse_rounds"] == {(): 3.0}
    assert values["fedfuse_accuracy"] == {
        ("overall",): last["accuracy"],
        ("medical",): last["accuracy/medical"],
        ("materials",): last["accuracy/materials"],
    }
    assert values["fedfuse_loss"] == {(): last["loss"]}
    assert values["fedfuse_participants"] == {(): 2.0}
    assert values["fedfuse_epsilon_target"] == {(): 3.0}
    assert values["fedfuse_round_seconds"] == {(): last["seconds"]}
    assert values["fedfuse_simulated_seconds"] == {
        (): last["simulated_start"] + last["simulated_seconds"]
    }


def test_counters_and_epsilon_are_by_institution(told):
    folder, values = told
    sums, epsilons, lost = {}, {}, {}
    for row in rows(folder, "institutions"):
        key = (row["domain"], row["institution"])
        sums[key] = sums.get(key, 0) + row["uplink_bytes"]
        epsilons[key] = row["epsilon"]
        if row["status"] != "sent":
            at = (*key, row["status"])
            lost[at] = lost.get(at, 0) + 1
    assert values["fedfuse_uplink_bytes_total"] == {k: v for k, v in sums.items() if v}
    assert values["fedfuse_epsilon"] == epsilons
    assert values["fedfuse_dropouts_total"] == lost == {("medical", "med-01", "late"): 3}


def test_participants_apart_are_counted():
    Recorded.made = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "Gauge", Recorded)
        patch.setattr(metrics, "Counter", Recorded)
        RayMetrics(tiny(), "demo").advanced(2, 3, "med-02", None)
    known = {name: entry.values for name, entry in Recorded.made.items() if entry.values}
    assert known == {"fedfuse_round": {(): 2.0}, "fedfuse_rounds": {(): 3.0}}
