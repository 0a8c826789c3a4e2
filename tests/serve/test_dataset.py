"""The clips of a data set: predictions from a score file, order, filters, pages, corrections."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from mmaction_lite.data.annotations.samples import Samples, absolute
from mmaction_lite.errors import UserError
from mmaction_lite.serve.corrections import Corrections
from mmaction_lite.serve.dataset import (
    PAGE_CLIPS,
    Dataset,
    Query,
    match_predictions,
    open_dataset,
    read_samples,
)
from mmaction_lite.tasks.multi_label import MultiLabel
from mmaction_lite.tasks.score_files import Scores, write_scores
from mmaction_lite.tasks.single_label import SingleLabel

CLASSES = ("down", "up")
EVIL = '<img src=x onerror="alert(1)">.mp4'


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Files without content: the pages do not open them."""
    root = tmp_path / "clips"
    for split, count in (("train", 2), ("val", 6)):
        for number in range(count):
            path = root / split / CLASSES[number % 2] / f"{number}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    return root


def scores_of(samples: Samples, up: list[float], paths: list[str] | None = None) -> Scores:
    """Scores of clips, by the probability of the class `up`."""
    column = np.array(up, np.float32)
    return Scores(
        file=Path("/secret/test.npz"),
        paths=paths or [absolute(samples.name(number)) for number in range(len(samples))],
        labels=samples.labels,
        scores=np.stack([1 - column, column], 1),
        class_names=list(CLASSES),
        protocol="1 clip; 6 videos of /secret/data, 1 unreadable",
        task=SingleLabel(),
    )


def dataset_of(data: Path, up: list[float] | None = None, **others: list[str]) -> Dataset:
    samples = read_samples(data, "val")
    predictions = None if up is None else match_predictions(samples, scores_of(samples, up, **others))
    return Dataset(samples, data.name, predictions, Corrections(data.with_name("corrections.jsonl")))


UP = [0.1, 0.9, 0.3, 0.2, np.nan, 0.6]
"""Clips 0, 2, 4 are of the class down, in the order of the samples down first."""


def test_the_worst_clips_come_first(data):
    dataset = dataset_of(data, UP)
    found = dataset.page(Query())
    true = [clip["true_probability"] for clip in found["clips"]]
    known = [value for value in true if value is not None]
    assert known == sorted(known)
    assert true[-1] is None
    assert (found["num_clips"], found["page"], found["num_pages"]) == (6, 1, 1)
    best = dataset.page(Query(sort="best"))["clips"]
    assert [clip["id"] for clip in best][:5] == [clip["id"] for clip in found["clips"]][4::-1]
    names = [clip["name"] for clip in dataset.page(Query(sort="name"))["clips"]]
    assert names == sorted(names)
    assert names[0] == "down/0.mp4"


def test_filters(data):
    dataset = dataset_of(data, UP)
    wrong = dataset.page(Query(is_wrong=True))["clips"]
    assert wrong
    assert all(clip["predicted"] != clip["labels"] for clip in wrong)
    right = dataset.page(Query(is_wrong=False))["clips"]
    assert all(clip["predicted"] == clip["labels"] for clip in right)
    assert len(wrong) + len(right) == 5  # one video is unreadable
    assert {tuple(clip["labels"]) for clip in dataset.page(Query(label="up"))["clips"]} == {("up",)}
    assert {clip["predicted"][0] for clip in dataset.page(Query(predicted="up"))["clips"]} == {"up"}
    assert dataset.page(Query(label="nothing"))["clips"] == []


def test_pages(tmp_path):
    root = tmp_path / "many"
    for split, count in (("train", 1), ("val", PAGE_CLIPS + 1)):
        for number in range(count):
            (root / split / "up").mkdir(parents=True, exist_ok=True)
            (root / split / "up" / f"{number}.mp4").touch()
    dataset = dataset_of(root)
    first, second, third = (dataset.page(Query(page=page)) for page in (1, 2, 10**6))
    assert (len(first["clips"]), len(second["clips"]), len(third["clips"])) == (PAGE_CLIPS, 1, 0)
    assert second["num_pages"] == 2


def test_a_data_set_without_scores(data):
    dataset = dataset_of(data)
    summary = dataset.summary()
    assert (summary["has_predictions"], summary["protocol"], summary["num_clips"]) == (False, None, 6)
    assert summary["classes"][0] == {"class": "down", "num_clips": 3, "num_wrong": None}
    clip = dataset.page(Query())["clips"][0]
    assert (clip["predicted"], clip["probability"], clip["wrong"]) == (None, None, None)


