"""Canaries: records whose gradients the auditor chooses, and a network that produces them.

A canary is a direction in the space of a host's gradients. To travel through the real code (Poisson
sampling, per-record gradients, the clip, the noise, the modular sum) it is a record like any other:
its loss, under `CanaryNet`, is the cross-entropy of a logit that is linear in the weights, so that
the negative gradient is the canary itself, twenty times as long as the clip allows. Where
institutions are the unit, it is the whole update of an institution more (`institutions.py`).

Two kinds: one coordinate of one block each, which show what happens to that block; and `JOINT`
ones, spread over all blocks of their host, which show whether the clip is joint. Adversary: knows
all canaries, all other records, and sees every release (white-box). Source: Steinke, Nasr and
Jagielski, 2023, arXiv 2305.08846, section 6; Dirac canaries: Nasr et al., 2023, arXiv 2302.07956.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from fedfuse_ray.config import PrivacyConfig
from fedfuse_ray.errors import InputError
from fedfuse_ray.federation.institution.tensors import TensorData
from fedfuse_ray.federation.plan.plan import Plan
from fedfuse_ray.federation.plan.terms import PrivacyTerms
from fedfuse_ray.models.net import CrossModalNet
from fedfuse_ray.models.spec import ModelSpec

PATIENT_RECORDS = 4
"""How many records a canary patient has, all alike: each alone fills the clip."""

JOINT = "joint clip"
"""Group of the canaries that are spread over all blocks of their host."""

_JOINT_FRACTION = 0.2
# At weights of zero the gradient of the loss is half the canary, or a little more.
OVERLONG = 40.0
"""How many times as long as it may be a canary is before it is clipped."""

_LARGEST_MODEL = 1 << 24
_FEWEST_IN_BLOCK = 120


@dataclass(frozen=True)
class HostCanaries:
    """The canaries that one institution may hold.

    Attributes:
        institution: The host.
        positions: Coordinates in the host's flat vector, int64 [n, J].
        values: What a correct clip leaves of each at these coordinates, float32 [n, J]; zero where
            a canary has fewer than J.
        groups: The block that each is about, or `JOINT`.
        included: Which take part, bool [n].
    """

    institution: str
    positions: npt.NDArray[np.int64]
    values: npt.NDArray[np.float32]
    groups: npt.NDArray[np.str_]
    included: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.included)

    def records(self, config: PrivacyConfig) -> TensorData:
        """Return the included canaries as records for `CanaryNet`, and one that adds nothing.

        Where patients are the unit, a canary is one, with several records. Where a unit may stand
        at k institutions it is k units here: the sums that they add to can't tell. The last is
        there because an institution without a record can't train.
        """
        kept, each = self.included, PATIENT_RECORDS if config.of_patients else 1
        packed = np.concatenate([self.positions[kept], self.values[kept] * OVERLONG], axis=1)
        packed = np.repeat(packed, config.institutions_per_unit * each, axis=0)
        packed = np.concatenate([packed, np.zeros((1, packed.shape[1]))])
        count = len(packed)
        return TensorData(
            modalities=("canary",),
            inputs={"canary": torch.from_numpy(packed.astype(np.float32))},
            present=torch.ones(count, 1, dtype=torch.bool),
            labels=torch.zeros(count, dtype=torch.int64),
            device=torch.device("cpu"),
            units=torch.arange(count) // each if config.of_patients else None,
        )


@dataclass(frozen=True)
class _Rows:
    """Canaries of one group at one host: coordinates and values, both [n, j]."""

    group: str
    positions: npt.NDArray[np.int64]
    values: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.positions)


class CanaryNet(CrossModalNet):
    """The blocks of an institution's network as bare vectors of zeros, for canaries as records."""

    def __init__(
        self,
        spec: ModelSpec,
        domain: str,
        modalities: Sequence[str],
        sizes: Mapping[str, int],
        tier: str = "",
    ) -> None:
        nn.Module.__init__(self)
        self.spec, self.domain, self.modalities = spec, domain, tuple(modalities)
        self.kind = "attention"
        self.names = spec.block_names(domain, self.modalities, tier)
        self.blocks = nn.ModuleDict({name: _Bare(sizes[name]) for name in self.names})
        self._flatten()

    def embed(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return canaries as they are, [B, 1, 2 J]."""
        return inputs["canary"][:, None]

    def classify(
        self, embedded: torch.Tensor, mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the logits <canary, weights> and 0, [B, 2]."""
        positions, values = embedded[:, 0].chunk(2, dim=1)
        weights = torch.cat([block.vector for block in self.blocks.values()])  # type: ignore[misc]
        picked = weights.expand(len(positions), -1).gather(1, positions.long())
        logit = (picked * values).sum(dim=1)
        return torch.stack([logit, torch.zeros_like(logit)], dim=1), mask.to(logit.dtype)


class _Bare(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.vector = nn.Parameter(torch.zeros(size))


def draw_canaries(
    plan: Plan,
    terms: PrivacyTerms,
    sizes: Mapping[str, int],
    count: int,
    generator: np.random.Generator,
    sharing: int = 2,
) -> list[HostCanaries]:
    """Draw `count` canaries over all hosts, and which take part, each with probability 1/2.

    There are fewer where the model is small: no coordinate is taken more than `sharing` times by
    canaries of one coordinate. The clip norms give them their length.

    Raises:
        InputError: The model has more than 2^24 parameters.
    """
    largest = max(sum(sizes[b] for b in plan.blocks_of(p)) for p in plan.participants)
    if largest > _LARGEST_MODEL:
        raise InputError("--attacks", "canaries", "made for models of up to 2^24 parameters")
    witnesses = {block: honest_owners(plan, terms, block) for block in plan.owners}
    everywhere = [
        p.name for p in plan.participants if all(p.name in witnesses[b] for b in plan.blocks_of(p))
    ]
    spread = round(count * _JOINT_FRACTION) if everywhere else 0
    rows: dict[str, list[_Rows]] = {p.name: [] for p in plan.participants}
    for block, chosen in _coordinates(sizes, count - spread, sharing, generator).items():
        drawn = generator.integers(len(witnesses[block]), size=len(chosen))
        for number, host in enumerate(witnesses[block]):
            own = {block: chosen[drawn == number]}
            rows[host].append(_rows(terms, plan, host, own, sizes, block, generator))
    drawn = generator.integers(max(1, len(everywhere)), size=spread)
    for number, host in enumerate(everywhere):
        size = int((drawn == number).sum())
        blocks = [b for b in plan.blocks_of(plan.by_name[host]) if sizes[b]]
        own = {b: _spread_coordinates(sizes[b], size, generator) for b in blocks}
        rows[host].append(_rows(terms, plan, host, own, sizes, JOINT, generator))
    return [_packed(host, own, generator) for host, own in rows.items() if any(map(len, own))]


def honest_owners(plan: Plan, terms: PrivacyTerms, block: str) -> tuple[str, ...]:
    """Return a block's owners without the t_b that the guarantee lets collude.

    What a colluding owner adds is known to the adversary, so it is as if it were absent.
    """
    owners = plan.owners[block]
    return owners[: terms.shares(block)] if terms.distributed else owners


def _coordinates(
    sizes: Mapping[str, int], count: int, sharing: int, generator: np.random.Generator
) -> dict[str, npt.NDArray[np.int64]]:
    """Return up to `count` coordinates by block, shared out by size, but a few for each block.

    None is taken more than `sharing` times: canaries that overlap blur each other.
    """
    free = {block: _own_coordinates(size) for block, size in sizes.items() if size}
    fraction = count / sum(free.values())
    chosen = {}
    for block, size in free.items():
        wanted = min(sharing * size, max(_FEWEST_IN_BLOCK, round(fraction * size)))
        order = np.concatenate([generator.permutation(size) for _ in range(sharing)])
        chosen[block] = order[:wanted]
    return chosen


def capacity(sizes: Mapping[str, int], sharing: int) -> int:
    """Return how many canaries one run can have, the spread ones included."""
    own = sharing * sum(_own_coordinates(size) for size in sizes.values())
    return math.floor(own / (1.0 - _JOINT_FRACTION))


def _own_coordinates(size: int) -> int:
    """Return how many of a block's coordinates, the first ones, are not for spread canaries."""
    return size - size // 8


def _spread_coordinates(
    size: int, count: int, generator: np.random.Generator
) -> npt.NDArray[np.int64]:
    first = _own_coordinates(size) if size // 8 else 0
    return generator.integers(first, size, count)


def _starts(plan: Plan, host: str, sizes: Mapping[str, int]) -> dict[str, int]:
    blocks = [b for b in plan.blocks_of(plan.by_name[host]) if sizes[b]]
    ends = np.cumsum([sizes[b] for b in blocks])
    return {b: int(end) - sizes[b] for b, end in zip(blocks, ends, strict=True)}


def _rows(
    terms: PrivacyTerms,
    plan: Plan,
    host: str,
    chosen: Mapping[str, npt.NDArray[np.int64]],
    sizes: Mapping[str, int],
    group: str,
    generator: np.random.Generator,
) -> _Rows:
    """Return canaries at the chosen coordinates, with norm C_m in every group that they touch."""
    clips, starts = terms.groups(plan.blocks_of(plan.by_name[host])), _starts(plan, host, sizes)
    touched = [clips[block] for block in chosen]
    lengths = [terms.clip_norms[name] / touched.count(name) ** 0.5 for name in touched]
    positions = np.stack([starts[block] + index for block, index in chosen.items()], axis=1)
    signs = generator.choice((-1.0, 1.0), positions.shape)
    return _Rows(group, positions, (signs * np.array(lengths)).astype(np.float32))


def _packed(host: str, rows: Sequence[_Rows], generator: np.random.Generator) -> HostCanaries:
    width = max(part.positions.shape[1] for part in rows)
    count = sum(len(part) for part in rows)

    def padded(parts: Sequence[npt.NDArray[np.generic]]) -> npt.NDArray[np.generic]:
        return np.concatenate(
            [np.pad(part, ((0, 0), (0, width - part.shape[1]))) for part in parts]
        )

    return HostCanaries(
        institution=host,
        positions=padded([part.positions for part in rows]).astype(np.int64),
        values=padded([part.values for part in rows]).astype(np.float32),
        groups=np.repeat([part.group for part in rows], [len(part) for part in rows]),
        included=generator.random(count) < 0.5,
    )
