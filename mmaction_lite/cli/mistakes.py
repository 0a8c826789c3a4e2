"""Messages for wrong options and commands, and for errors of the system."""

import os
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from mmaction_lite.cli.options import warn
from mmaction_lite.errors import UserError, describe, nearest, printable

# Options of other projects, and fields of the recipe, in the command `train`.
TRAIN_OPTIONS = {
    "--epochs": "use --set epochs=...",
    "--max-epochs": "use --set epochs=...",
    "--lr": "use --set optimizer.lr=...",
    "--learning-rate": "use --set optimizer.lr=...",
    "--weight-decay": "use --set optimizer.weight_decay=...",
    "--batch-size": "use --set batch_size=..., and scale optimizer.lr by the same factor",
    "--dropout": "use --set model.dropout=...",
    "--amp": "use --set precision=bfloat16",
    "--precision": "use --set precision=...",
    "--compile": "use --set compile=default",
    "--freeze": "use --set freeze=...",
    "--freeze-backbone": "use --probe to train a classifier on the frozen network",
    "--linear-probe": "use --probe",
    "--probing": "use --probe",
    "--num-classes": "the classes are those of the training split",
    "--model": "the first argument is a recipe; see mmaction-lite list",
    "--recipe": "the recipe is the first argument",
    "--config": "the first argument is a recipe; see mmaction-lite list",
    "--pretrained": "use --init-from FILE",
    "--weights": "use --init-from FILE",
    "--checkpoint": "use --init-from FILE, or --resume to continue a run",
    "--load-from": "use --init-from FILE",
    "--resume-from": "use --resume with the same --out",
}
OPTIONS = {
    "--gpu": "use --device cuda:0; torchrun starts one process for each of several GPUs",
    "--gpus": "use --device cuda:0; torchrun starts one process for each of several GPUs",
    "--cuda": "use --device cuda",
    "--num-workers": "use --workers",
    "--work-dir": "use --out",
    "--output": "use --out",
    "--output-dir": "use --out",
    "--out-dir": "use --out",
    "--num-clips": "use --clips",
    "--num-crops": "use --crops center, three or ten",
    "--out-filename": "use --annotate",
    "--save-video": "use --annotate",
    "--output-csv": "use --csv",
    "--conf": "use --threshold",
    "--topk": "use --top",
    "--top-k": "use --top",
    "--split": "use --protocol val or --protocol test",
    "--format": "use --json",
    "--data-dir": "use --data",
    "--dataset": "use --data",
    "--data-path": "use --data",
    "--search": "use mmaction-lite search FEATURES QUERY",
    "--fp16": "use --half of export, or --amp of test",
    "--calibration": "use --calibrate",
}
COMMANDS = {
    "gradcam": "use mmaction-lite explain",
    "annotate": "use mmaction-lite predict --annotate OUT.mp4",
    "demo-video": "use mmaction-lite predict --annotate OUT.mp4",
    "eval": "use mmaction-lite test",
    "evaluate": "use mmaction-lite test",
    "val": "use mmaction-lite test --protocol val",
    "validate": "use mmaction-lite test for a model, or mmaction-lite data validate for a data set",
    "extract": "use mmaction-lite features",
    "embed": "use mmaction-lite features",
    "neighbors": "use mmaction-lite search",
    "onnx": "use mmaction-lite export WEIGHTS --to onnx",
    "quantize": "use mmaction-lite export WEIGHTS --to onnx --int8, or mmaction-lite test --int8",
    "localize": "use mmaction-lite timeline",
    "segments": "use mmaction-lite timeline",
    "detect": "use mmaction-lite timeline for segments of actions in long videos",
    "scores": "use mmaction-lite score FILE..., on files of mmaction-lite test --dump",
    "fuse": "use mmaction-lite score FILE1 FILE2 --weights 1,1.5",
    "ensemble": "use mmaction-lite score FILE1 FILE2 --weights 1,1.5",
    "compare": "use mmaction-lite score FILE1 FILE2 --compare",
    "calibrate": "use mmaction-lite score FILE --temperature-from VAL_FILE",
    "infer": "use mmaction-lite predict",
    "inference": "use mmaction-lite predict",
    "camera": "use mmaction-lite live",
    "webcam": "use mmaction-lite live",
    "stream": "use mmaction-lite live",
    "watch": "use mmaction-lite live",
    "server": "use mmaction-lite serve",
    "web": "use mmaction-lite serve for a page in the browser",
    "gui": "use mmaction-lite serve for a page in the browser",
    "finetune": "use mmaction-lite train --finetune",
    "fine-tune": "use mmaction-lite train --finetune",
    "resume": "use mmaction-lite train --resume",
    "recipes": "use mmaction-lite list",
    "models": "use mmaction-lite list models",
    "help": "use mmaction-lite --help",
    "version": "use mmaction-lite --version",
}


