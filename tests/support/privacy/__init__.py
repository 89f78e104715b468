"""Secure rounds, sums and pairs of runs that tests of privacy build on."""
