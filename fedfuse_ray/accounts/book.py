"""What an account says: its entries as lines of JSON, and what they come to.

| entry | says |
|---|---|
| `account` | the first line: the account's id |
| `units` | some institution's units, by the keys of their images; stored once |
| `run` | a run is about to begin; at most these charges, each to these units |
| `more` | a run is about to charge more than it entered |
| `settled` | a run has ended: what its ledger really charged; a digest of what it released |
| `repaired` | a last line that a crash had cut off was taken out; its release never happened |

Nothing is ever changed or taken out: a later entry speaks of an earlier one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from fedfuse_ray.accounts import charges as charged
from fedfuse_ray.accounts.charges import Charges
from fedfuse_ray.accounts.units import Units
from fedfuse_ray.errors import FedfuseError

VERSION = 1
FINISHED, STOPPED, WITHDRAWN = "finished", "stopped", "withdrawn"
"""How a run ended: by itself; given up by a search; before it could release anything."""


@dataclass(frozen=True)
class Group:
    """The units of one participant, and what a run charges to each of them."""

    units: str
    charges: Charges = ()


@dataclass(frozen=True)
class Run:
    """A run, or an audit, as the account knows it.

    Attributes:
        id: Its own, hex.
        what: `run` or `audit`.
        results: Where its results are; for people.
        unit: What its guarantee speaks of, as `record`.
        protected: Whether all that it shows of the units has noise.
        groups: By participant.
        identity: Of two runs with the same one, equal releases are the same; "" where none are.
        state: How it ended; "" while it may go on.
        releases: Digest of what it released; "" where it is not known in full.
    """

    id: str
    what: str
    results: str
    unit: str
    protected: bool
    groups: Mapping[str, Group]
    identity: str = ""
    state: str = ""
    releases: str = ""

    @property
    def release(self) -> tuple[str, str]:
        """What its releases are known by: runs for which this is equal made the same releases."""
        known = bool(self.state and self.identity and self.releases)
        return (self.identity, self.releases) if known else (self.id, "")

    @property
    def private(self) -> bool:
        """Whether it charges anything."""
        return any(group.charges for group in self.groups.values())

    @property
    def units(self) -> dict[str, str]:
        """The id of each participant's units."""
        return {name: group.units for name, group in self.groups.items()}

    def charging(self, charges: Mapping[str, Charges]) -> Run:
        """Return the run with other charges, by participant; without any where one is not named."""
        groups = {n: replace(g, charges=charges.get(n, ())) for n, g in self.groups.items()}
        return replace(self, groups=groups)

    def line(self) -> str:
        """Return the entry with which it begins."""
        tree = {
            "entry": "run",
            "id": self.id,
            "what": self.what,
            "results": self.results,
            "unit": self.unit,
            "protected": self.protected,
            "identity": self.identity,
            "units": self.units,
        }
        return json.dumps(tree | _charges_tree({n: g.charges for n, g in self.groups.items()}))


@dataclass(frozen=True)
class Book:
    """All that an account says so far."""

    id: str = ""
    units: Mapping[str, Units] = field(default_factory=dict)
    runs: Mapping[str, Run] = field(default_factory=dict)

    def after(self, lines: Iterable[str | bytes]) -> Book:
        """Return the book with more entries.

        Raises:
            FedfuseError: An entry says nothing, or speaks of what is not there; names it.
        """
        draft = _Draft(self.id, dict(self.units), dict(self.runs))
        for line in lines:
            try:
                tree = json.loads(line)
                _READERS[tree["entry"]](draft, tree)
            except (ValueError, TypeError, KeyError, AttributeError, FedfuseError) as error:
                shown = str(line)[:60]
                raise FedfuseError(f"an entry can't be understood ({error!r}): {shown}") from None
        return Book(draft.id, draft.units, draft.runs)


@dataclass
class _Draft:
    """A book while its entries are read."""

    id: str
    units: dict[str, Units]
    runs: dict[str, Run]

    def put(self, run: Run) -> None:
        """Keep a run as it is now."""
        if missing := [g.units for g in run.groups.values() if g.units not in self.units]:
            raise ValueError(f"units {missing[0]} are not there")
        self.runs[run.id] = run


def account_line(id: str) -> str:
    """Return the entry with which an account begins."""
    return json.dumps({"entry": "account", "version": VERSION, "id": id})


def units_line(units: Units) -> str:
    """Return the entry of some units."""
    return json.dumps({"entry": "units", "id": units.id, **units.to_json()})


def more_line(id: str, charges: Mapping[str, Charges]) -> str:
    """Return the entry of a run that is about to charge more than it entered."""
    return json.dumps({"entry": "more", "id": id, **_charges_tree(charges)})


def settled_line(id: str, state: str, charges: Mapping[str, Charges], releases: str) -> str:
    """Return the entry of a run that has ended."""
    tree = {"entry": "settled", "id": id, "state": state, "releases": releases}
    return json.dumps(tree | _charges_tree(charges))


def repaired_line(size: int, digest: str) -> str:
    """Return the entry about a last line that was cut off and taken out."""
    return json.dumps({"entry": "repaired", "bytes": size, "sha256": digest})


def _charges_tree(charges: Mapping[str, Charges]) -> dict[str, Any]:
    """Return charges by participant; equal ones stand once."""
    distinct = list(dict.fromkeys(own for own in charges.values() if own))
    return {
        "charges": [charged.to_json(own) for own in distinct],
        "charged": {name: distinct.index(own) for name, own in charges.items() if own},
    }


def _charges_of(tree: Mapping[str, Any]) -> dict[str, Charges]:
    distinct = [charged.from_json(rows) for rows in tree["charges"]]
    return {name: distinct[index] for name, index in tree["charged"].items()}


def _read_account(draft: _Draft, tree: Mapping[str, Any]) -> None:
    if draft.id or tree["version"] != VERSION:
        raise ValueError(f"version {tree['version']}, once at the beginning")
    draft.id = str(tree["id"])


def _read_units(draft: _Draft, tree: Mapping[str, Any]) -> None:
    units = Units.from_json(tree)
    if units.id != tree["id"]:
        raise ValueError("units have another id")
    draft.units[units.id] = units


def _read_run(draft: _Draft, tree: Mapping[str, Any]) -> None:
    if tree["id"] in draft.runs:
        raise ValueError("it stands there twice")
    groups = {name: Group(units) for name, units in tree["units"].items()}
    told = {name: tree[name] for name in ("id", "what", "results", "unit", "protected", "identity")}
    draft.put(Run(**told, groups=groups).charging(_charges_of(tree)))


def _read_more(draft: _Draft, tree: Mapping[str, Any]) -> None:
    run = draft.runs[tree["id"]]
    own = {name: group.charges for name, group in run.groups.items()}
    for name, charges in _charges_of(tree).items():
        own[name] = charged.fold((*own[name], *charges))
    draft.put(run.charging(own))


def _read_settled(draft: _Draft, tree: Mapping[str, Any]) -> None:
    run = draft.runs[tree["id"]].charging(_charges_of(tree))
    draft.put(replace(run, state=str(tree["state"]), releases=str(tree["releases"])))


def _read_repaired(draft: _Draft, tree: Mapping[str, Any]) -> None:
    """It says nothing of any run."""


_READERS = {
    "account": _read_account,
    "units": _read_units,
    "run": _read_run,
    "more": _read_more,
    "settled": _read_settled,
    "repaired": _read_repaired,
}
