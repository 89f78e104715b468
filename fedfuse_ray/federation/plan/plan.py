"""Who takes part in what: everything public that is known before the first round.

The plan is built once from the experiment and the dataset's index, is small, and is all that an
institution or the server needs besides data and weights.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from fedfuse_ray.config import Experiment
from fedfuse_ray.config.settings.data import PhantomData
from fedfuse_ray.config.settings.network import LinkConfig
from fedfuse_ray.data.index import DatasetIndex
from fedfuse_ray.errors import ProtocolError
from fedfuse_ray.federation.messages.coding import Coding
from fedfuse_ray.federation.messages.downlink import Downlink
from fedfuse_ray.federation.messages.transforms import Transforms
from fedfuse_ray.federation.plan import feasibility
from fedfuse_ray.federation.plan.chain import transforms_of
from fedfuse_ray.federation.plan.origin import facts
from fedfuse_ray.federation.plan.participants import Participant, who_trains
from fedfuse_ray.federation.plan.score_terms import ScoreTerms, score_terms
from fedfuse_ray.federation.plan.terms import PrivacyTerms, make_terms
from fedfuse_ray.models.spec import ModelSpec
from fedfuse_ray.network import Work, expected_seconds, resolve
from fedfuse_ray.privacy.randomness import Randomness, derived

_SEE_TENSORS = frozenset({"powersgd", "subspace"})


@dataclass(frozen=True)
class Plan:
    """A federation, ready to run.

    Attributes:
        experiment: The resolved experiment.
        spec: The network's shape, over all domains.
        participants: In the order in which every sum is taken.
        classes: Class names by domain.
        randomness: Root of noise, samples, keys and masks.
        privacy: The terms under which the run is private, if it is.
        shapes: Each block's parameter tensors, where a codec sees matrices.
        scores: What models are scored on, and what that costs.
        mode: How a round exchanges updates: a key of `modes.MODES`.
        session: Drawn anew for every process that runs the federation, so that nothing that was
            signed or encrypted in another one fits.
    """

    experiment: Experiment
    spec: ModelSpec
    participants: tuple[Participant, ...]
    classes: dict[str, tuple[str, ...]]
    randomness: Randomness
    privacy: PrivacyTerms | None = None
    shapes: dict[str, tuple[tuple[int, ...], ...]] = field(default_factory=dict)
    scores: ScoreTerms = field(default_factory=ScoreTerms)
    mode: str = "plain"
    session: str = field(default_factory=lambda: os.urandom(16).hex(), compare=False)

    @property
    def test(self) -> Mapping[str, int]:
        """Return the number of test specimens that are scored, by domain."""
        return self.scores.specimens

    @property
    def terms(self) -> PrivacyTerms:
        """The privacy terms, which the federation must have.

        Raises:
            ProtocolError: Nothing is private.
        """
        if self.privacy is None:
            raise ProtocolError("this federation has no privacy terms")
        return self.privacy

    @cached_property
    def by_name(self) -> dict[str, Participant]:
        """Return the participants by name."""
        return {p.name: p for p in self.participants}

    @cached_property
    def by_domain(self) -> dict[str, tuple[str, ...]]:
        """Return the participants' names by domain, in their order."""
        names: dict[str, tuple[str, ...]] = {}
        for p in self.participants:
            names[p.domain] = (*names.get(p.domain, ()), p.name)
        return names

    @cached_property
    def expected_seconds(self) -> dict[str, float]:
        """Return each participant's expected seconds in a round, on the virtual clock.

        Updates and weights count as float32, before any codec: what they will take is known only
        afterwards.
        """
        sizes = _block_sizes(self.spec)
        return {p.name: self._expected(p, sizes) for p in self.participants}

    def _expected(self, participant: Participant, sizes: Mapping[str, int]) -> float:
        training, network = self.experiment.training, self.experiment.network
        nbytes = sum(4 * sizes[block] for block in self.blocks_of(participant))
        specimens = training.local_epochs * participant.specimens
        if participant.local_steps is not None:
            specimens = min(specimens, participant.local_steps * participant.batch_size)
        work = Work(nbytes, nbytes, specimens, network.specimens_per_second, participant.speed)
        return expected_seconds(self.links[participant.name], work)

    @cached_property
    def owners(self) -> dict[str, tuple[str, ...]]:
        """Return each block's owners, in participants' order."""
        owners: dict[str, list[str]] = {}
        for participant in self.participants:
            for block in self.blocks_of(participant):
                owners.setdefault(block, []).append(participant.name)
        return {block: tuple(names) for block, names in owners.items()}

    @cached_property
    def fractions(self) -> dict[str, dict[str, float]]:
        """Return each block's weights over its owners; they sum to one.

        What else counts, a loss or an age, is known to the server when the update comes.
        """
        raw = {p.name: self._weight(p) for p in self.participants}
        fractions: dict[str, dict[str, float]] = {}
        for block, names in self.owners.items():
            total = sum(raw[name] for name in names)
            fractions[block] = {name: raw[name] / total for name in names}
        return fractions

    @cached_property
    def transforms(self) -> Transforms:
        """What institutions do to their updates, and the server to the sums."""
        return transforms_of(self.fractions, self.privacy, self.randomness)

    @cached_property
    def coding(self) -> Coding:
        """How updates are encoded."""
        e = self.experiment
        return Coding(e.compression, e.seed, e.privacy.mode, self.shapes)

    @cached_property
    def downlink(self) -> Downlink:
        """How the model is broadcast."""
        return Downlink(self.experiment.compression.downlink, self.experiment.seed, self.shapes)

    @cached_property
    def links(self) -> dict[str, LinkConfig | None]:
        """Return each participant's link; None is the ideal one."""
        return resolve(self.experiment.network, [p.name for p in self.participants])

    @property
    def asynchronous(self) -> bool:
        """Whether the server steps with whatever has arrived."""
        return self.mode == "buffered"

    @property
    def weighs_by_loss(self) -> bool:
        """Whether institutions tell the server their training loss, and count by it."""
        return self.experiment.strategy.weighting == "loss"

    @property
    def key_holder(self) -> str:
        """Who decrypts, where sums are taken on ciphertexts."""
        return self.participants[0].name

    @property
    def keeps_state(self) -> bool:
        """Whether institutions keep something between rounds.

        SCAFFOLD's control variates, the memory of error feedback, or what its noise has cost.
        """
        adaptive = self.privacy is not None and self.privacy.spends_adaptively
        controls = self.experiment.strategy.kind == "scaffold"
        return adaptive or controls or self.coding.feedback != "none"

    def blocks_of(self, participant: Participant) -> tuple[str, ...]:
        """Return the names of the blocks that a participant owns."""
        return self.spec.block_names(participant.domain, participant.modalities, participant.tier)

    def test_part(self, participant: Participant) -> tuple[int, int]:
        """Return (i, n): the participant scores the i-th of n parts of its domain's test set."""
        peers = self.by_domain[participant.domain]
        return peers.index(participant.name), len(peers)

    def _weight(self, participant: Participant) -> float:
        strategy = self.experiment.strategy
        if strategy.weighting == "uniform":
            return 1.0
        if strategy.weighting == "domain":
            total = self._domain_specimens[participant.domain]
            return strategy.domain_weights[participant.domain] * participant.specimens / total
        return float(participant.specimens)

    @cached_property
    def _domain_specimens(self) -> dict[str, int]:
        totals: dict[str, int] = {}
        for p in self.participants:
            totals[p.domain] = totals.get(p.domain, 0) + p.specimens
        return totals


