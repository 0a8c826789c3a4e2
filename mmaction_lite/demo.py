"""The main job from end to end on generated videos: what `make demo` runs."""

import json
import shutil
import sys
from pathlib import Path
from time import perf_counter

from rich.console import Console
from rich.progress import Progress, track
from rich.table import Table

from mmaction_lite.data.annotations.splits import read_split
from mmaction_lite.data.generated.motions import Form, generate
from mmaction_lite.data.loading.cache import Caches
from mmaction_lite.errors import Interrupted, UserError
from mmaction_lite.inference.evaluate import evaluate
from mmaction_lite.inference.predict import predict
from mmaction_lite.inference.scores import Evaluation
from mmaction_lite.recipes import get_recipe
from mmaction_lite.report.page import write_report
from mmaction_lite.training.loop import train
from mmaction_lite.weights.card import card_of, load

RECIPES = {"tsn": "tsn_r10_1x1x8_12e_motions_rgb", "tsm": "tsm_r10_1x1x8_12e_motions_rgb"}
SUMMARY = "summary.json"
REPORT = "report.html"
MARK = ".demo"  # makes a folder a demo's


def run_demo(out: Path, data: Path, seed: int, console: Console) -> None:
    """Write videos to `data`; train and test TSN and TSM in `out`, predict a clip, write the report.

    `out/summary.json` holds the test accuracies and the seconds that every part took.

    Raises:
        UserError: `out` is in use by something else than an earlier demo, or a step fails.
        Interrupted: a signal came; the next demo begins anew.
    """
    _claim(out)
    clock = Clock()

    _title(console, f"1. Writing the data set `motions` to {data}")
    generate_motions(data, "video", console)
    clock.note("generate")

    caches = Caches(track=lambda items, total, title: track(items, title, total, console=console))
    for number, (name, recipe) in enumerate(RECIPES.items(), 2):
        _title(console, f"{number}. Training {name.upper()}")
        try:
            train(
                get_recipe(recipe),
                data,
                out / name,
                stop_on_signals=True,
                seed=seed,
                caches=caches,
                console=console,
            )
        except Interrupted as stop:
            raise Interrupted("the demo was stopped; run it again to begin anew") from stop
        clock.note(f"train_{name}")

    _title(console, "4. Testing both on the held-out split, from the video files")
    results = {name: _test(out / name, data) for name in RECIPES}
    clock.note("test")
    clip = Path(results["tsm"].paths[0])
    prediction = predict(out / "tsm" / "weights.safetensors", clip)
    page = write_report([out / name for name in RECIPES], out / REPORT)
    clock.note("report")

    summary = {name: result.metrics for name, result in results.items()} | {"seconds": clock.seconds}
    (out / SUMMARY).write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    _print_results(results, clip, f"{prediction.labels[0]} ({prediction.scores[0]:.0%})", page, out, data)


def _claim(out: Path) -> None:
    """Make `out` a demo's folder, without what an earlier demo left there and with everything else."""
    if out.exists() and not (out / MARK).exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: is in use, and not by a demo; pass another --out")
    out.mkdir(parents=True, exist_ok=True)
    (out / MARK).touch()
    for name in RECIPES:
        shutil.rmtree(out / name, ignore_errors=True)
    for name in (SUMMARY, REPORT):
        (out / name).unlink(missing_ok=True)


def generate_motions(out: Path, form: Form, console: Console) -> None:
    """Write the data set `motions` with a progress bar; clips that are there already stay."""
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("writing clips", total=None)
        generate(out, form=form, progress=lambda done, total: bar.update(task, completed=done, total=total))


class Clock:
    """Seconds between notes, by name."""

    def __init__(self):
        self.seconds: dict[str, float] = {}
        self._last = perf_counter()

    def note(self, name: str) -> None:
        """The time since the last note was spent on `name`."""
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
    console.print(f"\n[bold]{text}[/bold]")


def _print_results(
    results: dict[str, Evaluation], clip: Path, seen: str, page: Path, out: Path, data: Path
) -> None:
    table = Table("model", "top-1", "top-5", "mean class", box=None, pad_edge=False)
    for name, result in results.items():
        table.add_row(name.upper(), *(f"{result.metrics[key]:.1%}" for key in ("top1", "top5", "mean_class")))
    console = Console()
    console.print()
    console.print(table)
    # Not on the PATH unless the environment is active: name the command as it was called.
    program = "mmaction-lite" if shutil.which("mmaction-lite") else sys.argv[0]
    weights = out / "tsm" / "weights.safetensors"
    print(f"""{results["tsm"].protocol_line}

TSN averages its frames and cannot tell a motion from its reverse; TSM shifts features in time and can.
{clip}: TSM sees {seen}

Try next:
  open {page}
  {program} predict {weights} {clip}
  {program} test {weights} --data {data}
  {program} train tsm_r10_1x1x8_12e_motions_rgb --data {data} --out runs/mine --set optimizer.lr=0.01
  {program} list""")
