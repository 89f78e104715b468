"""The terms under which a run is private: public, fixed before the first round.

From them every party derives the same noise, the same sampling rates, and the ledger's events.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from fedfuse_ray.config import Experiment
from fedfuse_ray.errors import FedfuseError, InputError
from fedfuse_ray.federation.plan.audited import after_audit
from fedfuse_ray.federation.plan.noise_shape import COUNT, NoiseShape, Release
from fedfuse_ray.federation.plan.participants import Participant
from fedfuse_ray.privacy.accounting.ledger import PrivacyEvent
from fedfuse_ray.privacy.mechanisms.clipping import JOINT
from fedfuse_ray.privacy.mechanisms.rounding import ripple
from fedfuse_ray.privacy.mechanisms.sampling import sampling_rate, steps_per_epoch

COUNT_UNITS = 1024
"""Units in one record of the count; a multiple of 2, since a record counts half, up or down.

So the count is an integer before noise: nothing is rounded, and its sensitivity is exact.
"""

MOST_GROWTH = 4
"""How far the adaptive clipping norm may leave its first value, either way."""

_WIDEST_MODULUS = 32


@dataclass(frozen=True)
class PrivacyTerms(NoiseShape):
    """The privacy of a run.

    Attributes:
        releases: By institution.
        audit: What an audit of an earlier run changed, and why; None without one.
    """

    releases: Mapping[str, Release]
    audit: str | None = None

    def sigma(self, institution: str, round: int) -> float:
        """Return the noise multiplier of an institution's release in a round.

        Under an adaptive schedule the round's broadcast has a further factor.
        """
        return self.releases[institution].noise_multiplier * self.factors[round - 1]

    def common_sigma(self, round: int) -> float:
        """Return the noise multiplier of a round in which all institutions have the same.

        Raises:
            FedfuseError: They differ, so the noise on their sum has no single multiplier.
        """
        multipliers = {release.noise_multiplier for release in self.releases.values()}
        if len(multipliers) != 1:
            raise FedfuseError(
                f"privacy.mode {self.config.mode!r} sums the noise of all institutions, but their "
                f"noise multipliers differ: {sorted(multipliers)}"
            )
        return multipliers.pop() * self.factors[round - 1]

    def as_charged(self, events: Iterable[PrivacyEvent]) -> PrivacyTerms:
        """Return the terms with the noise of a finished run's ledger as their schedule."""
        factors = list(self.factors)
        for event in (e for e in events if e.records is None):
            planned = self.releases[event.institution].noise_multiplier
            charged = event.noise_multiplier * self.config.institutions_per_unit
            factors[event.round - 1] = charged / planned
        return replace(self, factors=tuple(factors))

    def shares(self, block: str) -> int:
        """Return K_b - t_b: of how many shares the noise of a block, or of the count, is made."""
        return self.shares_among(len(self.releases if block == COUNT else self.owners[block]))

    def broadcast_sigma(self, sigma: float) -> float:
        """Return the noise multiplier that a broadcast needs where few uploads are seen.

        With it T broadcasts tell as much as L uploads of multiplier `sigma`: full-batch Gaussian
        releases compose by adding up 1/sigma^2.
        """
        seen = self.config.uplink_exposures or len(self.factors)
        return sigma * math.sqrt(len(self.factors) / seen)

    def lacking_std(self, owners: int, round: int) -> float:
        """Return what the noise of so many owners' sum lacks for its broadcast; 0 if nothing."""
        sigma = self.common_sigma(round)
        lacking = self.broadcast_sigma(sigma) ** 2 - self.shares_among(owners) * sigma**2
        return self.config.clip_norm * math.sqrt(max(0.0, lacking))

    def events(
        self, institution: str, blocks: tuple[str, ...], round: int, factor: float = 1.0
    ) -> list[PrivacyEvent]:
        """Return what an institution's release in a round is charged as.

        Where only L uploads are seen they are charged in the first L rounds: no listener can have
        seen more by then.

        Args:
            institution: Whose release.
            blocks: Its blocks.
            round: From 1.
            factor: On the noise multiplier, as an adaptive schedule chose it for the round.
        """
        release = self.releases[institution]
        sigma, seen = release.noise_multiplier * factor, self.config.uplink_exposures
        event = self.event(institution, blocks, round, release, sigma)
        if seen is None:
            return [event]
        broadcast = replace(
            event, noise_multiplier=self.broadcast_sigma(sigma), observer="downlink"
        )
        uploads = [replace(event, observer="uplink")] if round <= seen else []
        return [*uploads, broadcast]

    def modulus_bits(self, records: int) -> int:
        """Return the width of the modulus in which no sum of gradients wraps around.

        Raises:
            InputError: It would be wider than 32 bits.
        """
        sigma = max(r.noise_multiplier for r in self.releases.values()) * self.largest_factor
        stds = self.noise_stds(sigma)
        if self.adaptive:  # the norm may grow, and the noise with it
            records *= MOST_GROWTH
            stds = {JOINT: MOST_GROWTH * self.adaptive_stds(sigma)[0] * self.config.clip_norm}
        return self._fitting(
            max(s.modulus_bits(records, stds[g] / s.clip_norm) for g, s in self.scales.items()),
            f"sums of {records} records",
        )

    def count_bits(self, records: int) -> int:
        """Return the width of the modulus in which the count of unclipped records is summed."""
        sigma = max(r.noise_multiplier for r in self.releases.values()) * self.largest_factor
        reach = COUNT_UNITS * (records / 2.0 + 12.0 * self.adaptive_stds(sigma)[1]) + 1.0
        return self._fitting(math.ceil(math.log2(2.0 * reach + 1.0)), f"a count of {records}")

    def check_fine_grids(self, codec: str) -> None:
        """Refuse noise so weak that it does not smooth a fine grid, as its charge assumes.

        Raises:
            InputError: Rounding could give away more than is charged for it.
        """
        if self.round_ripple is None:
            return
        spread = self.config.adaptive_budget.spread if self.spends_adaptively else 1.0
        sigma = min(r.noise_multiplier for r in self.releases.values()) * min(self.factors) / spread
        deviations = [(self.shares(b), d) for b, d in self._fine_deviations(codec, sigma).items()]
        if any(ripple(n, d) > self.coordinate_ripple for n, d in deviations):
            raise InputError(
                "privacy.noise_multiplier",
                f"{sigma:.3g}",
                "is so little noise that integers would show through it; add noise, or lower "
                "privacy.target_epsilon",
            )

    def _fine_deviations(self, codec: str, sigma: float) -> dict[str, float]:
        """Return one share's least standard deviation in units of its fine grid, by block."""
        gradient, count = self.adaptive_stds(sigma) if self.adaptive else (sigma, 0.0)
        found = {COUNT: COUNT_UNITS * count} if self.adaptive else {}
        if codec == "fp32":
            norms, stds = self.clip_norms, self.noise_stds(gradient)
            for block, group in self.groups(tuple(self.owners)).items():
                scale = self.scales[group]
                if self.adaptive:  # the norm may shrink, the grid stays
                    scale = replace(scale, clip_norm=scale.clip_norm / MOST_GROWTH)
                found[block] = stds[group] / norms[group] * scale.l2
        return {block: std / math.sqrt(self.shares(block)) for block, std in found.items()}

    def _fitting(self, bits: int, what: str) -> int:
        if bits > _WIDEST_MODULUS:
            raise InputError(
                "privacy.clip_norm",
                self.config.clip_norm,
                f"{what} with their noise need {bits} bits, of {_WIDEST_MODULUS}; sample records "
                "or shrink the model",
            )
        return max(8, bits)


