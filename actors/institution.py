"""The actor that hosts one institution, or several.

It keeps no state between rounds: weights and institutions' states come in by reference and go out
by reference, so a call that is repeated after a crash gives the identical answer.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from actors.refs import Messages, States
from fedfuse_ray.blocks import Blocks
from fedfuse_ray.federation.checkpoints.promise import Memory
from fedfuse_ray.federation.messages.downlink import Broadcast
from fedfuse_ray.federation.messages.metrics import Scores, View
from fedfuse_ray.federation.messages.records import Alone, TrainRecord
from fedfuse_ray.federation.messages.updates import Kept
from fedfuse_ray.federation.modes.exchange import Answer, Turn
from fedfuse_ray.federation.modes.sides import InstitutionSide
from fedfuse_ray.federation.plan.plan import Plan


class InstitutionActor:
    """Hosts the named participants of a plan.

    Args:
        label: What the Ray dashboard shows; constant, since Ray reads it once.
        plan: The federation's plan.
        dataset: The dataset's folder; a node that lacks it generates it again.
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
        self._sides = {
            name: InstitutionSide(Institution(plan, plan.by_name[name], data, nets))
            for name in names
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

    def take(
        self,
        step: str,
        round: int,
        answer: Answer,
        broadcast: Broadcast,
        states: States,
        idle: Collection[str],
        behind: Collection[str],
        memory: Memory,
    ) -> tuple[Messages, States, list[TrainRecord]]:
        """Let the institutions here take one step; returns messages, all states, and records.

        Args:
            step: One of the steps of the round's mode.
            round: From 1.
            answer: The server's answer to the step before.
            broadcast: The server's broadcast.
            states: What the institutions here kept.
            idle: Who takes no part.
            behind: Who missed the broadcast before.
            memory: What institutions confirmed before, as the disk remembers it.
        """
        replies = {
            name: side.take(
                step,
                Turn(round, answer, broadcast, states.get(name, Kept()), name in behind, memory),
            )
            for name, side in self._sides.items()
            if name not in idle
        }
        messages = [
            (name, np.frombuffer(r.message, np.uint8))
            for name, r in replies.items()
            if r.message is not None
        ]
        kept = states | {name: r.kept for name, r in replies.items() if r.kept}
        return messages, kept, [r.record for r in replies.values() if r.record is not None]

    def evaluate(self, weights: Blocks, views: dict[str, tuple[View, ...]]) -> list[Scores]:
        """Score weights by every institution here."""
        institutions = [side.institution for side in self._sides.values()]
        return [i.evaluate(weights, views[i.participant.domain]) for i in institutions]

    def train_alone(self, name: str, views: dict[str, tuple[View, ...]]) -> Alone:
        """Train one participant without a federation."""
        institution = self._sides[name].institution
        return institution.train_alone(views[institution.participant.domain])
