"""Kinds of tasks: the target, loss, probabilities and metrics of a clip's labels."""
