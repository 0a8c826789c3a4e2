"""Train, test, predict, report and find actions in generated videos; run by `make demo`."""

import json
import shutil
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, track
from rich.table import Table

from mmaction_lite.data.annotations.splits import read_split
from mmaction_lite.data.generated.long_motions import generate_long_set
from mmaction_lite.data.generated.motions import Form, generate
from mmaction_lite.data.loading.cache import Caches
from mmaction_lite.data.loading.lifetime import require_main_guard
from mmaction_lite.data.sources.source import open_source
from mmaction_lite.data.tools.windows import TrainingWindows, write_windows
from mmaction_lite.errors import Interrupted, UserError, printable
from mmaction_lite.files import LOCK, FolderLock, check_output_folder, write_atomically
from mmaction_lite.inference.evaluate import evaluate
from mmaction_lite.inference.long_video import score_video
from mmaction_lite.inference.predict import load_for_inference, predict
from mmaction_lite.inference.scores import Evaluation
from mmaction_lite.inference.segment_scores import LEAST_IOU, actions_of, match_segments
from mmaction_lite.inference.segments import PathRule, find_segments
from mmaction_lite.inference.windows import Windows
from mmaction_lite.recipes import get_recipe
from mmaction_lite.recipes.recipe import Recipe
from mmaction_lite.report.page import write_report
from mmaction_lite.report.timeline import timeline_png
from mmaction_lite.training.loop import train
from mmaction_lite.training.run_folder import FILES
from mmaction_lite.weights.card import card_of, load

T = TypeVar("T")
RECIPES = {"tsn": "tsn_r10_1x1x8_12e_motions_rgb", "tsm": "tsm_r10_1x1x8_12e_motions_rgb"}
LONG = "long"  # folder of the long videos, in the folder of the clips
WINDOWS = "windows"  # data set of windows of these videos
TIMELINE = "timeline"  # run folder of the TSM that knows windows of long videos
PICTURE = "timeline.png"
TRAINING_WINDOWS = TrainingWindows(stride=1.25)
WINDOW_EPOCHS = 12
RUNS = (*RECIPES, TIMELINE)
SUMMARY = "summary.json"
REPORT = "report.html"
MARK = ".demo"  # file that marks the output folder of a demo


def run_demo(out: Path, data: Path, seed: int, console: Console) -> None:
    """Run the demo: generate videos, train and test TSN and TSM, predict one clip, write a report.

    The TSM is then trained on windows of long videos, and finds the actions in a held-out one.
    `out/summary.json` has the test metrics of both models, the F1 score of the segments, and the duration of
    each step in seconds.

    Args:
        out: output folder. The runs of an earlier demo in it are replaced.
        data: folder of the videos; existing videos are kept.
        seed: seed of both trainings.
        console: for progress bars and titles.

    Raises:
        UserError: `out` contains files, but not of an earlier demo; or a step fails.
        Interrupted: a signal stopped the demo; the next run starts from the beginning.
    """
    require_main_guard()
    _claim(out)
    with FolderLock(out):
        _remove_results(out)
        _run(out, data, seed, console)


def _run(out: Path, data: Path, seed: int, console: Console) -> None:
    clock = Clock()

    _title(console, f"1. Writing the data set `motions` to {data}")
    generate_motions(data, "video", console)
    clock.note("generate")

    caches = Caches(track=lambda items, total, title: _track(items, total, title, console))
    for number, (name, recipe) in enumerate(RECIPES.items(), 2):
        _title(console, f"{number}. Training {name.upper()}")
        _train(get_recipe(recipe), data, out / name, seed, console, caches=caches)
        clock.note(f"train_{name}")

    _title(console, "4. Testing both on the held-out split, from the video files")
    results = {name: _test(out / name, data) for name in RECIPES}
    clock.note("test")
    clip = Path(results["tsm"].paths[0])
    prediction = predict(out / "tsm" / "weights.safetensors", clip)
    page = write_report([out / name for name in RECIPES], out / REPORT)
    clock.note("report")

    _title(
        console, "5. Training TSM further on windows of long videos, and finding the actions of another one"
    )
    found = _find_actions(out, data / LONG, seed, console)
    clock.note("timeline")

    summary = {name: result.metrics for name, result in results.items()}
    summary |= {"timeline": found, "seconds": clock.seconds}
    text = json.dumps(summary, indent=2) + "\n"
    write_atomically(out / SUMMARY, lambda file: file.write(text.encode()))
    label = f"{prediction.labels[0]} ({prediction.scores[0]:.0%})"
    _print_results(results, clip, label, found=found, page=page, out=out, data=data)


def _train(recipe: Recipe, data: Path, out: Path, seed: int, console: Console, **options: Any) -> None:
    try:
        train(recipe, data, out, stop_on_signals=True, seed=seed, console=console, **options)
    except Interrupted as stop:
        raise Interrupted("the demo was stopped; run the command again to start from the beginning") from stop


