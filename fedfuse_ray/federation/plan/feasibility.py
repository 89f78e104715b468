"""Checks before a run: records, encoders' weights; with the data: domains, turns, pairs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from fedfuse_ray.config import Experiment, PrivacyConfig
from fedfuse_ray.config.settings.data import ManifestData
from fedfuse_ray.config.settings.model import NAMED_WEIGHTS
from fedfuse_ray.errors import InputError
from fedfuse_ray.federation.plan.participants import Participant
from fedfuse_ray.federation.plan.score_terms import no_public_test

if TYPE_CHECKING:
    from fedfuse_ray.data.importers import Shared


def check(
    experiment: Experiment, domains: Iterable[str], participants: tuple[Participant, ...]
) -> None:
    """Refuse an experiment that its participants can't carry out.

    Raises:
        InputError: Domains are to be weighted, and one has no weight; nobody trains the default
            encoder of a modality, with which the global model is scored; there are fewer rounds
            than institutions that take turns; nobody owns two modalities to pair in contrastive
            rounds; all institutions are to collude with the server; or delta would allow to
            publish a record, or an institution, as it is.
    """
    _check_domain_weights(experiment, domains)
    _check_default_encoders(experiment, participants)
    _check_turns(experiment, participants)
    _check_pairs(experiment, participants)
    _check_colluders(experiment, participants)
    _check_delta(experiment, participants)


def check_units(experiment: Experiment) -> None:
    """Refuse units that the ledger would not charge as they are, before a run touches anything.

    Each institution's epsilon speaks of its own releases, so a unit at several of them loses more
    than that, unless `institutions_per_unit` charges it for as many.

    Raises:
        InputError: Nobody knows the patients that are to be protected; or a specimen, or a patient,
            stands at more institutions than are charged: names it, them and the row.
    """
    data, privacy = experiment.data, experiment.privacy
    if privacy.protected_unit not in ("record", "patient"):
        return
    if not isinstance(data, ManifestData):
        if privacy.of_patients and data.specimens_per_patient == 1:
            raise InputError(
                "privacy.unit",
                privacy.unit,
                "generated specimens have no patients; set data.specimens_per_patient to 2 or more",
            )
        return
    from fedfuse_ray.data.importers import has_patients, shared  # pyarrow

    if privacy.of_patients and not has_patients(data):
        raise InputError(
            "privacy.unit",
            privacy.unit,
            f"{data.path} has no column patient_id; add it, or set privacy.unit=record",
        )
    for found in shared(data, privacy.unit):
        if len(found.institutions) > privacy.institutions_per_unit:
            _refuse_shared(found, privacy)


def _refuse_shared(found: Shared, privacy: PrivacyConfig) -> NoReturn:
    count, names = len(found.institutions), " and ".join(found.institutions)
    charge = (
        f"set privacy.institutions_per_unit={count}, which charges every {privacy.unit} for as many"
        if privacy.mode == "record-distributed"
        else "use privacy.mode=record-distributed, which can charge for that"
    )
    what = "a specimen" if privacy.unit == "record" else "a patient"
    raise InputError(
        f"{found.place}, {found.column}",
        found.name,
        f"is trained on at {names}, and would lose more than the epsilon that is charged for "
        f"{privacy.institutions_per_unit}; leave all rows of {what} at one institution, or "
        f"{charge}",
    )


def check_scores(experiment: Experiment, *, each_round: bool = False) -> None:
    """Refuse scores that can be neither shown nor noised, before anything of a run is touched.

    Args:
        experiment: The resolved experiment.
        each_round: Whether somebody needs a score before the end, as a search does that stops
            trials early.

    Raises:
        InputError: A domain's test set is held by its institutions alone, and they are what is to
            be hidden, or several of them hold one specimen, or scores are needed in each round.
    """
    data, privacy = experiment.data, experiment.privacy
    if not privacy.hides_scores or not isinstance(data, ManifestData):
        return
    from fedfuse_ray.data.importers import held  # pyarrow

    domains, shared = held(data)
    for domain, place in domains.items():
        field = f"{place}, institution"
        if privacy.protected_unit != "record":
            raise no_public_test(experiment, domain, field)
        if each_round:
            raise InputError(
                field,
                domain,
                "all test specimens of the domain are held by its institutions, so that it has a "
                "score at the end alone; leave institution empty in rows of a test set that the "
                "consortium shares, or choose a search that stops no trial early",
            )
    for found in shared:
        if found.domain in domains:
            raise InputError(
                f"{found.place}, specimen_id",
                found.name,
                f"is a test specimen at {' and '.join(found.institutions)}, and would lose more "
                "than the epsilon that each one's scores are charged; leave it at one institution, "
                "or set privacy.scores=shown",
            )


def check_sources(experiment: Experiment) -> None:
    """Refuse encoders whose weights are not here; what timm's hub has is downloaded.

    Raises:
        InputError: Names the setting, and what to install, to download or to correct.
    """
    model = experiment.model
    encoders = {"encoder": model.encoder}
    encoders |= {f"encoders.{name}": each for name, each in model.encoders.items()}
    encoders |= {f"tiers.{name}": each for name, each in model.tiers.items()}
    fetched = set()
    for name, encoder in encoders.items():
        field, weights = f"model.{name}", encoder.weights
        if encoder.kind == "timm":
            from fedfuse_ray.models.encoders.extra import (  # torch
                check_extra,
                hub_state,
                is_installed,
            )

            if not is_installed(encoder) and _only_signals(experiment):
                continue  # they take MiniRocket, which needs nothing
            check_extra(encoder, field)
            if weights == "hub" and encoder.name not in fetched:
                hub_state(encoder, field)
                fetched.add(encoder.name)
        if weights not in NAMED_WEIGHTS and not Path(weights).is_file():
            remedy = f"no such file; use {', '.join(NAMED_WEIGHTS)} or a file's path"
            raise InputError(f"{field}.weights", weights, remedy)


def _only_signals(experiment: Experiment) -> bool:
    if not isinstance(experiment.data, ManifestData):
        return False
    from fedfuse_ray.data.importers import check

    shapes = check(experiment.data).header.shapes
    return all(len(shape) == 2 for shape in shapes.values())


def _check_domain_weights(experiment: Experiment, domains: Iterable[str]) -> None:
    strategy = experiment.strategy
    missing = [name for name in domains if name not in strategy.domain_weights]
    if strategy.weighting == "domain" and missing:
        raise InputError(
            "strategy.domain_weights",
            ", ".join(strategy.domain_weights),
            f"give {missing[0]!r} a weight too, or set strategy.weighting=specimens",
        )


def _check_default_encoders(experiment: Experiment, participants: tuple[Participant, ...]) -> None:
    """Refuse a modality that only tiers' institutions own; models that train alone need none."""
    if experiment.paradigm == "isolated":
        return
    trained = {m for p in participants if not p.tier for m in p.modalities}
    for participant in participants:
        orphans = [m for m in participant.modalities if m not in trained]
        if participant.tier and orphans:
            raise InputError(
                f"institutions.{participant.name}.hardware.tier",
                participant.tier,
                f"nobody trains the default encoder of {orphans[0]!r}, with which the global model "
                "is scored; leave the tier of one of its owners empty",
            )


