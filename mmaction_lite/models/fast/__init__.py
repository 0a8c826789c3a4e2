"""Implementations chosen for speed: memory formats, fused kernels and recomputation."""
