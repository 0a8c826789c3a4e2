"""Event files of TensorBoard."""

import pytest

from mmaction_lite.errors import UserError
from mmaction_lite.training.tensorboard import TensorBoard


def test_a_full_disk_is_one_line_and_no_wait(tmp_path, monkeypatch):
    """The queue of tensorboardX holds ten values; the next one would wait for a thread that has ended."""
    board = TensorBoard(tmp_path, 1, True)
    board.add_scalar("train/loss", 1.0, 1)
    assert board._events is not None

    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(board._events._writer, "write_event", fail)
    message = r"tfevents: could not be written \(No space left on device\); free .* --resume"

    def add_many():
        for step in range(2, 100_000):
            board.add_scalar("train/loss", 1.0, step)

    with pytest.raises(UserError, match=message):
        add_many()
    with pytest.raises(UserError, match=message):
        board.close()


def test_values_are_written(tmp_path):
    board = TensorBoard(tmp_path, 1, True)
    board.add_scalar("train/loss", 0.25, 1)
    board.close()
    (file,) = tmp_path.iterdir()
    assert b"train/loss" in file.read_bytes()
    silent = TensorBoard(tmp_path / "none", 1, False)
    silent.add_scalar("train/loss", 0.25, 1)
    silent.close()
    assert not (tmp_path / "none").exists()
