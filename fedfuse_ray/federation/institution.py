"""An institution: it trains and scores on its own specimens, and lets out nothing but updates."""

from __future__ import annotations

import functools
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Concatenate, ParamSpec, TypeVar, cast

import torch

from fedfuse_ray.blocks import Blocks
from fedfuse_ray.data.dataset import Dataset
from fedfuse_ray.data.specimens import Specimens
from fedfuse_ray.errors import InstitutionError, NotReadyError
from fedfuse_ray.federation import wire
from fedfuse_ray.federation.alone import train_alone
from fedfuse_ray.federation.local import LocalTraining, Prediction, RoundResult, predict
from fedfuse_ray.federation.metrics import Scores, View
from fedfuse_ray.federation.participant import Participant
from fedfuse_ray.federation.plan import Plan
from fedfuse_ray.federation.private_gradients import joint_step, run_private_round
from fedfuse_ray.federation.private_transforms import takes_part
from fedfuse_ray.federation.records import Alone, SecureReply, Trained, TrainRecord
from fedfuse_ray.federation.secure_round import (
    CLIP_NORM,
    MASK,
    STEPS,
    Answer,
    Member,
    noisy_words,
    terms_of,
)
from fedfuse_ray.federation.strategies import CONTROL, STRATEGIES
from fedfuse_ray.federation.tensors import BackboneCache, TensorData, to_tensors
from fedfuse_ray.federation.transforms import apply_chain, build_chain
from fedfuse_ray.models.initial import initial_blocks
from fedfuse_ray.models.net import CrossModalNet

P = ParamSpec("P")
T = TypeVar("T")


def pin_threads() -> None:
    """Give torch one thread: one institution, one core, and the same sums in every process."""
    torch.set_num_threads(1)


