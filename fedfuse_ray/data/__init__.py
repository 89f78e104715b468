"""Specimens: generated phantoms or the user's own images, kept as memory-mapped Arrow tables."""