def _find_actions(out: Path, videos: Path, seed: int, console: Console) -> dict[str, Any]:
    """Train the TSM on windows of long videos, find the actions in the test video, and draw them.

    Returns:
        F1 score of the segments at an intersection over union of 0.5, the numbers that it is made of, and the
        protocol line.
    """

    def track_here(items: Iterable[T], total: int, title: str) -> Iterable[T]:
        return _track(items, total, title, console)

    generate_long_motions(videos, console)
    run, video = out / TIMELINE, videos / "test-0.mp4"
    write_windows(videos, out / WINDOWS, TRAINING_WINDOWS, track_here)
    recipe = replace(get_recipe(RECIPES["tsm"]), epochs=WINDOW_EPOCHS)
    caches = Caches(track=track_here)
    _train(recipe, out / WINDOWS, run, seed, console, init_from=out / "tsm", caches=caches)
    model = load_for_inference(run)
    rule = PathRule(background=(TRAINING_WINDOWS.background,))
    with open_source(video) as source:
        windows = score_video(model, source, Windows())
    segments = find_segments(windows, rule)
    protocol = f"{windows.plan}; {rule}"
    bars = [(s.label, s.start_seconds, s.end_seconds, s.score) for s in segments]
    picture = timeline_png(bars, windows.duration, video.name, protocol)
    write_atomically(run / PICTURE, lambda file: file.write(picture))
    score = match_segments(segments, actions_of(read_split(videos, "test"))[video])
    return {"f1": score.f1, **score._asdict(), "protocol": protocol}


def _track(items: Iterable[T], total: int, title: str, console: Console) -> Iterable[T]:
    title = escape(printable(title))
    return track(items, title, total, console=console, disable=not console.is_terminal)


def _claim(out: Path) -> None:
    """Mark `out` as the folder of a demo."""
    check_output_folder(out)
    if out.exists() and not (out / MARK).exists() and any(file.name != LOCK for file in out.iterdir()):
        raise UserError(f"{out}: is not empty and not the folder of a demo; pass another --out")
    out.mkdir(parents=True, exist_ok=True)
    (out / MARK).touch()


def _remove_results(out: Path) -> None:
    """Remove the results of an earlier demo, but no other files."""
    stale = [file for name in RUNS for file in (out / name).glob("*")]
    for file in stale:
        if not (
            file.name in (*FILES, "test.npz", REPORT, PICTURE) or file.name.startswith((".", "events.out."))
        ):
            raise UserError(f"{file}: is not a file of the demo, which replaces its folder; move it")
    for name in RUNS:
        shutil.rmtree(out / name, ignore_errors=True)
    for name in (SUMMARY, REPORT):
        (out / name).unlink(missing_ok=True)


def generate_motions(out: Path, form: Form, console: Console) -> None:
    """Write the data set `motions` with a progress bar; existing clips are kept."""
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("writing clips", total=None)
        generate(out, form=form, progress=lambda done, total: bar.update(task, completed=done, total=total))


def generate_long_motions(out: Path, console: Console) -> None:
    """Write the long videos of `motions` with a progress bar; complete videos are kept."""
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("writing long videos", total=None)
        generate_long_set(out, progress=lambda done, total: bar.update(task, completed=done, total=total))


class Clock:
    """Measure the duration of consecutive steps.

    Attributes:
        seconds: duration of each step by name.
    """

    def __init__(self):
        self.seconds: dict[str, float] = {}
        self._last = perf_counter()

    def note(self, name: str) -> None:
        """Record the time since the last call as the duration of step `name`."""
        now = perf_counter()
        self.seconds[name] = round(now - self._last, 2)
        self._last = now


def _test(run: Path, data: Path) -> Evaluation:
    model = load(run)
    card = card_of(model)
    result = evaluate(model, read_split(data, "test", card.classes), card.test)
    result.save(run / "test.npz")
    return result


def _title(console: Console, text: str) -> None:
    console.print(f"\n[bold]{escape(printable(text))}[/bold]")


def _print_results(
    results: dict[str, Evaluation],
    clip: Path,
    label: str,
    *,
    found: dict[str, Any],
    page: Path,
    out: Path,
    data: Path,
) -> None:
    table = Table("model", "top-1", "top-5", "mean class", box=None, pad_edge=False)
    for name, result in results.items():
        table.add_row(name.upper(), *(f"{result.metrics[key]:.1%}" for key in ("top1", "top5", "mean_class")))
    console = Console()
    console.print()
    console.print(table)
    # The command is on the PATH only in an active environment; otherwise show it as it was called.
    program = "mmaction-lite" if shutil.which("mmaction-lite") else sys.argv[0]
    weights = out / "tsm" / "weights.safetensors"
    print(f"""{results["tsm"].protocol_line}

TSN averages its frames and cannot distinguish a motion from its reverse. TSM shifts features in time and can.
{clip}: TSM predicts {label}
{data / LONG / "test-0.mp4"}: TSM finds {found["num_matched"]} of {found["num_actions"]} actions in \
{found["num_segments"]} segments, F1 {found["f1"]:.2f} at IoU {LEAST_IOU:g}
{found["protocol"]}

Try next:
  open {page} {out / TIMELINE / PICTURE}
  {program} predict {weights} {clip}
  {program} timeline {out / TIMELINE} {data / LONG / "test-0.mp4"} --background {TRAINING_WINDOWS.background}
  {program} test {weights} --data {data}
  {program} train tsm_r10_1x1x8_12e_motions_rgb --data {data} --out runs/mine --set optimizer.lr=0.01
  {program} list

To drop a video into a web page that runs this network, run this and open the address that it prints:
  {program} serve {out / "tsm"}""")
