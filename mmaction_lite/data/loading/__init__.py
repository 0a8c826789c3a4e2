"""From sample indices to batches of pixels: order, random draws, worker processes, faults."""
