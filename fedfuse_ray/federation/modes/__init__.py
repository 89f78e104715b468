"""How a round exchanges updates: one module a mode, with both sides of the exchange.

Nothing here knows where institutions live; that is `rounds` and `actors`.
"""

from fedfuse_ray.federation.modes import buffered, encrypted, masked, plain
from fedfuse_ray.federation.modes.exchange import Mode
from fedfuse_ray.federation.plan.plan import Plan

MODES: dict[str, Mode] = {
    "plain": plain.MODE,
    "buffered": buffered.MODE,
    "masked": masked.MODE,
    "encrypted": encrypted.MODE,
}


def mode_of(plan: Plan) -> Mode:
    """Return the mode of a federation's rounds."""
    return MODES[plan.mode]
