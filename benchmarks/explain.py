"""Measure how much of the maps of `explain` lies on the moving object of the generated data set `motions`.

After the demo: python benchmarks/explain.py runs/demo/tsm

Prints, for every pair of classes, the share of the maps inside of the circle around the object, and the share
of the view that this circle covers, which is what a uniform map would reach.
"""

import sys
from collections import defaultdict

import numpy as np

from mmaction_lite import load
from mmaction_lite.data.generated import motions
from mmaction_lite.inference.explain import ExplainSettings, Explanation, explain_classes

MARGIN = 4  # pixels around the object that count as the object: a map is smooth
rows, columns = np.indices((motions.HEIGHT, motions.WIDTH))


def shares(found: Explanation, circles: np.ndarray) -> tuple[float, float]:
    """The share of the maps, and of the area of the view, inside of the circles."""
    top, left, height, width = found.box
    is_seen = (rows >= top) & (rows < top + height) & (columns >= left) & (columns < left + width)
    mass = area = total = 0.0
    for position, frame in enumerate(found.frames):
        x, y, radius, _ = circles[frame]
        inside = (columns - x) ** 2 + (rows - y) ** 2 < (radius + MARGIN) ** 2
        map_ = found.map_in_frame(position)
        mass, total = mass + map_[inside].sum(), total + map_.sum()
        area += (inside & is_seen).sum() / is_seen.sum() / len(found.frames)
    return (mass / total if total else np.nan), area


def main(weights: str, *layers: str) -> None:
    model, settings = load(weights), ExplainSettings(layers=layers, fill=None)
    table = defaultdict(list)
    for number in motions.SPLITS["test"]:
        label = motions.CLASSES[number % 10]
        (found,) = explain_classes(model, motions.render(number).copy(), [label], settings)
        table[number % 10 // 2].append(shares(found, motions.object_circles(number)))
    for pair, results in table.items():
        mass, area = np.nanmean(results, 0)
        empty = int(np.isnan(results).any(1).sum())
        names = " / ".join(motions.CLASSES[2 * pair : 2 * pair + 2])
        print(f"{names:45} map {mass:6.1%}  area {area:6.1%}  {mass / area:.1f} times  {empty} empty maps")
    mass, area = np.nanmean(np.concatenate(list(table.values())), 0)
    print(f"{'all':45} map {mass:6.1%}  area {area:6.1%}  {mass / area:.1f} times")


if __name__ == "__main__":
    main(*sys.argv[1:])
