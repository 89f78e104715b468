"""Thin Ray actors around `fedfuse_ray.federation`, and the executor that drives them."""
