"""Prints a digest of everything whose bits are promised; `test_kernels.py` runs it.

Under each of several kernels of the linear algebra it must print the same. What BLAS itself gives
is printed too, after a `#`: that differs, or the kernels would not have been others.
"""

from __future__ import annotations

import ctypes
import hashlib
import sys
from pathlib import Path

import numpy as np

from fedfuse_ray.compression import CODECS, Context, Setting
from fedfuse_ray.compression.feedback import ef14, ef21
from fedfuse_ray.compression.modint import rotated, to_words, unrotated
from fedfuse_ray.compression.powersgd import PowerSGD
from fedfuse_ray.config import load
from fedfuse_ray.data.phantoms import FORWARD_MODELS, generate
from fedfuse_ray.data.phantoms.factors import nearest_class
from fedfuse_ray.data.phantoms.imaging import public
from fedfuse_ray.federation.messages.transforms import clipped
from fedfuse_ray.federation.server.adaptation import Adaptation
from fedfuse_ray.federation.strategies import STRATEGIES, Aggregate, Standing

CONTEXT = Context(0, 1, "fusion", "med-01")


def show(name, *arrays):
    """Print a name, and a digest of arrays or bytes."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(array if isinstance(array, bytes) else np.ascontiguousarray(array).data)
    print(name, digest.hexdigest()[:24])


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def codecs():
    """Encode and decode; rotate at many sizes; round for a secure sum; keep an error."""
    for size in (100, 4097, 60_000, 300_001):
        for name, codec in CODECS.items():
            payload = codec.encode(normal(size, size), Setting(rank=3), CONTEXT)
            decoded = codec.decode(payload, size, Setting(rank=3), CONTEXT)
            show(f"{name} {size}", payload, decoded)
    for size in (1, 2, 3, 60, 127, 128, 129, 255, 1000, 4096, 20_011, 100_003):
        turned = rotated(normal(1, size), CONTEXT)
        words = to_words(turned, 0.01, 20, CONTEXT.of_sender("rounding"))
        show(f"rotation {size}", turned, words, unrotated(normal(2, size), CONTEXT))
    for name in ("subspace", "countsketch"):
        projection = CODECS[name].projection(5000, Setting(fraction=0.1), CONTEXT)
        sketch = projection.project(normal(3, 5000))
        show(f"{name} map", sketch, projection.lift(sketch), projection.signs)
    for feedback in (ef14, ef21):
        memory = None
        for _ in range(3):
            given = CODECS["rot1bit"], normal(4, 9000), memory, Setting(contract=True), CONTEXT
            payload, memory = feedback(*given)
        show(feedback.__name__, payload, memory)
    shaped = Context(0, 1, "fusion", "med-01", ((64, 3, 9), (77,)))
    show("powersgd of tensors", PowerSGD().encode(normal(5, 1805), Setting(rank=4), shaped))


def server():
    """Take a step of every strategy; sum, clip and adapt."""
    sizes = {"encoder/ct": 5000, "fusion": 333}
    plain = {name: normal(6, size) for name, size in sizes.items()}
    controls = {name: normal(7, size) for name, size in sizes.items()}
    halves, steps = dict.fromkeys(sizes, 0.5), dict.fromkeys(sizes, 3.0)
    for kind, make in STRATEGIES.items():
        strategy = make(load("tiny", [f"strategy.kind={kind}"]).strategy)
        given = controls if strategy.local.controls else {}
        standing = Standing(weights=dict(plain), state=strategy.init(plain))
        for _ in range(3):
            standing = strategy.apply(standing, Aggregate(plain, steps, halves, given))
        show(f"strategy {kind}", *standing.weights.values(), *standing.state.values())
    show("clipped update", *clipped(plain, 0.1).values())
    for codec in ("topk", "modint", "subspace"):
        compression = load("tiny", [f"compression.codec={codec}"]).compression
        policy = {"policy": compression.policy.model_copy(update={"byte_budget": 9000})}
        adaptation = Adaptation(compression.model_copy(update=policy), dict.fromkeys(plain, 3))
        show(f"adapted {codec}", repr(adaptation.after_mean(plain)).encode())


def data():
    """Image every modality, with instruments, drift and skew; generate a federation."""
    for modality in FORWARD_MODELS:
        show(f"phantoms of {modality}", *public(modality, 40, seed=0))
    skew = [f"data.skew.{name}=0.7" for name in ("feature", "temporal", "label_alpha")]
    experiment = load("tiny", [*skew, "data.skew.missing_rate=0.2"])
    for part in generate(experiment.data, experiment.institutions, seed=1)[1]:
        specimens = part.specimens
        show(f"{part.split} of {part.owner}", specimens.labels, *specimens.images.values())
    show("nearest classes", nearest_class(normal(8, 500, 3), 6))


def blas():
    """Say which kernel there is, and what it makes of a product."""
    libraries = Path(np.__file__).parent.parent.glob("numpy.libs/*openblas*")
    name = "unknown"
    for library in libraries:
        ask = getattr(ctypes.CDLL(str(library)), "scipy_openblas_get_corename64_", None)
        if ask is not None:
            ask.restype = ctypes.c_char_p
            name = ask().decode()
    matrix = normal(9, 300, 300)
    print("#", name, hashlib.sha256((matrix @ matrix).data).hexdigest()[:24])


if __name__ == "__main__":
    blas()
    codecs()
    server()
    if "without data" not in sys.argv:
        data()
