"""Placement groups on a simulated cluster with declared GPUs; a program of its own.

Reads `{"nodes": [[cpus, gpus], ...], "groups": [[placement, [[cpus, gpus], ...]], ...]}` from
standard input; writes for each group whether Ray placed it, and how many bundles each node got.
Then runs the preset `tiny` with half a GPU for each institution, and writes where its actors were.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections import Counter
from pathlib import Path

import ray
from ray.cluster_utils import Cluster
from ray.util.placement_group import (
    placement_group,
    placement_group_table,
    remove_placement_group,
)

from fedfuse_ray.runs.running import Silent, run
from tests.support.federations import tiny

POLL_SECONDS, POLLS, REFUSALS = 0.5, 60, 4


def placed(placement, bundles):
    """Return whether Ray places a group, and the number of bundles by node."""
    wanted = [{k: v for k, v in zip(("CPU", "GPU"), b, strict=True) if v} for b in bundles]
    group = placement_group(wanted, strategy=placement)
    done, refusals = False, 0
    # However slow the machine: only what Ray itself refuses again and again is not placed.
    for _ in range(POLLS):
        done = bool(group.wait(POLL_SECONDS))
        state = placement_group_table(group)["stats"]["scheduling_state"]
        refusals += state == "NO_RESOURCES"
        if done or refusals == REFUSALS:
            break
    nodes = placement_group_table(group)["bundles_to_node_id"]
    remove_placement_group(group)
    # What a group held comes back late, and the next would be refused for it.
    for _ in range(POLLS):
        left = ray.available_resources()
        if all(left.get(k) == v for k, v in ray.cluster_resources().items() if k in ("CPU", "GPU")):
            break
        time.sleep(POLL_SECONDS)
    return done, sorted(Counter(nodes.values()).values()) if done else []


class Watcher(Silent):
    """Notes the nodes of the institutions' actors."""

    nodes: tuple[str, ...] = ()

    def advanced(self, done, total, what, accuracy):
        (group,) = (g for g in placement_group_table().values() if g["state"] == "CREATED")
        self.nodes = tuple(group["bundles_to_node_id"].values())


def main():
    asked = json.load(sys.stdin)
    cluster = Cluster(initialize_head=False)
    for cpus, gpus in asked["nodes"]:
        cluster.add_node(num_cpus=cpus, num_gpus=gpus, wait=False, include_dashboard=False)
    cluster.wait_for_nodes()
    ray.init(address=cluster.address, logging_level=logging.ERROR, log_to_driver=False)
    answers = [placed(placement, bundles) for placement, bundles in asked["groups"]]
    watcher = Watcher()
    half = "execution.num_gpus_per_institution=0.5"
    spread = "execution.placement=SPREAD"
    summary = run(
        tiny("execution.executor=ray", half, spread), Path(asked["out"]), progress=watcher
    )
    actors = sorted(Counter(watcher.nodes).values())
    print(json.dumps({"groups": answers, "actors": actors, "weights": summary.weights_sha256}))
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main()
