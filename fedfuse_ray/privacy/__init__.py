"""Differential privacy: ledger and accounting, clipping, noise mechanisms, sampling, masking."""
