"""The physical factors of a specimen, and the classes as codewords in their space.

A specimen of any family is a point in three factors, standardised so that classes lie at -1 or +1
on each axis. Classes overlap: with the within-class spread used here and six classes, a reader of
the true factors is right for about 95% of the specimens, and nobody does better.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]

FACTORS = 3
WITHIN_CLASS = 0.5
"""Standard deviation of a factor within a class; class centres are 2 apart on an axis."""
UNIFORM_LIMIT = 2.0
"""Public phantoms have factors uniform in [-UNIFORM_LIMIT, UNIFORM_LIMIT]."""

_CODEWORDS = np.array(
    [
        # No two of the first three are neighbours; six are balanced on every axis; see `codewords`.
        [+1, -1, -1],
        [-1, +1, -1],
        [-1, -1, +1],
        [+1, +1, -1],
        [-1, +1, +1],
        [+1, -1, +1],
        [+1, +1, +1],
        [-1, -1, -1],
    ],
    dtype=np.float32,
)
# Two classes differ in everything; four form a tetrahedron (each two differ in two factors).
_SPECIAL = {2: (6, 7), 4: (0, 1, 2, 6)}


@dataclass(frozen=True)
class Family:
    """Three factors that a group of modalities shows, each with a word for its low and high end.

    Attributes:
        name: What the family images.
        factors: Names of the factors, in the order of the factor axis.
        words: For each factor the words for -1 and +1, from which class names are made.
    """

    name: str
    factors: tuple[str, str, str]
    words: tuple[tuple[str, str], tuple[str, str], tuple[str, str]]


MEDICAL = Family(
    "medical",
    ("density", "relaxation", "atypia"),
    (("sparse", "dense"), ("fast", "slow"), ("regular", "atypical")),
)
MATERIALS = Family(
    "materials",
    ("grain size", "composition", "lattice"),
    (("fine", "coarse"), ("lean", "rich"), ("tight", "open")),
)
ENVIRONMENTAL = Family(
    "environmental",
    ("vegetation", "pattern", "relief"),
    (("bare", "green"), ("broad", "narrow"), ("flat", "hilly")),
)


def codewords(classes: int) -> F32:
    """Return the class centres, float32 [classes, 3] with entries -1 and +1.

    With 2, 4, 6 and 8 classes every factor is high in half of them. Six leave out the two corners
    where all factors agree, so that no two factors decide the class.

    Args:
        classes: 2 to 8.
    """
    rows = _SPECIAL.get(classes, tuple(range(classes)))
    return _CODEWORDS[list(rows)]


def class_names(family: Family, classes: int) -> tuple[str, ...]:
    """Return a unique readable name for each class, as `dense-slow-regular`."""
    return tuple(
        "-".join(pair[int(sign > 0)] for pair, sign in zip(family.words, word, strict=True))
        for word in codewords(classes)
    )


def draw_factors(
    labels: npt.NDArray[np.int64], classes: int, rng: np.random.Generator, drift: F32 | None = None
) -> F32:
    """Draw the factors of specimens with given labels.

    Args:
        labels: Class indices, [N].
        classes: Number of classes.
        rng: The stream.
        drift: Displacement of each specimen's factors, [N, 3]; none when omitted.

    Returns:
        float32 [N, 3]: the class's codeword plus Gaussian spread plus drift.
    """
    spread = rng.standard_normal((len(labels), FACTORS), dtype=np.float32)
    factors: F32 = codewords(classes)[labels] + np.float32(WITHIN_CLASS) * spread
    return factors if drift is None else factors + drift


def nearest_class(factors: F32, classes: int) -> npt.NDArray[np.int64]:
    """Return the most probable class of each specimen given its true factors, int64 [N].

    Classes are equally probable with equal spherical spread, so the nearest codeword is Bayes'
    decision, and its accuracy bounds what any classifier of the images can reach.
    """
    centres = codewords(classes)
    # All codewords have the same length, so the largest inner product is the smallest distance.
    products = np.einsum("nf,cf->nc", factors, centres)
    nearest: npt.NDArray[np.int64] = np.argmax(products, axis=1).astype(np.int64)
    return nearest