def _blamed(
    method: Callable[Concatenate[Institution, P], T],
) -> Callable[Concatenate[Institution, P], T]:
    """Put the institution's name, and the traceback, on whatever goes wrong in a method."""

    @functools.wraps(method)
    def wrapped(self: Institution, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return method(self, *args, **kwargs)
        except NotReadyError:
            raise
        except Exception:
            raise InstitutionError(self.participant.name, traceback.format_exc()) from None

    return cast("Callable[Concatenate[Institution, P], T]", wrapped)


class NetCache:
    """What institutions of one process share: networks by owner's kind, and frozen backbones.

    A network's weights are set before every use, so sharing it changes nothing.
    """

    def __init__(self, plan: Plan) -> None:
        self._spec = plan.spec
        self.backbones = BackboneCache(plan.spec)
        self._nets: dict[tuple[str, tuple[str, ...], torch.device], CrossModalNet] = {}

    def get(self, domain: str, modalities: tuple[str, ...], device: torch.device) -> CrossModalNet:
        """Return the network of an owner of `modalities`."""
        key = (domain, modalities, device)
        if key not in self._nets:
            self._nets[key] = CrossModalNet(self._spec, domain, modalities).on(device)
        return self._nets[key]


class Institution:
    """One participant of the plan, with access to its own data and to the shared test set.

    Args:
        plan: The federation's plan.
        participant: Which one this is.
        dataset: Where its specimens are.
        nets: The networks of this process.
    """

    def __init__(
        self, plan: Plan, participant: Participant, dataset: Dataset, nets: NetCache
    ) -> None:
        self.plan, self.participant = plan, participant
        self._dataset, self._nets = dataset, nets
        use_gpu = participant.num_gpus > 0 and torch.cuda.is_available()
        self._device = torch.device("cuda" if use_gpu else "cpu")
        self._chain = build_chain(plan)
        self._owned = plan.blocks_of(participant)
        self._member: Member | None = None
        strategy = plan.experiment.strategy
        self._rule = STRATEGIES[strategy.kind](strategy).local

    @_blamed
    def train(self, round: int, broadcast: Blocks, state: Blocks) -> Trained:
        """Train for the round's local epochs and return the update, encoded.

        Args:
            round: From 1.
            broadcast: The server's blocks; only this institution's are read.
            state: What this institution kept from its last round.
        """
        began = time.perf_counter()
        training, terms = self._training(broadcast), self.plan.privacy
        if terms is not None and not takes_part(terms, training.seed, training.name, round):
            result = RoundResult({}, {}, 0.0, 0)
        elif terms is not None and terms.local:
            result = run_private_round(training, round, terms)
        else:
            result = training.run_round(round, self._rule, broadcast, state)
        blocks = apply_chain(self._chain, result.update, self.participant.name, round)
        payload = wire.pack(
            wire.Message(
                institution=self.participant.name,
                round=round,
                codec="fp32",
                blocks={name: vector.astype("<f4").tobytes() for name, vector in blocks.items()},
                sizes={name: vector.size for name, vector in blocks.items()},
                steps=result.steps,
            )
        )
        return Trained(payload, result.state, self._record(result, broadcast, len(payload), began))

    def _record(
        self, result: RoundResult, broadcast: Blocks, uplink_bytes: int, began: float
    ) -> TrainRecord:
        wanted = [name for name in broadcast if name.removeprefix(CONTROL) in self._owned]
        return TrainRecord(
            institution=self.participant.name,
            loss=result.loss,
            steps=result.steps,
            uplink_bytes=uplink_bytes,
            downlink_bytes=sum(broadcast[name].nbytes for name in wanted),
            seconds=time.perf_counter() - began,
        )

    @_blamed
    def secure_step(self, step: str, round: int, answer: Answer, broadcast: Blocks) -> SecureReply:
        """Take one step of a round under secure aggregation.

        The record comes with the step that sends the update. A step is only ever taken once: a
        round that was cut off begins anew, with the same keys, noise and update.

        Args:
            step: One of `secure_round.STEPS`, in order.
            round: From 1.
            answer: What the server answered the step before with; empty at first.
            broadcast: The server's blocks.

        Raises:
            NotReadyError: The round was begun by a process that is gone.
        """
        if step == STEPS[0]:
            sizes = {name: vector.size for name, vector in broadcast.items()}
            self._member = Member(self.plan, self.participant.name, sizes, round)
        member = self._member
        if member is None or member.round != round:
            raise NotReadyError(f"{self.participant.name} has not begun round {round}")
        if step != MASK:
            return SecureReply(member.step(step, answer), None)
        began = time.perf_counter()
        terms = terms_of(self.plan)
        training = self._training(broadcast)
        clip_norm = float(broadcast[CLIP_NORM][0]) if CLIP_NORM in broadcast else None
        result = joint_step(training, round, terms, clip_norm)
        bits, name = member.terms.modulus_bits, self.participant.name
        words = noisy_words(result.update, name, round, self.plan, bits, clip_norm)
        message = member.step(step, answer, words)
        record = self._record(result, broadcast, len(message), began)
        return SecureReply(message, record)

    @_blamed
    def evaluate(self, weights: Blocks, views: Sequence[View]) -> Scores:
        """Score weights on this participant's part of the test set, and on its own validation."""
        modalities = self.plan.spec.domains[self.participant.domain]
        net = self._nets.get(self.participant.domain, modalities, self._device)
        net.set_blocks(weights)
        counted = predict(net, self._test_part, views)
        return self._scores(counted, self._on_validation(weights))

    @_blamed
    def train_alone(self, views: Sequence[View]) -> Alone:
        """Train until validation stops improving, and score the best weights.

        They are scored on the domain's whole test set, in the views that this participant owns.
        """
        began = time.perf_counter()
        history = train_alone(self._training(initial_blocks(self.plan.spec)), self._validation)
        net = self._nets.get(self.participant.domain, self.participant.modalities, self._device)
        net.set_blocks(history.weights)
        owned = [view for view in views if set(view) <= set(self.participant.modalities)]
        whole = self._tensors(self._dataset.test(self.participant.domain))
        scores = self._scores(predict(net, whole, owned), self._on_validation(history.weights))
        return Alone(
            scores=scores,
            losses=history.losses,
            validation=history.validation,
            best_epoch=history.best_epoch,
            weights=history.weights,
            seconds=time.perf_counter() - began,
        )

    def _training(self, blocks: Blocks) -> LocalTraining:
        net = self._nets.get(self.participant.domain, self.participant.modalities, self._device)
        net.set_blocks(blocks)
        return LocalTraining(
            net=net,
            data=self._train,
            training=self.plan.experiment.training,
            model=self.plan.experiment.model,
            batch_size=self.participant.batch_size,
            seed=self.plan.experiment.seed,
            name=self.participant.name,
        )

    def _on_validation(self, weights: Blocks) -> Prediction:
        net = self._nets.get(self.participant.domain, self.participant.modalities, self._device)
        net.set_blocks(weights)
        view = self.participant.modalities
        return predict(net, self._validation, [view])[view]

    def _scores(self, counted: Mapping[View, Prediction], validation: Prediction) -> Scores:
        return Scores(
            name=self.participant.name,
            domain=self.participant.domain,
            confusion={view: p.confusion for view, p in counted.items()},
            attention={view: p.attention for view, p in counted.items()},
            correct=int(validation.confusion.trace()),
            total=int(validation.confusion.sum()),
        )

    def _tensors(self, specimens: Specimens) -> TensorData:
        return to_tensors(specimens, self.plan.spec, self._nets.backbones, self._device)

    @cached_property
    def _train(self) -> TensorData:
        return self._tensors(self._dataset.split("train", self.participant.members))

    @cached_property
    def _validation(self) -> TensorData:
        return self._tensors(self._dataset.split("validation", self.participant.members))

    @cached_property
    def _test_part(self) -> TensorData:
        part, parts = self.plan.test_part(self.participant)
        return self._tensors(self._dataset.test(self.participant.domain, part, parts))
