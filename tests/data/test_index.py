"""Tables of the clips in tar files."""

import tarfile

import pytest

from mmaction_lite.data.annotations.splits import read_split
from mmaction_lite.data.tools.index import index
from mmaction_lite.errors import UserError
from tests.conftest import brightening, write_video


@pytest.fixture
def shard(tmp_path):
    """A tar file with one clip."""
    write_video(tmp_path / "run" / "a.mp4", brightening(0, 2))
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        archive.add(tmp_path / "run" / "a.mp4", "run/a.mp4")
    return tmp_path / "x.tar"


def test_the_table_is_a_split_and_can_be_written_again(shard, tmp_path):
    out = tmp_path / "data" / "train.csv"
    out.parent.mkdir()
    for _ in range(2):
        assert index([shard], out) == 1
        assert read_split(out.parent, "train").classes == ("run",)


@pytest.mark.parametrize("text", ["path,label\nmine.mp4,run\n", "", "path,label\n/other.tar/a.mp4,run\n"])
def test_a_table_with_other_contents_stays(shard, tmp_path, text):
    (tmp_path / "train.csv").write_text(text)
    with pytest.raises(UserError, match=r"train\.csv: exists"):
        index([shard], tmp_path / "train.csv")
    assert (tmp_path / "train.csv").read_text() == text


def test_a_file_with_the_name_of_the_index_stays(shard, tmp_path):
    (tmp_path / "x.tar.index.json").write_text('{"mine": 1}')
    with pytest.raises(UserError, match=r"x\.tar\.index\.json: exists and is not an index"):
        index([shard], tmp_path / "train.csv")
    assert (tmp_path / "x.tar.index.json").read_text() == '{"mine": 1}'
