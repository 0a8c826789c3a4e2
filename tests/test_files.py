"""Files are written atomically."""

import os

import pytest

from mmaction_lite.errors import UserError
from mmaction_lite.files import write_atomically
from mmaction_lite.weights.checkpoint import save_state


def test_a_failed_write_keeps_the_file_before(tmp_path):
    path = tmp_path / "state.pt"
    save_state(path, {"card": "first"})
    before = path.read_bytes()

    def fail(file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(
        UserError, match=r"state\.pt: could not be written .*No space left.*earlier file is unchanged"
    ):
        write_atomically(path, fail)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["state.pt"]  # noqa: PTH208


def test_a_file_is_replaced_and_nothing_is_left_beside_it(tmp_path):
    path = tmp_path / "table.csv"
    for text in (b"first", b"second"):
        write_atomically(path, lambda file, text=text: file.write(text))
        assert path.read_bytes() == text
    assert [file.name for file in tmp_path.iterdir()] == ["table.csv"]
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_folder_that_does_not_exist_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"none/a\.txt: could not be written"):
        write_atomically(tmp_path / "none" / "a.txt", lambda file: file.write(b"text"))
