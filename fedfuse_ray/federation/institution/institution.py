"""An institution: it trains and scores on its own specimens, and lets out nothing but updates."""

from __future__ import annotations

import functools
import time
import traceback
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Concatenate, ParamSpec, TypeVar, cast

import torch

from fedfuse_ray.blocks import Blocks
from fedfuse_ray.data.dataset import Dataset
from fedfuse_ray.data.specimens import Specimens
from fedfuse_ray.errors import InstitutionError, NotReadyError
from fedfuse_ray.federation.institution.alone import train_alone
from fedfuse_ray.federation.institution.contrastive import in_round
from fedfuse_ray.federation.institution.private_gradients import joint_step, run_private_round
from fedfuse_ray.federation.institution.tensors import BackboneCache, TensorData, to_tensors
from fedfuse_ray.federation.institution.training import (
    LocalTraining,
    Prediction,
    RoundResult,
    predict,
)
from fedfuse_ray.federation.messages import wire
from fedfuse_ray.federation.messages.coding import SETTING
from fedfuse_ray.federation.messages.downlink import Broadcast
from fedfuse_ray.federation.messages.metrics import Scores, View
from fedfuse_ray.federation.messages.private_transforms import takes_part
from fedfuse_ray.federation.messages.records import (
    Alone,
    SecureReply,
    Trained,
    TrainRecord,
    with_payload,
)
from fedfuse_ray.federation.messages.transforms import apply_chain, build_chain
from fedfuse_ray.federation.modes.encrypted import EncryptedMember
from fedfuse_ray.federation.modes.integers import CLIP_NORM, RELEASED_TERMS, noisy_words, terms_of
from fedfuse_ray.federation.modes.masked import MASK, Answer, Member
from fedfuse_ray.federation.modes.steps import UPDATE
from fedfuse_ray.federation.plan.paradigms import is_pooled
from fedfuse_ray.federation.plan.participants import Participant
from fedfuse_ray.federation.plan.plan import Plan
from fedfuse_ray.federation.plan.transfer import first_weights
from fedfuse_ray.federation.server.strategies import CONTROL, STRATEGIES
from fedfuse_ray.models.net import CrossModalNet
from fedfuse_ray.network import Work, timing
from fedfuse_ray.packing import packed_bytes

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


