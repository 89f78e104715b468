"""What an audit of an earlier run changes for this one: it may refuse it, or lower its budget.

An audit gives lower bounds on epsilon, each with 95% confidence, of two kinds:

- Canaries are the worst case that the guarantee covers, and nobody's records. On a sound run a
  tight audit comes close to the claim by design, so closeness says nothing. A bound above the claim
  refutes the mechanism: on a sound one that happens in at most one of twenty audits.
- Attacks on the institutions' own records. A bound close to the claim says that attacks on real
  data are nearly as strong as the guarantee allows. Then the target is lowered until the attack,
  scaled in proportion, would just reach the margin. A bound far below the claim proves nothing,
  since a better attack may exist, and changes nothing.

Canaries are made up. The other attacks look at real records without noise, so under
`privacy.scores: private` nothing that they found decides or says anything.

Formal guarantees: the target is never raised, whatever the file holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field, ValidationError

from fedfuse_ray.config import PrivacyConfig
from fedfuse_ray.errors import InputError

_FIELD = "privacy.audit"
_REFUTES = "canaries"
"""The attack whose guesses are fixed before it looks, so that its bound can refute a claim."""


class _Audit(BaseModel, frozen=True):
    """What counts of an `audit.json`; the rest of it is for people."""

    paradigm: str
    mode: str
    unit: str | None = None
    delta: float | None
    epsilon: float | None = Field(gt=0.0, allow_inf_nan=False)
    passed: bool = True
    lower_bounds: dict[str, Annotated[float, Field(ge=0.0, allow_inf_nan=False)]]


def after_audit(config: PrivacyConfig, paradigm: str) -> tuple[PrivacyConfig, str | None]:
    """Return a run's privacy after the audit that it names, and what that changed and why.

    Args:
        config: The run's settings; `audit` names the file.
        paradigm: What the run trains.

    Raises:
        InputError: The file is no audit of a run alike, has no bound that may be used, or refutes
            that run's guarantee.
    """
    if config.audit is None or config.target_epsilon is None:
        return config, None
    found = _read(config, paradigm)
    claim, bounds = float(found.epsilon or 0.0), _usable(found.lower_bounds, config)
    refuting = bounds.get(_REFUTES, 0.0)
    if refuting > claim or not found.passed:
        shown = f"an epsilon of at least {refuting:.2f}" if refuting > claim else "too large a loss"
        raise InputError(
            _FIELD,
            config.audit,
            f"canaries show {shown} (95% confidence) where the audited run claims {claim:.2f}: its "
            "mechanism is broken; repair it before anything is released. An audit of a sound one "
            "says so once in twenty times at most: audit again with another --seed to be sure",
        )
    real = {name: bound for name, bound in bounds.items() if name != _REFUTES}
    if not real:
        return config, (
            f"canaries on an earlier run show {refuting:.2f} of the {claim:.2f} claimed, which "
            "refutes nothing and changes nothing"
        )
    attack = max(real, key=lambda name: real[name])
    margin, reached = config.adaptive_budget.audit_margin, real[attack] / claim
    said = (
        f"the strongest attack on records of an earlier run, {attack}, shows {real[attack]:.2f} of "
        f"the {claim:.2f} claimed"
    )
    if reached <= margin:
        return config, f"{said}: within the margin of {margin:g}, which changes nothing"
    target = config.target_epsilon * margin / reached
    return (
        config.model_copy(update={"target_epsilon": target}),
        f"{said}, above the margin of {margin:g}: the target is {target:.4g}, not "
        f"{config.target_epsilon:g}",
    )


def _usable(bounds: Mapping[str, float], config: PrivacyConfig) -> Mapping[str, float]:
    """Return the bounds that a run may look at."""
    if not config.hides_scores:
        return bounds
    if canaries := {name: b for name, b in bounds.items() if name.startswith(_REFUTES)}:
        return canaries
    raise InputError(
        _FIELD,
        config.audit,
        f"holds only what attacks on real records found ({', '.join(bounds)}), which nobody has "
        "charged; audit with --attacks canaries, or set privacy.scores=shown",
    )


def _read(config: PrivacyConfig, paradigm: str) -> _Audit:
    path = str(config.audit)
    try:
        found = _Audit.model_validate_json(Path(path).read_bytes())
    except OSError as error:
        raise InputError(_FIELD, path, f"can't be read: {error.strerror}") from None
    except ValidationError:
        raise InputError(_FIELD, path, "is no audit.json as `audit` writes it") from None
    if found.epsilon is None or not found.lower_bounds:
        raise InputError(_FIELD, path, "attacks nothing private; audit a private run")
    wanted = {"paradigm": paradigm, "mode": config.mode, "delta": config.delta}
    if found.unit is not None:  # audits of versions that knew one unit a mode don't tell it
        wanted["unit"] = config.protected_unit
    for name, value in wanted.items():
        if (other := getattr(found, name)) != value:
            raise InputError(
                _FIELD,
                path,
                f"audits a run of {name} {other}, this one has {value}; audit one alike",
            )
    return found
