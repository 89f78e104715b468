"""Sweeps: many federations over a space of settings, what they cost, and what choosing costs.

`config` holds a sweep's settings and `loading` reads them, `points` expands them, `trial` runs one
federation, `on_ray` many of them, `store` keeps the folder, `selection` prices the choice, and
`report` shows all. Only `on_ray` imports Ray.
"""
