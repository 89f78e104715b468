"""Seconds and bytes of a sum on ciphertexts, beside the same sum in plain float32.

    python -m benchmarks.encryption [--out FILE] [--quick]

Every institution encrypts a block, the server adds, the holder of the key decrypts. Needs the extra
`he`.
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
from fedfuse_ray.privacy.mechanisms.homomorphic import (
    KeyPair,
    PublicKey,
    fixed_point,
    from_fixed_point,
)


def once(updates: Sequence[Vector]) -> tuple[dict[str, float], dict[str, int], float]:
    """Sum updates on ciphertexts; returns seconds by step, bytes, and the largest error."""
    seconds, size = {}, updates[0].size
    began = time.perf_counter()
    keys = KeyPair()
    key = PublicKey.read(keys.public)
    made = time.perf_counter()
    sent = [key.encrypt(fixed_point(update, len(updates))) for update in updates]
    encrypted = time.perf_counter()
    total = key.load(sent[0], size)
    for payload in sent[1:]:
        total.add(key.load(payload, size))
    summed = total.dump()
    added = time.perf_counter()
    result = from_fixed_point(keys.decrypt(summed, size))
    done = time.perf_counter()
    seconds["keys"] = made - began
    seconds["encrypt, each institution"] = (encrypted - made) / len(updates)
    seconds["add, all"] = added - encrypted
    seconds["decrypt"] = done - added
    exact = np.sum([update.astype(np.float64) for update in updates], axis=0)
    lengths = {"update": len(sent[0]), "public key": len(keys.public), "fp32": 4 * size}
    return seconds, lengths, float(np.abs(result - exact).max())


def measure(options: argparse.Namespace) -> Result:
    """Run every size in turn; ratios are to the yardstick."""
    ratios: dict[str, list[float]] = defaultdict(list)
    seconds: dict[str, list[float]] = defaultdict(list)
    details: dict[str, dict[str, float]] = {}
    for repeat in range(options.repeats):
        for size in options.sizes:
            draw = rng.generator(0, "benchmark", "encryption", size, repeat)
            updates = draw.normal(0, 0.01, (options.institutions, size)).astype(np.float32)
            stick = yardstick()
            taken, lengths, error = once(list(updates))
            for what, value in taken.items():
                seconds[f"{size:,} entries: {what}"].append(value)
            ratios[f"{size:,} entries/yardstick"].append(sum(taken.values()) / stick)
            details[f"{size:,} entries"] = {
                "update_bytes": lengths["update"],
                "public_key_bytes": lengths["public key"],
                "times_fp32": round(lengths["update"] / lengths["fp32"], 1),
                "largest_error": float(f"{error:.3g}"),
            }
    kept = ("institutions", "sizes", "repeats")
    config = {name: getattr(options, name) for name in kept}
    return Result("encryption", config, ratios, seconds, details=details)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write the JSON."""
    made = parser(__doc__)
    made.add_argument("--institutions", type=int, default=15)
    made.add_argument("--sizes", type=int, nargs="+", default=[100, 2048, 100_000])
    made.add_argument("--repeats", type=int, default=5)
    options = made.parse_args(arguments)
    if options.quick:
        options.institutions, options.sizes, options.repeats = 2, [100, 3000], 1
    on_one_thread()
    publish(measure(options), options.out)


if __name__ == "__main__":
    main()
