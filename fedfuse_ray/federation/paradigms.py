"""Paradigms: what is trained, and on whose data.

| paradigm             | who trains                        | model               |
|----------------------|-----------------------------------|---------------------|
| `centralized`        | one pool a domain, all its data   | fusion, as ours     |
| `isolated`           | each institution, its own data    | fusion, as ours     |
| `federated`          | all together, FedAvg              | one a modality      |
| `federated_dp`       | the same under DP                 | one a modality      |
| `fedfuse`            | all together, DP, secure sums     | fusion              |
| `fedfuse_nonprivate` | all together, block-wise          | fusion              |

All are scored on the same test specimens.
"""

from __future__ import annotations

from fedfuse_ray.config import Experiment

_ONE_MODEL_A_MODALITY = frozenset({"federated", "federated_dp"})
WITHOUT_FEDERATION = frozenset({"centralized", "isolated"})


def resolve(experiment: Experiment) -> Experiment:
    """Return the experiment with what its paradigm fixes."""
    if experiment.paradigm not in _ONE_MODEL_A_MODALITY:
        return experiment
    model = experiment.model.model_copy(update={"fusion": "none"})
    return experiment.model_copy(update={"model": model})


def is_pooled(experiment: Experiment) -> bool:
    """Whether a domain's institutions put their data together."""
    return experiment.paradigm == "centralized"


def trains_alone(experiment: Experiment) -> bool:
    """Whether participants train without a federation."""
    return experiment.paradigm in WITHOUT_FEDERATION
