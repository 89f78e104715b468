"""Which updates the server takes into a round's sum, and why it refuses the others."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from fedfuse_ray.errors import ProtocolError
from fedfuse_ray.federation.messages import wire
from fedfuse_ray.federation.messages.updates import block_of, is_control
from fedfuse_ray.federation.plan.plan import Plan


def check(
    plan: Plan,
    message: wire.Message,
    round: int,
    seen: Collection[str],
    used: int | None,
    sizes: Mapping[str, int],
) -> None:
    """Check that an update can be in a round's sum.

    Args:
        plan: The federation's plan.
        message: The update, unpacked.
        round: From 1.
        seen: Whose updates are in the sum already.
        used: The round of its sender's last update that an asynchronous server has used.
        sizes: Each block's length.

    Raises:
        ProtocolError: It can't be, and why.
    """
    participant = plan.by_name.get(message.institution)
    if participant is None:
        raise ProtocolError("not a participant of this federation")
    if message.round != round and not (plan.asynchronous and message.round < round):
        raise ProtocolError(f"sent an update of round {message.round} in round {round}")
    if plan.weighs_by_loss and message.loss is None:
        raise ProtocolError("did not tell its loss, by which it would be weighed")
    if used is not None and message.round <= used:
        raise ProtocolError(f"sent its update of round {message.round} again")
    if message.institution in seen:
        raise ProtocolError(f"sent two updates in round {round}")
    agreed = plan.coding.name
    if message.codec != agreed:
        raise ProtocolError(f"encoded its update as {message.codec}, where {agreed} was agreed")
    _check_blocks(message, frozenset(plan.blocks_of(participant)), sizes)


def _check_blocks(message: wire.Message, owned: frozenset[str], sizes: Mapping[str, int]) -> None:
    for name in message.blocks:
        if block_of(name) not in owned:
            raise ProtocolError(f"sent the block {name}, which it does not own")
        size = sizes[block_of(name)]
        if message.sizes[name] != size:
            raise ProtocolError(
                f"sent {message.sizes[name]} values as block {name}, which has {size}"
            )
    controls = {block_of(name) for name in message.blocks if is_control(name)}
    if controls and controls != {name for name in message.blocks if not is_control(name)}:
        raise ProtocolError("sent control variates of other blocks than it sent weights of")
