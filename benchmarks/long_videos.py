"""Time, memory and accuracy of `timeline` on generated long videos whose actions are known.

    make demo
    python benchmarks/long_videos.py FOLDER [--hours 2] [--seed 0] [--split test] [options of timeline]

The model is the TSM of the demo that was trained further on windows of long videos. Videos are kept in
FOLDER. The defaults of `timeline` were chosen on the split val; the clips of the split test were not used.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

from mmaction_lite.data.generated.long_motions import generate_long
from mmaction_lite.data.tools.windows import TrainingWindows
from mmaction_lite.inference.segment_scores import LEAST_IOU, Action, match_segments
from mmaction_lite.inference.segments import Segment


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=0, help="of the video")
    parser.add_argument("--split", default="test", help="of the actions in the video")
    parser.add_argument("--run", type=Path, default=Path("runs/demo/timeline"), help="run folder of the TSM")
    given, options = parser.parse_known_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    video = given.folder / f"{given.split}{given.seed}_{given.hours:g}h.mp4"
    labels = video.with_suffix(".json")
    if not labels.exists():
        video.unlink(missing_ok=True)
        labels.write_text(json.dumps(generate_long(video, given.hours * 3600, given.seed, given.split)))
    actions = [Action(*row) for row in json.loads(labels.read_text())]
    command = [sys.executable, "-m", "mmaction_lite", "timeline", str(given.run), str(video), "--json"]
    command += ["--background", TrainingWindows().background, *options]
    start = time.monotonic()
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    seconds = time.monotonic() - start
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    row = json.loads(done.stdout)["videos"][0]
    score = match_segments([Segment(**segment) for segment in row["segments"]], actions)
    print(f"{row['protocol']}")
    print(
        f"{given.hours:g} h: F1 at IoU {LEAST_IOU:g} {score.f1:.3f} ({score.num_matched} of "
        f"{score.num_actions} actions, {score.num_segments} segments); {seconds:.1f} s, "
        f"{row['duration'] / seconds:.0f} x real time; peak memory {peak:.0f} MB"
    )


if __name__ == "__main__":
    main()
