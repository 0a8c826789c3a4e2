"""Simulated data plane: many loaders that read clips from one object store, all on this machine.

    python benchmarks/data_plane.py DATA docs/data_plane.json

DATA is a folder of videos, such as data/scenes of `mmaction-lite benchmark`. The store is a process that
serves tar files by HTTP ranges, as S3 does, with a delay per request and a limit of simultaneous requests. A
loader is a process that reads clips in random order, as a rank of a training does, by the reader of the
package. Loaders start together, after each has read all indexes once.
"""

import asyncio
import json
import multiprocessing
import os
import random
import re
import statistics
import sys
import tarfile
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmaction_lite.data.annotations.class_folders import VIDEO_SUFFIXES
from mmaction_lite.data.sources.shards import INDEX_SUFFIX, has_member, read_packed
from mmaction_lite.data.sources.source import open_source
from mmaction_lite.data.sources.write_shards import index_shards
from mmaction_lite.errors import VideoError
from mmaction_lite.files import write_atomically

DELAY = 0.02  # seconds until the store answers
FORK = multiprocessing.get_context("fork")


@dataclass(frozen=True, kw_only=True)
class Case:
    """One measurement.

    Args:
        name: name in the table.
        loaders: number of loaders.
        shards: number of tar files.
        frames: frames that a loader decodes of each clip; 0 reads only.
        limit: requests that the store answers at once; it refuses others with status 503.
    """

    name: str
    loaders: int
    shards: int = 16
    frames: int = 0
    limit: int = 10_000


CASES = (
    Case(name="1 loader", loaders=1),
    Case(name="8 loaders", loaders=8),
    Case(name="64 loaders", loaders=64),
    Case(name="64 loaders that decode 8 frames", loaders=64, frames=8),
    Case(name="64 loaders, 96 tar files", loaders=64, shards=96),
    Case(name="64 loaders, 32 requests at once", loaders=64, limit=32),
)


class Store:
    """Object store: `/N.tar` and its index, for any N, are those of one tar file."""

    def __init__(self, tar: Path, limit: int):
        self.files = {".tar": tar.read_bytes(), ".json": Path(f"{tar}{INDEX_SUFFIX}").read_bytes()}
        self.limit = limit
        self.at_once = 0
        self.counts = {"requests": 0, "index requests": 0, "refused": 0, "bytes": 0}

    async def serve(self, port: Any) -> None:
        """Serve until the process ends; send the port when the store listens."""
        server = await asyncio.start_server(self.answer, "127.0.0.1", 0, backlog=512)
        port.send(server.sockets[0].getsockname()[1])
        async with server:
            await server.serve_forever()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                request, *lines = head.decode().split("\r\n")
                fields = dict(line.lower().split(": ", 1) for line in lines if ": " in line)
                await self.send(writer, request.split()[1], fields.get("range"))
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def send(self, writer: asyncio.StreamWriter, path: str, wanted: str | None) -> None:
        """Send a file or a range of it after the delay; or refuse the request."""
        if path == "/counts":
            body = json.dumps(self.counts).encode()
            return await self.reply(writer, "200 OK", body)
        self.counts["requests"] += 1
        if self.at_once >= self.limit:
            self.counts["refused"] += 1
            return await self.reply(writer, "503 Slow Down", b"")
        self.at_once += 1
        try:
            await asyncio.sleep(DELAY)
            self.counts["index requests"] += path.endswith(".json")
            data = self.files[Path(path).suffix]
            first, last = wanted.removeprefix("bytes=").split("-") if wanted else ("0", "")
            body = data[int(first) : int(last) + 1 if last else None]
            self.counts["bytes"] += len(body)
            await self.reply(writer, "206 Partial Content" if wanted else "200 OK", body)
        finally:
            self.at_once -= 1

    async def reply(self, writer: asyncio.StreamWriter, status: str, body: bytes) -> None:
        """Send a status and a body."""
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        await writer.drain()


