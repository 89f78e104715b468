"""What is public about a dataset: who has how much of what."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from fedfuse_ray.config.settings.data import ManifestData
from fedfuse_ray.data.specimens import DomainInfo, Header, InstitutionInfo, Shape
from fedfuse_ray.errors import InputError


@dataclass(frozen=True)
class DatasetIndex:
    """What is public about a dataset.

    Attributes:
        domains: The domains by name.
        institutions: The institutions by name, in the federation's order.
        shapes: The shape of each modality.
        test: Number of test specimens of each domain.
        digest: Of all training specimens, hex; "" where they are only counted. It is not public: it
            tells whether somebody has the same data.
        held: How many test specimens each institution holds, where it holds any; the others are the
            consortium's, and public.
    """

    domains: dict[str, DomainInfo]
    institutions: dict[str, InstitutionInfo]
    shapes: dict[str, Shape]
    test: dict[str, int]
    digest: str = ""
    held: dict[str, int] = field(default_factory=dict)

    def public_tests(self, domain: str) -> int:
        """Return how many specimens of a domain's test set no institution holds."""
        return self.test[domain] - sum(
            count for name, count in self.held.items() if self.institutions[name].domain == domain
        )


def index_of(
    header: Header,
    counts: Mapping[tuple[str, str], int],
    patients: Mapping[str, int] = MappingProxyType({}),
) -> DatasetIndex:
    """Return the index of specimens that were counted by split and owner.

    Patients of the training specimens are counted by institution, where they are known.

    Raises:
        InputError: An institution or a test set is empty.
    """
    institutions = {
        name: InstitutionInfo(
            domain=domain,
            modalities=modalities,
            train=counts.get(("train", name), 0),
            validation=counts.get(("validation", name), 0),
            patients=patients.get(name, 0),
        )
        for name, (domain, modalities) in header.institutions.items()
    }
    for name, info in institutions.items():
        if not info.train:
            raise InputError(
                f"institutions.{name}", "0 training specimens", "an institution can't be empty"
            )
    for domain in header.domains:
        if not counts.get(("test", domain)):
            raise InputError(f"domains.{domain}", "0 test specimens", "add rows of split `test`")
    return DatasetIndex(
        domains=header.domains,
        institutions=institutions,
        shapes=header.shapes,
        test={domain: counts["test", domain] for domain in header.domains},
        held=dict(header.held),
    )


def told_sizes(data: ManifestData, shapes: Mapping[str, Shape]) -> str:
    """Return in words what a manifest's modalities are resized to, and who decided it."""
    left = [n for n in ("image_size", "signal_length") if getattr(data, n) is None]
    by = f"{' and '.join(left)} by the files' headers" if left else "by the configuration"
    return f"Sizes ({by}): {told_shapes(shapes)}"


def told_shapes(shapes: Mapping[str, Shape]) -> str:
    """Return in words what shapes modalities have.

    >>> told_shapes({"ct": (1, 64, 64), "mri": (1, 64, 64), "xrd": (1, 512)})
    'ct, mri 64x64 gray; xrd 512 bins'
    """
    named: dict[str, list[str]] = {}
    for modality, shape in shapes.items():
        if len(shape) == 3:
            text = f"{shape[1]}x{shape[2]} {'gray' if shape[0] == 1 else 'colour'}"
        else:
            text = f"{shape[1]} bins" + (f" of {shape[0]} channels" if shape[0] > 1 else "")
        named.setdefault(text, []).append(modality)
    return "; ".join(f"{', '.join(names)} {text}" for text, names in named.items())


def read_index(path: Path) -> DatasetIndex:
    """Read what a dataset's folder says of it."""
    tree = json.loads(path.read_text())
    return DatasetIndex(
        domains={
            name: DomainInfo(tuple(d["modalities"]), tuple(d["classes"]))
            for name, d in tree["domains"].items()
        },
        institutions={
            name: InstitutionInfo(**{**info, "modalities": tuple(info["modalities"])})
            for name, info in tree["institutions"].items()
        },
        shapes={name: tuple(shape) for name, shape in tree["shapes"].items()},
        test=tree["test"],
        digest=tree["digest"],
        held=tree.get("held", {}),
    )
