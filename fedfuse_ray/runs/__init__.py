"""One experiment from its settings to its sealed folder; several of them belong to `studies`."""
