from mmaction_lite.data.annotations.class_folders import hold_out, read_class_folders
from tests.data.test_splits import listed, touch


def test_videos_folders_of_images_and_zip_files_are_clips(tmp_path):
    touch(tmp_path, "run/a.mp4", "run/b.zip", "run/notes.txt", "run/.c.mp4", "jump/d/1.jpg", "jump/e/1.txt")
    samples = read_class_folders(tmp_path)
    assert listed(samples) == [("jump/d", "jump"), ("run/a.mp4", "run"), ("run/b.zip", "run")]


def test_train_and_held_out_parts_are_all_clips(tmp_path):
    touch(tmp_path, *(f"run/{i}.mp4" for i in range(11)))
    samples = read_class_folders(tmp_path)
    train, val = (hold_out(samples, held_out=held_out) for held_out in (False, True))
    assert (len(train), len(val)) == (8, 3)
    assert sorted(listed(train) + listed(val)) == sorted(listed(samples))
