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


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
def test_files_honor_the_umask_and_replaced_files_keep_their_permissions(tmp_path):
    path = tmp_path / "table.csv"
    for mask, mode in ((0o002, 0o664), (0o022, 0o644), (0o077, 0o600)):
        before = os.umask(mask)
        try:
            write_atomically(path, lambda file: file.write(b"new"))
            assert path.stat().st_mode & 0o777 == mode
            path.chmod(0o640)
            write_atomically(path, lambda file: file.write(b"replaced"))
            assert path.stat().st_mode & 0o777 == 0o640
        finally:
            os.umask(before)
        path.unlink()


def test_a_folder_that_does_not_exist_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"none/a\.txt: could not be written"):
        write_atomically(tmp_path / "none" / "a.txt", lambda file: file.write(b"text"))


def test_a_folder_that_is_a_file_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/a\.txt: could not be written"):
        write_atomically(tmp_path / "file" / "a.txt", lambda file: file.write(b"text"))
