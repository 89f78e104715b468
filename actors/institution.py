"""The actor that hosts one institution, or several.

It keeps no state between rounds: weights and institutions' states come in by reference and go out
by reference, so a call that is tried again after a crash gives the identical answer.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedfuse_ray.blocks import Blocks
from fedfuse_ray.federation.messages.downlink import Broadcast
from fedfuse_ray.federation.messages.metrics import Scores, View
from fedfuse_ray.federation.messages.records import Alone, TrainRecord
from fedfuse_ray.federation.modes.masked import Answer
from fedfuse_ray.federation.plan.plan import Plan

Messages = list[tuple[str, npt.NDArray[np.uint8]]]
States = dict[str, Blocks]


class InstitutionActor:
    """Hosts the named participants of a plan.

    Args:
        label: What the Ray dashboard shows; constant, since Ray reads it once.
        plan: The federation's plan.
        dataset: The dataset's folder; generated anew where a node lacks it.
        names: The participants that live here.
    """

    def __init__(self, label: str, plan: Plan, dataset: str, names: Sequence[str]) -> None:
        from actors.dataset import dataset_on_this_node
        from fedfuse_ray.federation.institution.institution import (
            Institution,
            NetCache,
            pin_threads,
        )
        from fedfuse_ray.federation.plan import public_encoders

        pin_threads()
        self._label = label
        self._plan = plan
        public_encoders.ensure(plan.spec)
        data = dataset_on_this_node(plan, Path(dataset))
        nets = NetCache(plan)
        self._institutions = {
            name: Institution(plan, plan.by_name[name], data, nets) for name in names
        }

    def __repr__(self) -> str:
        return self._label

    def ready(self) -> int:
        """Answer once the actor is up, with its process id."""
        return os.getpid()

    def initial(self) -> Blocks:
        """Return the weights before the first round."""
        from fedfuse_ray.federation.plan.transfer import first_weights

        return first_weights(self._plan.spec)

    def train(
        self,
        round: int,
        broadcast: Broadcast,
        states: States,
        idle: Collection[str],
        anew: Collection[str],
    ) -> tuple[Messages, States, list[TrainRecord]]:
        """Train the institutions here; returns their updates, all states, and records.

        Args:
            round: From 1.
            broadcast: The server's broadcast.
            states: What the institutions here kept.
            idle: Who does not train in this round.
            anew: Who missed a broadcast.
        """
        trained = {
            name: institution.train(round, broadcast, states.get(name, {}), name in anew)
            for name, institution in self._institutions.items()
            if name not in idle
        }
        updates = [(name, np.frombuffer(t.payload, np.uint8)) for name, t in trained.items()]
        kept = states | {name: t.state for name, t in trained.items() if t.state}
        return updates, kept, [t.record for t in trained.values()]

    def secure_step(
        self,
        step: str,
        round: int,
        answer: Answer,
        broadcast: Broadcast,
        idle: Collection[str],
        anew: Collection[str],
    ) -> tuple[Messages, list[TrainRecord]]:
        """Let every institution here that takes part take one step of a secure round."""
        replies = {
            name: institution.secure_step(step, round, answer, broadcast, name in anew)
            for name, institution in self._institutions.items()
            if name not in idle
        }
        messages = [
            (name, np.frombuffer(r.message, np.uint8)) for name, r in replies.items() if r.message
        ]
        return messages, [r.record for r in replies.values() if r.record is not None]

    def evaluate(self, weights: Blocks, views: dict[str, tuple[View, ...]]) -> list[Scores]:
        """Score weights by every institution here."""
        return [
            institution.evaluate(weights, views[institution.participant.domain])
            for institution in self._institutions.values()
        ]

    def train_alone(self, name: str, views: dict[str, tuple[View, ...]]) -> Alone:
        """Train one participant without a federation."""
        institution = self._institutions[name]
        return institution.train_alone(views[institution.participant.domain])
