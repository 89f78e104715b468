"""One experiment: read, run, sealed, verified, compared by paradigm; sweeps live in `studies`."""
