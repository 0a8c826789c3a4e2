from mmaction_lite.data.annotations.lists import read_list
from mmaction_lite.data.annotations.splits import read_split
from tests.data.test_splits import listed, touch


def test_list_files_take_numbers_names_spaces_and_quotes(tmp_path):
    (tmp_path / "train.txt").write_text('# a comment\nmy clips/a 1.mp4 1\n\n"b  2.mp4" 0\n')
    samples = read_split(tmp_path, "train")
    assert listed(samples) == [("my clips/a 1.mp4", "1"), ("b  2.mp4", "0")]
    (tmp_path / "classes.txt").write_text("run\njump\n")
    assert listed(read_split(tmp_path, "train")) == [("my clips/a 1.mp4", "jump"), ("b  2.mp4", "run")]
    (tmp_path / "val.txt").write_text("a.mp4 run\nb.mp4 jump\n")
    assert read_split(tmp_path, "val", ("run", "jump")).labels.tolist() == [0, 1]


def test_list_of_frame_folders(tmp_path):
    touch(tmp_path, "clips/a b/00001.jpg", "clips/c/00001.jpg")
    (tmp_path / "train.txt").write_text("clips/a b 64 0\nclips/c 12 1\n")
    assert listed(read_split(tmp_path, "train")) == [("clips/a b", "0"), ("clips/c", "1")]


def test_a_run_of_the_frames_in_a_folder(tmp_path):
    for number in range(8):
        touch(tmp_path, f"clips/a/{number:05}.jpg")
    (tmp_path / "train.txt").write_text("clips/a 0 3 0\nclips/a 5 3 1\n")
    samples = read_split(tmp_path, "train")
    assert listed(samples) == [("clips/a", "0"), ("clips/a", "1")]
    assert samples.segment(1) == (5, 8, True)
    assert samples.name(1) == f"{tmp_path}/clips/a#frames=5,8"
    assert samples.place(1) == f"{tmp_path}/train.txt:2"


def test_a_quoted_folder_of_frames_keeps_its_count(tmp_path):
    (tmp_path / "my frames").mkdir()
    (tmp_path / "train.txt").write_text('"my frames" 12 1\n"my frames" 10 0\n')
    samples = read_split(tmp_path, "train")
    assert samples.label_columns == ("label",)
    assert samples.segments is not None
    assert samples.segments.tolist() == [[0, 12], [0, 10]]


def test_class_names_of_several_words_after_a_video(tmp_path):
    (tmp_path / "train.txt").write_text("my clips/a 1.mp4 brush hair\nb.avi jump\n")
    assert listed(read_split(tmp_path, "train")) == [("my clips/a 1.mp4", "brush hair"), ("b.avi", "jump")]


def test_a_list_may_be_a_table(tmp_path):
    (tmp_path / "some.csv").write_text("path,label\na.mp4,run\n")
    assert listed(read_list(tmp_path / "some.csv")) == [("a.mp4", "run")]
