"""Paradigms: what is trained, and on whose data.

| paradigm             | who trains                        | model               |
|----------------------|-----------------------------------|---------------------|
| `centralized`        | one pool a domain, all its data   | fusion, as ours     |
| `centralized_dp`     | the same under DP                 | fusion, as ours     |
| `isolated`           | each institution, its own data    | fusion, as ours     |
| `federated`          | all together, FedAvg              | one a modality      |
| `federated_dp`       | the same under DP                 | one a modality      |
| `fedfuse`            | all together, DP, secure sums     | fusion              |
| `fedfuse_nonprivate` | all together, block-wise          | fusion              |

All are scored on the same test specimens. Under `centralized_dp` the holder of a domain's pool runs
DP-SGD; what several domains share of the model is averaged between their holders after each round.
"""

from __future__ import annotations

from fedfuse_ray.config import CompressionConfig, Experiment, NetworkConfig

_ONE_MODEL_A_MODALITY = frozenset({"federated", "federated_dp"})
WITHOUT_FEDERATION = frozenset({"centralized", "isolated"})
_POOLED = frozenset({"centralized", "centralized_dp"})


def resolve(experiment: Experiment) -> Experiment:
    """Return the experiment with what its paradigm fixes."""
    if experiment.paradigm == "centralized_dp":
        # A pool's holder sends its updates nowhere: there is no link, and nothing to compress.
        network = NetworkConfig(specimens_per_second=experiment.network.specimens_per_second)
        return experiment.model_copy(
            update={"network": network, "compression": CompressionConfig()}
        )
    if experiment.paradigm not in _ONE_MODEL_A_MODALITY:
        return experiment
    model = experiment.model.model_copy(update={"fusion": "none", "fusion_depth": None})
    return experiment.model_copy(update={"model": model})


def is_pooled(experiment: Experiment) -> bool:
    """Whether a domain's institutions put their data together."""
    return experiment.paradigm in _POOLED


def adversary(experiment: Experiment) -> str:
    """Return against whom a private experiment's guarantee holds."""
    if is_pooled(experiment):
        trusted = "whoever sees the models; the holder of the pooled records is trusted"
        return trusted + experiment.privacy.without_seed
    return experiment.privacy.adversary


def trains_alone(experiment: Experiment) -> bool:
    """Whether participants train without a federation."""
    return experiment.paradigm in WITHOUT_FEDERATION
