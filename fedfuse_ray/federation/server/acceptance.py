"""Which updates the server takes into a round's sum, and why it refuses the others."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from fedfuse_ray.federation.messages import wire
from fedfuse_ray.federation.plan.plan import Plan
from fedfuse_ray.federation.server.strategies import CONTROL


def objection(
    plan: Plan,
    message: wire.Message,
    round: int,
    seen: Collection[str],
    used: float | None,
    sizes: Mapping[str, int],
) -> str | None:
    """Return why an update can't be in a round's sum, or None.

    Args:
        plan: The federation's plan.
        message: The update, unpacked.
        round: From 1.
        seen: Whose updates are in the sum already.
        used: The round of its sender's last update that an asynchronous server has used.
        sizes: Each block's length.
    """
    participant = plan.by_name.get(message.institution)
    if participant is None:
        return "not a participant of this federation"
    if message.round != round and not (plan.asynchronous and message.round < round):
        return f"sent an update of round {message.round} in round {round}"
    if plan.weighs_by_loss and message.loss is None:
        return "did not tell its loss, by which it would be weighed"
    if used is not None and message.round <= used:
        return f"sent its update of round {message.round} again"
    if message.institution in seen:
        return f"sent two updates in round {round}"
    agreed = plan.coding.name
    if message.codec != agreed:
        return f"encoded its update as {message.codec}, where {agreed} was agreed"
    owned = set(plan.blocks_of(participant))
    for name in message.blocks:
        if name.removeprefix(CONTROL) not in owned:
            return f"sent the block {name}, which it does not own"
        size = sizes[name.removeprefix(CONTROL)]
        if message.sizes[name] != size:
            return f"sent {message.sizes[name]} values as block {name}, which has {size}"
    return None
