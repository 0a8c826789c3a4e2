"""Command `live`."""

import json
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from mmaction_lite.cli.options import (
    Device,
    Offline,
    OwnRecipe,
    Weights,
    own_recipe,
    print_json,
    show,
    start,
    warn,
)
from mmaction_lite.errors import UserError, printable
from mmaction_lite.files import check_replaceable, writing

if TYPE_CHECKING:
    from mmaction_lite.data.sources.capture import Counts
    from mmaction_lite.inference.live import Answer


# Options of the source.
Speed = Annotated[
    float,
    typer.Option(
        min=0, help="Speed of a file, relative to real time; 0: as fast as possible, without drops."
    ),
]
Loop = Annotated[bool, typer.Option("--loop", help="Start a file again at its end.")]
Retries = Annotated[int, typer.Option(min=0, help="Attempts to connect again after a loss.")]
Timeout = Annotated[
    float, typer.Option(min=0.1, help="Time limit for a connection and for the next frame, in seconds.")
]
Queue = Annotated[
    int, typer.Option(min=1, help="Frames that wait for the model at most; then the oldest is dropped.")
]
MaxGap = Annotated[float, typer.Option(min=0, help="Windows begin again after a longer gap, in seconds.")]
Fps = Annotated[
    float | None,
    typer.Option(min=0.01, help="Frame rate of a camera, or of a stream that states none."),
]
FrameSize = Annotated[
    str | None, typer.Option(metavar="WIDTHxHEIGHT", help="Frame size of a camera, as in 1280x720.")
]
Udp = Annotated[
    bool, typer.Option("--udp", help="RTSP over UDP: less delay, but lost packets damage frames.")
]

Source = Annotated[
    str,
    typer.Argument(
        help="Camera (0, 1, ..., /dev/video0), address (rtsp://, http://, ...), or a video file, which "
        "plays in real time."
    ),
]
Every = Annotated[float, typer.Option(min=0.01, help="Seconds between answers.")]
Window = Annotated[
    float | None,
    typer.Option(min=0.01, help="Length of a window in seconds [default: one clip of the protocol]."),
]
PerFrame = Annotated[
    bool, typer.Option("--per-frame", help="Classify every frame when it arrives; needs an online TSM.")
]
FrameInterval = Annotated[
    int | None, typer.Option(min=1, help="With --per-frame: classify every n-th frame.")
]
Top = Annotated[int, typer.Option(min=1, help="Number of classes per answer.")]
Threshold = Annotated[float, typer.Option(min=0, max=1, help="Leave out classes with a lower score.")]
EndSeconds = Annotated[
    float | None, typer.Option(min=0, help="End after this time of the stream, in seconds.")
]
MostAnswers = Annotated[int | None, typer.Option(min=1, help="End after this number of answers.")]
JsonAnswers = Annotated[
    bool, typer.Option("--json", help="Print one JSON object per answer instead of text.")
]
JsonLines = Annotated[
    Path | None, typer.Option(help="New file to write, with one JSON object per answer and line.")
]


def live(
    weights: Weights,
    source: Source,
    every: Every = 1.0,
    window: Window = None,
    per_frame: PerFrame = False,
    frame_interval: FrameInterval = None,
    top: Top = 3,
    threshold: Threshold = 0.0,
    seconds: EndSeconds = None,
    answers: MostAnswers = None,
    as_json: JsonAnswers = False,
    jsonl: JsonLines = None,
    speed: Speed = 1.0,
    loop: Loop = False,
    retries: Retries = 10,
    timeout: Timeout = 10.0,
    queue: Queue = 64,
    max_gap: MaxGap = 0.5,
    fps: Fps = None,
    size: FrameSize = None,
    udp: Udp = False,
    recipe: OwnRecipe = None,
    device: Device = "auto",
    offline: Offline = False,
) -> None:
    """Classify a camera or stream while it runs, and print an answer every second.

    It ends at the end of a file, after --seconds or --answers, or with Ctrl-C, prints a summary, and exits
    with code 0.
    """
    from mmaction_lite.data.sources.capture import Capture
    from mmaction_lite.data.sources.live import CaptureSettings
    from mmaction_lite.inference.live import watch
    from mmaction_lite.inference.live_frames import watch_frames
    from mmaction_lite.inference.predict import load_for_inference
    from mmaction_lite.inference.windows import Windows
    from mmaction_lite.training.signals import stop_signals
    from mmaction_lite.weights.card import load

    settings = CaptureSettings(
        queue_frames=queue,
        timeout=timeout,
        retries=retries,
        speed=speed,
        loop=loop,
        fps=fps,
        size=_size(size),
        transport="udp" if udp else "tcp",
        max_gap=max_gap,
    )
    capture = Capture(source, settings)
    if jsonl is not None:
        check_replaceable(jsonl, "a new file")
    if per_frame and window is not None:
        raise UserError(
            f"--window {window:g}: does not work with --per-frame, which uses no windows; omit one of them"
        )
    read = load if per_frame else load_for_inference
    model = read(weights, own_recipe(recipe)).to(start(device))
    summary = Summary()
    with nullcontext() if jsonl is None else _new_file(jsonl) as file, stop_signals() as stop, capture:
        if per_frame:
            answering = partial(watch_frames, every=every, frame_interval=frame_interval)
        else:
            answering = partial(watch, windows=Windows(seconds=window, stride=every))
        shown = answering(model, capture, seconds=seconds, stop=stop, note=warn)
        rows = ((answer, row_of(answer, capture.name, top, threshold)) for answer in islice(shown, answers))
        try:
            _write(rows, summary, file, as_json)
        finally:
            # An error before the first answer, such as of the model, is one line.
            if capture.counts.frames and (summary.answers or not isinstance(sys.exception(), UserError)):
                warn(f"{capture.name}: {summary.describe(capture.counts)}")


