"""Sweeps: many federations over a space of settings, what they cost, and what choosing costs.

`config` reads a sweep file, `points` expands it, `trial` runs one federation, `on_ray` many of
them, `store` keeps the folder, `selection` prices the choice, and `page` shows all. Only `on_ray`,
`on_ray_tracking`, `proposing` and `room`, which says what a trial reserves, import Ray.
"""
