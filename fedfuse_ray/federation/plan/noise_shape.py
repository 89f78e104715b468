"""What a round's private noise is made of, before its size is calibrated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from fedfuse_ray.config import PrivacyConfig
from fedfuse_ray.privacy.accounting.ledger import PrivacyEvent
from fedfuse_ray.privacy.mechanisms.adaptive_clipping import gradient_noise_multiplier
from fedfuse_ray.privacy.mechanisms.clipping import JOINT, assign_groups
from fedfuse_ray.privacy.mechanisms.gaussian import effective_tolerance, group_noise_stds
from fedfuse_ray.privacy.mechanisms.integers import IntegerScale, concentrated_terms, integer_scale
from fedfuse_ray.privacy.mechanisms.rounding import RIPPLE

COUNT = "clipping/count"
"""The pseudo-block in which the unclipped records are counted, under adaptive clipping."""


@dataclass(frozen=True)
class Release:
    """What one institution releases in every round.

    Attributes:
        noise_multiplier: sigma, the noise on a sum over the clipping norm, before the schedule's
            factor.
        sampling_rate: Poisson rate of its units (of the institution itself under `client`).
        steps: Noisy steps a round.
    """

    noise_multiplier: float
    sampling_rate: float
    steps: int = 1


@dataclass(frozen=True)
class NoiseShape:
    """What a round's noise is made of, whatever its size.

    Attributes:
        config: The privacy config, its target as an audit left it.
        factors: Each round's factor on the noise multiplier.
        owners: Each block's owners.
        coordinates: By institution and block, the numbers that are summed under masks.
    """

    config: PrivacyConfig
    factors: tuple[float, ...]
    owners: Mapping[str, tuple[str, ...]]
    coordinates: Mapping[str, Mapping[str, int]]

    @property
    def distributed(self) -> bool:
        """Whether a round is one joint step under secure aggregation."""
        return self.config.mode == "record-distributed"

    @property
    def local(self) -> bool:
        """Whether institutions run DP-SGD by themselves."""
        return self.config.mode == "record-local"

    @property
    def whole_updates(self) -> bool:
        """Whether an institution's whole update is clipped, not each record's gradient."""
        return self.config.mode in ("client", "local-update")

    @property
    def adaptive(self) -> bool:
        """Whether the clipping norm follows a quantile."""
        return self.config.adaptive_clipping.enabled

    @property
    def spends_adaptively(self) -> bool:
        """Whether each round's noise is chosen from what was released before."""
        return self.config.noise_schedule == "adaptive"

    @property
    def largest_factor(self) -> float:
        """The largest factor on the noise multiplier that a round may have."""
        spread = self.config.adaptive_budget.spread if self.spends_adaptively else 1.0
        return max(self.factors) * spread

    def adaptive_stds(self, sigma: float) -> tuple[float, float]:
        """Return the gradients' noise multiplier and the count's noise, which together are sigma.

        Andrew et al., 2021, arXiv 1905.03871, theorem 1.
        """
        count_std = self.config.adaptive_clipping.count_noise * sigma
        return gradient_noise_multiplier(sigma, count_std), count_std

    @cached_property
    def clip_norms(self) -> dict[str, float]:
        """C by clipping group."""
        groups = self.config.groups
        if not groups:
            return {JOINT: self.config.clip_norm}
        return {name: group.clip_norm for name, group in groups.items()}

    @cached_property
    def _assigned(self) -> dict[str, str]:
        return assign_groups(list(self.owners), list(self.config.groups))

    def groups(self, blocks: Sequence[str]) -> dict[str, str]:
        """Return the clipping group of each block; the count of unclipped records is in none."""
        return {block: self._assigned[block] for block in blocks if block != COUNT}

    def noise_stds(self, sigma: float) -> dict[str, float]:
        """Return the noise's standard deviation on the sum, by clipping group."""
        if not self.config.groups:
            return {JOINT: sigma * self.config.clip_norm}
        groups = {n: (g.clip_norm, g.noise_scale) for n, g in self.config.groups.items()}
        return group_noise_stds(sigma, groups)

    def shares_among(self, owners: int) -> int:
        """Return K - t: of how many shares the noise is made that K owners add."""
        return owners - effective_tolerance(owners, self.config.tolerated_dropouts)

    @cached_property
    def scales(self) -> dict[str, IntegerScale]:
        """Integer units of gradients by clipping group, and what rounding adds to its sensitivity.

        Each group has a grid of its own: rounding moves its d_m coordinates by sqrt(d_m) in all,
        however small its C_m is.
        """
        return {
            group: integer_scale(clip, self._dimension(group))
            for group, clip in self.clip_norms.items()
        }

    def _dimension(self, group: str) -> int:
        """Return the most coordinates that an institution has in a group."""
        counts = (
            sum(n for block, n in own.items() if self._assigned[block] == group)
            for own in self.coordinates.values()
        )
        return max(1, *counts) if self.coordinates else 1

    @property
    def round_ripple(self) -> float | None:
        """Gamma of a round: what is charged for rounding shares apart; None where none is."""
        rounded = self.distributed and self.config.mechanism == "gaussian"
        return RIPPLE / len(self.factors) if rounded else None

    @cached_property
    def coordinate_ripple(self) -> float:
        """Gamma that one coordinate may have in a round: the institution with the most decides."""
        most = max((sum(own.values()) for own in self.coordinates.values()), default=0)
        return RIPPLE / len(self.factors) / max(1, most + self.adaptive)

    def event(
        self, institution: str, blocks: tuple[str, ...], round: int, release: Release, sigma: float
    ) -> PrivacyEvent:
        """Return one release as it is charged, with `sigma` before the schedule's factor.

        A unit that stands at k institutions adds up to k C to a joint sum, so that sum is a release
        of multiplier sigma / k for it: the group bound of a Gaussian mechanism (Dong, Roth and Su,
        2019, arXiv 1905.02383, theorem 2.14), which holds for adaptive rounds together too.
        """
        sigma *= self.factors[round - 1]
        mechanism, parts = self.config.mechanism, self.config.institutions_per_unit
        rho = xi = None
        if mechanism != "gaussian":
            shares = max(self.shares_among(len(names)) for names in self.owners.values())
            rho, xi = concentrated_terms(mechanism, sigma, self.scales[JOINT], shares, parts)
        return PrivacyEvent(
            round=round,
            institution=institution,
            blocks=blocks,
            mechanism=mechanism,
            noise_multiplier=sigma / parts,
            sampling_rate=release.sampling_rate,
            count=release.steps,
            unit=self.config.protected_unit,
            rho=rho,
            xi=xi,
            ripple=self.round_ripple,
        )
