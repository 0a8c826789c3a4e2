"""Lists that are known to be cleaned from another list."""

from mmaction_lite.data.annotations.splits import read_split
from mmaction_lite.data.tools.cleaned import is_cleaned_from, split_checksum
from mmaction_lite.data.tools.validate import validate


def test_the_lists_of_a_validation_state_where_they_come_from(tiny, tmp_path):
    validate(tiny, lambda items, total, title: items, tmp_path / "checked")
    original, checked = read_split(tiny, "train"), read_split(tmp_path / "checked", "train")
    assert split_checksum(original).startswith("12 clips of 2 classes, checksum ")
    assert is_cleaned_from(checked, "train", split_checksum(original))
    assert not is_cleaned_from(checked, "train", split_checksum(checked))
    assert not is_cleaned_from(original, "train", split_checksum(original))
    (tmp_path / "checked" / "summary.json").write_text("[[")
    assert not is_cleaned_from(checked, "train", split_checksum(original))
