"""Features of frozen backbones: made once for each image, and kept on disk.

A feature vector is found again by what decides it: the backbone with its weights and preprocessing,
and the image's own bytes. So runs, trials, seeds, paradigms and processes share them, however
specimens are split or pooled. Features of private images are private: only their owner can read
the folder.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from fedfuse_ray.files import cache_folder, write_atomic

Floats = npt.NDArray[np.float32]

BATCH = 32
"""Images that go through a backbone together; fewer are filled up, so that every image meets the
same arithmetic whatever it is computed with."""
PACK = 16 * BATCH
"""Images whose features go into one file."""
_VERSION = 1
_KEY_BYTES = 16


class FeatureStore:
    """Feature vectors on disk, by the digests of their images; written by several at once.

    A file is whole or absent, and never changed: an array of (key, features) in NumPy's format.

    Args:
        folder: Of one backbone; created with its first features.
        features: Length of a vector.
    """

    def __init__(self, folder: Path, features: int) -> None:
        self._folder = folder
        self._dtype = np.dtype([("key", f"S{2 * _KEY_BYTES}"), ("values", "<f4", (features,))])
        self._read: set[str] = set()
        self._places: dict[bytes, tuple[npt.NDArray[np.void], int]] = {}

    def find(self, keys: Sequence[bytes]) -> dict[bytes, Floats]:
        """Return the vectors, float32 [F], of those keys that somebody has stored."""
        if not all(key in self._places for key in keys):
            self._look()
        known = ((key, self._places[key]) for key in keys if key in self._places)
        return {key: np.array(pack["values"][row]) for key, (pack, row) in known}

    def known(self, keys: Sequence[bytes]) -> set[bytes]:
        """Return those keys that somebody has stored."""
        self._look()
        return {key for key in keys if key in self._places}

    def add(self, keys: Sequence[bytes], values: Floats) -> None:
        """Store vectors [N, F].

        Raises:
            StorageError: They can't be written.
        """
        pack = np.empty(len(keys), self._dtype)
        pack["key"], pack["values"] = keys, values
        buffer = io.BytesIO()
        np.save(buffer, pack)
        self._folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder.mkdir(exist_ok=True, mode=0o700)
        name = hashlib.blake2b(b"".join(keys), digest_size=_KEY_BYTES).hexdigest()
        write_atomic(
            self._folder / f"{name}.npy", lambda file: file.write(buffer.getvalue()), mode=0o600
        )

    def _look(self) -> None:
        """Read the keys of files that have appeared."""
        for path in sorted(self._folder.glob("[!.]*.npy")):
            if path.name in self._read:
                continue
            self._read.add(path.name)
            try:
                pack = np.load(path, mmap_mode="r", allow_pickle=False)
            except (OSError, ValueError):  # a damaged cache is a cache that lacks something
                continue
            if pack.dtype == self._dtype and pack.ndim == 1:
                for row, key in enumerate(pack["key"].tolist()):
                    self._places.setdefault(key, (pack, row))


class FrozenFeatures:
    """A frozen backbone for inputs of one shape, with the features that it has given so far.

    Args:
        backbone: In evaluation mode.
        shape: Of an input, [C, H, W] or [C, L].
        features: Length of a vector.
        device: Where it computes.
    """

    def __init__(
        self, backbone: nn.Module, shape: tuple[int, ...], features: int, device: torch.device
    ) -> None:
        self._backbone, self._device = backbone.to(device), device
        self.features = features
        digest = backbone_digest(backbone, shape, device.type)
        self._store = FeatureStore(cache_folder() / "features" / digest, features)

    def of(self, images: npt.NDArray[np.float16]) -> Floats:
        """Return the features [N, F] of images [N, *shape]; what is new is computed and stored."""
        keys = [image_key(image) for image in images]
        found = self._store.find(keys)
        missing = {key: i for i, key in enumerate(keys) if key not in found}
        rows = list(missing.values())
        for start in range(0, len(rows), PACK):
            part = rows[start : start + PACK]
            batches = [part[i : i + BATCH] for i in range(0, len(part), BATCH)]
            values = np.concatenate([self._compute(images[batch]) for batch in batches])
            self._store.add([keys[i] for i in part], values)
            found |= {keys[i]: row for i, row in zip(part, values, strict=True)}
        empty = np.zeros((0, self.features), np.float32)
        return np.stack([found[key] for key in keys]) if keys else empty

    def missing(self, images: npt.NDArray[np.float16]) -> dict[bytes, int]:
        """Return the rows of images [N, *shape] whose features nobody has, by their keys."""
        keys = {image_key(image): i for i, image in enumerate(images)}
        known = self._store.known(list(keys))
        return {key: i for key, i in keys.items() if key not in known}

    def compute_ahead(
        self, images: npt.NDArray[np.float16], missing: dict[bytes, int], workers: int
    ) -> Iterator[int]:
        """Compute and store what is missing on several threads; yield how many are done.

        Each thread computes whole batches by itself, so their number changes no feature.
        """
        keys = list(missing)
        packs = [keys[i : i + PACK] for i in range(0, len(keys), PACK)]

        def batch(part: list[bytes]) -> Floats:
            torch.set_num_threads(1)  # of this thread
            return self._compute(images[[missing[key] for key in part]])

        with ThreadPoolExecutor(workers) as pool:
            for pack in packs:
                parts = [pack[i : i + BATCH] for i in range(0, len(pack), BATCH)]
                done = []
                for values in pool.map(batch, parts):
                    done.append(values)
                    yield len(values)
                self._store.add(pack, np.concatenate(done))

    def _compute(self, images: npt.NDArray[np.float16]) -> Floats:
        """Return the features of at most `BATCH` images."""
        filled = np.zeros((BATCH, *images.shape[1:]), np.float16)
        filled[: len(images)] = images
        with torch.inference_mode():
            given = torch.from_numpy(filled).to(self._device, torch.float32)
            values: Floats = self._backbone(given)[: len(images)].float().cpu().numpy()
        return values


def image_key(image: npt.NDArray[np.float16]) -> bytes:
    """Return an image's digest, in hexadecimal digits."""
    whole = np.ascontiguousarray(image)
    return hashlib.blake2b(whole.data, digest_size=_KEY_BYTES).hexdigest().encode()


def backbone_digest(backbone: nn.Module, shape: tuple[int, ...], device: str) -> str:
    """Return the digest of all that decides features but the image."""
    prepared = getattr(backbone, "preprocessing", ())
    named = (_VERSION, torch.__version__, device, type(backbone).__name__, shape, prepared, BATCH)
    whole = hashlib.blake2b(f"{named!r}\n{backbone!r}".encode(), digest_size=_KEY_BYTES)
    for name, tensor in backbone.state_dict().items():
        whole.update(name.encode())
        whole.update(np.ascontiguousarray(tensor.cpu().numpy()).data)
    return whole.hexdigest()
