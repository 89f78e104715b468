"""Canary institutions: whole updates of the auditor's choice, through a round of mode `client`.

Each canary that takes part is an institution more, of the kind of its host. Its update goes through
the institution's clip, the codec, the wire, the server's own clip, the sum and the server's noise:
the code of every plain round. Adversary: knows all other updates and sees what the server releases.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

import numpy as np

from fedfuse_ray.audit.attacks.canaries import OVERLONG, HostCanaries
from fedfuse_ray.blocks import Blocks
from fedfuse_ray.errors import ProtocolError
from fedfuse_ray.federation.messages import wire
from fedfuse_ray.federation.messages.updates import Update
from fedfuse_ray.federation.plan.plan import Plan
from fedfuse_ray.federation.plan.selection import in_sample
from fedfuse_ray.federation.server.summing import Summing, Total, added

_MESSAGES = 256


def institution_releases(
    plan: Plan, hosts: Sequence[HostCanaries], sizes: Mapping[str, int], rounds: int
) -> Iterator[dict[str, Blocks]]:
    """Yield, for each round, the noisy sums that concern each host, by host.

    Where everybody takes part and the codec loses nothing, every round's sum is the same and taken
    once; the noise is each round's own.
    """
    summing, rate = Summing(plan, sizes), plan.terms.config.sampling_rate
    same = rate >= 1.0 and plan.coding.config.codec == "fp32"
    total: Total | None = None
    for number in range(1, rounds + 1):
        if total is None or not same:
            total = _summed(plan, summing, hosts, sizes, number)
        means, _ = summing.aggregate(total, number, Update())
        released = {
            block: mean * np.float32(rate * len(plan.owners[block]))
            for block, mean in means.mean.items()
        }
        yield dict.fromkeys([host.institution for host in hosts], released)


def _summed(
    plan: Plan,
    summing: Summing,
    hosts: Sequence[HostCanaries],
    sizes: Mapping[str, int],
    round: int,
) -> Total:
    total = Total()
    messages = (m for host in hosts for m in _messages(plan, host, sizes, round))
    while part := list(islice(messages, _MESSAGES)):
        added_up = summing.add_up(part, round, {})
        if added_up.refused:
            raise ProtocolError(f"the server refused canary {added_up.refused[0]}")
        total.sums = added(total.sums, added_up.sums)
    return total


def _messages(
    plan: Plan, host: HostCanaries, sizes: Mapping[str, int], round: int
) -> Iterator[wire.Message]:
    """Yield what the host's canaries send that take part, and are in the round's sample."""
    blocks = plan.blocks_of(plan.by_name[host.institution])
    ends = np.cumsum([sizes[block] for block in blocks])
    for number in np.flatnonzero(host.included):
        name = f"{host.institution} canary {number}"
        if not in_sample(plan.terms, plan.randomness, name, round):
            continue
        flat = np.zeros(int(ends[-1]), np.float32)
        np.add.at(flat, host.positions[number], OVERLONG * host.values[number])
        parts = dict(zip(blocks, np.split(flat, ends[:-1]), strict=True))
        sent = plan.transforms.sent(Update(parts), name, round).on_wire()
        payloads, _ = plan.coding.encode(sent, {}, round, name, {})
        lengths = {block: vector.size for block, vector in sent.items()}
        codec = plan.coding.config.codec
        yield wire.unpack(wire.pack(wire.Message(name, round, codec, payloads, lengths, 1)))
