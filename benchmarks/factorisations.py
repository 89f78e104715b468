"""Correlated Gaussian noise over the rounds of a run: what it costs, and the least that it can.

A release of T sums with noise C^-1 Z, whose rows Z are independent, is one Gaussian release of
C G + Z. Whatever is scored is linear in the noise as long as the loss is: A C^-1 Z, with a row of A
[m, T] for each thing that is scored. Errors here are standard deviations at a multiplier of 1:

    error(A, C) = sensitivity(C) * |A C^-1|_F

Correlated noise: Denisov et al., 2022, arXiv 2202.08312; several participations: Choquette-Choo et
al., 2023, arXiv 2211.06530; banded C: Choquette-Choo et al., 2023, arXiv 2306.08153.

**Full participation.** Each record contributes a vector of norm 1 or less in *every* round, so

    sensitivity(C) = max |C X|_F   over X [T, d] whose rows have norm 1 or less.

With C^T C >= 0 entry by entry it is |C 1|: no pair of rows gains by pointing apart. In any case it
is at least |C 1|.

*Theorem.* With columns a_t of A, and d >= m: error(A, C) >= sum_t |a_t| for every C, and the
diagonal C = diag(|a_t|^1/2), independent noise by a schedule, attains it.

*Proof.* A record may contribute U with rows a_t^T / |a_t|. Then sum_t |a_t| = tr(A U) =
tr(A C^-1 C U) <= |A C^-1|_F |C U|_F <= error(A, C). For the diagonal C, sensitivity^2 and
|A C^-1|_F^2 are both sum_t |a_t|.

*Corollary.* If each record contributes in every k-th round only, the sum has 1/k of the records, so
noise on their mean counts k-fold. Split U by the k classes of rounds: sum_t |a_t| =
sum_j tr(A C^-1 C U_j) <= |A C^-1|_F k max_j |C U_j|_F. So k error_k(A, C) >= sum_t |a_t|, too: no
correlation over smaller batches beats full batches with independent noise.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.linalg import solve_triangular
from scipy.optimize import minimize

Matrix = npt.NDArray[np.float64]


def iterates(rounds: int, momentum: float = 0.0, pull: float = 0.0) -> Matrix:
    """Return what the models after each round make of each round's mean gradient, [T, T].

    Args:
        rounds: T.
        momentum: Of the server's heavy ball (`federation/strategies/averaging.py`).
        pull: Learning rate times curvature: how much of the way to its optimum a step goes. 0 is a
            linear loss, in which noise only adds up.
    """
    model, velocity, made = np.zeros(rounds), np.zeros(rounds), []
    for gradient in np.eye(rounds):
        velocity = momentum * velocity + gradient - pull * model
        model = model + velocity
        made.append(model)
    all_models: Matrix = np.array(made)
    return all_models


def scored(rounds: int, momentum: float, average_last: float, pull: float = 0.0) -> Matrix:
    """Return what the scored model makes of each round's mean gradient, [1, T].

    Args:
        rounds: T.
        momentum: As in `iterates`.
        average_last: The fraction of the last models that are averaged; 0 takes the last.
        pull: As in `iterates`.
    """
    last = max(1, math.ceil(average_last * rounds))
    mean: Matrix = iterates(rounds, momentum, pull)[-last:].mean(axis=0, keepdims=True)
    return mean


def sensitivity(c: Matrix, every: int = 1) -> float:
    """Return the sensitivity of C where a record contributes in every so many rounds.

    Args:
        c: C [T, T], lower triangular.
        every: 1 is full participation.

    Raises:
        ValueError: A pair of rounds in which one record contributes has a negative product of
            columns: then contributions that point apart may exceed what this returns.
    """
    gram = c.T @ c
    most = 0.0
    for first in range(every):
        own = gram[first::every, first::every]
        if own.min() < -1e-9 * own.max():
            raise ValueError("C^T C has negative entries, so |C 1| is no bound")
        most = max(most, float(own.sum()))
    return math.sqrt(most)


def error(a: Matrix, c: Matrix, every: int = 1) -> float:
    """Return the error of C on A, per record of a full batch; lower is better.

    Args:
        a: A [m, T].
        c: C [T, T], lower triangular.
        every: As in `sensitivity`; a batch then has 1 / `every` of the records.
    """
    spread = np.linalg.norm(solve_triangular(c.T, a.T))
    return every * sensitivity(c, every) * float(spread)


def least_error(a: Matrix) -> float:
    """Return the least error of any C, at any regular participation: the theorem above."""
    return float(np.linalg.norm(a, axis=0).sum())


def independent(a: Matrix) -> Matrix:
    """Return the diagonal C that attains the least error: the noise of round t is 1 / C_tt."""
    return np.diag(np.sqrt(np.linalg.norm(a, axis=0)))


def toeplitz(band: npt.ArrayLike, rounds: int) -> Matrix:
    """Return the lower triangular C [T, T] with these values along its diagonals."""
    c = np.zeros((rounds, rounds))
    for offset, value in enumerate(np.asarray(band, np.float64)[:rounds]):
        c += value * np.eye(rounds, k=-offset)
    return c


def square_root(bands: int) -> list[float]:
    """Return the first diagonals of the square root of the prefix sums.

    For records that contribute once it is nearly the best C: Fichtenberger et al., 2022, arXiv
    2202.11205; Henzinger et al., 2023, arXiv 2207.04923.
    """
    band = [1.0]
    for offset in range(1, bands):
        band.append(band[-1] * (2 * offset - 1) / (2 * offset))
    return band


def best_band(a: Matrix, bands: int, every: int = 1) -> Matrix:
    """Return the best Toeplitz C with so many diagonals, none negative, as a search finds it.

    Args:
        a: A [m, T].
        bands: Number of diagonals.
        every: As in `sensitivity`.
    """
    rounds = a.shape[1]

    def cost(band: npt.NDArray[np.float64]) -> float:
        return math.log(error(a, toeplitz([1.0, *band], rounds), every))

    start = 0.5 * np.array(square_root(bands)[1:])
    found = minimize(cost, start, method="L-BFGS-B", bounds=[(0.0, None)] * (bands - 1))
    return toeplitz([1.0, *found.x], rounds)


def filters(c: Matrix) -> Matrix:
    """Return C^-1, scaled to the privacy of constant independent noise of multiplier 1.

    Row t filters the independent draws z_1..z_t into the noise of round t. For C = I it is I.
    """
    rounds = len(c)
    scale = sensitivity(c) / math.sqrt(rounds)
    inverse: Matrix = scale * solve_triangular(c, np.eye(rounds), lower=True)
    return inverse
