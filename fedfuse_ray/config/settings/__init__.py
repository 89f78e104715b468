"""The tree of settings: a frozen model a file, with its bounds; no source of values is known."""
