"""Which test specimens a model is scored on, and what scores on institutions' own records cost.

The consortium's test set is public, and scores on it are post-processing of the released model.
Test specimens that an institution holds are its records. Under `privacy.scores: private` they are
scored only in domains that have no others, once, with the final model: each institution adds noise
to its own confusion counts, and the ledger is charged.

Formal guarantees:
    A record adds 1 to one cell of each view's counts, so it moves the counts of V views by at most
    sqrt(V) in L2. Noise of standard deviation sigma sqrt(V) on every cell is the Gaussian mechanism
    with multiplier sigma; rounding what one institution has noised is post-processing. No specimen
    and no file is in two splits (`data.importers.checks`), so a test record is in no other release,
    and sigma is that of a single release within the run's budget: the training pays nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from fedfuse_ray.config import Experiment
from fedfuse_ray.data.index import DatasetIndex
from fedfuse_ray.errors import InputError, ProtocolError
from fedfuse_ray.federation.plan.participants import Participant
from fedfuse_ray.federation.plan.terms import PrivacyTerms
from fedfuse_ray.privacy.accounting.ledger import PrivacyEvent

Source = Literal["all", "public", "noised"]
"""What a domain is scored on: all of a test set of which institutions hold a part; the consortium's
part; or specimens that institutions hold, with noise."""


@dataclass(frozen=True)
class ScoreTerms:
    """How models are scored.

    Attributes:
        private: Whether figures from institutions' own records are left out, or noised.
        sources: What each domain is scored on.
        specimens: On how many test specimens.
        held: How many specimens each participant scores with noise, where it scores any.
        sigma: The noise multiplier of those scores; None where there are none.
        unit: The unit of privacy.
    """

    private: bool = False
    sources: Mapping[str, Source] = field(default_factory=dict)
    specimens: Mapping[str, int] = field(default_factory=dict)
    held: Mapping[str, int] = field(default_factory=dict)
    sigma: float | None = None
    unit: str = "none"

    @property
    def noised(self) -> frozenset[str]:
        """The domains whose scores are released with noise, once, at the end."""
        return frozenset(name for name, source in self.sources.items() if source == "noised")

    def std(self, views: int) -> float:
        """Return the standard deviation of the noise on each count, of so many views together.

        Raises:
            ProtocolError: No score is released with noise.
        """
        if self.sigma is None:
            raise ProtocolError("no score of this federation is released with noise")
        return self.sigma * float(views) ** 0.5

    def events(self, round: int) -> list[PrivacyEvent]:
        """Return what the final scores are charged as, in participants' order.

        Args:
            round: The last round, after which they are released.
        """
        if self.sigma is None:
            return []
        return [
            PrivacyEvent(round, name, (), "gaussian", self.sigma, unit=self.unit, records="test")
            for name in self.held
        ]


def score_terms(
    experiment: Experiment,
    index: DatasetIndex,
    participants: Sequence[Participant],
    privacy: PrivacyTerms | None,
) -> ScoreTerms:
    """Return how an experiment's models are scored.

    Raises:
        InputError: Scores would have to be released with noise that hides less than the unit.
    """
    private = experiment.privacy.hides_scores
    public = {name: index.public_tests(name) for name in index.domains}
    sources = {name: _source(private, public[name], index.test[name]) for name in public}
    held = {
        p.name: count
        for p in participants
        if sources[p.domain] == "noised"
        and (count := sum(index.held.get(name, 0) for name in p.members))
    }
    specimens = {
        name: public[name] if source == "public" else index.test[name]
        for name, source in sources.items()
    }
    unit = experiment.privacy.protected_unit
    if held and unit != "record":
        raise no_public_test(experiment, next(n for n, s in sources.items() if s == "noised"))
    sigma = _sigma(experiment.training.rounds, privacy) if held and privacy is not None else None
    return ScoreTerms(private, sources, specimens, held, sigma, unit)


def _source(private: bool, public: int, whole: int) -> Source:
    if public == whole or (private and public):
        return "public"
    return "noised" if private else "all"


def no_public_test(experiment: Experiment, domain: str, place: str = "institution") -> InputError:
    """Return the refusal of a test set that only its institutions hold."""
    return InputError(
        place,
        domain,
        "all test specimens of the domain are held by its institutions, and noise on a score hides "
        f"one specimen, not the whole {experiment.privacy.protected_unit} that privacy.mode="
        f"{experiment.privacy.mode} protects; leave institution empty in rows of a test set that "
        "the consortium shares, or set privacy.scores=shown",
    )


def _sigma(rounds: int, privacy: PrivacyTerms) -> float:
    """Return the multiplier of one release that costs a record what training costs another."""
    from fedfuse_ray.privacy.accounting.calibration import calibrate_noise_multiplier
    from fedfuse_ray.privacy.accounting.epsilon import epsilon_by_institution, largest

    config = privacy.config
    target = config.target_epsilon
    if target is None:
        planned = [
            event
            for name in privacy.releases
            for number in range(1, rounds + 1)
            for event in privacy.events(name, (), number)
        ]
        target = largest(epsilon_by_institution(planned, config.delta, config.accountant))
    return calibrate_noise_multiplier(target, config.delta, 1.0, 1, accountant=config.accountant)
