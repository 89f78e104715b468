"""A round of sums on ciphertexts: the server adds what it can't read, one institution decrypts.

The key's holder makes a fresh pair of keys and publishes the public one; everybody trains, encrypts
its update under it, and sends it; the server adds ciphertexts and has the holder decrypt the sums.
Neither sees a single update, as long as the two don't work together: the server has no secret key,
and the holder is sent sums alone. Without the holder a round is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from fedfuse_ray.blocks import Blocks
from fedfuse_ray.errors import ProtocolError
from fedfuse_ray.federation.messages import wire
from fedfuse_ray.federation.messages.downlink import SERVER
from fedfuse_ray.federation.modes.masked import Answer, Exchange, Messages, Revealed
from fedfuse_ray.federation.modes.steps import DECRYPT, ENCRYPT, PUBLISH
from fedfuse_ray.federation.plan.plan import Plan
from fedfuse_ray.privacy.mechanisms.homomorphic import (
    CipherSum,
    Integers,
    KeyPair,
    PublicKey,
    fixed_point,
)

_SUMS = "int32"
"""How decrypted sums are encoded."""

Objection = Callable[[wire.Message, int, Mapping[str, object]], str | None]
"""Why an update can't be in a round's sum, given whose already are."""


class EncryptedMember:
    """An institution's side of one round.

    Args:
        plan: The federation's plan.
        institution: Who this is.
        round: From 1.

    Attributes:
        gone: It was late, and takes no further step.
    """

    def __init__(self, plan: Plan, institution: str, round: int) -> None:
        self.round = round
        self.gone = False
        self._plan, self._name = plan, institution
        self._keys: KeyPair | None = None

    def step(self, step: str, answer: Answer) -> bytes:
        """Take a step other than the update's; only the key's holder has something to say."""
        if self._name != self._plan.key_holder:
            return b""
        if step == PUBLISH:
            self._keys = KeyPair()
            return self._keys.public
        sums = answer.get(self._name, b"") if isinstance(answer, dict) else b""
        return self._decrypt(sums) if self._keys is not None else b""

    def encrypt(self, answer: Answer, blocks: Blocks, steps: int) -> tuple[bytes, dict[str, int]]:
        """Return the update's message under the published key, and its blocks' lengths.

        Args:
            answer: What the server answered the published key with.
            blocks: The update, through the chain.
            steps: Local optimizer steps behind it.

        Raises:
            ProtocolError: There is no such key.
            InputError: An entry is too large.
        """
        if not isinstance(answer, bytes):
            raise ProtocolError("no key was published to encrypt under")
        key, owners = PublicKey.read(answer), self._plan.owners
        payloads = {
            name: key.encrypt(fixed_point(vector, len(owners[name])))
            for name, vector in blocks.items()
        }
        sizes = {name: vector.size for name, vector in blocks.items()}
        codec = self._plan.coding.name
        message = wire.Message(self._name, self.round, codec, payloads, sizes, steps)
        return wire.pack(message), {name: len(payload) for name, payload in payloads.items()}

    def _decrypt(self, sums: bytes) -> bytes:
        if self._keys is None:
            raise ProtocolError(f"{self._name} has no key of round {self.round}")
        message = wire.unpack(sums)
        opened = {
            name: self._keys.decrypt(payload, message.sizes[name]).astype("<i4").tobytes()
            for name, payload in message.blocks.items()
        }
        return wire.pack(wire.Message(self._name, self.round, _SUMS, opened, message.sizes, 0))


class EncryptedGathering:
    """The server's side of one round; it adds ciphertexts up as they come and keeps none.

    Args:
        plan: The federation's plan.
        round: From 1.
        objection: Says why an update can't be in the sum.
    """

    def __init__(self, plan: Plan, round: int, objection: Objection) -> None:
        self.round = round
        self._plan, self._objection = plan, objection
        self._public: PublicKey | None = None
        self._sums: dict[str, CipherSum] = {}
        self._sizes: dict[str, int] = {}
        self._owners: dict[str, tuple[str, ...]] = {}
        self._steps: dict[str, int] = {}
        self._traffic: dict[str, dict[str, Exchange]] = {}
        self._refused: list[tuple[str, str]] = []

    def step(self, step: str, messages: Messages) -> Answer | None:
        """Take the members' messages of a step before the last; return what they get.

        None says that no key was published, or no update came under it.
        """
        return self._publish(messages) if step == PUBLISH else self._add(messages)

    def _publish(self, messages: Messages) -> Answer | None:
        exchanges = self._traffic[PUBLISH] = {}
        published: bytes | None = None
        for sender, message in messages:
            try:
                self._from_holder(sender)
                self._public, published = PublicKey.read(message), bytes(message)
            except ProtocolError as error:
                self._refused.append((sender, str(error)))
                continue
            exchanges[sender] = Exchange(len(message), 0)
        return published

    def _add(self, messages: Messages) -> Answer | None:
        exchanges, told = self._traffic.setdefault(ENCRYPT, {}), self._traffic[PUBLISH]
        holder = self._plan.key_holder
        for sender, data in messages:
            try:
                self._take(sender, data)
            except ProtocolError as error:
                self._refused.append((sender, str(error)))
                continue
            exchanges[sender] = Exchange(len(data), 0)
            key_bytes = told[holder].uplink_bytes
            told[sender] = replace(told.get(sender, Exchange(0, 0)), downlink_bytes=key_bytes)
        if not self._sums:
            return None
        sums = {name: total.dump() for name, total in self._sums.items()}
        codec = self._plan.coding.name
        answer = wire.pack(wire.Message(SERVER, self.round, codec, sums, self._sizes, 0))
        own = exchanges.get(holder, Exchange(0, 0))
        exchanges[holder] = replace(own, downlink_bytes=len(answer))
        return {holder: answer}

    def _take(self, sender: str, data: bytes | memoryview) -> None:
        message = wire.unpack(data)
        if sender != message.institution:
            raise ProtocolError(f"sent an update in the name of {message.institution}")
        if objection := self._objection(message, self.round, self._steps):
            raise ProtocolError(objection)
        if self._public is None:
            raise ProtocolError("sent an update before a key was published")
        loaded = {
            name: self._public.load(payload, message.sizes[name])
            for name, payload in message.blocks.items()
        }
        for name, vector in loaded.items():
            if name in self._sums:
                self._sums[name].add(vector)
            else:
                self._sums[name], self._sizes[name] = vector, message.sizes[name]
            self._owners[name] = (*self._owners.get(name, ()), sender)
        self._steps[sender] = message.steps

    def reveal(self, messages: Messages) -> Revealed:
        """Take the holder's decrypted sums and return them."""
        exchanges = self._traffic[DECRYPT] = {}
        opened: dict[str, Integers] | None = None
        for sender, data in messages:
            try:
                opened = self._opened(sender, data)
            except ProtocolError as error:
                self._refused.append((sender, str(error)))
                continue
            exchanges[sender] = Exchange(len(data), 0)
        if opened is None:
            return self.lost()
        return Revealed(
            sums=opened,
            owners=self._owners,
            withheld=(),
            dropouts=tuple(name for name in self._plan.by_name if name not in self._steps),
            traffic=self._traffic,
            refused=tuple(self._refused),
            steps=self._steps,
        )

    def _opened(self, sender: str, data: bytes | memoryview) -> dict[str, Integers]:
        self._from_holder(sender)
        message = wire.unpack(data)
        if message.round != self.round or dict(message.sizes) != self._sizes:
            raise ProtocolError("sent other sums than those it was asked for")
        if any(len(p) != 4 * self._sizes[name] for name, p in message.blocks.items()):
            raise ProtocolError("sent sums of another length")
        return {n: np.frombuffer(p, "<i4").astype(np.int64) for n, p in message.blocks.items()}

    def _from_holder(self, sender: str) -> None:
        if sender != self._plan.key_holder:
            raise ProtocolError(f"is not {self._plan.key_holder}, who holds the key")

    def lost(self) -> Revealed:
        """Return what is revealed without a key, an update, or the holder's answer: nothing."""
        return Revealed(
            sums={},
            owners={},
            withheld=tuple(self._plan.owners),
            dropouts=tuple(self._plan.by_name),
            traffic=self._traffic,
            refused=tuple(self._refused),
        )
