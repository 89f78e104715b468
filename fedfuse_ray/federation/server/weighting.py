"""Weights by loss: institutions with the largest loss count most.

Li, Sanjabi, Beirami and Smith, 2020, q-FFL, arXiv 1905.10497: minimising the sum of p_k F_k^(q+1)
/ (q+1) over the institutions weighs the gradient of each by p_k F_k^q. Their q-FedAvg also fits the
step to a Lipschitz constant; here the weights are normalised block by block over those that took
part, and the step stays the strategy's. F_k is the mean loss over the round's local steps, which
costs no pass over the data of its own; theirs is the loss before the first step.
"""

from __future__ import annotations

from collections.abc import Mapping

LEAST = 1e-4
"""The least part of the largest loss that counts, so that no institution is left out."""


def loss_factors(losses: Mapping[str, float], exponent: float) -> dict[str, float]:
    """Return F_k^q of each institution, relative to the largest.

    Args:
        losses: F_k, finite and not negative.
        exponent: q; 0 gives 1 to all, and the larger it is, the more the worst off count.

    Returns:
        Factors in (0, 1]; the largest loss has 1, and so have all where nobody has any.
    """
    largest = max(losses.values(), default=0.0)
    if not largest:
        return dict.fromkeys(losses, 1.0)
    return {name: max(loss / largest, LEAST) ** exponent for name, loss in losses.items()}


def correction(fractions: Mapping[str, float], factors: Mapping[str, float]) -> float:
    """Return what makes a mean by fractions, over updates times their factors, one by both.

    Args:
        fractions: p_k of a block's owners that took part.
        factors: Their factors.

    Returns:
        The sum of p_k over the sum of p_k times factor; 1 where all factors are.
    """
    weighed = sum(fraction * factors[name] for name, fraction in fractions.items())
    return sum(fractions.values()) / weighed
