"""Checks that need the data: weights of domains, default encoders, turns, pairs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from fedfuse_ray.config import Experiment
from fedfuse_ray.errors import InputError
from fedfuse_ray.federation.plan.participants import Participant


def check(
    experiment: Experiment, domains: Iterable[str], participants: tuple[Participant, ...]
) -> None:
    """Refuse an experiment that its participants can't carry out.

    Raises:
        InputError: Domains are to be weighted, and one has no weight; nobody trains the default
            encoder of a modality, with which the global model is scored; there are fewer rounds
            than institutions that take turns; nobody owns two modalities to pair in contrastive
            rounds; or all institutions are to collude with the server.
    """
    _check_domain_weights(experiment, domains)
    _check_default_encoders(experiment, participants)
    _check_turns(experiment, participants)
    _check_pairs(experiment, participants)
    _check_colluders(experiment, participants)


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
