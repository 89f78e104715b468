"""The network that a federation is simulated over: links and a virtual clock."""
