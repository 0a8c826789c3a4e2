"""Command-line interface. Each command parses its options and calls one library function."""

import atexit
import gc
import os
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Column, Table

from mmaction_lite import __version__
from mmaction_lite.cli import (
    benchmark,
    data,
    explain,
    export,
    features,
    live,
    predict,
    score,
    scores,
    serve,
    timeline,
    train,
    weights,
)
from mmaction_lite.cli.mistakes import check_arguments, describe_usage_error, is_help, system_exit_code
from mmaction_lite.cli.options import (
    Data,
    Json,
    Offline,
    console,
    prepare_streams,
    print_json,
    show,
    start,
    warn,
)
from mmaction_lite.errors import Interrupted, UserError
from mmaction_lite.training.signals import exit_signals

# Base class of typer's exceptions for wrong options and arguments, which has no public name.
ClickException: Any = typer.BadParameter.__mro__[2]

IMPORT_THRESHOLD = 100_000  # new objects before the garbage collector runs; see `main`

app = typer.Typer(
    help="Video action recognition: train, test, predict, report.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(data.app, name="data")
app.add_typer(benchmark.app, name="benchmark")
app.add_typer(weights.app, name="weights")


def _print_version(is_given: bool) -> None:
    if is_given:
        print(f"mmaction-lite {__version__}")
        raise typer.Exit


@app.callback()
def main_options(
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit."),
    ] = False,
) -> None:
    """Video action recognition: train, test, predict, report."""


@app.command()
def demo(
    out: Annotated[
        Path, typer.Option(help="Output folder; the results of an earlier demo in it are replaced.")
    ] = Path("runs/demo"),
    data: Data = Path("data/motions"),
    seed: Annotated[int, typer.Option(min=0, help="Seed of both trainings.")] = 0,
) -> None:
    """Generate videos, train and test TSN and TSM on them, predict a clip and write a report."""
    from mmaction_lite.demo import run_demo

    start("auto")
    run_demo(out, data, seed, console())


@app.command("list")
def list_(
    what: Annotated[Literal["recipes", "models"], typer.Argument(help="What to list.")] = "recipes",
    as_json: Json = False,
) -> None:
    """List recipes with their published results, or models with their parameters and multiply-adds."""
    if what == "models":
        return _list_models(as_json)
    from mmaction_lite.recipes import list_recipes

    recipes = list_recipes()
    if as_json:
        rows = [
            {
                "name": name,
                "model": repr(recipe.model),
                "epochs": recipe.epochs,
                "batch_size": recipe.batch_size,
                "test": str(recipe.test_protocol),
                "reported": vars(recipe.reported) if recipe.reported else None,
            }
            for name, recipe in recipes.items()
        ]
        return print_json({"recipes": rows})
    name_column = Column("recipe", no_wrap=True)  # to be copied, so the source wraps instead
    table = Table(name_column, "epochs", "batch", "reported top-1 / top-5", "source", box=None)
    for name, recipe in recipes.items():
        reported = recipe.reported
        shown = [f"{x:.2f}" for x in (reported.top1, reported.top5) if x is not None] if reported else []
        numbers = (" / ".join(shown), reported.source if reported else "")
        table.add_row(name, str(recipe.epochs), str(recipe.batch_size), *numbers)
    Console(width=max(140, Console().width)).print(table)


def _list_models(as_json: bool) -> None:
    from mmaction_lite.models.complexity import list_models

    if as_json:
        return print_json({"models": [vars(row) for row in list_models()]})
    table = Table("model", "input (T, H, W)", "parameters", "multiply-adds of one view", box=None)
    for row in list_models():
        shape = "x".join(map(str, row.input_shape[2:]))
        table.add_row(row.builder, shape, f"{row.parameters / 1e6:.3f} M", f"{row.multiply_adds / 1e9:.2f} G")
    Console().print(table)


app.command()(train.train)


