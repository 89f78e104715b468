"""What a run was to charge, from its configuration and public sizes alone.

The run's own account, its epsilons and its ledger are not read: a run that charged too little is to
be found out. Generated data are counted again; of other data the tables of a run's folder hold the
public sizes. No code that a configuration names is run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fedfuse_ray.config import Experiment, PhantomData, load
from fedfuse_ray.data.dataset import outline
from fedfuse_ray.data.index import DatasetIndex
from fedfuse_ray.data.specimens import DomainInfo, InstitutionInfo, Shape
from fedfuse_ray.errors import FedfuseError, InputError
from fedfuse_ray.federation.plan import paradigms
from fedfuse_ray.federation.plan.charges import training_events
from fedfuse_ray.federation.plan.plan import Plan, make_plan
from fedfuse_ray.privacy.accounting.ledger import PrivacyEvent
from fedfuse_ray.privacy.accounting.matching import Latitude
from fedfuse_ray.report.reading import read_model, read_parquet
from fedfuse_ray.report.rows import INSTITUTIONS, LATER
from fedfuse_ray.report.schema import Evaluation

_TABLE, _EVALUATION = "institutions.parquet", "evaluation.json"
_CALIBRATED = frozenset({"noise_multiplier"})
Sizes = Mapping[str, InstitutionInfo]


@dataclass(frozen=True)
class Expected:
    """What a run was to charge.

    Attributes:
        plan: The federation, as far as it is public.
        allowed: In what the ledger may differ from it.
        unchecked: What could not be computed again, and why.
    """

    plan: Plan
    allowed: Latitude
    unchecked: tuple[str, ...]

    def events(self, rounds: Iterable[int], factor: float = 1.0) -> list[PrivacyEvent]:
        """Return every release of some rounds once."""
        return training_events(self.plan, rounds, factor)

    @property
    def budget(self) -> float | None:
        """The epsilon that was granted; None where it is not known, or any was."""
        return None if self.allowed.more_noise else self.plan.terms.config.target_epsilon


def expected(folder: Path) -> Expected:
    """Return what the run of a folder was to charge.

    Raises:
        InputError: The configuration is none that this version runs.
        FedfuseError: The folder's tables contradict the configuration.
    """
    experiment = paradigms.resolve(load(folder / "config.yaml"))
    unchecked: list[str] = []
    more_noise = _forget_missing_audit(experiment)
    if more_noise is not None:
        experiment = more_noise
        unchecked.append("privacy.audit is not here, so there may be more noise than expected")
    table = _tabled(folder)
    index = _outlined(experiment, table)
    unknown: frozenset[str] = frozenset()
    pooled = paradigms.is_pooled(experiment)
    if index is None:
        pooled = False  # the table names the pools
        index, experiment = _from_tables(experiment, table, folder)
        unknown = _unknown(experiment)
        told = f"sizes are those of {_TABLE}"
        told += f", and of held test sets those of {_EVALUATION}" if index.held else ""
        unchecked.append(f"{told}; {', '.join(sorted(unknown))} not compared" if unknown else told)
    plan = make_plan(experiment, index, pooled=pooled)
    _check_table(plan, table)
    return Expected(plan, _latitude(plan, unknown, more_noise is not None), tuple(unchecked))


def _forget_missing_audit(experiment: Experiment) -> Experiment | None:
    """Return the experiment without an audit that is not here; an audit only ever adds noise."""
    audit = experiment.privacy.audit
    if audit is None or Path(audit).is_file():
        return None
    privacy = experiment.privacy.model_copy(update={"audit": None})
    return experiment.model_copy(update={"privacy": privacy})


def _latitude(plan: Plan, unknown: frozenset[str], more_noise: bool) -> Latitude:
    terms = plan.terms
    if more_noise and terms.config.mechanism != "gaussian":
        unknown |= {"rho", "xi"}
    return Latitude(
        again=terms.distributed,
        spread=terms.config.adaptive_budget.spread if terms.spends_adaptively else None,
        rounds=plan.experiment.training.rounds,
        more_noise=more_noise,
        unknown=unknown,
    )


def _outlined(experiment: Experiment, table: Sizes) -> DatasetIndex | None:
    """Return the public index of a run's data; None where only its tables know."""
    data = experiment.data
    if not isinstance(data, PhantomData):
        return _manifest(experiment, table) if _needs_shapes(experiment) else None
    if data.forward_models:
        return None
    return outline(
        data, experiment.institutions, seed=experiment.seed, replicas=experiment.replicas
    )


def _needs_shapes(experiment: Experiment) -> bool:
    return experiment.privacy.mechanism != "gaussian"


def _manifest(experiment: Experiment, table: Sizes) -> DatasetIndex | None:
    """Return the index of the user's manifest, if it is here and still the one of the tables."""
    from fedfuse_ray.data.importers import check

    try:
        found = check(experiment.data)  # type: ignore[arg-type]
    except (InputError, OSError):
        return None
    header, counts = found.header, found.specimens
    institutions = {
        name: InstitutionInfo(
            domain, modalities, counts.get((name, "train"), 0), 0, found.patients.get(name, 0)
        )
        for name, (domain, modalities) in header.institutions.items()
    }
    if any(institutions.get(name) != info for name, info in table.items()):
        return None
    tests = {domain: counts.get((domain, "test"), 1) for domain in header.domains}
    return DatasetIndex(header.domains, institutions, header.shapes, tests, held=header.held)