def make_plan(
    experiment: Experiment,
    index: DatasetIndex,
    *,
    pooled: bool = False,
    randomness: Randomness | None = None,
) -> Plan:
    """Build the plan of an experiment on a dataset.

    Args:
        experiment: The resolved experiment.
        index: The dataset's index.
        pooled: One participant a domain, holding all of its institutions' specimens.
        randomness: Of noise, samples, keys and masks; by default what follows from the seed.

    Raises:
        InputError: The participants can't carry it out: see `feasibility`.
    """
    spec = ModelSpec(
        config=experiment.model,
        domains={name: info.modalities for name, info in index.domains.items()},
        classes={name: len(info.classes) for name, info in index.domains.items()},
        shapes=index.shapes,
        seed=experiment.seed,
        origins=_origins(experiment),
    )
    participants = who_trains(experiment, index, pooled=pooled)
    feasibility.check(experiment, index.domains, participants)
    spec = replace(spec, tiers=_tiers(spec, participants))
    classes = {name: info.classes for name, info in index.domains.items()}
    plan = Plan(
        experiment,
        spec,
        participants,
        classes,
        randomness or derived(experiment.seed),
        mode=_mode(experiment),
    )
    compression = experiment.compression
    if _SEE_TENSORS & {compression.codec, compression.downlink.codec}:
        plan = replace(plan, shapes=_shapes(spec))
    terms = make_terms(experiment, participants, plan.owners, lambda: _coordinates(plan))
    draws = plan.randomness.given(*facts(experiment, index, terms))
    scores = score_terms(experiment, index, participants, terms)
    return replace(plan, privacy=terms, scores=scores, randomness=draws)


def _mode(experiment: Experiment) -> str:
    if experiment.privacy.mode == "record-distributed":
        return "masked"
    if experiment.compression.encryption != "none":
        return "encrypted"
    return "buffered" if experiment.network.aggregation.kind == "buffered-async" else "plain"


def _origins(experiment: Experiment) -> dict[str, tuple[str, str]]:
    data = experiment.data
    if not isinstance(data, PhantomData) or not data.forward_models:
        return {}
    from fedfuse_ray.data.phantoms.from_file import origins

    return origins(data.forward_models)


def _shapes(spec: ModelSpec) -> dict[str, tuple[tuple[int, ...], ...]]:
    from fedfuse_ray.models.initial import block_shapes  # torch: few runs need it here

    return block_shapes(spec)


def _block_sizes(spec: ModelSpec) -> dict[str, int]:
    from fedfuse_ray.models.initial import block_sizes  # torch: few runs need it here

    return block_sizes(spec)


def _coordinates(plan: Plan) -> dict[str, dict[str, int]]:
    """Return how many numbers each institution sends of each of its blocks."""
    sizes = {n: plan.coding.coordinates(n, size) for n, size in _block_sizes(plan.spec).items()}
    return {p.name: {b: sizes[b] for b in plan.blocks_of(p)} for p in plan.participants}


def _tiers(spec: ModelSpec, participants: tuple[Participant, ...]) -> dict[str, tuple[str, ...]]:
    """Return the modalities that each tier's participants own, in the order of the shapes."""
    owned: dict[str, set[str]] = {}
    for p in participants:
        owned.setdefault(p.tier, set()).update(p.modalities)
    names = sorted(tier for tier in owned if tier)
    return {tier: tuple(m for m in spec.shapes if m in owned[tier]) for tier in names}
