"""Draw predict.png of the page about `predict`: frames of a video that `--annotate` wrote.

After the demo: python docs/use/predict.py runs/demo/tsm data/motions/test/CLASS/CLIP.mp4
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from mmaction_lite.data.sources.video import Video

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "annotated.mp4")
        subprocess.run(["mmaction-lite", "predict", *sys.argv[1:3], "--annotate", out], check=True)
        with Video(out) as video:
            frames = video.frames(np.linspace(0, len(video) - 1, 4).astype(int))
    Image.fromarray(np.concatenate(list(frames), axis=1)).save(Path(__file__).with_suffix(".png"))