def load(case: Case, url: str, members: Sequence[str], number: int, begin: Any, answer: Any) -> None:
    """Read clips in random order for a while; send the seconds of each clip, the errors and the memory.

    Args:
        case: the case.
        url: address of the store.
        members: clips of a tar file.
        number: number of this loader.
        begin: barrier of all loaders; and for how many seconds to read.
        answer: pipe for the results.
    """
    rng, seconds, errors = random.Random(number), [], []
    for shard in range(case.shards):
        while not _has_index(Path(f"{url}/{shard}.tar/{members[0]}")):
            time.sleep(DELAY)
    barrier, duration = begin
    barrier.wait()
    until = time.monotonic() + duration
    while (began := time.monotonic()) < until:
        path = Path(f"{url}/{rng.randrange(case.shards)}.tar/{rng.choice(members)}")
        try:
            if case.frames:
                with open_source(path) as clip:
                    clip.frames(list(range(0, 8 * case.frames, 8)))
            else:
                read_packed(path)
        except VideoError as error:
            errors.append(str(error))
            continue
        seconds.append(time.monotonic() - began)
    answer.send((seconds, errors, _private_mib()))


def _has_index(path: Path) -> bool:
    try:
        return has_member(path)
    except VideoError:  # the store refuses
        return False


def measure(case: Case, tar: Path, members: Sequence[str], duration: float) -> dict[str, Any]:
    """Run the loaders of a case beside a store for `duration` seconds."""
    here, there = FORK.Pipe()
    store = FORK.Process(target=lambda: asyncio.run(Store(tar, case.limit).serve(there)), daemon=True)
    store.start()
    url = f"http://127.0.0.1:{here.recv()}"
    pipes = [FORK.Pipe() for _ in range(case.loaders)]
    begin = FORK.Barrier(case.loaders), duration
    loaders = [
        FORK.Process(target=load, args=(case, url, members, number, begin, pipe[1]), daemon=True)
        for number, pipe in enumerate(pipes)
    ]
    for loader in loaders:
        loader.start()
    for pipe in pipes:
        pipe[1].close()  # `recv` raises an error if a loader dies
    answers = [pipe[0].recv() for pipe in pipes]
    counts = json.loads(urllib.request.urlopen(f"{url}/counts").read())
    warm_up = case.loaders * case.shards
    store.kill()
    for process in (store, *loaders):
        process.join()
    seconds = sorted(value for answer in answers for value in answer[0])
    clips = [len(answer[0]) for answer in answers]
    faults = [error for answer in answers for error in answer[1]]
    return {
        "case": case.name,
        "clips_per_second": round(sum(clips) / duration, 2),
        "per_loader": [round(f(clips) / duration, 2) for f in (min, statistics.median, max)],
        "milliseconds": [round(1000 * seconds[int(q * (len(seconds) - 1))], 1) for q in (0.5, 0.99)],
        "megabytes_per_second": round(counts["bytes"] / duration / 1e6, 1),
        "refused_requests": counts["refused"],
        "index_requests_per_clip": round((counts["index requests"] - warm_up) / max(1, sum(clips)), 2),
        "unreadable": round(len(faults) / max(1, len(faults) + sum(clips)), 4),
        "first_fault": re.sub(r"http:/+[\d.]+:\d+", "STORE", faults[0]) if faults else None,
        "loader_mib": round(max(answer[2] for answer in answers), 1),
    }


def _private_mib() -> float:
    """Return the memory of this process that no other process shares, in MiB."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private")) / 1024


def main(data: Path, out: Path, duration: float = 10.0) -> None:
    """Measure all cases, print a line for each, and write them to `out`."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        tar = Path(folder) / "0.tar"
        with tarfile.open(tar, "w") as archive:
            for file in sorted(data.rglob("*.mp4")):
                archive.add(file, file.relative_to(data).as_posix())
        members = [member for _, member, _ in index_shards([tar], VIDEO_SUFFIXES)]
        for case in CASES:
            found.append(measure(case, tar, members, duration))
            print(json.dumps(found[-1]))
    result = {"delay_seconds": DELAY, "duration_seconds": duration, "cores": os.cpu_count(), "cases": found}
    write_atomically(out, lambda file: file.write(json.dumps(result, indent=1).encode()))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *map(float, sys.argv[3:4]))
