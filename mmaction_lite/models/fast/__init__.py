"""Memory layouts, fused and quantized kernels: speed only, the results do not change."""
