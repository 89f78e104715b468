"""How a round exchanges updates: one module a mode, with both sides of the exchange."""
