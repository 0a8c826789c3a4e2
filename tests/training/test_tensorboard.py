"""Event files of TensorBoard."""

import pytest
from tensorboardX import SummaryWriter
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]

from mmaction_lite.errors import UserError
from mmaction_lite.training import tensorboard as module
from mmaction_lite.training.tensorboard import TensorBoard


def test_a_full_disk_is_one_line_and_no_wait(tmp_path, monkeypatch):
    board = TensorBoard(tmp_path, 1, True)
    board.add_scalar("train/loss", 1.0, 1)

    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(EventsWriter, "write_event", fail)
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
    assert file.name.startswith("events.out.tfevents.")
    assert b"train/loss" in file.read_bytes()
    silent = TensorBoard(tmp_path / "none", 1, False)
    silent.add_scalar("train/loss", 0.25, 1)
    silent.close()
    assert not (tmp_path / "none").exists()


def test_events_are_those_of_the_library(tmp_path):
    for name in ("ours", "theirs"):
        (tmp_path / name).mkdir()
    board = TensorBoard(tmp_path / "ours", 7, True)
    board.add_scalar("train/loss", 0.25, 8)
    board.close()
    theirs = SummaryWriter(str(tmp_path / "theirs"), purge_step=7)
    theirs.add_scalar("train/loss", 0.25, 8)
    theirs.close()
    found = [
        [(event.step, str(event.session_log), str(event.summary)) for event in events_of(tmp_path / name)]
        for name in ("ours", "theirs")
    ]
    assert [each for each in found[0] if any(each[1:])] == [each for each in found[1] if any(each[1:])]
    assert len(found[0]) == 3  # the version of the format comes first


def events_of(folder):
    """The records of the event file: length (8 bytes), checksum (4), content, checksum (4)."""
    (file,) = folder.iterdir()
    data = file.read_bytes()
    while data:
        end = 12 + int.from_bytes(data[:8], "little")
        yield Event.FromString(data[12:end])
        data = data[end + 4 :]


def test_values_are_visible_while_a_training_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "FLUSH_SECONDS", -1.0)
    board = TensorBoard(tmp_path, 1, True)
    board.add_scalar("train/loss", 0.25, 1)
    assert len(list(events_of(tmp_path))) == 3
    board.close()
