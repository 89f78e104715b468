"""The tree of settings: one frozen model a file."""
