import io
import re
from typing import Any

import numpy as np
from PIL import Image

from mmaction_lite.report.page import write_report
from mmaction_lite.report.results import results_of, thumbnail
from mmaction_lite.tasks.score_files import read_scores
from tests.report.test_page import add_scores, decode, make_run, make_video


def test_worst_videos_are_the_mistakes_with_the_lowest_true_probability(tmp_path):
    run = make_run(tmp_path / "run")
    arrays = add_scores(run / "val.npz")
    page = write_report([run]).read_text(encoding="utf-8")
    own = arrays["scores"][np.arange(40), arrays["labels"]]
    wrong = arrays["scores"].argmax(axis=1) != arrays["labels"]
    worst = [n for n in np.argsort(own) if wrong[n] and n != 3][:12]  # 3 is the unreadable video
    shown = re.findall(r'<div class="path">(.*?)</div>', page)
    assert shown == [f"videos/{n}.mp4" for n in worst]
    assert f"{own[worst[0]]:.4f}" in page
    assert page.count("No picture: not found") == len(worst) > 5


def test_a_thumbnail_shows_first_middle_and_last_frame(tmp_path):
    _, content = decode(thumbnail(make_video(tmp_path / "clip.mp4"))["uri"])
    strip = np.asarray(Image.open(io.BytesIO(content)))
    assert strip.shape == (48, 3 * 64 + 2 * 4, 3)
    assert [int(strip[24, x].argmax()) for x in (32, 100, 168)] == [0, 1, 2]


def test_the_frames_of_a_pattern_have_a_thumbnail(tmp_path):
    for name in ("left_1.jpg", "left_2.jpg", "right_1.jpg", "right_2.jpg"):
        Image.new("RGB", (32, 24), "red" if name.startswith("left") else "blue").save(tmp_path / name)
    assert "uri" in thumbnail(str(tmp_path / "left_*.jpg"))


def test_a_broken_video_gives_the_reason_instead_of_a_thumbnail(tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"not a video")
    (tmp_path / "empty").mkdir()
    for path in (broken, tmp_path / "empty"):
        result = thumbnail(str(path))
        assert result.keys() == {"reason"}
        assert result["reason"]
        assert str(path) not in result["reason"]


def test_results_have_one_group_of_classes_for_each_kind_of_label(tmp_path):
    arrays = add_scores(tmp_path / "test.npz")
    found = results_of(read_scores(tmp_path / "test.npz"))
    (group,) = found["groups"]
    assert group["class_names"] == arrays["class_names"].tolist()
    assert [row["path"] for row in found["unreadable"]] == ["videos/3.mp4"]
    assert sum(map(sum, group["confusion"]["matrix"])) == 39
    task = np.array('{"task": "verb_noun", "num_verbs": 4}')
    names = np.array([f"verb: {n}" for n in range(4)] + [f"noun: {n}" for n in range(6)])
    labels = np.stack([np.arange(40) % 4, np.arange(40) % 6], 1)
    add_scores(tmp_path / "pairs.npz", labels=labels, class_names=names, task=task)
    verbs, nouns = results_of(read_scores(tmp_path / "pairs.npz"))["groups"]
    assert (verbs["title"], verbs["class_names"]) == ("verb", ["0", "1", "2", "3"])
    assert (nouns["title"], len(nouns["per_class"])) == ("noun", 6)


def test_the_page_shows_calibration_and_compares_runs_on_the_same_videos(tmp_path):
    runs = [make_run(tmp_path / name) for name in ("one", "two")]
    arrays = add_scores(runs[0] / "test.npz")
    order = np.random.default_rng(0).permutation(40)
    scores = np.roll(arrays["scores"], 1, 1)
    changed: dict[str, Any] = {
        "paths": arrays["paths"][order],
        "labels": arrays["labels"][order],
        "scores": scores[order],
    }
    add_scores(runs[1] / "test.npz", **changed)
    found = results_of(read_scores(runs[0] / "test.npz"))["calibration"]
    page = write_report(runs).read_text(encoding="utf-8")
    assert found["uri"] in page
    assert f"{100 * found['error']:.2f} %" in page
    assert "Run 2 against run 1: difference of the accuracies -" in page
