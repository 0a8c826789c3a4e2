"""Command `predict`."""

import math
import sys
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmaction_lite.cli.options import (
    Amp,
    Compile,
    Device,
    HangSeconds,
    Json,
    Offline,
    OwnRecipe,
    Weights,
    limit_workers,
    own_recipe,
    print_json,
    show,
    start,
    track,
    warn,
)
from mmaction_lite.errors import UserError, VideoError

if TYPE_CHECKING:
    from mmaction_lite.data.loading.decoder_launch import Process
    from mmaction_lite.data.loading.decoders import Decoders
    from mmaction_lite.data.loading.loader import Fault
    from mmaction_lite.data.loading.worker_settings import WorkerSettings
    from mmaction_lite.inference.predict import Prediction, PredictionSettings
    from mmaction_lite.inference.prediction_files import PredictionFiles

SHOWN, DRAWN = 5, 3  # classes of a printed line, and in an annotated video

Videos = Annotated[
    list[Path],
    typer.Argument(
        help="Video files, their addresses, folders of frames or of clips, or patterns such as 'x/*.mp4'."
    ),
]
Top = Annotated[
    int | None,
    typer.Option(
        min=1, help="Number of classes per video [default: 5 in printed lines; all in files and --json]."
    ),
]
Threshold = Annotated[
    float | None, typer.Option(min=0, max=1, help="Leave out classes with a smaller probability.")
]
Clips = Annotated[int | None, typer.Option(min=1, help="Number of clips per video [default: test protocol].")]
Crops = Annotated[
    str | None,
    typer.Option(help="Crops of each clip: center, three or ten [default: those of the test protocol]."),
]
CsvFile = Annotated[
    Path | None,
    typer.Option("--csv", help="Write a .csv file while running, with a line per video and class."),
]
JsonLines = Annotated[
    Path | None,
    typer.Option("--jsonl", help="Write a JSON Lines file while running, with a line per video."),
]
Annotate = Annotated[
    Path | None,
    typer.Option(
        help="Write the video with the labels drawn on it to this file (.mp4, .mov or .mkv); of several "
        "videos, to this folder."
    ),
]
PredictWorkers = Annotated[
    int | None,
    typer.Option(
        min=0,
        callback=limit_workers,
        help="Number of decoding worker processes [default: one per core; none for a few small files].",
    ),
]


def predict(
    weights: Weights,
    videos: Videos,
    recipe: OwnRecipe = None,
    top: Top = None,
    threshold: Threshold = None,
    clips: Clips = None,
    crops: Crops = None,
    csv: CsvFile = None,
    jsonl: JsonLines = None,
    annotate: Annotate = None,
    amp: Amp = None,
    compile: Compile = None,
    device: Device = "auto",
    workers: PredictWorkers = None,
    hang_seconds: HangSeconds = 120.0,
    offline: Offline = False,
    as_json: Json = False,
) -> None:
    """Predict the classes of videos."""
    from mmaction_lite.data.loading.worker_settings import WorkerSettings

    settings = WorkerSettings(num_workers=workers, hang_seconds=hang_seconds)
    found, early = _begin_decoding(weights, videos, recipe, settings, has_own_views=bool(clips or crops))
    with early or nullcontext():
        from mmaction_lite.inference.annotated_video import annotated_paths
        from mmaction_lite.inference.inputs import name_of
        from mmaction_lite.inference.predict import PredictionSettings, load_for_inference, predict_each
        from mmaction_lite.inference.prediction_files import PredictionFiles
        from mmaction_lite.weights.card import card_of, check_cost

        files = PredictionFiles(csv, jsonl)
        model = load_for_inference(weights, own_recipe(recipe))
        names = [name_of(video, number) for number, video in enumerate(found)]
        outs = [None] * len(found) if annotate is None else annotated_paths(annotate, names)
        protocol = card_of(model).test.with_views(clips, crops)
        check_cost(protocol, "chosen")
        chosen = PredictionSettings(
            protocol=protocol, workers=settings, precision=amp or "float32", compile=compile
        )
        model = model.to(start(device, 2 if compile else 0))
        results = predict_each(model, found, chosen, early)
        _write(results, found, outs, files, chosen, top, threshold, as_json=as_json)


