"""Bits an entry, squared error and seconds of every codec, and 25M parameters through `modint`.

    python -m benchmarks.codecs [--out FILE] [--quick]

Three kinds of update: Gaussian entries; a sparse update under the noise of a private round; and
heavy tails (Student's t with 3 degrees of freedom). Bits are counted on payloads. Codecs are
interleaved; ratios are of encoding plus decoding to the yardstick.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from benchmarks.results import Result, on_one_thread, parser, publish, yardstick
from fedfuse_ray import rng
from fedfuse_ray.blocks import Vector
from fedfuse_ray.compression import CODECS, Context, Setting

SETTINGS: dict[str, tuple[Setting, ...]] = {
    "fp32": (Setting(),),
    "fp16": (Setting(),),
    "modint": tuple(Setting(bits=bits) for bits in (4, 6, 8, 12)),
    "subspace": tuple(Setting(fraction=fraction) for fraction in (0.1, 0.3)),
    "countsketch": tuple(Setting(fraction=fraction) for fraction in (0.1, 0.3)),
    "rot1bit": (Setting(),),
    "topk": tuple(Setting(fraction=fraction) for fraction in (0.01, 0.1)),
    "powersgd": (Setting(rank=2), Setting(rank=8)),
}
_VARIED = {"modint": "bits", "subspace": "fraction", "countsketch": "fraction"}
_VARIED |= {"topk": "fraction", "powersgd": "rank"}
_LARGE = "modint, 8 bits, large"
_LARGE_YARDSTICKS = 22.0  # about 1.5 s on one core of a machine that is busy with other things
_QUICK = 20_000


def updates(size: int) -> dict[str, Vector]:
    """Return the three kinds of update, float32 [size] each."""
    generator = rng.generator(0, "benchmark", "updates")
    sparse = np.where(generator.random(size) < 0.01, 5.0, 0.0) * generator.standard_normal(size)
    kinds = {
        "gaussian": generator.standard_normal(size),
        "noised": sparse + generator.standard_normal(size),
        "heavy": generator.standard_t(3, size),
    }
    return {name: vector.astype(np.float32) for name, vector in kinds.items()}


def once(codec: str, setting: Setting, vector: Vector, repeat: int) -> dict[str, float]:
    """Encode and decode; returns processor seconds, bits an entry, and the relative error."""
    side = int(np.sqrt(vector.size))
    shapes = ((side, side), (vector.size - side * side,))
    context = Context(0, repeat, "benchmark", "institution", shapes)
    began = time.process_time()
    payload = CODECS[codec].encode(vector, setting, context)
    encoded = time.process_time()
    decoded = CODECS[codec].decode(payload, vector.size, setting, context)
    done = time.process_time()
    difference = decoded.astype(np.float64) - vector
    return {
        "encode": encoded - began,
        "decode": done - encoded,
        "bits": 8 * len(payload) / vector.size,
        "nmse": float(np.square(difference).sum() / np.square(vector, dtype=np.float64).sum()),
    }


def measure(options: argparse.Namespace) -> Result:
    """Run every codec and setting in turn; ratios are to the yardstick."""
    ratios: dict[str, list[float]] = defaultdict(list)
    seconds: dict[str, list[float]] = defaultdict(list)
    table: dict[str, dict[str, float]] = {}
    kinds = updates(options.parameters)
    large = rng.generator(0, "benchmark", "large").standard_normal(options.large, dtype=np.float32)
    for repeat in range(options.repeats):
        for codec, settings in SETTINGS.items():
            for setting in settings:
                name = label(codec, setting)
                stick = yardstick()
                found = {kind: once(codec, setting, kinds[kind], repeat) for kind in kinds}
                # The first kind pays for pages that are touched for the first time.
                for what in ("encode", "decode"):
                    seconds[f"{name}: {what}"].append(min(f[what] for f in found.values()))
                both = sum(seconds[f"{name}: {what}"][-1] for what in ("encode", "decode"))
                ratios[f"{name}/yardstick"].append(max(both, 1e-6) / stick)
                table[name] = {"bits_per_entry": round(found["gaussian"]["bits"], 3)}
                table[name] |= {f"nmse_{kind}": _short(f["nmse"]) for kind, f in found.items()}
        stick = yardstick()
        found_large = once("modint", Setting(bits=8), large, repeat)
        for what in ("encode", "decode"):
            seconds[f"{_LARGE}: {what}"].append(found_large[what])
        both = found_large["encode"] + found_large["decode"]
        ratios[f"{_LARGE}/yardstick"].append(both / stick)
    kept = ("parameters", "large", "repeats")
    return Result(
        benchmark="codecs",
        config={name: getattr(options, name) for name in kept},
        ratios=ratios,
        seconds=seconds,
        targets={f"{_LARGE}/yardstick": _LARGE_YARDSTICKS} if options.large > _QUICK else {},
        details=table,
    )


def label(codec: str, setting: Setting) -> str:
    """Return the codec's name and what is varied of its setting, as `modint, bits 8`."""
    varied = _VARIED.get(codec)
    return codec if varied is None else f"{codec}, {varied} {getattr(setting, varied):g}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write the JSON."""
    made = parser(__doc__)
    made.add_argument("--parameters", type=int, default=1_000_000)
    made.add_argument("--large", type=int, default=25_000_000)
    made.add_argument("--repeats", type=int, default=5)
    options = made.parse_args(arguments)
    if options.quick:
        options.parameters, options.large, options.repeats = 5000, _QUICK, 1
    on_one_thread()
    publish(measure(options), options.out)


def _short(value: float) -> float:
    return float(f"{value:.3g}")


if __name__ == "__main__":
    main()
