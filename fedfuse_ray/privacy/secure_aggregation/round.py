"""A whole round in this process, every message as the bytes that would cross the network."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from time import perf_counter

from fedfuse_ray.errors import InputError
from fedfuse_ray.packing import Modular
from fedfuse_ray.privacy.identities import ByteSource, Identity
from fedfuse_ray.privacy.secure_aggregation.client import Client
from fedfuse_ray.privacy.secure_aggregation.envelope import Stage
from fedfuse_ray.privacy.secure_aggregation.server import Server, Unmasked
from fedfuse_ray.privacy.secure_aggregation.terms import RoundTerms


@dataclass(frozen=True)
class RoundReport:
    """A round's sums and what they cost.

    Attributes:
        unmasked: What the server ends with.
        seconds: `stage/clients` and `stage/server` to the seconds spent there, all institutions
            one after the other.
        uplink_by_stage: Stage to institution to the bytes that it sent in the stage.
        downlink_by_stage: The same of the server's answer that opens the stage.
    """

    unmasked: Unmasked
    seconds: Mapping[str, float]
    uplink_by_stage: Mapping[str, Mapping[str, int]]
    downlink_by_stage: Mapping[str, Mapping[str, int]]

    @property
    def uplink_bytes(self) -> dict[str, int]:
        """Institution to all the bytes that it sent."""
        return _total(self.uplink_by_stage)

    @property
    def downlink_bytes(self) -> dict[str, int]:
        """Institution to all the bytes that it received."""
        return _total(self.downlink_by_stage)


def _total(by_stage: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for counts in by_stage.values():
        total.update(counts)
    return dict(total)


def system_randomness(institution: str) -> ByteSource:
    """Return the operating system's randomness, whoever asks."""
    del institution
    return os.urandom


def run_round(
    terms: RoundTerms,
    identities: Mapping[str, Identity],
    inputs: Mapping[str, Mapping[str, Modular]],
    dropouts: Mapping[Stage, Collection[str]] | None = None,
    randomness: Callable[[str], ByteSource] = system_randomness,
) -> RoundReport:
    """Run clients and server against each other.

    Args:
        terms: The round's terms.
        identities: Institution to its signing key, for all of the terms' institutions.
        inputs: Institution to its blocks' words modulo 2^k, each of shape [size]. One that drops
            out before the masked input needs none.
        dropouts: Stage to those who send nothing from that stage on.
        randomness: Institution to its source of keys.

    Raises:
        InputError: A dropout takes no part, or a client's inputs are not its blocks.
        TooFewError: Too few institutions are left at the end of a stage.
    """
    lost = dict(dropouts or {})
    strangers = {name for names in lost.values() for name in names} - set(terms.identities)
    if strangers:
        raise InputError("dropouts", sorted(strangers), "must be among the institutions")
    clients = {
        name: Client(terms, name, identities[name], randomness(name)) for name in terms.identities
    }
    play = _Play(clients, Server(terms), lost)
    play.stage(Stage.ADVERTISE_KEYS, lambda _, client, __: client.advertise())
    play.close(Stage.ADVERTISE_KEYS, play.server.roster)
    play.stage(Stage.SHARE_KEYS, lambda _, client, roster: client.share_keys(roster))
    play.close(Stage.SHARE_KEYS, play.server.deliveries)
    play.stage(Stage.MASKED_INPUT, lambda name, client, got: client.mask(got, inputs[name]))
    play.close(Stage.MASKED_INPUT, play.server.survivors)
    play.stage(Stage.CONSISTENCY_CHECK, lambda _, client, survivors: client.confirm(survivors))
    play.close(Stage.CONSISTENCY_CHECK, play.server.confirmations)
    play.stage(Stage.UNMASKING, lambda _, client, confirmed: client.unmask(confirmed))
    start = perf_counter()
    unmasked = play.server.unmask()
    play.seconds[f"{Stage.UNMASKING.value}/server"] += perf_counter() - start
    return RoundReport(unmasked, play.seconds, play.uplink, play.downlink)


@dataclass
class _Play:
    """The clients that are left, the server, and what each stage cost."""

    clients: dict[str, Client]
    server: Server
    lost: Mapping[Stage, Collection[str]]
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    uplink: dict[str, dict[str, int]] = field(default_factory=dict)
    downlink: dict[str, dict[str, int]] = field(default_factory=dict)
    answers: Mapping[str, bytes] = field(default_factory=dict)

    def stage(self, stage: Stage, step: Callable[[str, Client, bytes], bytes]) -> None:
        """Let each client that is left take a step, and the server receive its message."""
        for name in self.lost.get(stage, ()):
            self.clients.pop(name, None)
        up = self.uplink.setdefault(stage.value, {})
        down = self.downlink.setdefault(stage.value, {})
        for name in self.server.expected:
            if name not in self.clients:
                continue
            answer = self.answers.get(name, b"")
            down[name] = len(answer)
            start = perf_counter()
            message = step(name, self.clients[name], answer)
            sent = perf_counter()
            self.server.receive(message)
            up[name] = len(message)
            self.seconds[f"{stage.value}/clients"] += sent - start
            self.seconds[f"{stage.value}/server"] += perf_counter() - sent

    def close(self, stage: Stage, step: Callable[[], bytes | Mapping[str, bytes]]) -> None:
        """Let the server close the stage and keep its answers for those who are left."""
        start = perf_counter()
        answer = step()
        self.seconds[f"{stage.value}/server"] += perf_counter() - start
        if isinstance(answer, bytes):
            answer = dict.fromkeys(self.server.expected, answer)
        self.answers = answer
