from __future__ import annotations

import hashlib
import struct

import numpy as np

from fedfuse_ray import blocks


def test_the_digest_depends_on_names_and_values_and_on_nothing_else():
    weights = {"a": np.array([1, 2], np.float32), "b": np.array([3], np.float32)}
    digest = blocks.sha256(weights)
    assert blocks.sha256({"b": weights["b"], "a": weights["a"]}) == digest
    assert blocks.sha256({name: vector.astype(">f4") for name, vector in weights.items()}) == digest
    assert blocks.sha256({"a": np.array([9, 1, 9, 2])[1::2], "b": np.array([3.0])}) == digest
    renamed = {"a": weights["a"], "c": weights["b"]}
    swapped = {"a": weights["a"][::-1], "b": weights["b"]}
    nudged = {"a": weights["a"], "b": np.nextafter(weights["b"], np.float32(4))}
    others = {blocks.sha256(w) for w in (renamed, swapped, nudged, {"a": weights["a"]})}
    assert digest not in others
    assert len(others) == 4


def test_the_digest_is_the_same_on_every_machine():
    # A change of this value breaks every comparison with runs of older versions.
    weights = {"head/medical": np.arange(3, dtype=np.float32)}
    whole = struct.pack("<Q12sQ3f", 12, b"head/medical", 12, 0, 1, 2)
    wanted = hashlib.sha256(whole).hexdigest()
    assert blocks.sha256(weights) == wanted


def test_no_vector_can_pass_for_a_name_and_another_vector():
    # Without lengths the bytes of `b` could continue those of `a`.
    tail = np.frombuffer(b"b\0\0\0", np.float32)
    one = {"a": np.concatenate([np.float32([1]), tail, np.float32([2])])}
    two = {"a": np.float32([1]), "b\0\0": np.float32([2])}
    assert blocks.sha256(one) != blocks.sha256(two)


def test_parameters_are_counted_over_all_blocks():
    assert blocks.num_parameters({}) == 0
    assert blocks.num_parameters({"a": np.zeros(3, np.float32), "b": np.zeros(4, np.float32)}) == 7
