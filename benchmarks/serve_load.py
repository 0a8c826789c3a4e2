"""Load test of `mmaction-lite serve` on this machine.

    python benchmarks/serve_load.py                                  # 300 requests, 16 at a time
    python benchmarks/serve_load.py --requests 2000 --kills 20       # memory, and killed decoding processes

It writes clips of the data set `motions`, enlarged and repeated to the size of usual videos, and weights of
the network of the demo (untrained: they take the same time). It starts the command; another process
sends the clips. The comparison is `mmaction_lite.predict` with a loaded network, one clip after the other
without a server (`sequential`), and one run of `mmaction-lite predict` per clip, as on the command line
(`commands`).
"""

import argparse
import http.client
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event, Thread
from typing import Any
from urllib.parse import urlsplit

PROGRAM = "import sys; from mmaction_lite.cli import main; main()"
CLIENT = "import sys; from benchmarks.serve_load import send_all; send_all(sys.argv[1:])"
RECIPE = "tsm_r10_1x1x8_12e_motions_rgb"
SETTLED = 300  # requests after which the memory counts


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3, help="server and sequential prediction alternate")
    parser.add_argument("--kills", type=int, default=0, help="decoding processes to kill during the load")
    parser.add_argument("--recipe", default=RECIPE)
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument("--scale", type=int, default=5, help="factor of the frame size, 96x128")
    parser.add_argument("--loops", type=int, default=4, help="factor of the number of frames, 64")
    parser.add_argument("--options", nargs="*", default=[], help="further options of serve")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(Path(folder), options), indent=1))


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Run all measurements in a folder; return the figures."""
    weights, clips = write_inputs(folder, options)
    rounds, sequential = [], []
    for _ in range(options.rounds):
        sequential.append(predict_in_sequence(weights, clips, min(options.requests, 300)))
        rounds.append(serve_load(weights, folder, options))
    best = max(rounds, key=lambda each: each["per_second"])
    ratios = [served["per_second"] / alone for served, alone in zip(rounds, sequential, strict=True)]
    return {
        "served": rounds,
        "sequential_per_second": [round(value, 1) for value in sequential],
        "ratio_median": round(statistics.median(ratios), 2),
        "best_per_second": best["per_second"],
        "commands_per_second": round(predict_by_commands(weights, clips[:2]), 2),
    }


def write_inputs(folder: Path, options: argparse.Namespace) -> tuple[Path, list[Path]]:
    """Write weights and clips."""
    import numpy as np
    import torch

    from mmaction_lite import get_recipe
    from mmaction_lite.data.generated.motions import CLASSES, render
    from mmaction_lite.weights.card import ModelCard, save_weights
    from tests.conftest import write_video

    recipe = get_recipe(options.recipe)
    card = ModelCard.of(recipe, CLASSES)
    torch.manual_seed(0)
    save_weights(folder / "weights.safetensors", card.build().state_dict(), card)
    clips = [folder / "clips" / f"{number}.mp4" for number in range(options.clips)]
    for number, path in enumerate(clips):
        frames = render(number).repeat(options.scale, 1).repeat(options.scale, 2)
        write_video(path, np.concatenate([frames] * options.loops))
    return folder / "weights.safetensors", clips


def predict_in_sequence(weights: Path, clips: list[Path], count: int) -> float:
    """Return predictions per second without a server: one clip at a time, in a process of this function."""
    code = (
        "import sys, time\n"
        "from mmaction_lite import predict\n"
        "from mmaction_lite.cli.options import start\n"
        "from mmaction_lite.inference.predict import load_for_inference\n"
        "weights, count, *clips = sys.argv[1:]\n"
        "model = load_for_inference(weights).to(start('cpu'))\n"
        "for clip in clips: predict(model, clip, 'cpu')\n"
        "started = time.perf_counter()\n"
        "for number in range(int(count)): predict(model, clips[number % len(clips)], 'cpu')\n"
        "print(int(count) / (time.perf_counter() - started))\n"
    )
    command = [sys.executable, "-c", code, weights, str(count), *clips]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def predict_by_commands(weights: Path, clips: list[Path]) -> float:
    """Return predictions per second with one run of the command per clip."""
    started = time.perf_counter()
    for clip in clips:
        command = [sys.executable, "-c", PROGRAM, "predict", weights, clip]
        subprocess.run(command, check=True, capture_output=True)
    return len(clips) / (time.perf_counter() - started)


def serve_load(weights: Path, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Start the server, send all requests, and end it by SIGTERM."""
    command = [sys.executable, "-c", PROGRAM, "serve", str(weights), "--port", "0", "--rate", "0"]
    with (folder / "log.txt").open("w") as log:
        server = subprocess.Popen([*command, *options.options], stdout=subprocess.PIPE, stderr=log, text=True)
    assert server.stdout is not None
    try:
        found = re.search(r"http://\S+", server.stdout.readline())
        assert found is not None, (folder / "log.txt").read_text()
        address = found[0]
        wait_until_ready(address)
        result = run_clients(address, folder / "clips", server.pid, options)
        server.send_signal(signal.SIGTERM)
        result["exit_code"] = server.wait(60)
    finally:
        server.kill()
        server.wait()
    return result


