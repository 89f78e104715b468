"""From a configuration to a federation's specimens, part by part in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedfuse_ray.config.settings.data import PhantomData
from fedfuse_ray.config.settings.institutions import InstitutionConfig
from fedfuse_ray.data import skew
from fedfuse_ray.data.phantoms.factors import FACTORS, class_names, draw_factors
from fedfuse_ray.data.phantoms.forward import domain_family
from fedfuse_ray.data.phantoms.from_file import known_models
from fedfuse_ray.data.phantoms.imaging import acquire
from fedfuse_ray.data.phantoms.scanner import at_times, draw_settings
from fedfuse_ray.data.specimens import DomainInfo, Header, Part, Parts, Shape, Specimens, Split
from fedfuse_ray.errors import InputError
from fedfuse_ray.rng import generator

_PART_SPECIMENS = 2048
_PART_BYTES = 64 << 20
_TEST_START = 0.8
"""Test specimens are the most recent: acquired in the last fifth of the period."""
_FACTOR_DRIFT = 0.3
"""How far each of the population's factors moves over the period at skew.temporal = 1."""
_LEAST_TRAIN, _LEAST_VALIDATION = 2, 1


@dataclass(frozen=True)
class _Site:
    """An institution, or one replica of it, with its numbers of specimens."""

    name: str
    domain: str
    modalities: tuple[str, ...]
    train: int
    validation: int


@dataclass(frozen=True)
class _Table:
    """One table to generate: an institution's split, or a domain's test set.

    For each modality `scanners` are the sites whose instruments took the images; labels and times
    are [N], in order of acquisition.
    """

    split: Split
    owner: str
    domain: str
    scanners: dict[str, tuple[str, ...]]
    labels: npt.NDArray[np.int64]
    times: npt.NDArray[np.float32]


def generate(
    data: PhantomData, institutions: tuple[InstitutionConfig, ...], *, seed: int, replicas: int = 1
) -> tuple[Header, Parts]:
    """Generate a federation's specimens.

    Every stream is named by the seed, the table's owner, its split and the modality, so that the
    order of generation and what others own change nothing.

    Args:
        data: What to generate.
        institutions: Who owns what, as validated by `Experiment`.
        seed: Root of every stream.
        replicas: Above 1, `med-01` stands for `med-01-0001`, `med-01-0002`, ..., each with as much
            data of its own as the one would have; test sets stay as they are.

    Returns:
        The header, and the parts: each institution's train and validation, then each domain's test
        set. Parts are generated as they are asked for, at most 2,048 specimens or 64 MiB each.

    Raises:
        InputError: An unusable file of forward models, an unknown modality, modalities of several
            families in a domain, or too few specimens for the institutions.
    """
    models = known_models(data.forward_models)
    families = {name: domain_family(name, config, models) for name, config in data.domains.items()}
    sites = _sites(data, institutions, seed, replicas)
    header = Header(
        domains={
            name: DomainInfo(config.modalities, class_names(families[name], config.classes))
            for name, config in data.domains.items()
        },
        institutions={site.name: (site.domain, site.modalities) for site in sites},
        shapes={
            modality: models[modality].shape(data.image_size, data.signal_length)
            for config in data.domains.values()
            for modality in config.modalities
        },
    )
    return header, _parts(data, header.shapes, sites, seed)


def count(
    data: PhantomData, institutions: tuple[InstitutionConfig, ...], *, seed: int, replicas: int = 1
) -> dict[tuple[str, str], int]:
    """Return the number of specimens of each (split, owner) that `generate` would give.

    Raises:
        InputError: Too few specimens for the institutions.
    """
    sites = _sites(data, institutions, seed, replicas)
    tests = {d: skew.split_counts(c.specimens, data.split)[2] for d, c in data.domains.items()}
    return (
        {("train", s.name): s.train for s in sites}
        | {("validation", s.name): s.validation for s in sites}
        | {("test", domain): number for domain, number in tests.items()}
    )


def _sites(
    data: PhantomData, institutions: tuple[InstitutionConfig, ...], seed: int, replicas: int
) -> tuple[_Site, ...]:
    """Size every institution, in the federation's order; replicas are as large as the original."""
    sizes: dict[str, tuple[int, int]] = {}
    for domain, config in data.domains.items():
        members = [i for i in institutions if i.domain == domain]
        train, validation, test = skew.split_counts(config.specimens, data.split)
        least = len(members)
        if train < _LEAST_TRAIN * least or validation < _LEAST_VALIDATION * least or test < 1:
            remedy = (
                f"gives {train} train, {validation} validation and {test} test specimens, too few "
                f"for {least} institutions with {_LEAST_TRAIN} and {_LEAST_VALIDATION} each and "
                "a test set"
            )
            raise InputError(f"data.domains.{domain}.specimens", config.specimens, remedy)
        rng = generator(seed, "phantoms/quantity", domain)
        shares = [i.share for i in members]
        weights = skew.institution_weights(shares, data.skew.quantity_alpha, rng)
        trains = skew.largest_remainder(train, weights, _LEAST_TRAIN)
        validations = skew.largest_remainder(validation, weights, _LEAST_VALIDATION)
        for member, *counts in zip(members, trains, validations, strict=True):
            sizes[member.name] = (int(counts[0]), int(counts[1]))
    return tuple(
        _Site(name, i.domain, _in_domain_order(data, i), *sizes[i.name])
        for i in institutions
        if i.takes_part
        for name in _replica_names(i.name, replicas)
    )


