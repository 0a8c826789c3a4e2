"""Groups of clips from one recording, in the hold-out of class folders and between splits."""

from pathlib import Path
from time import perf_counter

import numpy as np
import pytest

from mmaction_lite.data.annotations.class_folders import hold_out
from mmaction_lite.data.annotations.groups import choose_groups, groups_of_names, shared_groups
from mmaction_lite.data.annotations.samples import PackedStrings, Samples
from mmaction_lite.data.annotations.splits import read_split
from mmaction_lite.data.annotations.tables import write_table
from mmaction_lite.errors import UserError


def table(paths, root=Path("/data"), source="folder", segments=None):
    """Return a table of clips in class folders."""
    names = sorted({path.partition("/")[0] for path in paths})
    labels = np.array([names.index(path.partition("/")[0]) for path in paths])
    return Samples(PackedStrings(paths), labels, tuple(names), root, source, segments=segments)


def parts(paths):
    """Return the training part and the held-out part of class folders."""
    train, val = (hold_out(table(paths), held_out=held_out) for held_out in (False, True))
    assert sorted([*listed(train), *listed(val)]) == sorted(paths)
    return train, val


def listed(samples):
    return [samples.paths[i] for i in range(len(samples))]


UCF101 = [
    f"{name}/v_{name}_g{group:02}_c{clip:02}.avi"
    for name in ("Archery", "BabyCrawling", "Diving")
    for group in range(1, 26)
    for clip in range(1, 5)
]
HMDB51 = [
    f"{name}/{source}_{name}_{body}_nm_np1_{side}_{quality}_{clip}.avi"
    for name in ("brush_hair", "run", "walk")
    for source in (f"Film_{number}_of_2008" for number in range(12))
    for body, side, quality in (("u", "fr", "med"), ("f", "ba", "goo"))
    for clip in range(2)
]
KINETICS = [
    f"{name}/{number:06}-_aBc_{start:06}_{start + 10:06}.mp4"
    for name in ("abseiling", "yoga")
    for number in range(20)
    for start in (3, 40, 71)
]


@pytest.mark.parametrize(
    ("paths", "recording", "title"),
    [
        (UCF101, lambda stem: stem[:-4], "UCF101"),
        ([path.replace(".avi", "") for path in UCF101], lambda stem: stem[:-4], "UCF101"),
        (HMDB51, lambda stem: stem.partition("_of_2008")[0], "HMDB51"),
        (KINETICS, lambda stem: stem[:11], "Kinetics"),
        ([p.replace("mp4", "mp4.webm") for p in KINETICS], lambda stem: stem[:11], "Kinetics"),
        (
            [f"{n}/v_{i:06}AbCd-_{c}.mp4" for n in "ab" for i in range(9) for c in range(3)],
            lambda s: s[:13],
            "ActivityNet",
        ),
        (
            [f"{n}/{n}match{i}_{c}_{c + 8}.mp4" for n in "ab" for i in range(9) for c in (2, 20)],
            lambda s: s.split("_")[0],
            "video_start_end",
        ),
        (
            [f"{n}/film {i}-Scene-{c:03}.mp4" for n in "ab" for i in range(9) for c in range(3)],
            lambda s: s.split("-")[0],
            "Scene",
        ),
        (
            [
                f"A{a:03}/S001C00{c}P{p:03}R001A{a:03}_rgb.avi"
                for a in (1, 2)
                for p in range(9)
                for c in (1, 2, 3)
            ],
            lambda s: s[8:12],
            "NTU",
        ),
        (
            [
                f"{n}/person{p:02}_{n}_d{d}_uncomp.avi"
                for n in ("run", "box")
                for p in range(9)
                for d in (1, 2)
            ],
            lambda s: s[:8],
            "KTH",
        ),
    ],
)
def test_held_out_clips_share_no_recording_with_training_clips(paths, recording, title):
    train, val = parts(paths)

    def recordings(samples):
        return {recording(path.partition("/")[2].partition(".")[0]) for path in listed(samples)}

    assert recordings(train).isdisjoint(recordings(val))
    assert 0.1 < len(val) / len(paths) < 0.4
    assert (val.counts() > 0).all()
    assert (train.counts() > 0).all()
    assert "every fifth group of clips" in val.source
    assert title in val.source
    assert shared_groups(train, val, "val") == []
    assert listed(parts(paths[::-1])[1])[::-1] == listed(val)  # the order of the files does not matter


def test_the_source_states_the_number_of_groups():
    train, val = parts(UCF101)
    assert val.source == ("folder (every fifth group of clips: 15 of 75 groups, UCF101, v_Class_g01_c01)")
    assert "without every fifth group of clips, which is held out: 60 of 75 groups" in train.source
    assert val.counts().tolist() == [20, 20, 20]


