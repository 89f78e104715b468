"""Make the public encoders that the package ships: `python -m benchmarks.pretrain`.

One for each modality of the preset `demo`, in `fedfuse_ray/models/encoders/public/`.
"""

from __future__ import annotations

import argparse

from fedfuse_ray.config import load
from fedfuse_ray.data.phantoms import FORWARD_MODELS
from fedfuse_ray.federation.plan import public_encoders
from fedfuse_ray.models.encoders import pretrained
from fedfuse_ray.models.spec import ModelSpec


def main() -> None:
    """Pre-train what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--modalities", nargs="*", default=list(FORWARD_MODELS))
    chosen = parser.parse_args().modalities
    experiment = load("demo", paradigm="fedfuse")
    data = experiment.data
    domains = {name: domain.modalities for name, domain in data.domains.items()}
    spec = ModelSpec(
        config=experiment.model,
        domains=domains,
        classes=dict.fromkeys(domains, 2),
        shapes={
            name: FORWARD_MODELS[name].shape(data.image_size, data.signal_length) for name in chosen
        },
        seed=0,
    )
    pretrained.SHIPPED.mkdir(exist_ok=True)
    public_encoders.ensure(spec, print, into=pretrained.SHIPPED)


if __name__ == "__main__":
    main()