def _needs(name: str, owned: Collection[str]) -> bool:
    """Whether an owner of some blocks needs one of the broadcast's other vectors."""
    return name in RELEASED_TERMS or name.removeprefix(CONTROL).removeprefix(SETTING) in owned


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
        self._member: Member | EncryptedMember | None = None
        strategy = plan.experiment.strategy
        self._rule = STRATEGIES[strategy.kind](strategy).local

    @_blamed
    def train(self, round: int, broadcast: Broadcast, state: Blocks, anew: bool = False) -> Trained:
        """Train for the round's local epochs and return the update, encoded.

        Past the round's deadline on the virtual clock nothing is sent, and the state stays.

        Args:
            round: From 1.
            broadcast: The server's broadcast; only this institution's part of it is read.
            state: What this institution kept from its last round.
            anew: It missed a broadcast, so it is sent the weights anew.
        """
        began = time.perf_counter()
        message, weights, extra = self._fetch(broadcast, anew)
        result = self._trained(round, weights, extra, state)
        blocks = apply_chain(self._chain, result.update, self.participant.name, round)
        coding, name = self.plan.coding, self.participant.name
        payloads, memory = coding.encode(blocks, state, round, name, extra)
        payload = wire.pack(
            wire.Message(
                institution=name,
                round=round,
                codec=coding.config.codec,
                blocks=payloads,
                sizes={block: vector.size for block, vector in blocks.items()},
                steps=result.steps,
                loss=result.loss if self.plan.weighs_by_loss else None,
            )
        )
        if is_pooled(self.plan.experiment):
            # The pool's holder keeps its own model: what follows crosses no network.
            record = self._record(result, round, b"", b"", began)
        else:
            record = self._record(result, round, message, payload, began)
            lengths = {block: len(p) for block, p in payloads.items()}
            record = with_payload(record, lengths, {n: v.size for n, v in blocks.items()})
        if record.late:
            return Trained(b"", state, replace(record, uplink_bytes=0))
        return Trained(payload, result.state | memory, record)

    def _trained(self, round: int, weights: Blocks, extra: Blocks, state: Blocks) -> RoundResult:
        training, terms = in_round(self._training(weights), round), self.plan.privacy
        seed, name = self.plan.experiment.seed, self.participant.name
        if training is None or (terms is not None and not takes_part(terms, seed, name, round)):
            return RoundResult({}, {}, 0.0, 0)
        if terms is not None and terms.local:
            return run_private_round(training, round, terms)
        return training.run_round(round, self._rule, weights | extra, state)

    def _fetch(self, broadcast: Broadcast, anew: bool) -> tuple[bytes, Blocks, Blocks]:
        """Return what this institution is sent, and the weights and other vectors in it."""
        wanted = [n for n in broadcast.sizes if n in self._owned]
        wanted += [n for n in broadcast.extra if _needs(n, self._owned)]
        message = self.plan.downlink.message(broadcast, wanted, anew)
        return message, *self.plan.downlink.receive(message, broadcast.held)

    def _record(
        self, result: RoundResult, round: int, received: bytes, sent: bytes, began: float
    ) -> TrainRecord:
        network, p = self.plan.experiment.network, self.participant
        work = Work(
            downlink_bytes=len(received),
            uplink_bytes=len(sent),
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
            uplink_bytes=len(sent),
            downlink_bytes=len(received),
            seconds=time.perf_counter() - began,
            timing=taken,
            late=deadline is not None and taken.total > deadline,
        )

    @_blamed
    def secure_step(
        self, step: str, round: int, answer: Answer, broadcast: Broadcast, anew: bool = False
    ) -> SecureReply:
        """Take one step of a round in which the server learns sums alone.

        The record comes with the step that sends the update. A step is only ever taken once: a
        round that was cut off begins anew, with the same keys, noise and update. Whoever is late
        with its update, on the virtual clock, sends nothing from then on.

        Args:
            step: One of `plan.steps`, in order.
            round: From 1.
            answer: What the server answered the step before with; empty at first.
            broadcast: The server's broadcast.
            anew: It missed a broadcast, so it is sent the weights anew.

        Raises:
            NotReadyError: The round was begun by a process that is gone.
        """
        name = self.participant.name
        if step == self.plan.steps[0]:
            self._member = self._join(round, broadcast)
        member = self._member
        if member is None or member.round != round:
            raise NotReadyError(f"{name} has not begun round {round}")
        if member.gone:
            return SecureReply(b"", None)
        if step not in UPDATE:
            return SecureReply(member.step(step, answer), None)
        began = time.perf_counter()
        received, weights, extra = self._fetch(broadcast, anew)
        if isinstance(member, EncryptedMember):
            result = self._trained(round, weights, extra, {})
            blocks = apply_chain(self._chain, result.update, name, round)
            message, lengths = member.encrypt(answer, blocks, result.steps)
        else:
            result = self._joint_step(round, weights, extra)
            words = noisy_words(result.update, name, round, self.plan, extra)
            message = member.step(MASK, answer, words)
            lengths = {n: packed_bytes(w.size, member.terms.bits(n)) for n, w in words.items()}
        record = self._record(result, round, received, message, began)
        record = with_payload(record, lengths, {n: broadcast.sizes.get(n, 1) for n in lengths})
        if record.late:
            member.gone = True
            return SecureReply(b"", replace(record, uplink_bytes=0))
        return SecureReply(message, record)

    def _join(self, round: int, broadcast: Broadcast) -> Member | EncryptedMember:
        name = self.participant.name
        if self.plan.coding.encrypted:
            return EncryptedMember(self.plan, name, round)
        return Member(self.plan, name, broadcast.sizes, round, broadcast.extra)

    def _joint_step(self, round: int, weights: Blocks, extra: Blocks) -> RoundResult:
        training = self._training(weights)
        clip_norm = float(extra[CLIP_NORM][0]) if CLIP_NORM in extra else None
        coding = self.plan.coding
        sketches = {n: coding.projection(n, v.size, round) for n, v in weights.items()}
        known = {n: sketch for n, sketch in sketches.items() if sketch is not None}
        return joint_step(training, round, terms_of(self.plan), clip_norm, known)

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
            data=self._train,
            training=self.plan.experiment.training,
            model=self.plan.experiment.model,
            batch_size=self.participant.batch_size,
            seed=self.plan.experiment.seed,
            name=self.participant.name,
            local_steps=self.participant.local_steps,
        )

    def _on_validation(self, weights: Blocks) -> Prediction:
        net = self._own_net()
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

    def _tensors(self, specimens: Specimens, tier: str = "") -> TensorData:
        return to_tensors(specimens, self.plan.spec, self._nets.backbones, self._device, tier)

    @cached_property
    def _train(self) -> TensorData:
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
