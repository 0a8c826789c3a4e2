"""How long an iteration takes on more devices, from what one device and the links between them do.

Gradients are averaged over a ring: each of N devices sends and receives 2 (N - 1) / N of their bytes
(Patarasuk and Yuan, J. Parallel Distrib. Comput. 69, 2009). They leave while the backward pass goes on, all
but those of the layers that it reaches last. Clips arrive as fast as the machine's cores decode them.
"""

from dataclasses import dataclass

# Of the backward pass, how much is over before the first gradients can leave, with DDP's buckets of 25 MB.
HIDDEN_SHARE = 0.8


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """An iteration on several devices; all times in seconds.

    Args:
        devices: how many.
        compute: of one device, without exchange.
        exchange: of the gradients, if nothing went on beside it.
        exposed: of that, what the backward pass does not hide.
        data: until the clips of an iteration are decoded.
        iteration: of all, the larger of data and the rest.
        clips_per_second: of all devices.
        efficiency: clips a second of N devices over N times those of one that never waits.
        limited_by: "data" where the devices wait for it, "exchange" where that adds a tenth, else "network".
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
    """What an iteration on `devices` devices takes.

    Args:
        devices: how many train together.
        batch_size: clips of a step on each of them.
        step_seconds: of a step on one device.
        backward_seconds: of that, the backward pass.
        gradient_bytes: four for each parameter, where gradients are float32.
        link_bytes_per_second: of the slowest link of the ring, in one direction.
        loader_clips_per_second: what the decoding processes of one device deliver; None never waits.
        hidden_share: of the backward pass, during which gradients travel.
    """
    exchange = 2 * (devices - 1) / devices * gradient_bytes / link_bytes_per_second
    exposed = max(0.0, exchange - hidden_share * backward_seconds)
    if devices > 1:
        # The last gradients leave when the pass is over, whatever was hidden before: one bucket of 25 MB.
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
