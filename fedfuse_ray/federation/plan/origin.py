"""What all of a run's private randomness depends on, whatever its root is."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata

from fedfuse_ray.config import Experiment
from fedfuse_ray.data.index import DatasetIndex
from fedfuse_ray.federation.plan.terms import PrivacyTerms


def facts(
    experiment: Experiment, index: DatasetIndex, terms: PrivacyTerms | None
) -> Iterator[bytes]:
    """Yield the configuration, the package's version, the data, and the terms of the noise.

    A run in which one of them differs makes other releases, so it must not share noise with this
    one, not even where both have one root: data may change before a run is resumed, and an audit
    that the configuration names may change how much noise there is. Where and how a run is
    executed, and where its manifest lies, changes no result, so it is not part of it. Nor is
    whether scores are shown, which changes no release of the training.
    """
    config = experiment.model_dump_json(
        exclude={"execution": True, "data": {"manifest"}, "privacy": {"scores"}}
    )
    yield config.encode()
    yield _package_version().encode()
    yield index.digest.encode()
    if terms is not None:
        yield repr((terms.factors, sorted(terms.releases.items()))).encode()


def _package_version() -> str:
    try:
        return metadata.version("fedfuse-ray")
    except metadata.PackageNotFoundError:  # a checkout that was never installed
        return "unknown"