@app.command()
def convert(
    file: Annotated[
        str,
        typer.Argument(
            help="Checkpoint file of another project, its address, or a name from "
            "`mmaction-lite weights list`."
        ),
    ],
    out: Annotated[Path, typer.Option(help="New .safetensors file to write.")],
    recipe: Annotated[
        str | None,
        typer.Option(
            help="Recipe with the model and the test protocol of the weights; a name of public weights "
            "needs none."
        ),
    ] = None,
    classes: Annotated[Path | None, typer.Option(help="Text file with one class name per line.")] = None,
    probe: Annotated[
        Path | None, typer.Option(help="Probe file of V-JEPA, if the first file is that of the encoder.")
    ] = None,
    keep_protocol: Annotated[
        bool,
        typer.Option(
            "--keep-protocol",
            help="Store normalization and sampling of the recipe, not those of the weights.",
        ),
    ] = False,
    offline: Offline = False,
) -> None:
    """Convert weights of another project to a weights file.

    MMAction2, PySlowFast, PyTorchVideo, MIT TSM, torchvision, Video Swin, UniFormerV2, Hiera, VideoMAE and
    V-JEPA, the last two also from folders of Hugging Face.
    """
    from mmaction_lite.data.annotations.classes import read_classes
    from mmaction_lite.recipes import get_recipe
    from mmaction_lite.weights.conversion import convert_file
    from mmaction_lite.weights.named import locate_checkpoint, recipe_for

    chosen = get_recipe(recipe) if recipe else None
    names = read_classes(classes) if classes else None
    path, entry = locate_checkpoint(file)
    if chosen is None and entry is None:
        raise UserError(f"{file}: --recipe is missing; expected the recipe of the network of the weights")
    if entry is not None:
        names = names or entry.classes
        chosen = chosen or recipe_for(entry)
    assert chosen is not None
    # The protocols of public weights are in the catalogue.
    keep_protocol = keep_protocol or entry is not None
    show(str(convert_file(path, chosen, out, names, probe=probe, keep_protocol=keep_protocol)))


app.command()(scores.test)
app.command()(score.score)
app.command()(predict.predict)
app.command()(features.features)
app.command()(features.search)
app.command()(explain.explain)
app.command()(export.export)
app.command()(live.live)
app.command()(timeline.timeline)
app.command()(serve.serve)


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders.")],
    out: Annotated[
        Path | None, typer.Option(help="HTML file to write [default: report.html in the first run folder].")
    ] = None,
) -> None:
    """Write an HTML page about runs: learning curves, confusion matrix, classes and worst clips."""
    from mmaction_lite.report.page import write_report

    show(str(write_report(runs, out)))


def main() -> None:
    """Run a command. A user error prints one line on standard error and exits with code 2."""
    # OpenMP threads that wait for each other in small layers sleep instead of spinning. On a busy machine a
    # training step of the demo then takes a quarter of the processor time. PyTorch reads the variable when it
    # is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    thresholds = gc.get_threshold()
    # The garbage collector takes a third of the time of importing PyTorch and of ending a process that did.
    gc.set_threshold(IMPORT_THRESHOLD, *thresholds[1:])
    atexit.register(gc.freeze)
    if os.environ.get("RANK", "0") != "0":  # only rank 0 prints results
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115
    prepare_streams()
    # The other commands leave nothing to clean up, and the usual effect also ends a process that hangs.
    is_cleaned_up = sys.argv[1:2] and sys.argv[1] in ("train", "demo", "data", "benchmark", "features")
    try:
        check_arguments(sys.argv[1:])
        with exit_signals() if is_cleaned_up else nullcontext():
            code = app(standalone_mode=False, prog_name="mmaction-lite")
        sys.stdout.flush()
    except ClickException as error:
        if is_help(error):
            print(error.format_message(), file=sys.stderr)
        else:
            warn(describe_usage_error(error, sys.argv[1:]))
        code = 2
    except typer.Abort:
        code = 130
    except Interrupted as error:
        if os.environ.get("RANK", "0") == "0":
            warn(str(error))
        code = 130
    except KeyboardInterrupt:
        code = 130
    except UserError as error:
        warn(f"error: {error}")
        code = 2
    except (OSError, MemoryError, RuntimeError) as error:
        code = system_exit_code(error)
    finally:
        gc.set_threshold(*thresholds)
    sys.exit(code)
