"""What outlives a process: the state of a run on disk."""
