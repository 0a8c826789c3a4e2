"""Fusion of score files: alignment by video, the weighted mean, and fitted weights."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmaction_lite.errors import UserError
from mmaction_lite.tasks.fusion import align, check_weights, fit_weights, fuse
from mmaction_lite.tasks.multi_label import MultiLabel
from mmaction_lite.tasks.score_files import Scores
from mmaction_lite.tasks.single_label import SingleLabel


def table_of(name: str, seed: int = 0, num_videos: int = 40, **changed) -> Scores:
    """Scores of 4 classes whose true class is favored; the larger the seed, the less."""
    rng = np.random.default_rng(seed)
    labels = np.arange(num_videos) % 4
    logits = rng.normal(size=(num_videos, 4))
    logits[np.arange(num_videos), labels] += 2 / (1 + seed)
    scores = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    values = {
        "file": Path(name),
        "paths": [f"/data/rgb/{n % 4}/{n}.mp4" for n in range(num_videos)],
        "labels": labels,
        "scores": scores.astype(np.float32),
        "class_names": ["a", "b", "c", "d"],
        "protocol": f"protocol of {name}",
        "task": SingleLabel(),
    }
    return Scores(**(values | changed))


def shuffled(table: Scores, seed: int) -> Scores:
    order = np.random.default_rng(seed).permutation(len(table.paths))
    return replace(
        table,
        paths=[table.paths[n] for n in order],
        labels=table.labels[order],
        scores=table.scores[order],
    )


@given(st.integers(0, 10_000), st.lists(st.floats(0.01, 10), min_size=2, max_size=2))
@settings(max_examples=25, deadline=None)
def test_the_order_of_the_videos_does_not_matter(seed, weights):
    first, second = table_of("a"), table_of("b", 1)
    expected = fuse([first, second], weights)
    found = fuse(align([first, shuffled(second, seed)]), weights)
    np.testing.assert_array_equal(found.scores, expected.scores)
    assert found.metrics == expected.metrics
    mixed = fuse(align([shuffled(first, seed), second]), weights)
    assert mixed.metrics["top1"] == expected.metrics["top1"]


def test_a_weight_of_zero_leaves_the_other_file_unchanged():
    first, second = table_of("a"), table_of("b", 1)
    second.scores[5] = np.nan
    assert fuse([first, second], [1, 0]) is first
    assert fuse([first, second], [0, 2.5]) is second
    fused = fuse([first, second], [1, 1.5])
    np.testing.assert_allclose(fused.scores[0], 0.4 * first.scores[0] + 0.6 * second.scores[0], rtol=1e-6)
    assert np.isnan(fused.scores[5]).all()  # unreadable in one file
    assert fused.protocol == "probabilities fused: 1 × a (protocol of a) + 1.5 × b (protocol of b)"


def test_one_video_with_several_segments_or_labels_is_aligned():
    paths = ["x.mp4", "x.mp4", "x.mp4#t=1,2", "y.mp4"]
    first = table_of("a", num_videos=4, paths=paths, labels=np.array([1, 0, 2, 3]))
    for seed in range(5):
        second = align([first, shuffled(first, seed)])[1]
        np.testing.assert_array_equal(second.labels, first.labels)
        np.testing.assert_array_equal(second.scores, first.scores)


def test_names_without_the_common_folder_and_suffix_match_frame_folders():
    rgb = table_of("rgb")
    flow = table_of("flow", 1, paths=[f"/other/flow/{n % 4}/{n}" for n in range(40)])
    with pytest.raises(UserError, match="The videos have the same names in other folders: pass --match name"):
        align([rgb, flow])
    assert align([rgb, shuffled(flow, 3)], "name")[1].paths == flow.paths
    dotted = [
        table_of(x, paths=[f"{x}/v_{n / 2}{s}" for n in range(40)]) for x, s in (("p", ".avi"), ("q", ""))
    ]
    align(dotted, "name")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"paths": ["other.mp4", *(f"/data/rgb/{n % 4}/{n}.mp4" for n in range(1, 40))]},
         r"^a and b: hold different videos: 1 are in a only \(/data/rgb/0/0\.mp4\); 1 are in b only \(other"),
        ({"labels": (np.arange(40) + 1) % 4}, r"40 of 40 videos have other labels, such as /data/rgb"),
        ({"class_names": ["a", "b", "d", "c"]}, r"4 and 4 classes, at first 'c' and 'd'; expected the same"),
        ({"task": SingleLabel(criterion="binary_cross_entropy")}, "are of the tasks"),
    ],
)  # fmt: skip
def test_files_that_do_not_belong_together_are_one_line(changed, message):
    with pytest.raises(UserError, match=message) as caught:
        align([table_of("a"), table_of("b", **changed)])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("weights", [[1], [1, 2, 3], [0, 0], [-1, 2], [np.inf, 1], [np.nan, 1]])
def test_wrong_weights_are_one_line(weights):
    with pytest.raises(UserError, match=r"^weights: .* for 2 score files; expected 2 numbers, at least 0"):
        check_weights(weights, 2)


def test_fitted_weights_have_the_lowest_log_loss_of_a_grid():
    first, second, third = (table_of("abc"[n], n, 400) for n in range(3))
    weights = fit_weights([first, second, third])
    assert sum(weights) == pytest.approx(1)

    def loss(weights):
        fused = fuse([first, second, third], weights)
        return SingleLabel().log_loss(fused.scores, fused.labels)

    grid = [(a / 10, b / 10, (10 - a - b) / 10) for a in range(11) for b in range(11 - a)]
    best = min(grid, key=loss)
    assert loss(weights) <= loss(best) + 1e-6
    assert np.abs(np.array(weights) - best).max() < 0.11
    np.testing.assert_allclose(fit_weights([first, first]), [0.5, 0.5])


def test_weights_of_multi_label_scores_and_of_no_readable_video():
    labels = np.random.default_rng(0).random((60, 4)) < 0.3
    good = table_of("good", 0, 60, task=MultiLabel(), labels=labels, scores=np.where(labels, 0.8, 0.1))
    bad = replace(good, scores=np.full((60, 4), 0.5))
    good.scores[3] = np.nan
    assert fit_weights([good, bad])[0] > 0.9
    with pytest.raises(UserError, match="no video is readable in all files"):
        fit_weights([good, replace(good, scores=np.full((60, 4), np.nan))])