def _replica_names(name: str, replicas: int) -> list[str]:
    return [f"{name}-{n:04d}" for n in range(1, replicas + 1)] if replicas > 1 else [name]


def _in_domain_order(data: PhantomData, institution: InstitutionConfig) -> tuple[str, ...]:
    ordered = data.domains[institution.domain].modalities
    return tuple(modality for modality in ordered if modality in institution.modalities)


def _parts(
    data: PhantomData, shapes: dict[str, Shape], sites: tuple[_Site, ...], seed: int
) -> Parts:
    for site in sites:
        train = _site_table(data, site, "train", site.train, seed)
        yield from _table_parts(data, shapes, train, seed)
        validation = _site_table(data, site, "validation", site.validation, seed)
        yield from _table_parts(data, shapes, validation, seed)
    for domain in data.domains:
        yield from _table_parts(data, shapes, _test_table(data, domain, sites, seed), seed)


def _site_table(data: PhantomData, site: _Site, split: Split, count: int, seed: int) -> _Table:
    rng = generator(seed, "phantoms/labels", site.name)
    classes = data.domains[site.domain].classes
    proportions = skew.class_proportions(classes, data.skew.label_alpha, rng)
    stream = generator(seed, "phantoms/table", site.name, split)
    return _Table(
        split=split,
        owner=site.name,
        domain=site.domain,
        scanners={modality: (site.name,) for modality in site.modalities},
        labels=skew.draw_labels(count, proportions, stream),
        times=skew.acquisition_times(count, stream),
    )


def _test_table(data: PhantomData, domain: str, sites: tuple[_Site, ...], seed: int) -> _Table:
    config = data.domains[domain]
    count = skew.split_counts(config.specimens, data.split)[2]
    stream = generator(seed, "phantoms/table", domain, "test")
    proportions = skew.class_proportions(config.classes, None, stream)
    return _Table(
        split="test",
        owner=domain,
        domain=domain,
        scanners={
            m: tuple(s.name for s in sites if s.domain == domain and m in s.modalities)
            for m in config.modalities
        },
        labels=skew.draw_labels(count, proportions, stream),
        times=skew.acquisition_times(count, stream, _TEST_START, 1.0),
    )


def _table_parts(
    data: PhantomData, shapes: dict[str, Shape], table: _Table, seed: int
) -> Iterator[Part]:
    values = sum(int(np.prod(shapes[modality])) for modality in table.scanners)
    size = max(1, min(_PART_SPECIMENS, _PART_BYTES // (2 * values)))
    for start in range(0, len(table.labels), size):
        yield Part(table.split, table.owner, _specimens(data, shapes, table, start, size, seed))


def _specimens(
    data: PhantomData, shapes: dict[str, Shape], table: _Table, start: int, size: int, seed: int
) -> Specimens:
    rows = slice(start, start + size)
    labels, times = table.labels[rows], table.times[rows]
    key = (table.owner, table.split, start)
    classes = data.domains[table.domain].classes
    # The whole population moves, so the direction belongs to the domain.
    direction = np.sign(generator(seed, "phantoms/drift", table.domain).standard_normal(FACTORS))
    drift = (_FACTOR_DRIFT * data.skew.temporal * times[:, None] * direction).astype(np.float32)
    factors = draw_factors(labels, classes, generator(seed, "phantoms/factors", *key), drift)
    modalities = tuple(table.scanners)
    stream = generator(seed, "phantoms/missing", *key)
    present = skew.draw_presence(len(labels), len(modalities), data.skew.missing_rate, stream)
    models = known_models(data.forward_models)
    images = {}
    for column, modality in enumerate(modalities):
        rng = generator(seed, "phantoms/image", *key, modality)
        owners = table.scanners[modality]
        settings = draw_settings(seed, "phantoms/scanner", owners, modality, len(labels), rng)
        scanner = at_times(settings, times, data.skew.feature, data.skew.temporal)
        images[modality] = acquire(models[modality], shapes[modality], factors, scanner, rng)
        images[modality][~present[:, column]] = 0
    numbers = range(start, start + len(labels))
    each = data.specimens_per_patient
    return Specimens(
        domain=table.domain,
        modalities=modalities,
        ids=tuple(f"{table.owner}-{table.split}-{n:06d}" for n in numbers),
        labels=labels,
        images=images,
        present=present,
        patients=tuple(f"{table.owner}-{table.split}-p{n // each:06d}" for n in numbers)
        if each > 1
        else (),
    )
