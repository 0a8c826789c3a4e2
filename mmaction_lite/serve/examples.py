"""Examples to try the server with: clips of `motions` and a longer video, made at their first use."""

import threading
from pathlib import Path
from typing import NamedTuple

from mmaction_lite.data.generated import motions
from mmaction_lite.data.generated.long_motions import generate_long

FIRST_CLIP = motions.SPLITS["test"].start  # networks of the demo have not seen the test split
LONG = "long"
LONG_SECONDS = 30.0


class Example(NamedTuple):
    """A video that the server can make.

    Args:
        name: its name for clients.
        title: a few words.
        label: its class; None: several.
        number: number of the clip, see `motions.render`; None: a longer video.
    """

    name: str
    title: str
    label: str | None
    number: int | None


def list_examples() -> list[Example]:
    """Return the examples: one clip of every class of `motions`, and a longer video with several actions."""
    clips = [
        Example(label, label.replace("_", " "), label, FIRST_CLIP + position)
        for position, label in enumerate(motions.CLASSES)
    ]
    return [*clips, Example(LONG, f"several actions, {LONG_SECONDS:g} s", None, None)]


class Examples:
    """The examples in the private folder of a server.

    Args:
        folder: where the videos are written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._known = {example.name: example for example in list_examples()}

    def path(self, name: str) -> Path | None:
        """Return the file of an example, and write it at its first use; None if there is no such example."""
        example = self._known.get(name)
        if example is None:
            return None
        path = self._folder / f"example-{example.name}.mp4"
        with self._lock:
            if not path.exists():
                _write(example, path)
        return path


def _write(example: Example, path: Path) -> None:
    draft = path.with_name(f"draft-{path.name}")
    draft.unlink(missing_ok=True)
    if example.number is None:
        generate_long(draft, LONG_SECONDS)
    else:
        motions.write_video(draft, motions.render(example.number))
    draft.replace(path)
