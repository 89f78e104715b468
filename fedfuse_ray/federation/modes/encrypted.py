"""A round of sums on ciphertexts: the server adds what it can't read, one institution decrypts.

The key's holder makes a fresh pair of keys and publishes the public one; everybody trains, encrypts
its update under it, and sends it; the server adds ciphertexts and has the holder decrypt the sums.
Neither of the two sees a single update, unless they collude: the server has no secret key, and the
holder receives sums only. Without the holder a round is lost.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING, assert_never

import numpy as np

from fedfuse_ray.errors import ProtocolError
from fedfuse_ray.federation.messages import wire
from fedfuse_ray.federation.messages.downlink import SERVER
from fedfuse_ray.federation.messages.records import Reply, with_payload
from fedfuse_ray.federation.messages.updates import Update
from fedfuse_ray.federation.modes.exchange import Answer, Messages, Mode, Turn, as_step
from fedfuse_ray.federation.modes.outcome import Closed, Exchange, total_bytes
from fedfuse_ray.federation.server.server import Aggregation, ParameterServer
from fedfuse_ray.federation.server.summing import Total
from fedfuse_ray.privacy.mechanisms.homomorphic import (
    CipherSum,
    Integers,
    KeyPair,
    PublicKey,
    fixed_point,
    from_fixed_point,
)

if TYPE_CHECKING:  # torch: the server does without
    from fedfuse_ray.federation.institution.institution import Institution

_SUMS = "int32"
"""How decrypted sums are encoded."""


class EncryptedStep(StrEnum):
    """The three steps."""

    PUBLISH = "publish key"
    ENCRYPT = "encrypt"
    DECRYPT = "decrypt"


class EncryptedMember:
    """An institution's side; only the key's holder has something to say besides its update.

    Args:
        institution: Whose side.
        turn: The first turn.
    """

    def __init__(self, institution: Institution, turn: Turn) -> None:
        self._institution = institution
        self._holds_key = institution.name == institution.plan.key_holder
        self._keys: KeyPair | None = None

    def take(self, step: str, turn: Turn) -> Reply:
        """Take one step."""
        answer = turn.answer.to(self._institution.name)
        match as_step(EncryptedStep, step):
            case EncryptedStep.PUBLISH:
                if not self._holds_key:
                    return Reply()
                self._keys = KeyPair()
                return Reply(self._keys.public)
            case EncryptedStep.ENCRYPT:
                return self._encrypt(answer, turn)
            case EncryptedStep.DECRYPT:
                return Reply(self._decrypt(answer, turn.round)) if self._keys else Reply()
            case never:
                assert_never(never)

    def _encrypt(self, published: bytes, turn: Turn) -> Reply:
        """Train, and return the update's message under the published key.

        Raises:
            ProtocolError: There is no such key.
            InputError: An entry is too large.
        """
        began = time.perf_counter()
        me, plan = self._institution, self._institution.plan
        received = me.receive(turn.broadcast, turn.behind)
        result = me.train(turn.round, received, {})
        update = plan.transforms.sent(result.update, me.name, turn.round).on_wire()
        if not published:
            raise ProtocolError("no key was published to encrypt under")
        key = PublicKey.read(published)
        payloads = {
            name: key.encrypt(fixed_point(vector, len(plan.owners[name])))
            for name, vector in update.items()
        }
        sizes = {name: vector.size for name, vector in update.items()}
        sent = wire.Message(me.name, turn.round, plan.coding.name, payloads, sizes, result.steps)
        message = wire.pack(sent)
        lengths = {name: len(payload) for name, payload in payloads.items()}
        record = me.record(result, turn.round, received.nbytes, len(message), began)
        return Reply(message, with_payload(record, lengths, sizes))

    def _decrypt(self, sums: bytes, round: int) -> bytes:
        if self._keys is None:
            raise ProtocolError(f"{self._institution.name} has no key of round {round}")
        message = wire.unpack(sums)
        opened = {
            name: self._keys.decrypt(payload, message.sizes[name]).astype("<i4").tobytes()
            for name, payload in message.blocks.items()
        }
        name = self._institution.name
        return wire.pack(wire.Message(name, round, _SUMS, opened, message.sizes, 0))


class EncryptedGathering:
    """The server's side; it adds ciphertexts up as they come and keeps none.

    Args:
        server: Whose side.
        round: From 1.
    """

    def __init__(self, server: ParameterServer, round: int) -> None:
        self._server, self._round, self._plan = server, round, server.plan
        self._public: PublicKey | None = None
        self._published = b""
        self._opened: dict[str, Integers] | None = None
        self._sums: dict[str, CipherSum] = {}
        self._sizes: dict[str, int] = {}
        self._owners: dict[str, tuple[str, ...]] = {}
        self._steps: dict[str, int] = {}
        self._traffic: dict[str, dict[str, Exchange]] = {}
        self._refused: list[tuple[str, str]] = []

    survivors: tuple[str, ...] = ()

    def close(self, step: str, messages: Messages) -> Answer | None:
        """Take the members' messages of a step before the last; return what they get.

        None says that no key was published, or no update came under it.
        """
        match as_step(EncryptedStep, step):
            case EncryptedStep.PUBLISH:
                self._each(EncryptedStep.PUBLISH, messages, self._publish)
                return Answer(self._published) if self._public else None
            case EncryptedStep.ENCRYPT:
                return self._add(messages)
            case EncryptedStep.DECRYPT:
                raise ProtocolError("the last step ends the round; no answer follows it")
            case never:
                assert_never(never)

    def _each(
        self,
        step: EncryptedStep,
        messages: Messages,
        take: Callable[[str, bytes | memoryview], None],
    ) -> None:
        """Take one message after the other, and note its length, or why it was refused."""
        exchanges = self._traffic[step.value] = {}
        for sender, data in messages:
            try:
                take(sender, data)
            except ProtocolError as error:
                self._refused.append((sender, str(error)))
                continue
            exchanges[sender] = Exchange(len(data), 0)

    def _publish(self, sender: str, data: bytes | memoryview) -> None:
        self._from_holder(sender)
        self._public, self._published = PublicKey.read(data), bytes(data)

    def _add(self, messages: Messages) -> Answer | None:
        told, holder = self._traffic[EncryptedStep.PUBLISH], self._plan.key_holder
        self._each(EncryptedStep.ENCRYPT, messages, self._take)
        exchanges = self._traffic[EncryptedStep.ENCRYPT]
        key_bytes = told[holder].uplink_bytes
        for sender in exchanges:
            told[sender] = replace(told.get(sender, Exchange(0, 0)), downlink_bytes=key_bytes)
        if not self._sums:
            return None
        sums = {name: total.dump() for name, total in self._sums.items()}
        codec = self._plan.coding.name
        answer = wire.pack(wire.Message(SERVER, self._round, codec, sums, self._sizes, 0))
        own = exchanges.get(holder, Exchange(0, 0))
        exchanges[holder] = replace(own, downlink_bytes=len(answer))
        return Answer(apart={holder: answer})

    def _take(self, sender: str, data: bytes | memoryview) -> None:
        message = wire.unpack(data)
        if sender != message.institution:
            raise ProtocolError(f"sent an update in the name of {message.institution}")
        self._server.check(message, self._round, self._steps)
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

    def finish(self, messages: Messages) -> Closed:
        """Take the holder's decrypted sums, and step along them."""
        self._each(EncryptedStep.DECRYPT, messages, self._open)
        if self._opened is None:
            return self.lost()
        sums = {name: from_fixed_point(words) for name, words in self._opened.items()}
        factors = dict.fromkeys(self._steps, 1.0)
        total = Total(Update(sums), dict(self._owners), dict(self._steps), factors)
        away = tuple(name for name in self._plan.by_name if name not in self._steps)
        return self._stepped(total, away)

    def lost(self) -> Closed:
        """Step without a key, an update, or the holder's answer: the model stays."""
        return self._stepped(Total(), tuple(self._plan.by_name))

    def _stepped(self, total: Total, dropouts: tuple[str, ...]) -> Closed:
        self._server.step(self._round, total, self._server.state)
        sent = total_bytes(self._traffic)[0]
        return Closed(Aggregation(sent, tuple(self._refused)), self._traffic, dropouts)

    def _open(self, sender: str, data: bytes | memoryview) -> None:
        self._from_holder(sender)
        message = wire.unpack(data)
        if message.round != self._round or dict(message.sizes) != self._sizes:
            raise ProtocolError("sent other sums than those it was asked for")
        if any(len(p) != 4 * self._sizes[name] for name, p in message.blocks.items()):
            raise ProtocolError("sent sums of another length")
        self._opened = {
            n: np.frombuffer(p, "<i4").astype(np.int64) for n, p in message.blocks.items()
        }

    def _from_holder(self, sender: str) -> None:
        if sender != self._plan.key_holder:
            raise ProtocolError(f"is not {self._plan.key_holder}, who holds the key")


MODE = Mode(
    steps=EncryptedStep,
    update=EncryptedStep.ENCRYPT,
    member=EncryptedMember,
    gathering=EncryptedGathering,
)