def test_no_path_of_the_server_is_shown(data, tmp_path):
    (data / "val" / "up" / EVIL).touch()
    listed = tmp_path / "list.csv"
    listed.write_text(f'path,label\n"{data}/val/up/1.mp4",up\n../{tmp_path.name}/clips/val/down/0.mp4,down\n')
    for place in (data, listed):
        dataset = dataset_of(place) if place is listed else dataset_of(place, [*UP, 0.5])
        shown = json.dumps([dataset.summary(), dataset.page(Query())])
        assert str(tmp_path) not in shown
        assert "secret" not in shown


def test_scores_are_found_after_the_data_set_has_moved(data):
    samples = read_samples(data, "val")
    moved = [f"/elsewhere/{Path(samples.name(number)).name}" for number in range(len(samples))]
    dataset = dataset_of(data, UP, paths=moved)
    assert dataset.page(Query())["clips"] == dataset_of(data, UP).page(Query())["clips"]
    with pytest.raises(UserError, match="holds none of the 6 clips"):
        dataset_of(data, UP, paths=[f"/elsewhere/x{number}.mp4" for number in range(6)])


def test_corrections_count_in_place_of_labels(data):
    dataset = dataset_of(data, UP)
    before = dataset.summary()
    (clip, *_) = dataset.page(Query(is_wrong=True))["clips"]
    number = dataset.find(clip["id"])
    assert number is not None
    dataset.correct(number, clip["predicted"])
    changed = dataset.clip(number)
    assert (changed["labels"], changed["corrected"], changed["wrong"]) == (
        clip["labels"],
        clip["predicted"],
        False,
    )
    assert dataset.summary()["num_corrected"] == 1
    assert [found["id"] for found in dataset.page(Query(is_corrected=True))["clips"]] == [clip["id"]]
    dataset.correct(number, None)
    assert dataset.summary() == before


@pytest.mark.parametrize("labels", [["sideways"], [], ["up", "down"], ["<script>"]])
def test_wrong_corrections(labels, data):
    with pytest.raises(UserError, match=r"not a class of the data set; (nearest|valid): |expected 1"):
        dataset_of(data).correct(0, labels)


def test_identifiers_are_stable_and_do_not_show_paths(data):
    clips = dataset_of(data).page(Query())["clips"]
    assert clips == dataset_of(data).page(Query())["clips"]
    assert len({clip["id"] for clip in clips}) == 6
    for name in ("", "0", "../../etc/passwd", clips[0]["name"], clips[0]["id"] + "x"):
        assert dataset_of(data).find(name) is None


def test_several_labels_of_a_clip(tmp_path):
    labels = {"a.mp4": ["up", "down"], "b.mp4": [], "c.mp4": ["up"]}
    rows = [json.dumps({"path": path, "labels": names}) + "\n" for path, names in labels.items()]
    (tmp_path / "list.jsonl").write_text("".join(rows))
    samples = read_samples(tmp_path / "list.jsonl", "val")
    classes = samples.classes
    target = np.zeros((3, len(classes)), np.float32)
    for number in range(3):
        target[number, samples.labels_of(number)] = 1
    scores = Scores(
        file=Path("x.npz"),
        paths=[absolute(samples.name(number)) for number in range(3)],
        labels=target.astype(bool),
        scores=np.array([[0.9, 0.4], [0.2, 0.1], [0.3, 0.8]], np.float32),
        class_names=list(classes),
        protocol="",
        task=MultiLabel(),
    )
    dataset = Dataset(samples, "x", match_predictions(samples, scores), Corrections(tmp_path / "c.jsonl"))
    assert {len(clip["labels"]) for clip in dataset.page(Query())["clips"]} == {0, 1, 2}
    dataset.correct(0, [])
    assert dataset.clip(0)["corrected"] == []


def test_a_data_set_is_opened_with_the_scores_of_the_run(data, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    assert not open_dataset(data, "val", None, run, None).summary()["has_predictions"]
    samples = read_samples(data, "val")
    write_scores(dataclasses.replace(scores_of(samples, UP), file=run / "val.npz"))
    opened = open_dataset(data, "val", None, run, None)
    assert opened.summary()["has_predictions"]
    assert opened.page(Query())["clips"] == dataset_of(data, UP).page(Query())["clips"]
    other = dataclasses.replace(scores_of(samples, UP, ["/x/y.mp4"] * 6), file=run / "other.npz")
    write_scores(other)
    with pytest.raises(UserError, match="holds none"):
        open_dataset(data, "val", other.file, run, None)
    opened.correct(0, ["up"])
    assert (tmp_path / "clips.corrections.jsonl").exists()
