"""Command `timeline`: the segments of actions in long videos."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmaction_lite.cli.options import (
    Device,
    Json,
    Offline,
    OwnRecipe,
    Weights,
    console,
    own_recipe,
    print_json,
    show,
    start,
    warn,
)
from mmaction_lite.cli.segment_rule import (
    Background,
    Enter,
    Leave,
    Merge,
    MinLength,
    Smooth,
    Switch,
    Threshold,
    rule_of,
)
from mmaction_lite.errors import Interrupted, UserError, VideoError, nearest, printable
from mmaction_lite.files import FolderLock, check_output_folder, check_unchanged, rewriting, write_atomically

if TYPE_CHECKING:
    from torch import nn

    from mmaction_lite.data.sources.source import Source
    from mmaction_lite.data.views.protocol import Protocol
    from mmaction_lite.inference.segments import Rule, Segment, WindowScores
    from mmaction_lite.inference.windows import Windows

# Files of one video, and files of all videos together.
OWN_FORMATS = ("srt", "vtt", "png")
SHARED_FILES = {"csv": "segments.csv", "json": "activitynet.json"}
FORMATS = (*SHARED_FILES, *OWN_FORMATS)


def timeline(
    weights: Weights,
    videos: Annotated[
        list[Path], typer.Argument(help="Videos, folders of frames or of clips, or patterns as 'x/*.mp4'.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the results and for the scores of the windows, from which an interrupted or "
            "changed command resumes [default: only print the segments]."
        ),
    ] = None,
    formats: Annotated[
        str,
        typer.Option("--format", help="Files in --out: csv, json (ActivityNet), srt, vtt, png."),
    ] = ",".join(FORMATS),
    window: Annotated[
        float | None,
        typer.Option(min=0.01, help="Window length in seconds [default: one clip; 2.5 for TSN and TSM]."),
    ] = None,
    stride: Annotated[float, typer.Option(min=0.01, help="Distance between windows in seconds.")] = 0.5,
    crops: Annotated[
        str | None,
        typer.Option(help="Crops of a window: center, three or ten [default: those of the test protocol]."),
    ] = None,
    switch: Switch = None,
    threshold: Threshold = None,
    enter: Enter = None,
    leave: Leave = None,
    smooth: Smooth = None,
    background: Background = None,
    min_length: MinLength = 0.0,
    merge: Merge = 0.0,
    fps: Annotated[
        float | None, typer.Option(help="Frames per second of folders of frames, which have no times.")
    ] = None,
    recipe: OwnRecipe = None,
    device: Device = "auto",
    offline: Offline = False,
    as_json: Json = False,
) -> None:
    """Find the segments of actions in long videos."""
    from mmaction_lite.data.tools.find import find_clips
    from mmaction_lite.inference.predict import load_for_inference
    from mmaction_lite.inference.segments import check_background
    from mmaction_lite.inference.windows import Windows
    from mmaction_lite.weights.card import card_of, check_cost

    if fps is not None and not 0 < fps < 1000:
        raise UserError(f"--fps {fps}: expected a number above 0 and below 1000")
    windows = Windows(seconds=window, stride=stride)
    rule = rule_of(
        {"switch": switch, "threshold": threshold},
        {"enter": enter, "leave": leave, "smooth": smooth},
        background=tuple(background or ()),
        min_length=min_length,
        merge=merge,
    )
    chosen = _formats(formats)
    clips = find_clips(videos)
    results = Results(out, chosen if out else [], clips)
    with ExitStack() as stack:
        if out is not None:
            stack.enter_context(_claimed(out, clips, results.files))
        model = load_for_inference(weights, own_recipe(recipe)).to(start(device)).eval()
        card = card_of(model)
        check_background(rule, card.classes)
        protocol = card.test.with_views(crop=crops)
        check_cost(protocol, "chosen")
        stack.callback(results.write_shared)
        _run_all(Job(model, protocol, windows, rule, fps=fps, out=out), clips, results, is_quiet=as_json)
    if as_json:
        print_json({"videos": results.rows})
    elif results.line:
        show(results.line + (f"\n{out}" if out else ""))
    if any("error" in row for row in results.rows):
        raise typer.Exit(2)


def _run_all(job: "Job", clips: list[Path], results: "Results", *, is_quiet: bool) -> None:
    """Find the segments of all videos; a video that cannot be read is one line."""
    for clip, name in zip(clips, results.names, strict=True):
        try:
            scores, segments = job.run(clip, name)
        except VideoError as error:  # continue with the other videos
            warn(str(error))
            results.rows.append({"video": str(clip), "error": str(error)})
            continue
        results.add(clip, name, scores, segments, str(job.rule))
        if not is_quiet:
            _show(clip, segments, results.line, is_brief=job.out is not None)


class Job:
    """Score the windows of videos, and find the segments.

    Args:
        model: the model.
        protocol: views of a window.
        windows: length and stride of the windows.
        rule: how segments are made.
        fps: frames per second of folders of frames.
        out: output folder, or None.
    """

    def __init__(
        self,
        model: "nn.Module",
        protocol: "Protocol",
        windows: "Windows",
        rule: "Rule",
        *,
        fps: float | None,
        out: Path | None,
    ) -> None:
        from mmaction_lite.inference.window_store import identity_of_model

        self.model, self.protocol, self.windows, self.rule = model, protocol, windows, rule
        self.fps, self.out = fps, out
        self.identity = identity_of_model(model) if out else ""

    def run(self, clip: Path, name: str) -> "tuple[WindowScores, list[Segment]]":
        """Score the windows of a video, and return them with the segments."""
        from rich.progress import Progress

        from mmaction_lite.data.sources.frames import Frames
        from mmaction_lite.data.sources.source import open_source
        from mmaction_lite.inference.long_video import score_video
        from mmaction_lite.inference.segments import find_segments

        with open_source(clip) as source:
            if isinstance(source, Frames):
                if self.fps is None:
                    raise VideoError(f"{printable(str(clip))}: image files have no times; pass --fps")
                source.fps = self.fps
            store = self._store(source, clip, name)
            terminal = console()
            with Progress(console=terminal, transient=True, disable=not terminal.is_terminal) as bar:
                task = bar.add_task(printable(clip.name, 60).replace("[", r"\["))
                try:
                    scores = score_video(
                        self.model,
                        source,
                        self.windows,
                        protocol=self.protocol,
                        store=store,
                        progress=lambda done, total: bar.update(task, completed=done, total=total),
                    )
                except KeyboardInterrupt:
                    kept = (
                        f"; its windows are kept in {self.out}, and the same command resumes" if store else ""
                    )
                    raise Interrupted(f"stopped in {printable(str(clip))}{kept}") from None
        for note in scores.notes:
            warn(f"note: {note}")
        return scores, find_segments(scores, self.rule)

    def _store(self, source: "Source", clip: Path, name: str) -> Any:
        if self.out is None:
            return None
        from mmaction_lite.inference.window_store import WindowStore, identity_of_video

        store = WindowStore(self.out / f"{name}.windows.jsonl")
        plan = self.windows.plan(self.protocol, source.fps)
        store.open(self.identity, plan, identity_of_video(source, clip))
        if store.note:
            warn(f"note: {store.note}")
        return store


class Results:
    """Segments of the videos so far, and the files that hold them.

    Args:
        out: output folder; None writes no files.
        formats: formats of the files.
        clips: all videos.
    """

    def __init__(self, out: Path | None, formats: list[str], clips: list[Path]) -> None:
        self._out, self._formats = out, formats
        self.names = output_names(clips)
        self.rows: list[dict[str, Any]] = []
        self.line = ""
        self._segments: dict[str, tuple[Path, list[Segment]]] = {}

    @property
    def files(self) -> list[str]:
        """Names of all files that are written."""
        own = [f"{name}.{kind}" for name in self.names for kind in self._formats if kind in OWN_FORMATS]
        return own + [SHARED_FILES[kind] for kind in self._formats if kind in SHARED_FILES]

    def add(
        self, clip: Path, name: str, scores: "WindowScores", segments: "list[Segment]", rule: str
    ) -> None:
        """Add a video, and write the files that belong to it alone."""
        from mmaction_lite.inference.segment_files import srt_text, vtt_text
        from mmaction_lite.report.timeline import timeline_png

        self.line = f"{scores.plan}; {rule}"
        self._segments[name] = clip, segments
        self.rows.append(
            {
                "video": str(clip),
                "duration": scores.duration,
                "windows": len(scores.numbers),
                "segments": [segment._asdict() for segment in segments],
                "notes": list(scores.notes),
                "protocol": self.line,
            }
        )
        if "srt" in self._formats:
            self._write(f"{name}.srt", srt_text(segments).encode())
        if "vtt" in self._formats:
            self._write(f"{name}.vtt", vtt_text(segments, self.line).encode())
        if "png" in self._formats:
            bars = [(s.label, s.start_seconds, s.end_seconds, s.score) for s in segments]
            self._write(f"{name}.png", timeline_png(bars, scores.duration, clip.name, self.line))

    def write_shared(self) -> None:
        """Write the files of all videos together; also after an interruption."""
        from mmaction_lite.inference.segment_files import activitynet_text, csv_text

        if not self._segments:
            return
        if "csv" in self._formats:
            videos = ((str(clip), segments) for clip, segments in self._segments.values())
            self._write(SHARED_FILES["csv"], csv_text(videos, self.line).encode())
        if "json" in self._formats:
            by_name = {name: segments for name, (_, segments) in self._segments.items()}
            self._write(SHARED_FILES["json"], activitynet_text(by_name, self.line).encode())

    def _write(self, name: str, content: bytes) -> None:
        assert self._out is not None
        with rewriting(self._out, [name]):
            write_atomically(self._out / name, lambda file: file.write(content))


def output_names(clips: list[Path]) -> list[str]:
    """Return a name for the files of each video: without suffix, and with a number if several share it."""
    names: list[str] = []
    for clip in clips:
        stem = printable(clip.name if clip.is_dir() else clip.stem, 150).replace("*", "_") or "video"
        name, number = stem, 1
        while name in names:
            number += 1
            name = f"{stem}-{number}"
        names.append(name)
    return names


@contextmanager
def _claimed(out: Path, clips: list[Path], files: list[str]) -> Iterator[None]:
    """Create and lock the output folder, and check that nothing in it would be lost."""
    check_output_folder(out, clips)
    out.mkdir(parents=True, exist_ok=True)
    with FolderLock(out):
        check_unchanged(out, files)
        yield


def _formats(text: str) -> list[str]:
    """Return the formats that a comma-separated option lists."""
    chosen = [name.strip().lower().removeprefix(".") for name in text.split(",") if name.strip()]
    for name in chosen:
        if name not in FORMATS:
            raise UserError(f"--format {name}: is not a format; {nearest(name, FORMATS)}")
    if not chosen:
        raise UserError(f"--format: is empty; expected some of {', '.join(FORMATS)}")
    return list(dict.fromkeys(chosen))


def _show(clip: Path, segments: "list[Segment]", line: str, is_brief: bool) -> None:
    from mmaction_lite.inference.segment_files import clock

    labels = len({segment.label for segment in segments})
    counts = f"{len(segments)} segment{'s' * (len(segments) != 1)} of {labels} class{'es' * (labels != 1)}"
    show(f"{clip}: {counts}")
    if not is_brief:
        for s in segments:
            show(f"  {clock(s.start_seconds)} – {clock(s.end_seconds)}  {s.label} {s.score:.3f}")
