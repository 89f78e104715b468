"""Forward models of the user's own, from Python files that a configuration names.

A file is run as it stands when its models are asked for, as any program that you start. It must be
whole in itself (numpy and fedfuse_ray apart), since only its own content tells whether it changed.
"""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from types import ModuleType

import numpy as np

from fedfuse_ray.data.phantoms.factors import FACTORS, Family
from fedfuse_ray.data.phantoms.forward import FORWARD_MODELS, ForwardModel
from fedfuse_ray.data.phantoms.scanner import ideal
from fedfuse_ray.errors import InputError
from fedfuse_ray.rng import generator

_FIELD = "data.forward_models"
_NAME = "FORWARD_MODELS"
_ATTRIBUTES = ("modality", "family", "strong", "weak", "shape", "render")
_TRIED = (32, 256)
"""Image size and signal length at which each model is tried before it is used."""


def known_models(files: Sequence[str]) -> Mapping[str, ForwardModel]:
    """Return the library's forward models and those of files, by modality.

    Raises:
        InputError: A file is missing, fails, or defines no usable model; or two define the same.
    """
    models = dict(FORWARD_MODELS)
    for file in files:
        for model in _load(file, file_digest(file)):
            if model.modality in models:
                raise _wrong(file, f"defines {model.modality!r}, which exists; name it otherwise")
            models[model.modality] = model
    return models


def origins(files: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Return each own modality's file and the digest of the file's content.

    Raises:
        InputError: As `known_models`.
    """
    known_models(files)
    digests = {file: file_digest(file) for file in files}
    return {m.modality: (f, d) for f, d in digests.items() for m in _load(f, d)}


def file_digest(file: str) -> str:
    """Return the digest of a file's content, hex.

    Raises:
        InputError: It can't be read.
    """
    try:
        content = Path(file).read_bytes()
    except OSError as error:
        remedy = f"can't be read ({error.strerror}); a relative path starts at the config's folder"
        raise _wrong(file, remedy) from None
    return hashlib.blake2b(content, digest_size=12).hexdigest()


@lru_cache(maxsize=32)
def _load(file: str, digest: str) -> tuple[ForwardModel, ...]:
    module = _run(file, f"fedfuse_ray_forward_{digest}")
    models = getattr(module, _NAME, None)
    if not isinstance(models, tuple | list) or not models:
        raise _wrong(file, f"must define {_NAME}, a tuple of forward models")
    for model in models:
        _check(file, model)
    return tuple(models)


def _run(file: str, name: str) -> ModuleType:
    """Run a file as a module of its own."""
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise _wrong(file, "is no Python file; its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses look their own module up
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise _wrong(file, f"fails with {type(error).__name__}: {error}") from error
    return module


def _check(file: str, model: ForwardModel) -> None:
    """Check a model's description, and try it on two specimens."""
    if missing := [name for name in _ATTRIBUTES if not hasattr(model, name)]:
        raise _wrong(file, f"{_NAME} holds {model!r}, which has no {missing[0]!r}")
    told, shown = f"{model.modality!r}", (model.strong, model.weak)
    if not isinstance(model.modality, str) or not model.modality.isidentifier():
        raise _wrong(file, f"{told} is no name for a modality; use letters, digits and _")
    if not isinstance(model.family, Family):
        raise _wrong(file, f"{told} has no Family")
    if len(set(shown) & set(range(FACTORS))) != len(shown):
        raise _wrong(file, f"{told} must show two different factors of 0, 1, 2; it has {shown}")
    rng = generator(0, "phantoms/try", model.modality)
    try:
        shape = model.shape(*_TRIED)
        images = model.render(np.zeros((2, FACTORS), np.float32), shape, ideal(2), rng)
    except Exception as error:
        raise _wrong(file, f"{told} fails with {type(error).__name__}: {error}") from error
    if np.shape(images) != (2, *shape) or len(shape) not in (2, 3):
        raise _wrong(file, f"{told} renders {np.shape(images)} where it says (2, *{shape})")
    if not (np.isfinite(images).all() and images.min() >= 0 and images.max() <= 1):
        raise _wrong(file, f"{told} renders values outside [0, 1]")


def _wrong(file: str, remedy: str) -> InputError:
    return InputError(_FIELD, file, remedy)
