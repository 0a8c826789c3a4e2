"""Time, memory and accuracy of `timeline` on generated long videos whose actions are known.

    make demo
    python benchmarks/long_videos.py FOLDER [--hours 2] [--seed 0] [--split test] [options of timeline]

The model is the TSM of the demo. It knows whole clips of actions only, so it is trained further for 24 epochs
on windows of `motions` (`generate_windows`), which include a background class. Model and videos are kept in
FOLDER. The defaults of `timeline` were chosen on the split val; the clips of the split test were not used.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

from mmaction_lite.data.generated.long_motions import BACKGROUND, Action, generate_long, generate_windows

FOUND_AT = 0.5  # intersection over union
RECIPE = "tsm_r10_1x1x8_12e_motions_rgb"
EPOCHS = 24


def match_segments(found: list[dict], actions: list[Action], least: float = FOUND_AT) -> tuple[int, int, int]:
    """Return the numbers of matched segments, of segments and of actions."""
    free, matched = list(actions), 0
    for segment in sorted(found, key=lambda segment: -segment["score"]):
        start, end = segment["start_seconds"], segment["end_seconds"]

        def overlap(action: Action, start: float = start, end: float = end) -> float:
            shared = min(end, action.end) - max(start, action.start)
            return shared / (max(end, action.end) - min(start, action.start))

        same = [action for action in free if action.label == segment["label"]]
        best = max(same, key=overlap, default=None)
        if best and overlap(best) >= least:
            free.remove(best)
            matched += 1
    return matched, len(found), len(actions)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=0, help="of the video")
    parser.add_argument("--split", default="test", help="of the actions in the video")
    parser.add_argument("--demo", type=Path, default=Path("runs/demo/tsm"), help="run folder of the TSM")
    given, options = parser.parse_known_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    run = given.folder / "run"
    if not run.exists():
        generate_windows(given.folder / "windows")
        train = ["train", RECIPE, "--data", str(given.folder / "windows"), "--out", str(run)]
        train += ["--init-from", str(given.demo), "--set", f"epochs={EPOCHS}"]
        subprocess.run([sys.executable, "-m", "mmaction_lite", *train], check=True)
    video = given.folder / f"{given.split}{given.seed}_{given.hours:g}h.mp4"
    labels = video.with_suffix(".json")
    if not video.exists():
        labels.write_text(json.dumps(generate_long(video, given.hours * 3600, given.seed, given.split)))
    actions = [Action(*row) for row in json.loads(labels.read_text())]
    command = [sys.executable, "-m", "mmaction_lite", "timeline", str(run), str(video), "--json"]
    command += ["--background", BACKGROUND, *options]
    start = time.monotonic()
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    seconds = time.monotonic() - start
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    row = json.loads(done.stdout)["videos"][0]
    matched, num_found, num_actions = match_segments(row["segments"], actions)
    print(f"{row['protocol']}")
    print(
        f"{given.hours:g} h: F1 at IoU {FOUND_AT:g} {2 * matched / max(1, num_found + num_actions):.3f} "
        f"({matched} of {num_actions} actions, {num_found} segments); {seconds:.1f} s, "
        f"{row['duration'] / seconds:.0f} x real time; peak memory {peak:.0f} MB"
    )


if __name__ == "__main__":
    main()
