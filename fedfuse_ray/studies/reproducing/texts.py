"""What the page and the document say around the tables."""

from __future__ import annotations

from fedfuse_ray.studies.reproducing.results import Reproduction

TITLE = "The paper beside this software"
SPREAD = "Where there are several seeds, whiskers and brackets span the lowest to the highest."

SECTIONS = {
    "claims": (
        "Claims and measurements",
        "What the paper claims, and what came out here. Absolute accuracies are not comparable, "
        "since its images are not public and these are generated; ratios and gaps are.",
    ),
    "table3": (
        "Accuracy by paradigm (table 3)",
        "All are scored on the same test specimens; isolated is the mean over institutions. The "
        "paper reports no fusion without privacy. Its federated models fuse nothing, and here a "
        "modality alone can't tell all classes apart.",
    ),
    "skew": (
        "How skew degrades accuracy (figure 1)",
        "One kind of skew at a time, over the same frozen encoders, so that what is seen is the "
        "skew and not what training encoders on little data does besides.",
    ),
    "privacy": (
        "Accuracy against epsilon (figure 2)",
        "The private federation at several budgets, delta 1e-5, protecting one record.",
    ),
    "compression": (
        "Communication",
        "Bytes that crossed the wire in a round, all institutions together, against plain fp32 of "
        "the same blocks. At epsilon 1 the keys and shares of secure aggregation are included.",
    ),
    "transfer": (
        "Transfer across domains",
        "A domain with few specimens, trained from scratch, or from the weights of a federation of "
        "the two other domains: of the fusion, which all domains share, or also of their image "
        "encoders, which no domain shares. Same specimens, same rounds, same seed.",
    ),
    "ablation": (
        "What each part is worth",
        "The private federation at epsilon 1 with one part changed. Without secure aggregation "
        "each institution adds the whole noise itself.",
    ),
}


def lead(found: Reproduction) -> str:
    """Return what this reproduction is, in a sentence."""
    return (
        f"The experiments of the paper on generated images, preset {found.base}, "
        f"by `{found.command}`."
    )
