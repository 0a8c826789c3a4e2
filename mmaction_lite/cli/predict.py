"""Command `predict`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from mmaction_lite.cli.options import Device, Json, Offline, Weights, print_json, show, start, warn
from mmaction_lite.errors import VideoError


def predict(
    weights: Weights,
    videos: Annotated[
        list[Path],
        typer.Argument(help="Video files, folders of frames or of clips, or patterns such as 'x/*.mp4'."),
    ],
    recipe: Annotated[
        str | None, typer.Option(help="Recipe of a model of your own, as my.py:my_recipe.")
    ] = None,
    top: Annotated[
        int | None,
        typer.Option(min=1, help="Number of classes to print per video [default: 5; with --json: all]."),
    ] = None,
    device: Device = "auto",
    offline: Offline = False,
    as_json: Json = False,
) -> None:
    """Predict the classes of videos."""
    from mmaction_lite.data.tools.find import find_clips
    from mmaction_lite.inference.predict import load_for_inference, predictions
    from mmaction_lite.recipes import get_recipe

    model = load_for_inference(weights, get_recipe(recipe) if recipe else None).to(start(device))
    videos = find_clips(videos)
    rows: list[dict[str, Any]] = []
    for video in videos:
        try:
            result = next(predictions(model, [video]))
        except VideoError as error:  # continue with the other videos
            rows.append({"video": str(video), "error": str(error)})
            warn(str(error))
            continue
        labels = [
            {"label": label, "score": float(s)} for label, s in zip(result.labels, result.scores, strict=True)
        ]
        rows.append({"video": str(video), "predictions": labels[:top], "protocol": str(result.protocol)})
        if not as_json:
            best = ", ".join(f"{row['label']} {row['score']:.3f}" for row in labels[: top or 5])
            show(f"{video}: {best}")
    protocols = {row["protocol"] for row in rows if "protocol" in row}
    if protocols and not as_json:
        show(" ".join(protocols))
    if as_json:
        print_json({"videos": rows})
    if any("error" in row for row in rows):
        raise typer.Exit(2)