def _begin_decoding(
    weights: str, videos: list[Path], recipe: str | None, settings: "WorkerSettings", *, has_own_views: bool
) -> "tuple[list[Path], Decoders | None]":
    """Find the videos, and decode them while PyTorch is imported and the weights are loaded.

    Args:
        weights, videos, recipe: arguments of the command.
        settings: decoding worker processes.
        has_own_views: whether options replace the views that the weights file shows.

    Returns:
        the videos, and the decoders; None if the decoding does not begin before the model is there.

    Raises:
        UserError: there are no such videos or weights.
    """
    from mmaction_lite.data.loading.decoder_launch import end, launch, worker_count

    is_listed = all(video.is_file() for video in videos)
    count = worker_count(videos, settings, may_hold_many=not is_listed)
    # They start while this process imports modules, which keeps one core busy.
    processes = launch(max(1, count - 1) if count else 0)
    try:
        from mmaction_lite.data.tools.find import find_clips

        try:
            found = find_clips(videos)
        except UserError:
            from mmaction_lite.inference.predict import load_for_inference

            # Where weights and videos are exchanged, the error about the weights is the clear one.
            load_for_inference(weights, own_recipe(recipe))
            raise
        early = None if has_own_views else _start_decoders(weights, found, settings, processes)
    except BaseException:
        end(processes)
        raise
    if early is None:
        end(processes)
    return found, early


def _start_decoders(
    weights: str, videos: list[Path], settings: "WorkerSettings", processes: "list[Process]"
) -> "Decoders | None":
    """Start to decode, if the videos are worth the processes and the weights file shows its views."""
    from mmaction_lite.data.loading.decoder_launch import worker_count
    from mmaction_lite.data.loading.decoders import Decoders
    from mmaction_lite.weights.card_views import peek_views

    count = worker_count(videos, settings)
    views = peek_views(weights) if count else None
    return views and Decoders(videos, views, replace(settings, num_workers=count), launched=processes)


def _write(
    results: "Iterable[Prediction | Fault]",
    videos: list[Path],
    outs: Sequence[Path | None],
    files: "PredictionFiles",
    settings: "PredictionSettings",
    top: int | None,
    threshold: float | None,
    *,
    as_json: bool,
) -> None:
    """Print and write the results, each as soon as it is there."""
    from mmaction_lite.inference.prediction_files import to_row

    rows: list[dict[str, Any]] = []
    done = faults = 0
    try:
        with files:
            results = track(results, len(videos), "predicting") if as_json else results
            for video, out, result in zip(videos, outs, results, strict=True):
                row = to_row(result, top, threshold, settings.arithmetic)
                if out is not None:
                    row |= _annotate(video, out, row, top)
                files.write(row)
                done, faults = done + 1, faults + ("error" in row)
                if as_json:
                    rows.append(row)
                _print(row, top or SHOWN, threshold, is_quiet=as_json)
    except KeyboardInterrupt:
        warn(f"interrupted: the results of {done} of {len(videos)} videos are complete")
        raise
    finally:
        if as_json:
            print_json({"videos": rows})
        elif done > faults:
            show(f"{settings.protocol}{settings.arithmetic}")
    if faults:
        raise typer.Exit(2)


def _print(row: dict[str, Any], most: int, threshold: float | None, *, is_quiet: bool) -> None:
    """Print the line of a video at once, so that a pipe receives it while the command runs."""
    if "error" in row:
        warn(row["error"])
    if "predictions" in row and not is_quiet:
        best = ", ".join(_labels(row, most)) or f"no class reaches {threshold:g}"
        show(f"{row['video']}: {best}")
        sys.stdout.flush()


def _labels(row: dict[str, Any], most: int) -> list[str]:
    """Return the first classes of a row of `to_row`, each with its probability."""
    return [
        f"{found['label']} {math.nan if found['score'] is None else found['score']:.3f}"
        for found in row["predictions"][:most]
    ]


def _annotate(video: Path, out: Path, row: dict[str, Any], top: int | None) -> dict[str, Any]:
    """Write an annotated video; return its path or an error, for the row of the video."""
    from mmaction_lite.inference.annotated_video import annotate_video
    from mmaction_lite.inference.inputs import open_input

    if "predictions" not in row:
        return {}
    lines = _labels(row, top or DRAWN)
    try:
        with open_input(video, row["video"]) as source:
            note = annotate_video(source, out, lambda seconds: lines)
    except VideoError as error:  # the clips could be read, but a later frame cannot
        return {"error": f"{error}; the annotated video is not written"}
    if note:
        warn(f"note: {out}: {note}")
    return {"annotated": str(out)}
