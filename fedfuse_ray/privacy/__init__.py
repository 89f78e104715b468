"""Differential privacy, in three rooms that never import each other.

`accounting` says what releases cost, `mechanisms` clip and draw noise, `secure_aggregation` hides
single updates from the server. `identities` below them sign; `account` above answers the command.
"""
