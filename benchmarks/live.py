"""Simulate an hour of a camera whose connection is cut three times, and plot latency, queue and memory.

    python benchmarks/live.py WEIGHTS live.png --seconds 3600 --speed 60

A local server streams generated video (MPEG-TS over HTTP) and cuts the connection three times. Time runs
`speed` times faster; latencies are those of the accelerated stream, in seconds of the clock.
"""

import argparse
import resource
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.video.stream import VideoStream

from mmaction_lite.data.sources.capture import Capture
from mmaction_lite.data.sources.live import CaptureSettings
from mmaction_lite.inference.live import Answer, watch
from mmaction_lite.inference.predict import load_for_inference
from mmaction_lite.inference.windows import Windows

FPS = 10
CUTS = 3


def write_stream(path: Path, seconds: float) -> None:
    """Write MPEG-TS of a square that moves, with a keyframe every second."""
    with av.open(f"file:{path}", "w", format="mpegts") as container:
        options = {"preset": "ultrafast", "g": str(FPS)}
        stream = cast(VideoStream, container.add_stream("libx264", rate=FPS, options=options))
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        for number in range(int(seconds * FPS)):
            image = np.full((96, 128, 3), 60, np.uint8)
            left = number * 3 % 96
            image[32:64, left : left + 32] = 220
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))


def serve(path: Path) -> ThreadingHTTPServer:
    """Serve the stream. Connection n begins where the one before was cut."""
    size = path.stat().st_size // 188 * 188
    bounds = [size * n // (CUTS + 1) // 188 * 188 for n in range(CUTS + 2)]
    connections = iter(range(CUTS + 1))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            number = next(connections, None)
            if number is None:
                return self.send_error(404)
            self.send_response(200)
            self.send_header("Content-Type", "video/mp2t")
            self.end_headers()
            with path.open("rb") as file:
                file.seek(bounds[number])
                left = bounds[number + 1] - bounds[number]
                while left > 0:
                    left -= self.wfile.write(file.read(min(left, 188 * 64)))

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def resident_mib() -> float:
    """Return the memory of this process in MiB; its maximum where Linux's /proc is missing."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize() / 2**20
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def draw(path: Path, rows: list[tuple[Answer, int, float]], speed: float) -> None:
    """Plot latency, queue and memory over the time of the stream."""
    from matplotlib import pyplot as plt

    minutes = np.array([answer.end_seconds for answer, _, _ in rows]) / 60
    series = [
        ("latency (ms)", [1e3 * answer.latency_seconds for answer, _, _ in rows]),
        ("frames in the queue", [waiting for _, waiting, _ in rows]),
        ("memory (MiB)", [memory for _, _, memory in rows]),
    ]
    figure, axes = plt.subplots(3, 1, sharex=True, figsize=(8, 5), layout="constrained")
    for axis, (label, values) in zip(axes, series, strict=True):
        axis.plot(minutes, values, linewidth=0.8)
        axis.set_ylabel(label)
        axis.set_ylim(0, None)
        for (before, *_), (after, *_) in pairwise(rows):
            if before.part != after.part:
                axis.axvspan(before.end_seconds / 60, after.start_seconds / 60, color="tab:red", alpha=0.4)
    axes[-1].set_xlabel(f"time of the stream (minutes, played {speed:g} times faster)")
    figure.savefig(path, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights")
    parser.add_argument("picture", type=Path)
    parser.add_argument("--seconds", type=float, default=3600.0)
    parser.add_argument("--speed", type=float, default=60.0)
    parser.add_argument("--every", type=float, default=5.0)
    options = parser.parse_args()
    model = load_for_inference(options.weights)
    rows: list[tuple[Answer, int, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stream.ts"
        write_stream(path, options.seconds)
        server = serve(path)
        settings = CaptureSettings(speed=options.speed, timeout=5.0)
        source = f"http://127.0.0.1:{server.server_address[1]}/live"
        with Capture(source, settings) as capture:
            windows = Windows(seconds=2.5, stride=options.every)
            for answer in watch(model, capture, windows, seconds=options.seconds, note=print):
                rows.append((answer, capture.waiting, resident_mib()))
        server.shutdown()
    counts = rows[-1][0].counts
    latencies = np.array([answer.latency_seconds for answer, _, _ in rows])
    memory = np.array([memory for _, _, memory in rows])
    print(f"{len(rows)} answers in {rows[-1][0].end_seconds:.0f} s of the stream; {counts}")
    print(f"latency: median {np.median(latencies):.3f} s, 99 % {np.quantile(latencies, 0.99):.3f} s")
    quarter = max(1, len(memory) // 4)
    first, last = memory[:quarter].max(), memory[-quarter:].max()
    print(f"memory: {first:.0f} MiB at most in the first quarter, {last:.0f} MiB in the last")
    print(f"skipped windows: {rows[-1][0].skipped}; parts: {rows[-1][0].part + 1}")
    draw(options.picture, rows, options.speed)


if __name__ == "__main__":
    main()
