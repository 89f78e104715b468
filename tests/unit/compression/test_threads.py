"""Payloads don't depend on how many threads the linear algebra runs on."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.support.paths import ROOT

PROGRAM = """
import hashlib
import numpy as np
from fedfuse_ray.compression import CODECS, Context, Setting

for size in (100, 4097, 400_000, 3_000_001):
    vector = np.random.default_rng(size).standard_normal(size, dtype=np.float32)
    for name, codec in CODECS.items():
        if size > 400_000 and name not in ("modint", "powersgd"):
            continue
        payload = codec.encode(vector, Setting(), Context(0, 1, "fusion", "med-01"))
        decoded = codec.decode(payload, size, Setting(), Context(0, 1, "fusion", "med-01"))
        print(name, size, hashlib.sha256(payload + decoded.tobytes()).hexdigest())
"""


def digests(threads):
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    settings = os.environ | dict.fromkeys(names, str(threads)) | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=settings, capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


def test_one_thread_and_two_give_the_same_bytes():
    one = digests(1)
    assert len(one) == len(set(one)) > 20
    assert digests(2) == one
