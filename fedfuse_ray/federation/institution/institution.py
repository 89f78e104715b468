"""A participant with its data: what it reads of a broadcast, trains, and scores. One per actor."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import cached_property

import torch

from fedfuse_ray.blocks import Blocks
from fedfuse_ray.data.dataset import Dataset
from fedfuse_ray.data.specimens import Specimens
from fedfuse_ray.federation.checkpoints.promise import Memory
from fedfuse_ray.federation.institution.alone import train_alone
from fedfuse_ray.federation.institution.blame import blamed
from fedfuse_ray.federation.institution.contrastive import in_round
from fedfuse_ray.federation.institution.private_gradients import joint_step, run_private_round
from fedfuse_ray.federation.institution.tensors import BackboneCache, TensorData, to_tensors
from fedfuse_ray.federation.institution.training import (
    LocalTraining,
    Prediction,
    RoundResult,
    predict,
)
from fedfuse_ray.federation.messages.downlink import Broadcast, Received
from fedfuse_ray.federation.messages.metrics import Scores, View
from fedfuse_ray.federation.messages.records import Alone, TrainRecord
from fedfuse_ray.federation.messages.released import needed_by
from fedfuse_ray.federation.messages.updates import Update, block_of, is_control
from fedfuse_ray.federation.plan.participants import Participant
from fedfuse_ray.federation.plan.plan import Plan
from fedfuse_ray.federation.plan.selection import in_sample
from fedfuse_ray.federation.plan.transfer import first_weights
from fedfuse_ray.federation.strategies import STRATEGIES
from fedfuse_ray.models.initial import block_sizes
from fedfuse_ray.models.net import CrossModalNet
from fedfuse_ray.network import Work, timing
from fedfuse_ray.privacy.randomness import Randomness


def pin_threads() -> None:
    """Give torch one thread: one institution, one core, and the same sums in every process."""
    torch.set_num_threads(1)


class NetCache:
    """What institutions of one process share: networks by owner's kind, and frozen backbones.

    A network's weights are set before every use, so sharing it changes nothing.
    """

    def __init__(self, plan: Plan) -> None:
        self._spec = plan.spec
        self.backbones = BackboneCache(plan.spec)
        self._nets: dict[tuple[str, tuple[str, ...], torch.device, str], CrossModalNet] = {}

    def get(
        self, domain: str, modalities: tuple[str, ...], device: torch.device, tier: str = ""
    ) -> CrossModalNet:
        """Return the network of an owner of `modalities`, with a tier's encoders."""
        key = (domain, modalities, device, tier)
        if key not in self._nets:
            self._nets[key] = CrossModalNet(self._spec, domain, modalities, tier).on(device)
        return self._nets[key]

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Number of parameters of each block."""
        return block_sizes(self._spec)


class Institution:
    """One participant of the plan, with access to its own data and to the shared test set.

    Args:
        plan: The federation's plan.
        participant: Which one this is.
        dataset: Where its specimens are.
        nets: The networks of this process.

    Attributes:
        memory: What it confirmed, and which attempts of secure rounds it took part in.
    """

    def __init__(
        self, plan: Plan, participant: Participant, dataset: Dataset, nets: NetCache
    ) -> None:
        self.plan, self.participant = plan, participant
        self._dataset, self._nets = dataset, nets
        use_gpu = participant.num_gpus > 0 and torch.cuda.is_available()
        self._device = torch.device("cuda" if use_gpu else "cpu")
        self._owned = frozenset(plan.blocks_of(participant))
        strategy = plan.experiment.strategy
        self.memory = Memory()
        self._rule = STRATEGIES[strategy.kind](strategy).local

    @property
    def name(self) -> str:
        """The participant's name."""
        return self.participant.name

    @property
    def sizes(self) -> dict[str, int]:
        """Number of parameters of each block, as the plan has it."""
        return self._nets.sizes

    def receive(self, broadcast: Broadcast, behind: bool) -> Received:
        """Read this institution's part of a broadcast.

        Args:
            broadcast: The server's broadcast.
            behind: It missed the one before, so it is sent the weights themselves.
        """
        wanted = [n for n in broadcast.sizes if n in self._owned]
        wanted += [n for n in broadcast.vectors if self._needs(n)]
        message = self.plan.downlink.message(broadcast, wanted, behind)
        return self.plan.downlink.receive(message, broadcast.held)

    def _needs(self, name: str) -> bool:
        if is_control(name):
            return block_of(name) in self._owned
        return needed_by(name, self._owned)

    def train(self, round: int, received: Received, own_controls: Blocks) -> RoundResult:
        """Train for a round's local epochs; who has nothing to do in it returns no update.

        Args:
            round: From 1.
            received: What it was sent.
            own_controls: Its control variates under SCAFFOLD, empty at first.
        """
        training, terms = in_round(self._training(received.weights), round), self.plan.privacy
        if training is None or (
            terms and not in_sample(terms, self.plan.randomness, self.name, round)
        ):
            return RoundResult(Update(), 0.0, 0)
        if terms is not None and terms.local:
            draws = self.plan.randomness.given(received.digest)
            return run_private_round(training, round, terms, draws)
        return training.run_round(round, self._rule, received.controls, own_controls)

    def joint_step(self, round: int, received: Received, draws: Randomness) -> RoundResult:
        """Return this institution's part of a joint private step, without noise.

        Args:
            round: From 1.
            received: What it was sent.
            draws: Of this round, its weights and its epoch alone.
        """
        coding, weights = self.plan.coding, received.weights
        sketches = {n: coding.projection(n, v.size, round) for n, v in weights.items()}
        return joint_step(
            self._training(weights),
            round,
            self.plan.terms,
            draws,
            received.released.clip_norm,
            {n: sketch for n, sketch in sketches.items() if sketch is not None},
        )

    def record(
        self, result: RoundResult, round: int, received_bytes: int, sent_bytes: int, began: float
    ) -> TrainRecord:
        """Return what this institution reports of its training in a round.

        Args:
            result: How the training went.
            round: From 1.
            received_bytes: Length of the broadcast.
            sent_bytes: Length of the update's message.
            began: When it all began, on the clock of `time.perf_counter`.
        """
        network, p = self.plan.experiment.network, self.participant
        work = Work(
            downlink_bytes=received_bytes,
            uplink_bytes=sent_bytes,
            specimens=result.specimens,
            specimens_per_second=network.specimens_per_second,
            speed=p.speed,
        )
        seed = self.plan.experiment.seed
        taken = timing(self.plan.links[p.name], work, seed=seed, name=p.name, round=round)
        deadline = network.aggregation.deadline_seconds
        return TrainRecord(
            institution=p.name,
            loss=result.loss,
            steps=result.steps,
            uplink_bytes=sent_bytes,
            downlink_bytes=received_bytes,
            seconds=time.perf_counter() - began,
            timing=taken,
            late=deadline is not None and taken.total > deadline,
        )

    def evaluate(self, weights: Blocks, views: Sequence[View]) -> Scores:
        """Score weights on this participant's part of the test set, and on its own validation."""
        with blamed(self.name):
            modalities = self.plan.spec.domains[self.participant.domain]
            net = self._nets.get(self.participant.domain, modalities, self._device)
            net.set_blocks(weights)
            counted = predict(net, self._test_part, views)
            return self._scores(counted, self._on_validation(weights))

    def train_alone(self, views: Sequence[View]) -> Alone:
        """Train until validation stops improving, and score the best weights.

        They are scored on the domain's whole test set, in the views that this participant owns.
        """
        with blamed(self.name):
            return self._train_alone(views)

    def _train_alone(self, views: Sequence[View]) -> Alone:
        began = time.perf_counter()
        history = train_alone(self._training(first_weights(self.plan.spec)), self._validation)
        net = self._own_net()
        net.set_blocks(history.weights)
        owned = [view for view in views if set(view) <= set(self.participant.modalities)]
        whole = self._tensors(self._dataset.test(self.participant.domain), self.participant.tier)
        scores = self._scores(predict(net, whole, owned), self._on_validation(history.weights))
        return Alone(
            scores=scores,
            losses=history.losses,
            validation=history.validation,
            best_epoch=history.best_epoch,
            weights=history.weights,
            seconds=time.perf_counter() - began,
        )

    def _own_net(self) -> CrossModalNet:
        p = self.participant
        return self._nets.get(p.domain, p.modalities, self._device, p.tier)

    def _training(self, blocks: Blocks) -> LocalTraining:
        net = self._own_net()
        net.set_blocks(blocks)
        return LocalTraining(
            net=net,
            data=self._train_data,
            training=self.plan.experiment.training,
            model=self.plan.experiment.model,
            batch_size=self.participant.batch_size,
            seed=self.plan.experiment.seed,
            name=self.name,
            local_steps=self.participant.local_steps,
        )

    def _on_validation(self, weights: Blocks) -> Prediction:
        net = self._own_net()
        net.set_blocks(weights)
        view = self.participant.modalities
        return predict(net, self._validation, [view])[view]

    def _scores(self, counted: Mapping[View, Prediction], validation: Prediction) -> Scores:
        return Scores(
            name=self.name,
            domain=self.participant.domain,
            confusion={view: p.confusion for view, p in counted.items()},
            attention={view: p.attention for view, p in counted.items()},
            correct=int(validation.confusion.trace()),
            total=int(validation.confusion.sum()),
        )

    def _tensors(self, specimens: Specimens, tier: str = "") -> TensorData:
        return to_tensors(specimens, self.plan.spec, self._nets.backbones, self._device, tier)

    @cached_property
    def _train_data(self) -> TensorData:
        specimens = self._dataset.split("train", self.participant.members)
        return self._tensors(specimens, self.participant.tier)

    @cached_property
    def _validation(self) -> TensorData:
        specimens = self._dataset.split("validation", self.participant.members)
        return self._tensors(specimens, self.participant.tier)

    @cached_property
    def _test_part(self) -> TensorData:
        part, parts = self.plan.test_part(self.participant)
        return self._tensors(self._dataset.test(self.participant.domain, part, parts))
