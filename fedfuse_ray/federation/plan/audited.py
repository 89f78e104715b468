"""What an audit of an earlier run changes for this one: it may refuse it, or lower its budget.

An audit gives lower bounds on epsilon. A bound above the claim refutes the mechanism. A bound close
to the claim says that attacks are nearly as strong as the guarantee allows. Then the target is
lowered until the attack, scaled in proportion, would just reach the margin. A bound far below the
claim proves nothing, since a better attack may exist, and changes nothing.

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
    if bounds.get(_REFUTES, 0.0) > claim:
        raise InputError(
            _FIELD,
            config.audit,
            f"canaries show an epsilon of at least {bounds[_REFUTES]:.2f} where the audited run "
            f"claims {claim:.2f}: its mechanism is broken; repair it before anything is released",
        )
    attack = max(bounds, key=lambda name: bounds[name])
    margin, reached = config.adaptive_budget.audit_margin, bounds[attack] / claim
    said = (
        f"the strongest attack on an earlier run, {attack}, shows {bounds[attack]:.2f} of the "
        f"{claim:.2f} claimed"
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