def wait_until_ready(address: str) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        connection = connect(address)
        try:
            connection.request("GET", "/readyz")
            if connection.getresponse().status == 200:
                return
        except OSError:
            time.sleep(0.05)
        finally:
            connection.close()
    raise TimeoutError("the server is not ready")


def run_clients(address: str, clips: Path, pid: int, options: argparse.Namespace) -> dict[str, Any]:
    """Send all requests from another process; meanwhile measure the memory and kill decoding processes."""
    command = [sys.executable, "-c", CLIENT, address, str(clips), str(options.requests)]
    command.append(str(options.concurrency))
    is_done = Event()
    memory: list[float] = []
    kills = [0]

    def watch() -> None:
        """Record the memory of the server, and kill a decoding process now and then."""
        while not is_done.wait(0.25):
            memory.append(resident_mib(pid))
            victims = decoders_of(pid)
            if kills[0] < options.kills and victims:
                os.kill(victims[len(memory) % len(victims)], signal.SIGKILL)
                kills[0] += 1

    thread = Thread(target=watch)
    thread.start()
    try:
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    finally:
        is_done.set()
        thread.join()
    settled = memory[len(memory) * SETTLED // max(options.requests, SETTLED) :] or memory
    extremes = {"memory_mib": [round(settled[0], 1), round(settled[-1], 1)]} if settled else {}
    return json.loads(done.stdout) | {"kills": kills[0]} | extremes


def send_all(arguments: list[str]) -> None:
    """Send requests from several threads, and print the figures as JSON; runs in a process of its own."""
    address, folder, count, concurrency = arguments
    bodies = [form_of(path) for path in sorted(Path(folder).glob("*.mp4"))]
    for body in bodies[:4]:
        post(connect(address), body)
    numbers = iter(range(int(count)))
    outcomes: list[tuple[int, float]] = []

    def work() -> None:
        connection = connect(address)
        for number in numbers:
            outcomes.append(post(connection, bodies[number % len(bodies)]))

    started = time.perf_counter()
    with ThreadPoolExecutor(int(concurrency)) as threads:
        for future in [threads.submit(work) for _ in range(int(concurrency))]:
            future.result()
    seconds = time.perf_counter() - started
    times = sorted(1000 * each for status, each in outcomes if status == 200)
    print(
        json.dumps(
            {
                "statuses": dict(Counter(status for status, _ in outcomes)),
                "per_second": round(len(times) / seconds, 1),
                "p50_ms": round(times[len(times) // 2], 1),
                "p95_ms": round(times[len(times) * 95 // 100], 1),
            }
        )
    )


def form_of(path: Path) -> bytes:
    """Return a form with the file and the boundary b0."""
    head = b'--b0\r\nContent-Disposition: form-data; name="file"; filename="clip.mp4"\r\n\r\n'
    return head + path.read_bytes() + b"\r\n--b0--\r\n"


def connect(address: str) -> http.client.HTTPConnection:
    """Return a connection to the server, which opens at the first request."""
    return http.client.HTTPConnection(urlsplit(address).netloc, timeout=120)


def post(connection: http.client.HTTPConnection, body: bytes) -> tuple[int, float]:
    """Send a form; return the status and the seconds until the answer."""
    started = time.perf_counter()
    headers = {"Content-Type": "multipart/form-data; boundary=b0"}
    connection.request("POST", "/v1/predict", body, headers)
    answer = connection.getresponse()
    answer.read()
    return answer.status, time.perf_counter() - started


def decoders_of(pid: int) -> list[int]:
    """Return the child processes of all threads of the server."""
    found = [path.read_text().split() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    return [int(child) for children in found for child in children]


def resident_mib(pid: int) -> float:
    """Return the resident memory of the server process, without its decoding processes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:"))


if __name__ == "__main__":
    main()
