"""Command `explain`."""

from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from mmaction_lite.cli.options import (
    Device,
    Json,
    Offline,
    OwnRecipe,
    Weights,
    own_recipe,
    print_json,
    show,
    start,
    track,
    warn,
)
from mmaction_lite.errors import VideoError


def explain(
    weights: Weights,
    videos: Annotated[
        list[Path],
        typer.Argument(help="Video files, folders of frames or of clips, or patterns such as 'x/*.mp4'."),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the pictures; those of an earlier run are replaced.")],
    labels: Annotated[
        list[str] | None,
        typer.Option(
            "--class", metavar="NAME", help="Class to explain [default: the most probable one]; repeatable."
        ),
    ] = None,
    layers: Annotated[
        list[str] | None,
        typer.Option(
            "--layer",
            metavar="NAME",
            help="Layer with a feature map, such as backbone.layer3 [default: the last one]; repeatable, the "
            "maps are added.",
        ),
    ] = None,
    method: Annotated[
        Literal["gradcam", "rollout", "occlusion"],
        typer.Option(
            help="Maps from gradients; from the attention of a transformer, for all classes alike; or, "
            "slowly, from hiding blocks of the clip."
        ),
    ] = "gradcam",
    fill: Annotated[
        Literal["neighbor", "mean", "none"],
        typer.Option(
            help="Content of hidden frames: the neighboring frame or the mean color; none: skip the curve."
        ),
    ] = "neighbor",
    clips: Annotated[
        int | None, typer.Option(min=1, help="Clips of a video [default: those of the test protocol].")
    ] = None,
    video: Annotated[
        bool, typer.Option("--video", help="Also write a video with the maps, as .mp4.")
    ] = False,
    maps: Annotated[bool, typer.Option("--maps", help="Also write the maps as numbers, as .npz.")] = False,
    recipe: OwnRecipe = None,
    device: Device = "auto",
    offline: Offline = False,
    as_json: Json = False,
) -> None:
    """Show which frames and regions of videos speak for a class (Grad-CAM, attention rollout, occlusion)."""
    from mmaction_lite.data.tools.find import find_clips
    from mmaction_lite.files import FolderLock, check_output_folder
    from mmaction_lite.inference.explain import ExplainSettings, class_index, explained_protocol
    from mmaction_lite.weights.card import card_of, load

    found = find_clips(videos)
    check_output_folder(out, [weights, *found])
    model = load(weights, own_recipe(recipe)).to(start(device))
    for label in labels or []:
        class_index(card_of(model), label)
    used = None if fill == "none" else fill
    protocol = card_of(model).test.with_views(clips)
    settings = ExplainSettings(layers=tuple(layers or ()), method=method, fill=used, protocol=protocol)
    explained_protocol(model, settings)  # before the folder is created
    out.mkdir(parents=True, exist_ok=True)
    write = partial(_explain_one, model, out, labels or None, settings, has_video=video, has_maps=maps)
    with FolderLock(out):
        rows = _explain_all(write, found, is_shown=not as_json)
    if as_json:
        print_json({"videos": rows})
    if any("error" in row for row in rows):
        raise typer.Exit(2)


def _explain_all(
    write: Callable[[Path, str], dict[str, Any]], videos: list[Path], *, is_shown: bool
) -> list[dict[str, Any]]:
    """Explain videos and print a line for each; return the rows of `--json`."""
    rows = []
    for path, stem in track(
        list(zip(videos, distinct_stems(videos), strict=True)), len(videos), "explaining"
    ):
        try:
            row = write(path, stem)
        except VideoError as error:  # continue with the other videos
            row = {"video": str(path), "error": str(error)}
            warn(str(error))
        rows.append(row)
        if is_shown and "error" not in row:
            show(_describe(row))
    protocols = {found["protocol"] for row in rows for found in row.get("explanations", [])}
    if is_shown and protocols:
        show(" ".join(protocols))
    return rows


def distinct_stems(videos: Iterable[Path]) -> list[str]:
    """Return the file names of videos without suffix; equal ones get a number."""
    seen: Counter[str] = Counter()
    stems = []
    for video in videos:
        stem = video.stem or "video"
        seen[stem] += 1
        stems.append(stem if seen[stem] == 1 else f"{stem}-{seen[stem]}")
    return stems


def _explain_one(
    model: Any,
    out: Path,
    labels: list[str] | None,
    settings: Any,
    path: Path,
    stem: str,
    *,
    has_video: bool,
    has_maps: bool,
) -> dict[str, Any]:
    """Explain one video, write its files and return its row of `--json`."""
    from mmaction_lite.data.sources.source import open_source
    from mmaction_lite.inference.explain import explain_classes
    from mmaction_lite.inference.explain_pictures import write_files

    explained = explain_classes(model, path, labels, settings)
    with open_source(path) as source:
        files = write_files(out, stem, explained, source, path.name, has_video=has_video, has_maps=has_maps)
    rows = []
    for explanation, written in zip(explained, files, strict=True):
        if not explanation.maps.any():
            place = f" of {', '.join(explanation.layers)}" if explanation.layers else ""
            warn(f"{path}: no position{place} speaks for {explanation.label}; the maps are empty")
        rows.append(explanation.to_dict() | {"files": list(map(str, written))})
    return {"video": str(path), "explanations": rows}


def _describe(row: dict[str, Any]) -> str:
    """Return one line for every explanation of a video."""
    lines = []
    for found in row["explanations"]:
        line = f"{row['video']}: {found['label']} {found['score']:.3f}"
        if found["top_label"] != found["label"]:
            line += f" (best: {found['top_label']} {found['top_score']:.3f})"
        if found["per_second"] and any(found["frame_mass"]):
            most = max(found["per_second"], key=lambda second: second["mass"])
            line += f"; {most['mass']:.0%} of the map in second {most['start']} to {most['end']}"
        lines.append(f"{line}: {found['files'][0]}")
    return "\n".join(lines)