@pytest.mark.parametrize(
    "paths",
    [
        [f"{name}/{i}.mp4" for name in "ab" for i in range(20)],
        [f"{name}/{name}_{i:03}.mp4" for name in ("run", "jump") for i in range(20)],
        [f"{name}/{name}_clip_{i:03}.mp4" for name in ("run", "jump") for i in range(20)],
        [f"brush_teeth/brush_teeth_{i:05}.mp4" for i in range(20)],
        [f"{n}/take_{5 - i}_{i}.mp4" for n in "ab" for i in range(6)],  # 5_0 is no interval
        [f"{n}/{n}{i:010}_000001_000011.mp4" for n in "ab" for i in range(20)],  # no two clips of a video
    ],
)
def test_names_without_groups_are_held_out_clip_by_clip(paths):
    assert groups_of_names(paths, table(paths).labels) is None
    assert groups_of_names(paths, None) is None
    _, val = parts(paths)
    assert val.source == "folder (every fifth clip)"
    if paths[0] == "a/0.mp4":  # the choice of version 0.1
        assert listed(val) == [f"a/{i}.mp4" for i in (14, 17, 18, 19)] + [f"b/{i}.mp4" for i in (3, 5, 9, 14)]


def test_published_names_count_among_others():
    others = [f"Archery/own {i}.mp4" for i in range(200)]
    train, val = parts([*others, *UCF101, *HMDB51])
    assert "UCF101" in val.source
    assert "HMDB51" in val.source
    assert {path[:-8] for path in listed(train) if "_g" in path}.isdisjoint(
        {path[:-8] for path in listed(val) if "_g" in path}
    )
    assert 30 < sum("own" in path for path in listed(val)) < 50


def test_a_class_keeps_a_group_for_the_training():
    keys = ["a", "a", "b", "b", "a", "a", "c"]
    held = choose_groups(np.array([0, 0, 0, 0, 1, 1, 2]), keys, 5)
    assert not held[[4, 5, 6]].any()  # classes with one group
    assert held.tolist() == [key == "b" for key in keys]
    large_last = choose_groups(np.zeros(10, int), ["big"] * 9 + ["small"], 5)
    assert large_last.tolist() == [False] * 9 + [True]


def test_one_group_in_all_classes_cannot_be_held_out():
    with pytest.raises(UserError, match="no class has two clips, so none can be held out"):
        hold_out(table(["a/0.mp4", "b/1.mp4"]), held_out=True)


def test_splits_that_share_recordings_are_noted():
    train, val = UCF101[::2], UCF101[1::2]
    (note,) = shared_groups(table(train), table(val), "val")
    assert note.startswith(
        "150 of 150 val clips come from the same recordings as training clips, by their names (UCF101"
    )
    (note,) = shared_groups(table(["a/x.mp4", "a/y.mp4"]), table(["a/../a/y.mp4", "a/z.mp4"]), "test")
    assert note.startswith("1 of 2 test clips are also in the training split, the first at /data/a/../a/y")
    halves = [table(["a/x.mp4"], segments=np.array([[start, start + 5.0]])) for start in (0.0, 5.0)]
    (note,) = shared_groups(halves[0], halves[1], "val")
    assert note.startswith("1 of 1 val clips are parts of videos of the training split")
    elsewhere = table(["y.mp4"], root=Path("/data/a"))
    assert len(shared_groups(table(["a/y.mp4"]), elsewhere, "val")) == 1
    assert shared_groups(table(["a/y.mp4"]), table(["y.mp4"], root=Path("/other")), "val") == []


def test_the_column_group_of_tables_is_read_written_and_compared(tmp_path):
    (tmp_path / "train.csv").write_text("path,label,group\na.mp4,run,one\nb.mp4,jump, two \nc.mp4,run,\n")
    (tmp_path / "val.csv").write_text("path,label,group\nd.mp4,run,two\ne.mp4,jump,three\nf.mp4,run,\n")
    train = read_split(tmp_path, "train")
    val = read_split(tmp_path, "val", train.classes)
    assert train.groups is not None
    assert [train.groups[i] for i in range(3)] == ["one", "two", ""]
    assert shared_groups(train, val, "val") == [
        "1 of 3 val clips come from the same recordings as training clips, by the column group, the first at "
        f"{tmp_path / 'val.csv'}:2; divide whole recordings between the splits"
    ]
    write_table(tmp_path / "new.csv", train, [1, 2], ["x.mp4", "y.mp4"])
    text = (tmp_path / "new.csv").read_text()
    assert text == "path,label,group\nx.mp4,jump,two\ny.mp4,run,\n"
    (tmp_path / "rows.jsonl").write_text(
        '{"path": "a", "label": "x"}\n{"path": "b", "label": "x", "group": 7}\n'
    )
    groups = read_split(tmp_path / "rows.jsonl", "test").groups
    assert groups is not None
    assert [groups[0], groups[1]] == ["", "7"]


def test_a_clip_that_is_listed_twice_is_no_group():
    assert groups_of_names(["a/x.mp4", "a/y.mp4", "b/z.mp4", "a/x.mp4"], np.array([0, 0, 1, 0])) is None


def test_long_names_take_no_long_time():
    paths = [f"run/{'.aaaa' * 700}{number}-" for number in range(200)]
    began = perf_counter()
    assert groups_of_names(paths, np.zeros(200, int)) is None
    assert perf_counter() - began < 5
