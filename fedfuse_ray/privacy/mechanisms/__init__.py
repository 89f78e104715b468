"""Clipping, noise and sampling: the primitives whose guarantees the accounting relies on."""
