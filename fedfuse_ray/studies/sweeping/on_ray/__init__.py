"""Trials on Ray Tune: the only room of the studies that imports Ray."""
