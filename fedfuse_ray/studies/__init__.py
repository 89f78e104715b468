"""Studies of many federations: sweeps, the paper's experiments, related work, and watching them."""
