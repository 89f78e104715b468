"""Pure functions from results to plotly figures."""

from fedfuse_ray.report.figures.comparison import accuracy_by_paradigm, convergence_by_paradigm
from fedfuse_ray.report.figures.network import timeline
from fedfuse_ray.report.figures.scores import (
    accuracy_by_domain,
    accuracy_by_institution,
    accuracy_by_view,
    attention,
    confusion_matrix,
)
from fedfuse_ray.report.figures.traffic import bits_by_block, bytes_by_institution, bytes_per_round
from fedfuse_ray.report.figures.training import convergence, epsilon_by_round, seconds_per_round

__all__ = [
    "accuracy_by_domain",
    "accuracy_by_institution",
    "accuracy_by_paradigm",
    "accuracy_by_view",
    "attention",
    "bits_by_block",
    "bytes_by_institution",
    "bytes_per_round",
    "confusion_matrix",
    "convergence",
    "convergence_by_paradigm",
    "epsilon_by_round",
    "seconds_per_round",
    "timeline",
]
