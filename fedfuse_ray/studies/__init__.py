"""Studies of many federations: sweeps, the paper's experiments, related work, and watching them.

`sweeping` is the lowest room; the others run their federations as its trials.
"""