def is_help(error: Any) -> bool:
    """Whether a usage error holds the help of a command that was called without arguments."""
    return type(error).__name__ == "NoArgsIsHelpError"


def check_arguments(arguments: Sequence[str]) -> None:
    """Check that no argument is empty. An empty path would stand for the current folder.

    Raises:
        UserError: an argument is empty.
    """
    for before, argument in zip(["", *arguments], arguments, strict=False):
        if not argument and before != "--note":
            where = f"the value of {before}" if before.startswith("--") else f"the argument after {before!r}"
            raise UserError(f"{printable(where)} is empty; expected a value. Is a shell variable not set?")


def describe_usage_error(error: Any, arguments: Sequence[str] = ()) -> str:
    """Return one line about a wrong option, argument or command, with a way to fix it.

    Args:
        error: an exception of typer.
        arguments: the arguments of the command line.
    """
    # typer prefixes errors from the types of options with "Value error".
    message = _without_suggestion(error.format_message().replace("Value error, ", ""))
    message = printable(message).rstrip(".")
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "mmaction-lite"
    hint = _hint(error, context, path) or _given_value(error, message, arguments)
    return f"error: {message}{'; ' if hint else ''}{hint} (see {path} --help)"


def _hint(error: Any, context: Any, path: str) -> str:
    option = getattr(error, "option_name", None)
    if type(error).__name__ == "NoSuchOption" and isinstance(option, str):
        name = option.replace("_", "-")
        own = TRAIN_OPTIONS if path.endswith(" train") else {}
        exists = any(name in parameter.opts for parameter in context.command.params) if context else False
        return f"use {name}" if exists else own.get(name) or OPTIONS.get(name, "")
    names = getattr(context and context.command, "commands", None)
    if names and error.format_message().startswith("No such command") and context.args is not None:
        typed = error.format_message().split("'")[1:2] or [""]
        return _command_hint(typed[0], names, path)
    return ""


def _given_value(error: Any, message: str, arguments: Sequence[str]) -> str:
    """Return the value of the option that an error is about, if its message does not contain the value."""
    options = getattr(getattr(error, "param", None), "opts", ())
    for option, value in pairwise(arguments):
        if option in options and value not in message and "Missing" not in message:
            return f"got {printable(value)!r}"
    return ""


def _command_hint(typed: str, names: dict[str, Any], path: str) -> str:
    if typed in COMMANDS and not path.endswith(" data"):
        return COMMANDS[typed]
    for name, group in names.items():
        if typed in getattr(group, "commands", {}):
            return f"use {path} {name} {typed}"
    return "" if not typed or os.sep in typed else nearest(typed, names)


def _without_suggestion(message: str) -> str:
    """Return a message without the suggestion of newer versions of typer, which differs between them."""
    return message.partition(" Did you mean ")[0]


def system_exit_code(error: OSError | MemoryError | RuntimeError) -> int:
    """Print one line about an error of the system and return the exit code; raise other errors again."""
    if isinstance(error, BrokenPipeError):
        try:
            sys.stdout.flush()
        except BrokenPipeError:  # the reader of a pipe ended, as in `mmaction-lite list | head`
            sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115
            return 141
        raise error
    is_memory = isinstance(error, MemoryError) or "can't allocate memory" in str(error)
    if is_memory or type(error).__name__ == "OutOfMemoryError":
        warn(f"error: the memory is too small ({describe(error)}); use a smaller batch or fewer --workers")
        return 2
    if not isinstance(error, OSError):
        raise error
    warn(f"error: {error.filename or 'a file'}: {describe(error)}")
    return 2
