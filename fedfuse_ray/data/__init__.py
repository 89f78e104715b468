"""Specimens: generated phantoms or the user's own images, kept as memory-mapped Arrow tables.

`phantoms` and `importers` never import each other; `dataset` takes specimens from either.
"""
