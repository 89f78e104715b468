"""Secure aggregation: the server learns each block's sum over its owners, and no single update.

The protocol of Bonawitz et al., "Practical Secure Aggregation for Privacy-Preserving Machine
Learning", CCS 2017, in full, against active adversaries: key agreement, secret-shared keys and
seeds, masked inputs, consistency check, unmasking with dropouts. Start reading with `client`.

A message leaves out what its reader already knows. Institutions and blocks stand in the order of
the round's terms, and of each secret's shares a threshold less one are derived on both sides
instead of sent (`sharing`). Seeds and shared secrets have 16 bytes, as the AES-128 keys that masks
come from. A round of 15 institutions with 5 blocks costs each 2.5 kB beside its masked words, half
of it for the shares that take the masks out.

A round uses fresh keys. Their agreement costs about a tenth of a round of 15 institutions with a
million parameters; keeping pairwise keys over several rounds would save that, and would make every
dropout whose mask key was recovered agree on new ones, so it is not offered.
"""

from fedfuse_ray.packing import Modular, word_dtype
from fedfuse_ray.privacy.identities import ByteSource, Identity
from fedfuse_ray.privacy.secure_aggregation.client import Client
from fedfuse_ray.privacy.secure_aggregation.envelope import Stage
from fedfuse_ray.privacy.secure_aggregation.quantization import from_modular, to_modular
from fedfuse_ray.privacy.secure_aggregation.round import RoundReport, run_round, system_randomness
from fedfuse_ray.privacy.secure_aggregation.server import Server, Unmasked
from fedfuse_ray.privacy.secure_aggregation.terms import (
    BlockTerms,
    RoundTerms,
    minimum_threshold,
    unprotected_blocks,
)

__all__ = [
    "BlockTerms",
    "ByteSource",
    "Client",
    "Identity",
    "Modular",
    "RoundReport",
    "RoundTerms",
    "Server",
    "Stage",
    "Unmasked",
    "from_modular",
    "minimum_threshold",
    "run_round",
    "system_randomness",
    "to_modular",
    "unprotected_blocks",
    "word_dtype",
]