def _write(
    rows: Iterable[tuple["Answer", dict[str, Any]]], summary: "Summary", file: TextIO | None, as_json: bool
) -> None:
    """Print each answer when it arrives, write it to the file, and count it."""
    for answer, row in rows:
        if file is not None:
            file.write(json.dumps(row) + "\n")
            file.flush()
        if as_json:
            print_json(row)
        else:
            if not summary.answers:
                show(f"{row['source']}: {answer.protocol}")
            show(line_of(row))
        sys.stdout.flush()
        summary.add(answer)


class Summary:
    """Number of answers, and their latencies."""

    def __init__(self) -> None:
        self.answers = self.skipped = 0
        self._sum = self._most = 0.0

    def add(self, answer: "Answer") -> None:
        """Count an answer."""
        self.answers, self.skipped = self.answers + 1, answer.skipped
        self._sum += answer.latency_seconds
        self._most = max(self._most, answer.latency_seconds)

    def describe(self, counts: "Counts") -> str:
        """Return the last line of the command."""
        mean = self._sum / max(self.answers, 1)
        latency = f", latency {1e3 * mean:.0f} ms (at most {1e3 * self._most:.0f} ms)" if self.answers else ""
        return (
            f"{self.answers} answers{latency}; {self.skipped} windows skipped; {counts.frames} frames, "
            f"{counts.dropped} dropped; {counts.reconnects} reconnects, {counts.gaps} gaps"
        )


def row_of(answer: "Answer", source: str, top: int, threshold: float) -> dict[str, Any]:
    """Return the JSON object of an answer with its `top` classes of at least the score `threshold`."""
    ranked = zip(answer.labels[:top], answer.scores[:top].tolist(), strict=True)
    return {
        "source": source,
        "start_seconds": round(answer.start_seconds, 6),
        "end_seconds": round(answer.end_seconds, 6),
        "time": answer.time.isoformat(timespec="milliseconds"),
        "latency_seconds": round(answer.latency_seconds, 6),
        "predictions": [{"label": label, "score": score} for label, score in ranked if score >= threshold],
        "frames": answer.counts.frames,
        "dropped": answer.counts.dropped,
        "skipped": answer.skipped,
        "reconnects": answer.counts.reconnects,
        "gaps": answer.counts.gaps,
        "part": answer.part,
        "protocol": answer.protocol,
    }


def line_of(row: dict[str, Any]) -> str:
    """Return the line of text for the JSON object of an answer."""
    classes = ", ".join(f"{found['label']} {found['score']:.3f}" for found in row["predictions"])
    lost = [f"{row[name]} {name}" for name in ("dropped", "skipped", "reconnects") if row[name]]
    place = f"{row['start_seconds']:.2f}-{row['end_seconds']:.2f} s"
    clock = row["time"][11:19]
    parts = [clock, place, classes or "-", f"latency {1e3 * row['latency_seconds']:.0f} ms", *lost]
    return "  ".join(parts)


@contextmanager
def _new_file(path: Path) -> Iterator[TextIO]:
    """Open a new file; it is deleted again if the block fails before it writes."""
    with writing(path):
        file = path.open("x", encoding="utf-8")
    try:
        with writing(path), file:
            yield file
    except BaseException:
        with suppress(OSError):
            if not path.stat().st_size:
                path.unlink()
        raise


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,5})[xX](\d{1,5})", text)
    if found is None:
        raise UserError(f"--size {printable(text)}: expected WIDTHxHEIGHT in pixels, such as 1280x720")
    return int(found[1]), int(found[2])
