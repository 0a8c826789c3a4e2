"""Annotation files of published data sets."""

import json

import pytest

from mmaction_lite.data.annotations.published import is_kinetics, read_published
from mmaction_lite.data.annotations.splits import read_split
from mmaction_lite.errors import UserError
from tests.data.test_splits import listed, touch

KINETICS = """label,youtube_id,time_start,time_end,split
riding a bike,abc-_123456,15,25,train
clapping,x,0,10,train
"""

ACTIVITYNET = {
    "database": {
        "q": {"subset": "training", "annotations": [{"segment": [1.0, 7.5], "label": "Surfing"}]},
        "r": {"subset": "testing", "annotations": []},
        "s": {
            "subset": "validation",
            "annotations": [{"segment": [0, 3], "label": "Surfing"}, {"segment": [4, 4], "label": "Surfing"}],
        },
    }
}

SOMETHING = [
    {"id": "78", "label": "holding a cup", "template": "Holding [something]", "placeholders": ["a cup"]}
]


SPLIT_FILES = {  # file: its text, a video, and path and label of the last sample
    "train.csv": (KINETICS, "train/riding_a_bike/abc-_123456_000015_000025.mp4", "train/clapping/x_000000_000010.mp4", "clapping"),  # noqa: E501
    "annotations/kinetics_train.csv": (KINETICS, "videos/x_000000_000010.mp4", "videos/x_000000_000010.mp4", "clapping"),  # noqa: E501
    "activity_net.v1-3.min.json": (json.dumps(ACTIVITYNET), "training/v_q.mp4", "training/v_q.mp4", "Surfing"),  # noqa: E501
    "labels/train.json": (json.dumps(SOMETHING), "videos/78.webm", "videos/78.webm", "Holding something"),
    "something-something-v1-train.csv": ("5;Holding something\n", "20bn-something-something-v1/5/1.jpg", "20bn-something-something-v1/5", "Holding something"),  # noqa: E501
    "jester-v1-train.csv": ("5;Thumb Up\n", "20bn-jester-v1/5/1.jpg", "20bn-jester-v1/5", "Thumb Up"),
    "Diving48_V2_train.json": ('[{"vid_name": "v1", "label": 1, "end_frame": 9}]', "rgb/v1.mp4", "rgb/v1.mp4", "1"),  # noqa: E501
    "ucfTrainTestlist/trainlist01.txt": ("Archery/v_g01.avi 3\n", "UCF-101/Archery/v_g01.avi", "UCF-101/Archery/v_g01.avi", "Archery"),  # noqa: E501
    "splits/wave_test_split1.txt": ("a.avi 1 \nb.avi 2 \nc.avi 0 \n", "hmdb51_org/wave/a.avi", "hmdb51_org/wave/a.avi", "wave"),  # noqa: E501
}  # fmt: skip


@pytest.mark.parametrize("file", SPLIT_FILES)
def test_published_files_are_read_in_place(tmp_path, file):
    text, video, path, label = SPLIT_FILES[file]
    touch(tmp_path, file, video)
    (tmp_path / file).write_text(text)
    samples = read_split(tmp_path, "train")
    assert listed(samples)[-1] == (path, label)
    assert any((tmp_path / video).is_relative_to(samples.path(i)) for i in range(len(samples)))
    assert samples.root == tmp_path


def test_published_splits_do_not_mix(tmp_path):
    (tmp_path / "activity_net.json").write_text(json.dumps(ACTIVITYNET))
    (tmp_path / "wave_test_split1.txt").write_text("a.avi 1\nb.avi 2\n")
    val = read_split(tmp_path, "val")
    assert val.segments is not None
    assert val.segments.tolist() == [[0, 3]]  # the empty interval is left out
    (tmp_path / "activity_net.json").write_text("{}")
    with pytest.raises(UserError, match=r"activity_net\.json: has no 'database'"):
        read_split(tmp_path, "train")


def test_a_folder_without_published_files_is_left_to_other_readers(tmp_path):
    (tmp_path / "train.csv").write_text("path,label\na.mp4,run\n")
    assert read_published(tmp_path, "train") is None
    assert not is_kinetics(tmp_path / "train.csv")
    (tmp_path / "val.csv").write_text(KINETICS)
    assert is_kinetics(tmp_path / "val.csv")
    rows = read_published(tmp_path, "val")
    assert rows is not None
    assert rows.labels == ["riding a bike", "clapping"]
    assert rows.lines == [2, 3]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "train.csv",
            KINETICS.replace("15,25", "x,25"),
            r"train\.csv:2: lacks a time: .*; expected whole seconds",
        ),
        ("jester-v1-train.csv", "5;Thumb Up\n6\n", r"jester-v1-train\.csv:2: '6'; expected 'number;label'"),
        ("trainlist01.txt", "Archery/a.mp4 1\n", r"trainlist01\.txt:1: .*expected 'Class/video\.avi'"),
        (
            "wave_test_split1.txt",
            "a.avi 3\n",
            r"wave_test_split1\.txt:1: .*expected 'video\.avi' and 0, 1 or 2",
        ),
        ("Diving48_V2_train.json", '[{"vid_name": "v1"}]', r"entry 1 lacks vid_name or label"),
        ("activity_net.json", "no JSON", r"activity_net\.json: is not JSON"),
    ],
)
def test_a_recognized_file_that_is_damaged_is_named_with_its_line(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message):
        read_published(tmp_path, "train")
