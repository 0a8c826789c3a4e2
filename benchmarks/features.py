"""Draw docs/use/features.png: features of the test clips of `motions` in two dimensions, by class.

mmaction-lite demo
python benchmarks/features.py runs/demo/tsm data/motions docs/use/features.png
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from mmaction_lite import load
from mmaction_lite.data.annotations.splits import read_split
from mmaction_lite.inference.features import extract_features
from mmaction_lite.weights.card import card_of


def main(weights: Path, data: Path, out: Path) -> None:
    model = load(weights)
    classes = card_of(model).classes
    samples = read_split(data, "test", classes)
    paths = [samples.path(i) for i in range(len(samples))]
    figure, axes = plt.subplots(1, 2, figsize=(9, 4.2), layout="constrained")
    for axis, layer in zip(axes, ("backbone.layer1", None), strict=True):
        rows = extract_features(model, paths, layer)
        values = np.concatenate([row.values for row in rows])
        values = PCA(min(20, values.shape[1]), random_state=0).fit_transform(values)
        places = TSNE(perplexity=20, random_state=0).fit_transform(values)
        for index, name in enumerate(classes):
            chosen = samples.labels == index
            color = matplotlib.colormaps["tab20"](index)
            axis.scatter(*places[chosen].T, s=14, color=color, label=name)
        axis.set_title(layer or "input of the classifier", fontsize=10)
        axis.set_xticks([])
        axis.set_yticks([])
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper", fontsize=8, frameon=False)
    figure.savefig(out, dpi=100)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
