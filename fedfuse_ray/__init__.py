"""Simulate privacy-preserving federated cross-modal fusion in scientific imaging, on Ray."""
