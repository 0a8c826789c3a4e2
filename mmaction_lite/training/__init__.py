"""Training: loop, gradients, run folder, progress and signals."""
