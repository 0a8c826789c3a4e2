"""Find the most probable sequence of classes, in which changes have a cost (Viterbi 1967).

A path gives every window a state. Its value is the sum of the evidence of the windows for their states, less
a cost for every change of state. States may have a minimum length (a semi-Markov model); only the first and
the last stretch of a path may be shorter, because the video cuts them.
"""

from collections import deque

import numpy as np


def best_paths(evidence: np.ndarray, switch: float, min_windows: np.ndarray) -> np.ndarray:
    """Return the state of every window on the path of the highest value, for several independent sequences.

    Time is O(n * G * S). Memory beside the arguments is O(n * G).

    Args:
        evidence: value of each state in each window, such as the logarithm of a probability, float
            (n, G, S) for n windows, G sequences and S states.
        switch: cost of a change of state, 0 or greater.
        min_windows: smallest number of consecutive windows of each state, int64 (S,), 1 or greater.

    Returns:
        int64 (n, G).
    """
    count, num_sequences, num_states = evidence.shape
    sequences = np.arange(num_sequences)
    groups = [(int(least), np.flatnonzero(min_windows == least)) for least in np.unique(min_windows)]
    longest = int(min_windows.max())
    total = np.zeros((num_sequences, num_states))  # evidence up to the window
    open_value = np.zeros_like(total)  # value at the start of the stretch of each state, less its `total`
    open_start = np.zeros(total.shape, np.int32)
    starts = np.empty((count, num_sequences), np.int32)  # of the stretch that ends behind the window
    states = np.empty((count, num_sequences), np.int32)
    recent: deque[tuple[np.ndarray, np.ndarray]] = deque(maxlen=longest)  # best value and `total`

    def open_stretch(start: int, columns: np.ndarray) -> None:
        best, before = recent[len(recent) - (after - start)]
        value = best[:, None] - switch - before[:, columns]
        is_better = value > open_value[:, columns]
        open_value[:, columns] = np.where(is_better, value, open_value[:, columns])
        open_start[:, columns] = np.where(is_better, start, open_start[:, columns])

    for after in range(1, count + 1):
        total = total + evidence[after - 1]
        for least, columns in groups:
            # A stretch that the end of the video cuts may begin in any of the last windows.
            for start in range(after - least, after if after == count else after - least + 1):
                if start > 0:
                    open_stretch(start, columns)
        values = open_value + total
        state = values.argmax(1)
        states[after - 1], starts[after - 1] = state, open_start[sequences, state]
        recent.append((values[sequences, state], total))
    return np.stack([_trace(starts[:, i], states[:, i]) for i in sequences], 1)


def _trace(starts: np.ndarray, states: np.ndarray) -> np.ndarray:
    """Follow a path back from its end; return its states, int64 (n,)."""
    path = np.empty(len(states), np.int64)
    after = len(states)
    while after:
        start = int(starts[after - 1])
        path[start:after] = states[after - 1]
        after = start
    return path
