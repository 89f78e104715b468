"""The ideal that Ray is held against: the same arithmetic over plain processes and pipes."""

from __future__ import annotations

import multiprocessing
import os
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

from actors.packing import Node
from actors.placement import lay_out
from fedfuse_ray.blocks import Blocks
from fedfuse_ray.federation.checkpoints.checkpoint import Checkpoint
from fedfuse_ray.federation.messages.downlink import Broadcast
from fedfuse_ray.federation.messages.metrics import Scores, View
from fedfuse_ray.federation.modes.exchange import Answer, Turn
from fedfuse_ray.federation.modes.plain import PlainStep
from fedfuse_ray.federation.modes.sides import InstitutionSide, ServerSide
from fedfuse_ray.federation.plan.plan import Plan


class IdealExecutor:
    """Workers that hold the institutions, and the server in this process.

    It keeps no checkpoints and survives no fault, and institutions keep no state between rounds,
    so it runs neither control variates nor error feedback. Its rounds are synchronous ones without
    secure aggregation, in which everybody can be reached.

    Args:
        per_actor: As `execution.institutions_per_actor`, for the same split as Ray's.
    """

    kind = "ideal"

    def __init__(self, per_actor: int | Literal["auto"]) -> None:
        self._per_actor = per_actor
        self._workers: list[tuple[Connection, Any]] = []

    def start(self, plan: Plan, dataset: Path) -> None:
        """Start the processes and wait until each has its institutions."""
        if plan.keeps_state or plan.coding.secure or plan.asynchronous:
            raise SystemExit(
                "the ideal loop runs plain synchronous rounds without states: choose a strategy, a "
                "codec, a privacy mode and network.aggregation that need no more"
            )
        self._plan = plan
        context = multiprocessing.get_context("spawn")
        node = Node("here", float(len(os.sched_getaffinity(0))), 0.0)
        for host in lay_out(plan.participants, [node], self._per_actor):
            mine, theirs = context.Pipe()
            process = context.Process(
                target=_work, args=(theirs, plan, dataset, host.participants), daemon=True
            )
            process.start()
            theirs.close()
            self._workers.append((mine, process))
        for connection, _ in self._workers:
            connection.recv()

    def load(self, path: Path | None) -> None:
        """Set the server to the seeded initial weights."""
        from fedfuse_ray.models.initial import initial_blocks

        self._server = ServerSide(self._plan, Checkpoint(0, initial_blocks(self._plan.spec)))

    def train(self, round: int) -> None:
        """Run one round."""
        answers = self._ask(("train", round, self._server.server.broadcast()))
        sent = [(who, payload) for updates in answers for who, payload in updates if payload]
        self._server.finish(round, sent)

    def evaluate(self, round: int, views: dict[str, tuple[View, ...]]) -> list[Scores]:
        """Score the global model."""
        answers = self._ask(("evaluate", views, self._server.server.model()))
        return [scores for answer in answers for scores in answer]

    def sha256(self) -> str:
        """Return the digest of the global weights."""
        return self._server.server.sha256()

    def close(self) -> None:
        """End the processes."""
        for connection, process in self._workers:
            connection.close()
            process.join()
        self._workers = []

    def _ask(self, request: tuple[str, Any, Broadcast | Blocks]) -> list[list[Any]]:
        for connection, _ in self._workers:
            connection.send(request)
        return [connection.recv() for connection, _ in self._workers]


def _work(connection: Connection, plan: Plan, dataset: Path, names: tuple[str, ...]) -> None:
    """Answer requests until the other end closes."""
    from fedfuse_ray.data.dataset import Dataset
    from fedfuse_ray.federation.institution.institution import Institution, NetCache, pin_threads

    pin_threads()
    data, nets = Dataset(dataset), NetCache(plan)
    sides = [InstitutionSide(Institution(plan, plan.by_name[name], data, nets)) for name in names]
    connection.send("ready")
    while True:
        try:
            what, about, model = connection.recv()
        except EOFError:
            return
        if what == "train":
            turn = Turn(about, Answer(), model)
            replies = [(s.institution.name, s.take(PlainStep.TRAIN, turn)) for s in sides]
            connection.send([(name, reply.message) for name, reply in replies])
        else:
            institutions = [side.institution for side in sides]
            connection.send([i.evaluate(model, about[i.participant.domain]) for i in institutions])
