"""Predict the iteration time of data-parallel training from measurements of one device.

The model assumes a ring all-reduce: each of N devices sends and receives 2 (N - 1) / N times the size of the
gradients (Patarasuk and Yuan, J. Parallel Distrib. Comput. 69, 2009). The all-reduce overlaps with the
backward pass, except for the last bucket. Clips arrive at the rate at which the CPU cores decode them.
"""

from dataclasses import dataclass

# Fraction of the backward pass during which gradients are transferred, with DDP's buckets of 25 MB.
HIDDEN_SHARE = 0.8


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Predicted iteration on several devices. All times are in seconds.

    Args:
        devices: number of devices.
        compute: training step of one device without communication.
        exchange: all-reduce of the gradients without overlap.
        exposed: part of `exchange` that does not overlap with the backward pass.
        data: time to decode the clips of one iteration.
        iteration: the larger of `data` and `compute + exposed`.
        clips_per_second: throughput of all devices.
        efficiency: throughput divided by `devices` times the throughput of one device that never waits.
        limited_by: "data" if the devices wait for clips, "exchange" if communication adds more than 10 %,
            otherwise "network".
    """

    devices: int
    compute: float
    exchange: float
    exposed: float
    data: float
    iteration: float
    clips_per_second: float
    efficiency: float
    limited_by: str


def predict_scaling(
    devices: int,
    *,
    batch_size: int,
    step_seconds: float,
    backward_seconds: float,
    gradient_bytes: float,
    link_bytes_per_second: float,
    loader_clips_per_second: float | None = None,
    hidden_share: float = HIDDEN_SHARE,
) -> Prediction:
    """Predict the iteration time on `devices` devices.

    Args:
        devices: number of devices that train together.
        batch_size: clips per step and device.
        step_seconds: duration of a training step on one device.
        backward_seconds: duration of the backward pass within that step.
        gradient_bytes: size of all gradients; 4 bytes per parameter for float32.
        link_bytes_per_second: bandwidth of the slowest link of the ring, in one direction.
        loader_clips_per_second: throughput of the decoding workers of one device. None: the device never
            waits for data.
        hidden_share: fraction of the backward pass that overlaps with the all-reduce.
    """
    exchange = 2 * (devices - 1) / devices * gradient_bytes / link_bytes_per_second
    exposed = max(0.0, exchange - hidden_share * backward_seconds)
    if devices > 1:
        # The last bucket of 25 MB is sent after the backward pass and never overlaps with it.
        last = 2 * (devices - 1) / devices * min(25e6, gradient_bytes) / link_bytes_per_second
        exposed = max(exposed, last)
    data = batch_size / loader_clips_per_second if loader_clips_per_second else 0.0
    iteration = max(step_seconds + exposed, data)
    if data >= step_seconds + exposed:
        limit = "data"
    else:
        limit = "exchange" if exposed > 0.1 * step_seconds else "network"
    return Prediction(
        devices=devices,
        compute=step_seconds,
        exchange=exchange,
        exposed=exposed,
        data=data,
        iteration=iteration,
        clips_per_second=devices * batch_size / iteration,
        efficiency=step_seconds / iteration,
        limited_by=limit,
    )
