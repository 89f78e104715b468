"""A federation of some domains and modalities only, its specimens as in the whole one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedfuse_ray.config.settings.data import PhantomData
from fedfuse_ray.config.settings.experiment import Experiment
from fedfuse_ray.config.sources.trees import nearest
from fedfuse_ray.errors import InputError


def narrowed(whole: Experiment, asked: Any) -> dict[str, Any]:
    """Return the settings of an experiment, with only some of its domains and modalities.

    What is kept stays as it is in the whole federation, image by image: an institution that owns
    none of it has `takes_part: false`, so that nobody is given its specimens. The exception is
    `skew.missing_rate`: which images are missing is drawn over a specimen's modalities together.

    Args:
        whole: The experiment.
        asked: `{domains: [...], modalities: [...]}`; what is left out keeps all.

    Raises:
        InputError: Something is named that is not there, or the data are not generated.
    """
    if not isinstance(asked, dict) or not set(asked) <= {"domains", "modalities"}:
        raise InputError("restrict", asked, "give domains, modalities, or both")
    if not isinstance(whole.data, PhantomData):
        raise InputError("restrict", asked, "only generated specimens can be narrowed; drop it")
    domains = _named("domains", asked, list(whole.data.domains))
    owned = [m for name in domains for m in whole.data.domains[name].modalities]
    kept = _named("modalities", asked, owned)
    tree = whole.model_dump(mode="json")
    tree["data"]["domains"] = {
        name: {**domain, "modalities": modalities}
        for name, domain in tree["data"]["domains"].items()
        if name in domains and (modalities := [m for m in domain["modalities"] if m in kept])
    }
    tree["institutions"] = [
        _keeping(institution, kept)
        for institution in tree["institutions"]
        if institution["domain"] in tree["data"]["domains"]
    ]
    return tree


def _named(key: str, asked: Mapping[str, Any], allowed: list[str]) -> list[str]:
    names = asked.get(key, allowed)
    if not isinstance(names, list) or not names:
        raise InputError(f"restrict.{key}", names, "list at least one")
    for name in names:
        if name not in allowed:
            raise InputError(f"restrict.{key}", name, nearest(name, allowed))
    return names


def _keeping(institution: Mapping[str, Any], kept: list[str]) -> dict[str, Any]:
    modalities = [m for m in institution["modalities"] if m in kept]
    changed = {"modalities": modalities} if modalities else {"takes_part": False}
    return {**institution, **changed}