def make_terms(
    experiment: Experiment,
    participants: Sequence[Participant],
    owners: Mapping[str, tuple[str, ...]],
    coordinates: Callable[[], Mapping[str, Mapping[str, int]]],
) -> PrivacyTerms | None:
    """Return the terms of an experiment, calibrated to its budget; None where nothing is private.

    Args:
        experiment: The experiment.
        participants: Its participants; their numbers of specimens and patients are public.
        owners: Each block's owners.
        coordinates: Returns the numbers that are summed, by institution and block.
    """
    if not experiment.privacy.enabled:
        return None
    config, audit = after_audit(experiment.privacy, experiment.paradigm)
    rounds = experiment.training.rounds
    shape = NoiseShape(
        config=config,
        factors=config.noise_factors(rounds),
        owners=owners,
        coordinates=coordinates() if config.mode == "record-distributed" else {},
    )
    shape.groups(())  # a group without blocks, or a block without a group, is said before training
    releases = {p.name: _release(experiment, p, shape) for p in participants}
    parts = (shape.config, shape.factors, shape.owners, shape.coordinates)
    terms = PrivacyTerms(*parts, releases=releases, audit=audit)
    terms.check_fine_grids(experiment.compression.codec)
    return terms


def _release(experiment: Experiment, participant: Participant, shape: NoiseShape) -> Release:
    config, training = shape.config, experiment.training
    rate, steps = config.sampling_rate, 1
    if shape.local:
        units = participant.units(config)
        rate = sampling_rate(participant.batch_size, units)
        per_epoch = steps_per_epoch(participant.batch_size, units)
        steps = training.local_epochs * per_epoch
    if config.noise_multiplier is not None:
        return Release(config.noise_multiplier, rate, steps)
    from fedfuse_ray.privacy.accounting.calibration import calibrate, calibrate_noise_multiplier

    target = float(config.target_epsilon or 0.0)
    seen = config.uplink_exposures or training.rounds
    if config.mechanism == "gaussian":
        sigma = calibrate_noise_multiplier(
            target,
            config.delta,
            rate,
            steps * seen,
            shape.factors[:seen],
            config.accountant,
            (shape.round_ripple or 0.0) * len(shape.factors),
        )
        sigma *= config.institutions_per_unit
    else:
        whose = Release(1.0, rate, steps)
        rounds = range(1, training.rounds + 1)
        sigma = calibrate(
            lambda s: [shape.event("any", (), r, whose, s) for r in rounds], target, config.delta
        )
    return Release(sigma, rate, steps)
