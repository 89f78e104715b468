"""Plain scripts that measure, write JSON, and are compared with a committed baseline."""
