"""Command `serve`."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import typer

from mmaction_lite.cli.options import Device, HangSeconds, Offline, Workers, show, start
from mmaction_lite.errors import UserError, reading

if TYPE_CHECKING:
    from mmaction_lite.serve.settings import ServeSettings

TOKEN = "MMACTION_LITE_TOKEN"
RUNS = Path("runs")
DEEPEST = 3  # folders below runs/ in which a run is looked for
MIB = 1 << 20

ServedWeights = Annotated[
    list[str] | None,
    typer.Argument(
        help="Weights files, run folders, addresses, or names from `mmaction-lite weights list`; the "
        "first one is the default model [default: the last run in runs/]."
    ),
]
Host = Annotated[str, typer.Option(help="Address to listen on; every other than loopback needs a token.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="TCP port; 0 takes a free one.")]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        help=f"File with the token that clients must send [default: the variable {TOKEN}, if it is set]."
    ),
]
HostNames = Annotated[
    list[str] | None, typer.Option(help="Further name of this server in the Host header; repeatable.")
]
AllowedOrigins = Annotated[
    list[str] | None,
    typer.Option(help="Site whose pages may call this server, as https://example.org; repeatable."),
]
AllowedUrls = Annotated[
    list[str] | None,
    typer.Option(
        help="What clients may pass as `url`: HOST[:PORT], *.DOMAIN or https://HOST/PATH; repeatable."
    ),
]
Proxies = Annotated[
    list[str] | None,
    typer.Option(help="Address of a proxy whose X-Forwarded-For names the client; repeatable."),
]
MaxMib = Annotated[float, typer.Option(min=0.001, help="Largest upload, in MiB.")]
MaxSeconds = Annotated[float, typer.Option(min=0.1, help="Longest video, in seconds.")]
MaxFrames = Annotated[int, typer.Option(min=1, help="Largest number of frames of a video.")]
MaxSide = Annotated[int, typer.Option(min=1, help="Longest side of a frame, in pixels.")]
UploadSeconds = Annotated[float, typer.Option(min=0.1, help="Time limit of an upload, in seconds.")]
QueueSize = Annotated[int, typer.Option(min=1, help="Requests accepted at the same time.")]
Rate = Annotated[float, typer.Option(min=0, help="POST requests of one client in a minute; 0: no limit.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Largest number of videos in a forward pass.")]
BatchWindow = Annotated[
    float, typer.Option(min=0, help="Time that a video waits for others of its batch, in milliseconds.")
]
MemoryBudget = Annotated[
    float, typer.Option(min=0.001, help="Weights in memory, in GiB; the least recently used go first.")
]
BrowsedData = Annotated[
    Path | None, typer.Option(help="Data set whose clips, labels and predictions the page shows.")
]
Split = Annotated[Literal["train", "val", "test"], typer.Option(help="Split of --data: train, val or test.")]
Scores = Annotated[
    Path | None,
    typer.Option(help="Score file of `test --dump` for --data [default: that of the run folder, if any]."),
]
Corrections = Annotated[
    Path | None, typer.Option(help="File of corrected labels [default: DATA.corrections.jsonl].")
]
RunFolder = Annotated[
    Path | None, typer.Option("--run", help="Run folder whose training curves the page shows.")
]


def serve(
    weights: ServedWeights = None,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    token_file: TokenFile = None,
    host_name: HostNames = None,
    allow_origin: AllowedOrigins = None,
    allow_url: AllowedUrls = None,
    proxy: Proxies = None,
    max_mib: MaxMib = 512.0,
    max_seconds: MaxSeconds = 3600.0,
    max_frames: MaxFrames = 250_000,
    max_side: MaxSide = 4096,
    upload_seconds: UploadSeconds = 300.0,
    queue_size: QueueSize = 64,
    rate: Rate = 600.0,
    batch_size: BatchSize = 8,
    batch_window: BatchWindow = 5.0,
    memory_budget: MemoryBudget = 4.0,
    data: BrowsedData = None,
    split: Split = "val",
    scores: Scores = None,
    corrections: Corrections = None,
    run_folder: RunFolder = None,
    device: Device = "auto",
    workers: Workers = None,
    hang_seconds: HangSeconds = 30.0,
    offline: Offline = False,
) -> None:
    """Open a web page and a REST interface that classify videos."""
    from mmaction_lite.data.loading.worker_settings import WorkerSettings
    from mmaction_lite.serve.settings import ServeSettings

    settings = ServeSettings(
        host=host,
        port=port,
        token=read_token(token_file),
        hosts=tuple(host_name or ()),
        origins=tuple(allow_origin or ()),
        allowed_urls=tuple(allow_url or ()),
        proxies=tuple(proxy or ()),
        max_bytes=int(max_mib * MIB),
        max_seconds=max_seconds,
        max_frames=max_frames,
        max_side=max_side,
        upload_seconds=upload_seconds,
        queue_size=queue_size,
        rate_per_minute=rate,
        batch_size=batch_size,
        batch_window_ms=batch_window,
        memory_budget=int(memory_budget * (1 << 30)),
        workers=WorkerSettings(num_workers=workers, hang_seconds=hang_seconds),
    )
    if not weights and run_folder is not None and (run_folder / "best.pt").is_file():
        weights = [str(run_folder)]
    run(weights, settings, device, Browsed(data, split, scores, corrections, run_folder))


class Browsed(NamedTuple):
    """What the page shows besides predictions; see the options of `serve`."""

    data: Path | None = None
    split: Literal["train", "val", "test"] = "val"
    scores: Path | None = None
    corrections: Path | None = None
    run: Path | None = None

    def open(self, weights: str) -> "dict[str, Any]":
        """Return the arguments `dataset` and `run` of `create_app`.

        Args:
            weights: the default model; a run folder may hold scores.

        Raises:
            UserError: see `open_dataset`; or options for a data set are given without it.
        """
        from mmaction_lite.serve.dataset import open_dataset
        from mmaction_lite.serve.run_curves import RunCurves

        found: dict[str, Any] = {"run": None if self.run is None else RunCurves(self.run)}
        if self.data is None:
            if self.scores or self.corrections:
                raise UserError("--scores and --corrections belong to a data set; pass --data, too")
            return found
        folder = self.run or (Path(weights) if Path(weights).is_dir() else None)
        return found | {"dataset": open_dataset(self.data, self.split, self.scores, folder, self.corrections)}


NOTHING = Browsed()


def run(
    weights: list[str] | None, settings: "ServeSettings", device: str, browsed: Browsed = NOTHING
) -> None:
    """Bind the address, read the cards of the weights, and serve until a signal.

    Raises:
        UserError: the packages of the server are missing, the address is not available, or weights cannot be
            read.
    """
    try:
        from mmaction_lite.serve.app import create_app
        from mmaction_lite.serve.server import bind
        from mmaction_lite.serve.server import serve as serve_app
    except ImportError:
        raise UserError("serve needs further packages: pip install 'mmaction-lite[serve]'") from None
    from mmaction_lite.serve.models import Models

    with bind(settings) as listening:
        chosen = weights or last_runs(browsed.run)
        start(device)
        models = Models(chosen, settings.memory_budget, device, may_be_empty=True)
        shown = browsed.open(chosen[0] if chosen else os.devnull)
        app = create_app(settings, models, **shown)
        address = address_of(listening.getsockname())
        if not chosen:
            show(
                f"{browsed.run} has no weights yet; the page cannot classify videos. Start serve again later"
            )
        elif not weights:
            show(f"no weights are given; serving the last run, {chosen[0]}")
        show(f"serving {', '.join(models.known) or 'the training'} at {address} (Ctrl-C ends)")
        serve_app(app, settings, listening)


def read_token(path: Path | None) -> str | None:
    """Return the token in a file; without a file, that in the environment; None if there is none.

    Raises:
        UserError: the file cannot be read.
    """
    if path is None:
        return os.environ.get(TOKEN) or None
    with reading(path, advice="expected a text file with the token on one line"):
        return path.read_text(encoding="utf-8").strip()


def last_runs(shown: Path | None) -> list[str]:
    """Return the last run with weights; nothing if there is none and the page shows a training.

    Args:
        shown: run folder whose training curves the page shows.

    Raises:
        UserError: see `last_run`.
    """
    try:
        return [last_run()]
    except UserError:
        if shown is None:
            raise
        return []


def last_run() -> str:
    """Return the run folder in runs/ whose best weights are the newest.

    Raises:
        UserError: there is none.
    """
    found = [path for depth in range(1, DEEPEST + 1) for path in RUNS.glob("*/" * depth + "best.pt")]
    if not found:
        raise UserError(
            "no weights are given, and runs/ holds no run with weights; pass a weights file, a run folder or "
            "a name from `mmaction-lite weights list`"
        )
    return str(max(found, key=lambda path: path.stat().st_mtime).parent)


def address_of(bound: Any) -> str:
    """Return the address of the page for the result of `getsockname`."""
    host, port = str(bound[0]), bound[1]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
