"""The loop over rounds, and the executors that drive the other rooms."""
