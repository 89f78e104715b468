"""The server's recovery of masks from shares: pure functions over what the clients revealed."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from fedfuse_ray.errors import ProtocolError
from fedfuse_ray.privacy.secure_aggregation import masking
from fedfuse_ray.privacy.secure_aggregation.keys import KeyPair
from fedfuse_ray.privacy.secure_aggregation.messages import Advertisement, UnmaskingShares
from fedfuse_ray.privacy.secure_aggregation.round_secrets import commit
from fedfuse_ray.privacy.secure_aggregation.shamir import combine
from fedfuse_ray.privacy.secure_aggregation.terms import RoundTerms


@dataclass(frozen=True)
class Unmasking:
    """What is needed to take the masks out of the sums.

    Partners shared their keys, and pairwise masks run among them; survivors' masked inputs are in
    the sums. At least a threshold of respondents answered with the shares that they revealed.
    """

    terms: RoundTerms
    roster: Mapping[str, Advertisement]
    partners: Collection[str]
    survivors: Collection[str]
    commitments: Mapping[str, Mapping[str, bytes]]
    answers: Mapping[str, UnmaskingShares]

    def streams(self) -> Iterator[tuple[str, list[masking.Stream]]]:
        """Yield each block that may be revealed with the streams that undo its masks.

        Raises:
            ProtocolError: Shares do not give the secret that was advertised or committed to.
        """
        dropped = self._recover_dropped()
        for block in self.terms.summable(self.survivors):
            owners = self.terms.owners_among(block, self.survivors)
            seeds = {owner: self._recover_seed(owner, block) for owner in owners}
            undo = [
                masking.self_stream(seed, self.terms.digest, owner, block, -1)
                for owner, seed in seeds.items()
            ]
            for gone in self.terms.owners_among(block, dropped):
                undo += [self._undo_pair(block, owner, gone, dropped[gone]) for owner in owners]
            yield block, undo

    def _undo_pair(self, block: str, owner: str, gone: str, keys: KeyPair) -> masking.Stream:
        agreed = keys.agree(self.roster[owner].mask_key)
        sign = masking.pair_sign(self.terms.points[owner], self.terms.points[gone])
        return masking.pair_stream(agreed, self.terms.digest, block, -sign)

    def _recover_dropped(self) -> dict[str, KeyPair]:
        """Return the mask keys of those who shared their keys and sent no masked input."""
        recovered = {}
        for gone in self.partners:
            if gone in self.survivors:
                continue
            secret = self._combined({n: a.mask_keys[gone] for n, a in self.answers.items()})
            keys = KeyPair.of_secret(secret, self.terms.digest, gone)
            if keys.public != self.roster[gone].mask_key:
                raise ProtocolError(f"the shares of {gone!r} do not give the key it advertised")
            recovered[gone] = keys
        return recovered

    def _recover_seed(self, owner: str, block: str) -> bytes:
        seed = self._combined({n: a.seeds[owner][block] for n, a in self.answers.items()})
        if commit(seed, self.terms.digest, owner, block) != self.commitments[owner][block]:
            raise ProtocolError(f"the shares of {owner!r} do not give its seed of {block!r}")
        return seed

    def _combined(self, shares: Mapping[str, bytes]) -> bytes:
        points = {self.terms.points[name]: share for name, share in shares.items()}
        return combine(points, self.terms.threshold)