def _tabled(folder: Path) -> dict[str, InstitutionInfo]:
    """Return the public sizes that a run's table holds.

    Raises:
        FedfuseError: An institution changes from round to round.
    """
    found: dict[str, InstitutionInfo] = {}
    for row in read_parquet(folder / _TABLE, INSTITUTIONS, LATER).to_pylist():
        name, modalities = row["institution"], tuple(row["modalities"].split(","))
        info = InstitutionInfo(row["domain"], modalities, row["specimens"], 0, row["patients"])
        if found.setdefault(name, info) != info:
            raise FedfuseError(
                f"{name}, round {row['round']}: {_TABLE} has {_public(info)}, before that "
                f"{_public(found[name])}"
            )
    return found


def _public(info: InstitutionInfo) -> str:
    whose = f", of {info.patients} patients" if info.patients else ""
    return f"{info.train} specimens of {info.domain} ({', '.join(info.modalities)}){whose}"


def _from_tables(
    experiment: Experiment, table: Sizes, folder: Path
) -> tuple[DatasetIndex, Experiment]:
    """Return an index that has all but the images' shapes, and the experiment without its code."""
    data, evaluation = experiment.data, Evaluation()
    if (folder / _EVALUATION).is_file():
        evaluation = read_model(folder / _EVALUATION, Evaluation)
    if isinstance(data, PhantomData):
        _check_names(experiment, table)
        experiment = experiment.model_copy(
            update={"data": data.model_copy(update={"forward_models": ()})}
        )
    # Who was never reached has no row; it was scored all the same.
    scored = {
        n: InstitutionInfo(i.domain, i.modalities, 0, 0) for n, i in evaluation.institutions.items()
    }
    institutions = scored | dict(table)
    _check_sized(experiment, institutions)
    owned: dict[str, set[str]] = {}
    for info in institutions.values():
        owned.setdefault(info.domain, set()).update(info.modalities)
    domains = {name: _domain(experiment, evaluation, name, owned[name]) for name in owned}
    size = data.image_size or 32  # of the files; no block of those that verify depends on it
    image: Shape = (1, size, size)
    shapes = {m: image for d in domains.values() for m in d.modalities}
    tests = {name: _scored(evaluation, name) for name in domains}
    held = {name: info.held for name, info in evaluation.institutions.items() if info.held}
    return DatasetIndex(domains, institutions, shapes, tests, held=held), experiment


def _scored(evaluation: Evaluation, domain: str) -> int:
    scored = evaluation.domains.get(domain)
    return scored.specimens if scored else 1


def _domain(
    experiment: Experiment, evaluation: Evaluation, name: str, owned: set[str]
) -> DomainInfo:
    data, scored = experiment.data, evaluation.domains.get(name)
    known = data.domains[name].modalities if isinstance(data, PhantomData) else sorted(owned)
    return DomainInfo(tuple(known), tuple(scored.classes) if scored else ("0", "1"))


def _check_names(experiment: Experiment, table: Sizes) -> None:
    """Check that everybody whom the configuration lists is in the table.

    Raises:
        FedfuseError: Names who is not.
    """
    pooled = paradigms.is_pooled(experiment)
    there = {*table, *(name.rsplit("-", 1)[0] for name in table)}
    for institution in experiment.institutions:
        name = institution.domain if pooled else institution.name
        if institution.takes_part and name not in there:
            raise FedfuseError(f"{name}, round 1: {_TABLE} has no row of it, config.yaml lists it")


def _check_sized(experiment: Experiment, institutions: Sizes) -> None:
    for name, info in institutions.items():
        if experiment.privacy.mode == "record-local" and not info.train:
            raise FedfuseError(
                f"{name}, round 1: {_TABLE} has no row of it, so nobody knows its size"
            )


def _unknown(experiment: Experiment) -> frozenset[str]:
    """Return the fields of an event that follow from what the tables do not hold."""
    unknown: frozenset[str] = frozenset()
    if _needs_shapes(experiment):
        unknown |= {"rho", "xi"}
    sizes = {i.hardware.batch_size for i in experiment.institutions}
    if paradigms.is_pooled(experiment) and sizes - {None}:
        unknown |= {"sampling_rate", "count"}
    calibrated = unknown and experiment.privacy.target_epsilon is not None
    return unknown | _CALIBRATED if calibrated else unknown


def _check_table(plan: Plan, table: Sizes) -> None:
    """Check that the table's public sizes are those of the plan.

    Raises:
        FedfuseError: Names the institution and both.
    """
    for name, info in table.items():
        found = plan.by_name.get(name)
        wanted = found and InstitutionInfo(
            found.domain, found.modalities, found.specimens, 0, found.patients
        )
        if wanted is None or wanted != info:
            known = _public(wanted) if wanted else "no such institution"
            raise FedfuseError(f"{name}: {_TABLE} has {_public(info)}, config.yaml gives {known}")
