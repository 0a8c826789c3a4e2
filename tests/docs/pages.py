"""Run the commands and the Python blocks of a page, on small data."""

import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import typer

from mmaction_lite.cli import app, main
from mmaction_lite.models import tsm_r50
from tests.conftest import brightening, write_video

ROOT = Path(__file__).parents[2]
# Overrides that make a published recipe small enough for a test; later settings win.
SMALL = ["epochs=1", "batch_size=4", "model.width=8"]
SMALL += [f"{views}.crop.size=(32,32)" for views in ("train", "val", "test")]
SMALL = [part for setting in SMALL for part in ("--set", setting)]


class Block(NamedTuple):
    """A fenced code block of a page."""

    language: str
    text: str


def page_text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(text: str) -> list[Block]:
    return [
        Block(*found) for found in re.findall(r"^```([\w{}-]*).*?\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    ]


def lines(block: Block) -> list[str]:
    """The commands of a block, continuation lines joined, without comments."""
    joined = re.sub(r"\\\n\s*", "", block.text).splitlines()
    return [line for line in joined if line.strip() and not line.startswith("#")]


def commands(text: str) -> Iterator[str]:
    """Every command of the program in the text: in blocks, and complete in a code span."""
    for block in blocks(text):
        if block.language in ("bash", "sh"):
            for line in lines(block):
                found = re.search(r"(?:mmaction-lite|-m mmaction_lite) ([^|&]*)", line)
                if found:
                    yield found[1].strip()
    without_blocks = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    for span in re.findall(r"`([^`]+)`", without_blocks):
        is_quote = "…" in span  # of a message
        if not is_quote and (found := re.match(r"mmaction-lite\s+(.+)", " ".join(span.split()))):
            yield found[1]


def unknown_options(line: str) -> list[str]:
    """What the program's parser does not know in a command: its name, or options."""
    command: Any = typer.main.get_command(app)
    words = shlex.split(line)
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]
    if getattr(command, "commands", {}) and words and re.fullmatch(r"[a-z][a-z-]*", words[0]):
        return [words[0]]
    known = {name for parameter in command.params for name in parameter.opts} | {"--help"}
    return [word for word in words if word.startswith("--") and word.partition("=")[0] not in known]


def run_page(text: str, names: dict[str, Any] | None = None) -> int:
    """Run every `bash` and `python` block of a page in its order, in the current folder.

    A Python block that begins with a file name in a comment is written to that file, and the command in that
    comment runs. `names` are defined for the other Python blocks.

    Returns:
        the number of commands.
    """
    number = 0
    for block in blocks(text):
        if block.language == "python" and (file := re.match(r"# (\w+\.py)", block.text)):
            Path(file[1]).write_text(block.text)
            for command in re.findall(r"mmaction-lite .*", block.text):
                run(command)
                number += 1
        elif block.language == "python":
            exec(compile(block.text, "page", "exec"), {"__name__": "__main__", **(names or {})})
        elif block.language == "bash":
            for line in lines(block):
                run(line)
                number += 1
    return number


def run(line: str) -> None:
    """Run one command of the program as a user would, with published recipes made small."""
    program, *arguments = shlex.split(line)
    assert program == "mmaction-lite", line
    if arguments[0] in ("benchmark", "features"):
        arguments += ["--workers", "0"]
    if arguments[0] == "train" and "motions" not in line:
        arguments += SMALL
    assert call([program, *arguments]) == 0, line


def call(arguments: Sequence[str]) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", list(arguments))
        with pytest.raises(SystemExit) as exit_:
            main()
    return exit_.value.code or 0  # pyright: ignore[reportReturnType]


def write_clips_and_weights(folder: Path) -> None:
    """Write what a user has before the first command: clips, and weights of other projects."""
    for number in range(20):
        write_video(folder / "my_clips" / ("up", "down")[number % 2] / f"{number}.mp4", brightening(number))
    for name in ("some_clip", "another_clip"):
        write_video(folder / f"{name}.mp4", brightening(0))
    image_weights = {
        name.removeprefix("backbone."): tensor
        for name, tensor in tsm_r50(num_classes=2, width=8).state_dict().items()
        if name.startswith("backbone.")
    }
    for name in ("resnet50.pth", "kinetics.pth"):
        torch.save(image_weights, folder / name)  # torchvision's names, without its classifier
