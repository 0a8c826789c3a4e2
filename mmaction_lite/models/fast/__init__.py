"""Implementations chosen for speed: memory formats, fused kernels, recomputation and quantization."""
