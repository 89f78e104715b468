"""Local training, and the server's strategy."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fedfuse_ray.config.settings.base import Config


class ContrastiveConfig(Config):
    """Rounds before the supervised ones that pair the modalities of a specimen.

    Institutions that own at least two modalities train their encoders (projections, where these
    are frozen) so that a specimen's images are embedded alike; the others send nothing.

    Attributes:
        rounds: The first so many of `training.rounds`; paradigms that train alone begin with as
            many times `local_epochs`.
        temperature: Divides the cosines; a low one counts only the most similar other specimens.
    """

    rounds: int = Field(ge=1)
    temperature: float = Field(0.1, gt=0.0)


class TrainingConfig(Config):
    """How institutions train between synchronisations.

    Attributes:
        rounds: Communication rounds.
        local_epochs: Epochs over an institution's own specimens a round.
        batch_size: Specimens a step, where an institution's hardware does not say.
        optimizer: The local optimizer; its state is reset in each round.
        learning_rate: The optimizer's first learning rate.
        momentum: SGD's momentum.
        weight_decay: Decoupled (AdamW) for Adam, L2 for SGD.
        schedule: `constant`; `step` multiplies by `decay_factor` every `decay_every` epochs;
            `cosine` falls to zero at the last round.
        decay_factor: The factor of `step`.
        decay_every: Epochs between decays of `step`, counted over all rounds.
        patience: Paradigms that train alone stop when validation has not improved for so many
            evaluations.
        max_epochs: The longest that those paradigms train.
        contrastive: Contrastive rounds at the beginning; null has none.
    """

    rounds: int = Field(ge=1)
    local_epochs: int = Field(1, ge=1)
    batch_size: int = Field(32, ge=1)
    optimizer: Literal["adam", "sgd"] = "adam"
    learning_rate: float = Field(1e-3, gt=0.0)
    momentum: float = Field(0.9, ge=0.0, lt=1.0)
    weight_decay: float = Field(0.0, ge=0.0)
    schedule: Literal["constant", "step", "cosine"] = "constant"
    decay_factor: float = Field(0.1, gt=0.0, le=1.0)
    decay_every: int = Field(30, ge=1)
    patience: int = Field(10, ge=1)
    max_epochs: int = Field(200, ge=1)
    contrastive: ContrastiveConfig | None = None


class _Strategy(Config):
    """What every strategy has.

    Attributes:
        weighting: Weights of the average, block by block over the block's owners: by
            `specimens`, `uniform`, by `domain` (the paper's 0.6 / 0.25 / 0.15 split among a
            domain's owners by specimens), or by `loss` (specimens times the round's training
            loss to the power of `loss_exponent`: the largest loss counts most; after q-FFL, Li et
            al., 2020, arXiv 1905.10497).
        domain_weights: A domain's weight under `weighting: domain`.
        loss_exponent: q under `weighting: loss`; 0 weighs by specimens.
        server_learning_rate: Factor on the averaged update.
        average_last: Fraction of the rounds, at the end, whose models are averaged into the one
            that is scored and released (Polyak and Juditsky, 1992); 0 releases the last.
    """

    weighting: Literal["specimens", "uniform", "domain", "loss"] = "specimens"
    domain_weights: dict[str, Annotated[float, Field(gt=0.0)]] = Field(
        {"medical": 0.6, "materials": 0.25, "environmental": 0.15}
    )
    loss_exponent: float = Field(1.0, ge=0.0, le=5.0)
    server_learning_rate: float = Field(1.0, gt=0.0)
    average_last: float = Field(0.0, ge=0.0, le=1.0)


class FedAvgConfig(_Strategy):
    """Federated averaging (McMahan et al., 2017, arXiv 1602.05629)."""

    kind: Literal["fedavg"] = "fedavg"
    server_momentum: float = Field(0.0, ge=0.0, lt=1.0)


class FedProxConfig(_Strategy):
    """FedAvg with a proximal term at the institutions (Li et al., 2020, arXiv 1812.06127)."""

    kind: Literal["fedprox"]
    proximal_mu: float = Field(0.01, ge=0.0)


class ScaffoldConfig(_Strategy):
    """Control variates against client drift (Karimireddy et al., 2020, arXiv 1910.06378)."""

    kind: Literal["scaffold"]


class FedNovaConfig(_Strategy):
    """Updates normalised by local steps (Wang et al., 2020, arXiv 2007.07481)."""

    kind: Literal["fednova"]


class _Adaptive(_Strategy):
    """Adaptive server optimizers (Reddi et al., 2021, arXiv 2003.00295)."""

    server_learning_rate: float = Field(0.01, gt=0.0)
    beta1: float = Field(0.9, ge=0.0, lt=1.0)
    beta2: float = Field(0.99, ge=0.0, lt=1.0)
    adaptivity: float = Field(1e-3, gt=0.0)


class FedAdamConfig(_Adaptive):
    """FedAdam."""

    kind: Literal["fedadam"]


class FedYogiConfig(_Adaptive):
    """FedYogi."""

    kind: Literal["fedyogi"]


StrategyConfig = Annotated[
    FedAvgConfig | FedProxConfig | ScaffoldConfig | FedNovaConfig | FedAdamConfig | FedYogiConfig,
    Field(discriminator="kind"),
]
