"""What an institution does with its own data: train, take private gradients, score."""
