"""Benchmarks of training, inference and data loading, and comparison with other frameworks."""
