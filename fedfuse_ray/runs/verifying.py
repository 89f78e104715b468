"""Whether a result folder is as its run left it, and its files say the same."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from fedfuse_ray.errors import FedfuseError, InputError
from fedfuse_ray.federation.checkpoints import alone
from fedfuse_ray.privacy.accounting.chain import Link, follow
from fedfuse_ray.privacy.accounting.ledger import Ledger, read_ledger
from fedfuse_ray.report.reading import read_json, read_model, read_text
from fedfuse_ray.report.schema import Summary
from fedfuse_ray.report.store import read_rounds
from fedfuse_ray.runs import sealing
from fedfuse_ray.runs.charged import check_charges
from fedfuse_ray.runs.secrets import FILE as SECRET
from fedfuse_ray.yaml12 import parse

_CONFIG, _SUMMARY, _CHECKPOINTS = "config.yaml", "summary.json", "checkpoints"
_AUDIT = "audit.json"
_RELATIVE = 1e-6
"""How far an epsilon may differ that another version of the accountant computes again."""


@dataclass(frozen=True)
class Check:
    """What one check came to; `passed` is None where there was nothing to check."""

    name: str
    passed: bool | None
    detail: str


class _NothingToCheck(Exception):
    """Says why a check does not apply."""


def runs_in(folder: Path) -> dict[str, Path]:
    """Return the runs of a result folder by name: itself, or a comparison's or a sweep's.

    Raises:
        InputError: There are none.
    """
    if not folder.is_dir():
        raise InputError("DIR", folder, "no such folder; name a run's, a comparison's or a sweep's")
    if _is_run(folder):
        return {folder.name: folder}
    named: list[str] = []
    if (folder / "comparison.json").is_file():
        named = list(read_json(folder / "comparison.json"))
    found = {name: folder / name for name in named}
    for parent in (folder, folder / "trials"):
        if parent.is_dir():
            found |= {p.name: p for p in sorted(parent.iterdir()) if p.is_dir() and _is_run(p)}
    if not found:
        raise InputError("DIR", folder, "holds no run: no config.yaml and no ledger are there")
    return found


def _is_run(folder: Path) -> bool:
    # A sweep lays its trials' settings out before it runs them; these alone are no run yet.
    begun = (sealing.SEAL, sealing.LEDGER, "rounds.parquet")
    return any((folder / name).is_file() for name in begun)


def verify_run(folder: Path, keys: Sequence[str] = ()) -> list[Check]:
    """Check one run's folder: one of the keys, by fingerprint, must have signed.

    Whoever holds the folder could have signed it anew, so name a key.
    """
    opened = _Folder(folder, tuple(keys))
    checks: dict[str, Callable[[_Folder], str]] = {
        "seal": _seal,
        "key": _key,
        "chain": _chain,
        "end": _end,
        "files": _files,
        "epsilon": _epsilon,
        "rounds": _rounds,
        "charges": _charges,
        "weights": _weights,
        "noise": _noise,
        "private key": _private_key,
    }
    return [_checked(name, check, opened) for name, check in checks.items()]


def _checked(name: str, check: Callable[[_Folder], str], folder: _Folder) -> Check:
    try:
        return Check(name, True, check(folder))
    except _NothingToCheck as reason:
        return Check(name, None, str(reason))
    except (FedfuseError, OSError) as error:
        return Check(name, False, str(error))
    except (ValueError, TypeError, KeyError) as error:
        return Check(name, False, f"a file can't be read: {error!r}")


@dataclass(frozen=True)
class _Folder:
    path: Path
    keys: tuple[str, ...]

    @cached_property
    def statement(self) -> sealing.Statement:
        return sealing.read_seal(self.path)

    @cached_property
    def links(self) -> tuple[Link, ...]:
        return tuple(follow((self.path / sealing.LEDGER).read_bytes()))

    @cached_property
    def ledger(self) -> Ledger:
        return read_ledger(self.path / sealing.LEDGER)

    @cached_property
    def summary(self) -> Summary:
        if self.statement.state != "finished":
            raise _NothingToCheck("the run has no summary")
        return read_model(self.path / _SUMMARY, Summary)

    @cached_property
    def settings(self) -> Mapping[str, Any]:
        tree: Mapping[str, Any] = parse(read_text(self.path / _CONFIG))["privacy"]
        return tree

    @property
    def private(self) -> bool:
        return bool(self.settings["mode"] != "none")

    @property
    def authenticated(self) -> str:
        found = self.statement.fingerprint
        if found in self.keys:
            return f"authenticated by {found}"
        return "unauthenticated"

    @cached_property
    def rounds(self) -> list[Mapping[str, Any]]:
        return list(read_rounds(self.path).to_pylist())


def _seal(folder: _Folder) -> str:
    state = folder.statement.state
    if state == "running":
        raise FedfuseError("the run is not finished; finish it with --resume")
    return f"{state}, signed by {folder.statement.fingerprint}"


def _key(folder: _Folder) -> str:
    if not folder.keys:
        raise _NothingToCheck(
            "unauthenticated: whoever has the folder can sign it anew; give --key with what `run` "
            "printed"
        )
    found = folder.statement.fingerprint
    if found not in folder.keys:
        raise FedfuseError(f"unauthenticated: another key signed: {found}")
    return folder.authenticated


def _chain(folder: _Folder) -> str:
    return f"{len(folder.links)} entries, each follows from those before"


def _end(folder: _Folder) -> str:
    sealing.check_end(folder.statement, folder.links)
    return f"the ledger ends where it was signed, at {folder.statement.head[:12]}..."


def _files(folder: _Folder) -> str:
    signed = folder.statement.files
    for name, digest in signed.items():
        if name not in sealing.FILES or not (folder.path / name).is_file():
            raise FedfuseError(f"{name} is missing")
        if sealing.sha256_of(folder.path / name) != digest:
            late = ", or an audit was written there after the run" if name == _AUDIT else ""
            raise FedfuseError(f"{name} was altered{late}")
    loose = [n for n in sealing.FILES if n not in signed and (folder.path / n).is_file()]
    said = ", ".join(signed)
    return f"{said}; not signed: {', '.join(loose)}" if loose else said


def _epsilon(folder: _Folder) -> str:
    """Recompute epsilon, and compare it with the summary and the table of rounds."""
    from fedfuse_ray.privacy.accounting.budget import Account  # scipy

    settings = folder.settings
    if not folder.private:
        if len(folder.ledger):
            count = len(folder.ledger)
            raise FedfuseError(f"not private, and yet the ledger has {count} entries")
        raise _NothingToCheck("the run is not private")
    # Runs from before there was a choice name no accountant.
    accountant = settings.get("accountant", "pld")
    account = Account.open(settings["delta"], None, folder.ledger, accountant)
    claims: dict[str, tuple[float | None, float]] = {}
    if folder.rounds:
        # Final scores are charged after the last row was written.
        trained = (e for e in folder.ledger if e.records is None)
        done = Ledger(tuple(e for e in trained if e.round <= len(folder.rounds)))
        spent = Account.open(settings["delta"], None, done, accountant).epsilon
        claims["rounds.parquet"] = (folder.rounds[-1]["epsilon"], spent)
    if folder.statement.state == "finished":
        told = folder.summary.privacy
        claims[_SUMMARY] = (told.epsilon, account.epsilon)
        names = {*told.epsilon_by_institution, *account.epsilons}
        for name in sorted(names):
            spent = account.epsilons.get(name, 0.0)
            claims[f"{_SUMMARY}, {name}"] = (told.epsilon_by_institution.get(name), spent)
    for where, (claimed, spent) in claims.items():
        if claimed is None or not math.isclose(claimed, spent, rel_tol=_RELATIVE):
            raise FedfuseError(f"{where} says {claimed}, the ledger gives {spent:.6g}")
    given = f"the ledger gives {account.epsilon:.4f} at delta {account.delta:g}"
    return f"{given}, which the summary says too; {folder.authenticated}"


def _rounds(folder: _Folder) -> str:
    rows = [row["round"] for row in folder.rounds]
    if folder.statement.state == "finished" and folder.summary.rounds != len(rows):
        raise FedfuseError(
            f"{_SUMMARY} says {folder.summary.rounds}, rounds.parquet has {len(rows)}"
        )
    charged = sorted({event.round for event in folder.ledger})
    # A last round may be charged and not finished; whether it may, `charges` looks.
    if charged and charged not in (rows, [*rows, len(rows) + 1]):
        odd = min(set(charged) ^ set(rows), default=0)
        raise FedfuseError(
            f"the ledger charges {len(charged)} rounds, rounds.parquet has {len(rows)}; "
            f"round {odd} is in one of them only"
        )
    return f"{len(rows)} in rounds.parquet" + (" and in the ledger" if charged else "")


def _charges(folder: _Folder) -> str:
    """Compare the ledger with what the configuration and public sizes ask for."""
    if not folder.private:
        raise _NothingToCheck("the run is not private")
    finished = folder.statement.state == "finished"
    return check_charges(folder.path, folder.ledger, len(folder.rounds), finished=finished)


def _noise(folder: _Folder) -> str:
    """Say what the origin of the noise means, and look for a root that was left behind."""
    if not folder.private:
        raise _NothingToCheck("the run is not private")
    if (folder.path / SECRET).is_file():
        raise FedfuseError(f"{SECRET} is still in the folder: whoever has it knows all the noise")
    if folder.settings.get("randomness", "derived") == "secret":
        return "drawn from the operating system, and forgotten"
    raise _NothingToCheck(
        "privacy.randomness is derived: epsilon holds only against those who do not have the seed, "
        f"which {_CONFIG} holds"
    )


def _weights(folder: _Folder) -> str:
    claimed = folder.summary.weights_sha256
    if folder.statement.weights_sha256 != claimed:
        raise FedfuseError(
            f"{_SUMMARY} says {claimed}, {folder.statement.weights_sha256} was signed"
        )
    found = alone.sha256_of(folder.path / _CHECKPOINTS, len(folder.rounds))
    if found is None:
        raise _NothingToCheck("the last checkpoint was not kept")
    if found != claimed:
        raise FedfuseError(f"the last checkpoint has {found}, {claimed} was signed")
    return "the last checkpoint holds the model that was signed"


def _private_key(folder: _Folder) -> str:
    if (folder.path / sealing.KEY).is_file():
        raise FedfuseError(f"{sealing.KEY} is still in the folder: whoever has it can sign")
    return "not in the folder"
