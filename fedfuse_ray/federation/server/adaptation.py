"""The options of the adaptive policy, computed from released sums alone.

- Under secure aggregation only bits are chosen. The sum of the rotated, noisy integers is close to
  Gaussian, so the last round's root mean square says how likely a narrower modulus is to overflow.
- Elsewhere the released mean update stands for the updates: `topk` reads off it how much energy the
  largest entries hold; `modint` and `subspace` only need its norm.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedfuse_ray.blocks import Blocks, Vector
from fedfuse_ray.compression.codec import Setting
from fedfuse_ray.compression.policy import Option, choose_for_budget, choose_for_error
from fedfuse_ray.compression.projection import num_coordinates
from fedfuse_ray.config import CompressionConfig
from fedfuse_ray.packing import packed_bytes

FRACTIONS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2, 0.35, 0.6, 1.0)
NARROWEST, WIDEST = 3, 32

_DEFAULT_ERROR = 1e-3
_GROWTH = 1.5
"""How much larger than the last sum the next one may be; early gradients grow."""
_OVERFLOWN = 1 / 6
"""Root mean square over the modulus beyond which a sum must have wrapped: uniform is 0.29."""


@dataclass(frozen=True)
class Adaptation:
    """The policy of one federation.

    Attributes:
        config: The compression config.
        senders: How many institutions send each block.
    """

    config: CompressionConfig
    senders: Mapping[str, int]

    def after_secure_sum(
        self,
        sums: Mapping[str, npt.NDArray[np.int64]],
        bits: Mapping[str, int],
        finer: float = 1.0,
    ) -> dict[str, Setting]:
        """Return the next round's bits, from the integers that a round revealed.

        Args:
            sums: By block, [k].
            bits: The modulus that each was summed in.
            finer: How much finer the next round's grid is, since it gets less noise.
        """
        options: dict[str, list[Option]] = {}
        energies: dict[str, float] = {}
        for block, total in sums.items():
            rms = math.sqrt(float(np.mean(np.square(total.astype(np.float64)))))
            if rms > _OVERFLOWN * 2.0 ** bits[block]:
                wider = min(bits[block] + 2, WIDEST)
                options[block] = [self._secure_option(block, total.size, wider, 0.0)]
            else:
                reach = _GROWTH * finer * max(rms, 0.5)
                options[block] = [
                    self._secure_option(block, total.size, width, overflow_error(width, reach))
                    for width in range(NARROWEST, WIDEST + 1)
                ]
            energies[block] = total.size * max(rms, 0.5) ** 2
        return self._choose(options, energies)

    def after_mean(self, mean: Blocks) -> dict[str, Setting]:
        """Return the next round's strengths, from the mean update that a round released."""
        options = {name: self._options(name, vector) for name, vector in mean.items()}
        energies = {name: float(np.square(v, dtype=np.float64).sum()) for name, v in mean.items()}
        return self._choose(options, energies)

    def _choose(
        self, options: Mapping[str, list[Option]], energies: Mapping[str, float]
    ) -> dict[str, Setting]:
        policy = self.config.policy
        if policy.byte_budget is not None:
            return choose_for_budget(options, energies, policy.byte_budget)
        return choose_for_error(options, policy.error_target or _DEFAULT_ERROR)

    def _secure_option(self, block: str, size: int, bits: int, error: float) -> Option:
        setting = Setting(bits=bits)
        return Option(setting, self.senders[block] * packed_bytes(size, bits), error)

    def _options(self, block: str, mean: Vector) -> list[Option]:
        make: dict[str, Callable[[str, Vector], list[Option]]] = {
            "topk": self._topk_options,
            "modint": self._modint_options,
            "subspace": self._subspace_options,
        }
        return make[self.config.codec](block, mean)

    def _topk_options(self, block: str, mean: Vector) -> list[Option]:
        bits = self.config.bits or 8
        energy = np.sort(np.square(mean.astype(np.float64)))[::-1].cumsum()
        options = []
        for fraction in FRACTIONS:
            kept = max(1, round(fraction * mean.size))
            # A Golomb-coded gap takes the entropy of a geometric variable and about half a bit.
            gap = math.log2(1 / fraction) + 1.5
            error = 1.0 - energy[kept - 1] / energy[-1] if energy[-1] else 0.0
            options.append(self._option(block, bits, fraction, kept * (bits + gap), error))
        return options

    def _modint_options(self, block: str, mean: Vector) -> list[Option]:
        options = []
        for bits in range(2, 13):
            step = 2.0 * math.sqrt(2.0 * math.log(max(mean.size, 2))) / (2**bits - 1)
            error = step**2 / 6.0  # stochastic rounding, entries of a rotated vector
            options.append(self._option(block, bits, 1.0, bits * mean.size, error))
        return options

    def _subspace_options(self, block: str, mean: Vector) -> list[Option]:
        options = []
        for fraction in FRACTIONS:
            setting = Setting(fraction=fraction, smallest=self.config.smallest)
            kept = num_coordinates(mean.size, setting)
            options.append(self._option(block, 8, fraction, 32 * kept, 1.0 - kept / mean.size))
        return options

    def _option(
        self, block: str, bits: int, fraction: float, payload_bits: float, error: float
    ) -> Option:
        nbytes = self.senders[block] * math.ceil(payload_bits / 8)
        return Option(Setting(bits=bits, fraction=fraction), nbytes, error)


def overflow_error(bits: int, rms: float) -> float:
    """Return the squared error over the squared norm that wrapping modulo 2^bits leaves.

    For Gaussian entries: one between j and j + 2 half moduli away, j = 1, 3, 5, is off by
    (j + 1) / 2 moduli. Where the modulus is below a standard deviation, nothing is left.
    """
    half = 2.0 ** (bits - 1) / rms
    if half < 0.5:
        return 1.0
    beyond = (j * math.erfc(j * half / math.sqrt(2.0)) for j in range(1, 20, 2))
    return (2.0 * half) ** 2 * math.fsum(beyond)
