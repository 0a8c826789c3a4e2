"""Draw augmented training clips as a contact sheet."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

from mmaction_lite.data.annotations.samples import Samples
from mmaction_lite.data.loading.batch_plan import BatchPlan
from mmaction_lite.data.loading.loader import TrainBatchSampler, VideoDataset
from mmaction_lite.data.views.views import TrainViews
from mmaction_lite.errors import UserError, printable
from mmaction_lite.files import check_replaceable, has_marker, write_atomically

MARKER = "mmaction-lite data browse"  # in the field Software of the picture
MOST_FRAMES = 16
CAPTION_PIXELS = 14


def browse(samples: Samples, views: TrainViews, out: Path, num_clips: int, seed: int = 0) -> int:
    """Write the first training clips as a PNG image: one row per view, with up to 16 of its frames.

    Args:
        samples: the training split.
        views: training views.
        out: path of the image.
        num_clips: number of clips to draw.
        seed: seed of the training whose clips are shown.

    Returns:
        number of views in the image.

    Raises:
        UserError: no clip can be read, `out` does not end in .png or is a file that this function did not
            write, or the file cannot be written.
    """
    check_out(out)
    dataset = VideoDataset(samples, views, seed=seed)
    num_clips = min(num_clips, len(samples))
    (draws,) = TrainBatchSampler(samples, BatchPlan(len(samples), num_clips), seed, 0, 1)
    strips = []
    for clip in map(dataset.__getitem__, draws):
        if clip.pixels is None:
            continue
        for view, label in zip(clip.pixels.numpy(), clip.labels, strict=True):
            names = ", ".join(samples.classes[int(i)] for i in label.flatten())
            strips.append(_strip(view, f"{names}   {samples.name(clip.sample)}"))
    if not strips:
        raise UserError(
            f"{samples.source}: none of {num_clips} clips can be read; run `mmaction-lite data validate` on "
            "the data set"
        )
    sheet = Image.fromarray(np.concatenate(strips))
    software = PngInfo()
    software.add_text("Software", MARKER)
    check_out(out)
    write_atomically(out, lambda stream: sheet.save(stream, "PNG", pnginfo=software))
    return len(strips)


def check_out(out: Path) -> None:
    """Check that a contact sheet can be written to `out`.

    Raises:
        UserError: the name does not end in .png, or see `check_replaceable`.
    """
    if out.suffix.lower() != ".png":
        raise UserError(f"{out}: a contact sheet is a PNG file; expected a name that ends in .png")
    check_replaceable(out, "a contact sheet of mmaction-lite", has_marker(MARKER.encode()))


def _strip(view: np.ndarray, caption: str) -> np.ndarray:
    """Return one row of the image: uint8 (T, h, w, 3) to (CAPTION_PIXELS + h, n·w, 3), caption on top."""
    chosen = np.linspace(0, len(view) - 1, min(len(view), MOST_FRAMES)).round().astype(int)
    row = np.concatenate(list(view[chosen]), axis=1)
    head = Image.new("RGB", (row.shape[1], CAPTION_PIXELS), "white")
    # The font of Pillow has Latin letters only; other characters would all be the same empty box.
    letters = (c if ord(c) < 0x250 else c.encode("unicode_escape").decode() for c in printable(caption))
    ImageDraw.Draw(head).text((2, 1), "".join(letters), fill="black")
    return np.concatenate([np.asarray(head), row])
