"""Weights files: what they store, checkpoints, and conversion from other projects."""