def _check_turns(experiment: Experiment, participants: tuple[Participant, ...]) -> None:
    """Refuse rounds that end before everybody had a turn; who trains alone takes none."""
    kind, rounds = experiment.selection.kind, experiment.training.rounds
    if kind not in ("cyclic", "incremental") or experiment.paradigm == "isolated":
        return
    longest = max(Counter(p.domain for p in participants).values())
    if rounds < longest:
        raise InputError(
            "training.rounds",
            rounds,
            f"selection.kind={kind} lets one institution of a domain train in a round, and one "
            f"domain has {longest}: give at least {longest} rounds",
        )


def _check_pairs(experiment: Experiment, participants: tuple[Participant, ...]) -> None:
    contrastive = experiment.training.contrastive
    if contrastive is not None and all(len(p.modalities) < 2 for p in participants):
        raise InputError(
            "training.contrastive",
            f"rounds={contrastive.rounds}",
            "pairs the modalities of a specimen, and no participant owns two; set it to null: "
            "without pairs a federation can keep public pre-training only, model.encoder.weights",
        )


def _check_colluders(experiment: Experiment, participants: tuple[Participant, ...]) -> None:
    """Refuse more colluders than leave one institution to protect."""
    privacy, most = experiment.privacy, len(participants) - 1
    stated = privacy.secure_aggregation.colluding
    if privacy.mode == "record-distributed" and stated is not None and stated > most:
        raise InputError(
            "privacy.secure_aggregation.colluding",
            stated,
            f"of {len(participants)} institutions at most {most} can work together with the "
            "server; lower it, or set it to null for privacy.tolerated_dropouts",
        )


def _check_delta(experiment: Experiment, participants: tuple[Participant, ...]) -> None:
    """Refuse a delta under which releasing one of N units in the clear would be private."""
    privacy = experiment.privacy
    if not privacy.enabled:
        return
    largest = max(participants, key=lambda p: p.units(privacy))
    count, kind = (
        largest.units(privacy),
        "patients" if privacy.of_patients else "training specimens",
    )
    what = f"{largest.name} has {count} {kind}"
    if privacy.protected_unit == "institution":
        count, what = len(participants), f"there are {len(participants)} institutions"
    if privacy.delta * count >= 1.0:
        raise InputError(
            "privacy.delta",
            privacy.delta,
            f"{what}: with a delta of 1 / {count} or more one of them may be published as it is; "
            f"set it well below {1.0 / count:.2g}, such as {0.01 / count:.0e}",
        )
