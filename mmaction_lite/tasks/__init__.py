"""The kinds of tasks: target, loss, probabilities and metrics of a label."""
